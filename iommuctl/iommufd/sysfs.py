# SPDX-License-Identifier: Apache-2.0
"""What /sys says of IOMMU units, IOMMU groups and PCI devices. Reads only.

Devices come and go while one looks, and what a file holds is not trusted: reads are bounded, an attribute that cannot
be read is None, and a device that is not there any more is NoSuchDevice.

Sources: drivers/iommu/iommu-sysfs.c, drivers/iommu/iommu.c, drivers/pci/pci-sysfs.c and drivers/vfio/device_cdev.c of
Linux 7.3; Documentation/ABI/testing/sysfs-kernel-iommu_groups and sysfs-class-iommu.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from iommuctl.errors import NoSuchDevice
from iommuctl.iommufd.attributes import (
    Reserved,
    decimal,
    entries_of,
    extended_of,
    link_of,
    number_of,
    override_of,
    reserved_ranges,
    rids_among,
    text_of,
)
from iommuctl.iommufd.pci_config import Extended
from iommuctl.model import Rid

NOT_GROUPS: Final = ("devices", "power")
"""Folders of a unit that hold no attributes of its driver."""


class Unit(NamedTuple):
    """One IOMMU. `kind` is what its driver calls itself; `attributes` are texts as its driver writes them."""

    name: str
    kind: str
    attributes: dict[str, str]
    devices: tuple[Rid, ...]


class PciDevice(NamedTuple):
    """A PCI device as the host sees it.

    `vfio` is its name among the devices that a VFIO driver has, `cdev` the same if there is a node for it in
    /dev/vfio/devices. `ats`, `pri` and `pasid_bits` are None where the configuration space cannot be read (without
    root, or of a device that does not answer).
    """

    rid: Rid
    vendor: int
    device: int
    class_code: int
    driver: str | None
    driver_override: str | None
    group: int | None
    unit: str | None
    vfio: str | None
    cdev: str | None
    ats: bool | None
    pri: bool | None
    pasid_bits: int | None


class Member(NamedTuple):
    """A device of an IOMMU group: `rid` is None for one that is not PCI."""

    name: str
    rid: Rid | None
    driver: str | None
    bridge: bool
    vfio: bool


class Group(NamedTuple):
    """An IOMMU group. `type` is that of the host's own domain: DMA, DMA-FQ, identity …"""

    number: int
    type: str | None
    members: tuple[Member, ...]
    reserved: tuple[Reserved, ...]


def no_such_device(name: str) -> NoSuchDevice:
    """The error for a device that is not there, or not any more."""
    return NoSuchDevice(
        f"there is no device {name}",
        because="/sys does not list it, or it went away while it was looked at",
        hint="list what there is with `iommuctl device list`, or `lspci -D`",
    )


class Sysfs:
    """The folder /sys, and /dev for the nodes that it announces; other roots serve for trying things out."""

    def __init__(self, root: str = "/sys", dev: str = "/dev") -> None:
        self.root = root
        self.dev = dev

    def path(self, *parts: str) -> str:
        """A path below the root."""
        return os.path.join(self.root, *parts)

    def device_path(self, rid: Rid, *parts: str) -> str:
        """The folder of a PCI device, or a path below it."""
        return self.path("bus/pci/devices", str(rid), *parts)

    def node(self, cdev: str) -> str:
        """The path of the character device of a `vfioN`."""
        return os.path.join(self.dev, "vfio/devices", cdev)

    def units(self) -> list[Unit]:
        """Every IOMMU that its driver has announced, by name."""
        return [self._unit(name) for name in entries_of(self.path("class/iommu"))]

    def devices(self) -> list[PciDevice]:
        """Every PCI device that is in an IOMMU group, by RID."""
        found = []
        for rid in rids_among(entries_of(self.path("bus/pci/devices"))):
            try:
                device = self.device(rid)
            except NoSuchDevice:
                continue
            if device.group is not None:
                found.append(device)
        return sorted(found)

    def device(self, rid: Rid) -> PciDevice:
        """One PCI device. Raises NoSuchDevice."""
        path = self.device_path(rid)
        group = link_of(path, "iommu_group")
        vfio = self._vfio(path)
        capabilities = self._extended(path)
        device = PciDevice(
            rid,
            vendor=number_of(path, "vendor"),
            device=number_of(path, "device"),
            class_code=number_of(path, "class"),
            driver=link_of(path, "driver"),
            driver_override=override_of(path),
            group=decimal(group),
            unit=link_of(path, "iommu"),
            vfio=vfio,
            cdev=vfio if vfio and self._has_node(vfio) else None,
            ats=capabilities.ats if capabilities else None,
            pri=capabilities.pri if capabilities else None,
            pasid_bits=capabilities.pasid_bits if capabilities else None,
        )
        if not os.path.isdir(path):
            raise no_such_device(str(rid))
        return device

    def group(self, number: int) -> Group:
        """One IOMMU group. Raises NoSuchDevice for a number that there is no group of."""
        path = self.path("kernel/iommu_groups", str(number))
        members = tuple(self._member(os.path.join(path, "devices"), name) for name in entries_of(path, "devices"))
        group = Group(
            number, text_of(path, "type"), members, tuple(reserved_ranges(text_of(path, "reserved_regions") or ""))
        )
        if not os.path.isdir(path):
            raise no_such_device(f"in IOMMU group {number}")
        return group

    def rid_of(self, cdev: str) -> Rid | None:
        """The PCI device behind a `vfioN`; None if there is none, or it is not PCI."""
        rids = rids_among([link_of(self.path("class/vfio-dev", cdev), "device") or ""])
        return rids[0] if rids else None

    def cdev_number(self, cdev: str) -> str | None:
        """The device number `major:minor` of a `vfioN`; None where the kernel makes no character devices for them."""
        return text_of(self.path("class/vfio-dev", cdev, "dev"))

    def has_driver(self, name: str) -> bool:
        """Whether a PCI driver of that name is loaded."""
        return os.path.isdir(self.path("bus/pci/drivers", name))

    def virtual_functions(self, rid: Rid) -> int:
        """How many virtual functions a device has switched on."""
        return decimal(text_of(self.device_path(rid), "sriov_numvfs")) or 0

    def kind(self, unit: str) -> str:
        """What the driver of a unit calls itself, as in `Unit.kind`."""
        path = self.path("class/iommu", unit)
        for folder in self._attribute_groups(path):
            return folder
        return link_of(os.path.join(path, "device"), "driver") or unit.split(".", maxsplit=1)[0]

    def _unit(self, name: str) -> Unit:
        path = self.path("class/iommu", name)
        attributes: dict[str, str] = {}
        for folder in self._attribute_groups(path):
            inner = os.path.join(path, folder)
            attributes |= {key: text for key in entries_of(inner) if (text := text_of(inner, key)) is not None}
        return Unit(name, self.kind(name), attributes, tuple(sorted(rids_among(entries_of(path, "devices")))))

    @staticmethod
    def _attribute_groups(path: str) -> Iterator[str]:
        """The folders of a unit that hold attributes of its driver."""
        for folder in entries_of(path):
            inner = os.path.join(path, folder)
            if folder not in NOT_GROUPS and not os.path.islink(inner) and os.path.isdir(inner):
                yield folder

    def _member(self, devices: str, name: str) -> Member:
        path = os.path.join(devices, name)
        rids = rids_among([name])
        return Member(
            name,
            rids[0] if rids else None,
            link_of(path, "driver"),
            bridge=bool(rids) and number_of(path, "class") >> 8 == 0x0604,
            vfio=self._vfio(path) is not None,
        )

    def _vfio(self, path: str) -> str | None:
        names = [name for name in entries_of(path, "vfio-dev") if name.startswith("vfio")]
        return names[0] if names else None

    def _has_node(self, vfio: str) -> bool:
        try:
            node = os.stat(self.node(vfio))
        except OSError:
            return False
        number = f"{os.major(node.st_rdev)}:{os.minor(node.st_rdev)}"
        return stat.S_ISCHR(node.st_mode) and self.cdev_number(vfio) == number

    def _extended(self, path: str) -> Extended | None:
        """Of a virtual function, PASID and PRI are those of its physical function, which shares them."""
        own = extended_of(path)
        physical = os.path.join(path, "physfn")
        if own is None or not os.path.isdir(physical):
            return own
        shared = extended_of(physical)
        return shared and own._replace(pri=shared.pri, pasid_bits=shared.pasid_bits)

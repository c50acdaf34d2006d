# SPDX-License-Identifier: Apache-2.0
"""A host with two devices and the backend of a vendor that there is only here."""

from functools import cached_property
from pathlib import Path

from iommuctl.capabilities import Capabilities
from iommuctl.errors import InUse, NoSuchDevice
from iommuctl.hookspecs import API_VERSION, Availability, HardwareContext, hookimpl
from iommuctl.iommufd.session import HwInfo, Iommufd
from iommuctl.iommufd.sysfs import Group, PciDevice, Sysfs, Unit
from iommuctl.iommufd.vfio import Cdev
from iommuctl.iommufd.viability import VFIO_PCI
from iommuctl.kernel.fault_queues import RESPONSES
from iommuctl.kernel.hooks import HardwareBackend
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.slots import Entry, NestedBySlot, Payload
from iommuctl.kernel.vfio_devices import VfioDevices
from iommuctl.model import Binding, IommuUnit, Rid
from iommuctl_vtd.capability import DEFAULT_CAP, DEFAULT_ECAP, capability
from iommuctl_vtd.hardware import VtdFormats
from tests.kernel.calls import Kernel
from tests.kernel.units import Place

NAME, UNIT, KIND, DRIVER = "fake", "unit0", "fake-iommu", "e1000e"
ONE, TWO = Rid.parse("00:10.0"), Rid.parse("00:11.0")
NODES = {ONE: "vfio0", TWO: "vfio1"}
FORMAT = "vtd.first-stage-4"
PRI = {ONE}
"""The devices that ask for pages."""


class Host(Sysfs):
    """What /sys says; devices are with their driver, or with vfio-pci."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        super().__init__(str(folder / "sys"), str(folder / "dev"))
        self.kernel = kernel
        self.drivers: dict[Rid, tuple[str | None, str | None]] = dict.fromkeys(NODES, (DRIVER, None))
        """Driver and driver_override of those that are there."""

    def units(self) -> list[Unit]:
        return [Unit(UNIT, KIND, {}, tuple(NODES))]

    def kind(self, unit: str) -> str:
        return next(each.kind for each in self.units() if each.name == unit)

    def devices(self) -> list[PciDevice]:
        return [self.device(rid) for rid in self.drivers]

    def device(self, rid: Rid) -> PciDevice:
        if rid not in self.drivers:
            raise NoSuchDevice(f"no device {rid}")
        driver, override = self.drivers[rid]
        node = NODES[rid] if driver == VFIO_PCI else None
        return PciDevice(rid, 0x8086, 0x10D3, 0x020000, driver, override, None, UNIT, node, node, True, rid in PRI, 0)

    def group(self, number: int) -> Group:
        raise NoSuchDevice(f"no IOMMU group {number}")

    def rid_of(self, cdev: str) -> Rid | None:
        return next((rid for rid, node in NODES.items() if node == cdev), None)

    def bind_to_vfio(self, _: Sysfs, rid: Rid) -> None:
        """In the place of iommuctl.iommufd.drivers.bind_to_vfio."""
        self.device(rid)
        self.drivers[rid] = VFIO_PCI, VFIO_PCI

    def give_back(self, _: Sysfs, rid: Rid, driver: str | None, override: str | None) -> None:
        """In the place of iommuctl.iommufd.drivers.give_back."""
        self.device(rid)
        if self.kernel.is_open(NODES[rid]):
            raise InUse(f"{rid} cannot be taken from vfio-pci", because="its VFIO device is open")
        self.drivers[rid] = driver, override


def opening(kernel: Kernel) -> tuple[type[Iommufd], type[Cdev]]:
    """The classes whose files are those of this kernel."""

    class OpenedIommufd(Iommufd):
        @classmethod
        def open(cls, path: str = "/dev/iommu", *, log: object = None) -> "OpenedIommufd":  # noqa: ARG003
            return cls(kernel.open())

    class OpenedCdev(Cdev):
        @classmethod
        def open(cls, name: str, sysfs: Sysfs | None = None, *, log: object = None, dry: bool = False) -> Cdev:  # noqa: ARG003
            return cls(kernel.open(name), name, sysfs)

    return OpenedIommufd, OpenedCdev


class FakeVendor:
    """VT-d's formats."""

    name = NAME
    parents_take_pasids = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def devices(self, machine: Machine) -> VfioDevices:
        return VfioDevices(machine, KIND, self._host)

    def formats(self, machine: Machine) -> VtdFormats:  # noqa: ARG002
        return VtdFormats([capability(DEFAULT_CAP, DEFAULT_ECAP, 52)])

    def capabilities(self, machine: Machine) -> Capabilities:  # noqa: ARG002
        return Capabilities(
            nesting="slot",
            widths=(48,),
            page_sizes=(4096,),
            pasid_bits=Place().pasid_bits,
            pgtable_formats=(FORMAT,),
            page_responses=RESPONSES,
        )

    def slots(self, machine: Machine) -> "FakeSlots":
        return FakeSlots(machine)

    def learn(self, machine: Machine, unit: str, dev_id: int, info: HwInfo) -> None:
        """Nothing: there is only one."""


class FakeSlots(NestedBySlot):
    """Payloads that the kernel does not look at."""

    invalidation_type = 0

    def payload(self, binding: Binding) -> Payload:
        return Payload(1, binding.root.to_bytes(8, "little"))

    def entries(self, span: tuple[int, int] | None, *, leaf: bool) -> list[Entry]:
        return [Entry("fake.invalidate", bytes([leaf, span is None]), {"leaf": leaf})]


class FakeBackend(HardwareBackend):
    """The hooks of all real hardware, by this vendor."""

    architecture = "vtd"

    def __init__(self, host: Host) -> None:
        self._host = host

    @cached_property
    def vendor(self) -> FakeVendor:
        return FakeVendor(self._host)

    @hookimpl
    def iommuctl_probe(self) -> Availability:
        return Availability(NAME, True, "", "vtd", API_VERSION)

    @hookimpl
    def iommuctl_units(self, context: HardwareContext) -> list[IommuUnit]:  # noqa: ARG002
        return [IommuUnit(UNIT, "vtd", {})]

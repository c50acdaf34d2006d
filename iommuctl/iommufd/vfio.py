# SPDX-License-Identifier: Apache-2.0
"""An open /dev/vfio/devices/vfioN: the device's side of iommufd, one method for each call.

A device is bound to one iommufd, by one descriptor, until every copy of that descriptor is closed; closing it also
detaches. Source: drivers/vfio/device_cdev.c and drivers/vfio/pci/vfio_pci_dmabuf.c of Linux 7.3.
"""

import os
from collections.abc import Callable
from ctypes import Structure, sizeof
from fcntl import ioctl
from itertools import count
from typing import Final, NamedTuple

from iommuctl.iommufd import vfio_refusals as refusals
from iommuctl.iommufd import vfio_uapi as uapi
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.model import Rid

Log = Callable[[str, dict[str, int]], None]
"""Is told of each call and what it passes to the kernel, before it is made."""
NO_DESCRIPTOR: Final = -1
PLACEHOLDERS: Final = 0xFFFF_8001
"""The first device id that a dry run gives. The kernel's own have 31 bits."""
_placeholders = count(PLACEHOLDERS)


class Info(NamedTuple):
    """What kind of device it is: with a reset of its own or not, and how many regions and interrupts it has."""

    reset: bool
    regions: int
    interrupts: int


class Region(NamedTuple):
    """A BAR (0 to 5) or another region: `offset` in the device's file, `size` in bytes, 0 where there is none."""

    size: int
    offset: int
    mappable: bool


class _DmaBuf(Structure):
    _fields_ = (
        ("feature", uapi.vfio_device_feature),
        ("buffer", uapi.vfio_device_feature_dma_buf),
        ("range", uapi.vfio_region_dma_range),
    )


class Cdev:
    """A VFIO device by its descriptor.

    `log` is told the name and the input fields of each call before it is made. A `dry` one is not opened, its calls
    are logged and not made: a bind gives a placeholder id, an attach the id that it was given.
    """

    def __init__(
        self, fd: int, name: str, sysfs: Sysfs | None = None, *, log: Log | None = None, dry: bool = False
    ) -> None:
        self.fd = fd
        self.name = name
        self.sysfs = sysfs or Sysfs()
        self.log = log
        self.dry = dry
        self.rid: Rid | None = self.sysfs.rid_of(name)

    @classmethod
    def open(cls, name: str, sysfs: Sysfs | None = None, *, log: Log | None = None, dry: bool = False) -> "Cdev":
        """Open a `vfioN`, or the path of its node.

        Raises NoSuchDevice, BackendUnavailable where the kernel or udev make no node, PermissionRefused, KernelRefused.
        """
        sysfs = sysfs or Sysfs()
        node = name if "/" in name else sysfs.node(name)
        name = os.path.basename(name)
        if dry:
            return cls(NO_DESCRIPTOR, name, sysfs, log=log, dry=dry)
        try:
            fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise refusals.of_open(sysfs, name, node, error) from None
        return cls(fd, name, sysfs, log=log)

    def close(self) -> None:
        """Close our copy of the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = NO_DESCRIPTOR

    def __str__(self) -> str:
        return f"{self.rid} ({self.name})" if self.rid else self.name

    def bind(self, iommufd: int) -> int:
        """Bind the device to an iommufd and return its id there. Raises GroupNotViable, KernelRefused."""
        bind = uapi.vfio_device_bind_iommufd(argsz=sizeof(uapi.vfio_device_bind_iommufd), iommufd=iommufd)
        try:
            self._call("VFIO_DEVICE_BIND_IOMMUFD", uapi.VFIO_DEVICE_BIND_IOMMUFD, bind, {"iommufd": iommufd})
        except OSError as error:
            raise refusals.of_bind(self.sysfs, self.name, self.rid, error) from None
        return next(_placeholders) if self.dry else int(bind.out_devid)

    def attach(self, pt_id: int, pasid: int | None = None) -> int:
        """Put a page table (HWPT or IOAS) into the slot of the device or of a PASID; what is there is replaced.

        Without PASID the whole IOMMU group goes along. Returns the id of the HWPT. Raises KernelRefused.
        """
        attach = uapi.vfio_device_attach_iommufd_pt(
            argsz=sizeof(uapi.vfio_device_attach_iommufd_pt),
            flags=0 if pasid is None else uapi.VFIO_DEVICE_ATTACH_PASID,
            pt_id=pt_id,
            pasid=pasid or 0,
        )
        fields = {"flags": attach.flags, "pt_id": pt_id, "pasid": attach.pasid}
        try:
            self._call("VFIO_DEVICE_ATTACH_IOMMUFD_PT", uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach, fields)
        except OSError as error:
            raise refusals.of_attach(self.sysfs, self.rid, pt_id, self._slot(pasid), error) from None
        return int(attach.pt_id)

    def detach(self, pasid: int | None = None) -> None:
        """Take the page table out of the slot, whose DMA is blocked then; nothing to do if it is empty."""
        detach = uapi.vfio_device_detach_iommufd_pt(
            argsz=sizeof(uapi.vfio_device_detach_iommufd_pt),
            flags=0 if pasid is None else uapi.VFIO_DEVICE_DETACH_PASID,
            pasid=pasid or 0,
        )
        fields = {"flags": detach.flags, "pasid": detach.pasid}
        try:
            self._call("VFIO_DEVICE_DETACH_IOMMUFD_PT", uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, detach, fields)
        except OSError as error:
            raise refusals.of_detach(self._slot(pasid), error) from None

    def info(self) -> Info:
        """What the device is. Only once it is bound."""
        info = uapi.vfio_device_info(argsz=sizeof(uapi.vfio_device_info))
        try:
            self._call("VFIO_DEVICE_GET_INFO", uapi.VFIO_DEVICE_GET_INFO, info, {})
        except OSError as error:
            raise refusals.of_looking("VFIO_DEVICE_GET_INFO", str(self), error) from None
        return Info(bool(info.flags & uapi.VFIO_DEVICE_FLAGS_RESET), int(info.num_regions), int(info.num_irqs))

    def region(self, index: int) -> Region:
        """Where a region lies, and its size. Only once the device is bound."""
        region = uapi.vfio_region_info(argsz=sizeof(uapi.vfio_region_info), index=index)
        try:
            self._call("VFIO_DEVICE_GET_REGION_INFO", uapi.VFIO_DEVICE_GET_REGION_INFO, region, {"index": index})
        except OSError as error:
            raise refusals.of_looking("VFIO_DEVICE_GET_REGION_INFO", str(self), error) from None
        return Region(int(region.size), int(region.offset), bool(region.flags & uapi.VFIO_REGION_INFO_FLAG_MMAP))

    def dma_buf(self, bar: int, offset: int, size: int) -> int:
        """A dma-buf of part of a BAR, in whole pages, as a new descriptor; -1 in a dry run. Raises KernelRefused."""
        argument = _DmaBuf()
        argument.feature.argsz = sizeof(argument)
        argument.feature.flags = uapi.VFIO_DEVICE_FEATURE_GET | uapi.VFIO_DEVICE_FEATURE_DMA_BUF
        argument.buffer.region_index = bar
        argument.buffer.open_flags = os.O_RDWR | os.O_CLOEXEC
        argument.buffer.nr_ranges = 1
        argument.range.offset = offset
        argument.range.length = size
        fields = {"flags": argument.feature.flags, "region_index": bar, "offset": offset, "length": size}
        try:
            fd = self._call("VFIO_DEVICE_FEATURE", uapi.VFIO_DEVICE_FEATURE, argument, fields)
        except OSError as error:
            raise refusals.of_dma_buf(str(self), bar, offset, size, error) from None
        return NO_DESCRIPTOR if self.dry else fd

    def _slot(self, pasid: int | None) -> str:
        return str(self) if pasid is None else f"{self} PASID {pasid}"

    def _call(self, name: str, request: int, argument: Structure, fields: dict[str, int]) -> int:
        if self.log:
            self.log(name, fields)
        return 0 if self.dry else ioctl(self.fd, request, argument)

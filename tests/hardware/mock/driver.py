# SPDX-License-Identifier: Apache-2.0
"""The kernel's mock IOMMU driver, one method for each of its operations that tests use.

It stands behind the real iommufd core: a mock device is bound and attached like one of VFIO, its IOMMU has real page
tables that nothing reads but these checks. Pages are of 2 KiB, IOVAs lie in 16 MiB .. 2 GiB, PASIDs have 20 bits.
"""

import contextlib
import errno
from collections.abc import Iterator
from ctypes import addressof, create_string_buffer, sizeof
from fcntl import ioctl
from typing import Any, NamedTuple

from iommuctl.errors import KernelRefused
from iommuctl.iommufd.refusals import refused
from iommuctl.iommufd.session import Iommufd
from tests.hardware.mock import uapi


class Device(NamedTuple):
    """A mock device that is bound and attached."""

    stdev_id: int
    """What the operations of the mock driver take; destroying it detaches, unbinds and removes the device."""
    dev_id: int
    """What the calls of iommufd take."""
    hwpt_id: int
    """The page table that the device was attached to when it was made."""


def present(fd: int) -> bool:
    """Whether the kernel has the mock driver (CONFIG_IOMMUFD_TEST)."""
    return Iommufd(fd).has(uapi.IOMMU_TEST_CMD)


class Mock:
    """The operations of the mock driver on one iommufd. What the kernel refuses is KernelRefused, with `errno`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def add_device(self, pt_id: int, *, flags: int | None = None) -> Device:
        """A new device, attached to an address space or page table; `flags` are MOCK_FLAGS_DEVICE_*."""
        if flags is None:
            made = self._do(uapi.IOMMU_TEST_OP_MOCK_DOMAIN, pt_id, "mock_domain").mock_domain
        else:
            done = self._do(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, pt_id, "mock_domain_flags", dev_flags=flags)
            made = done.mock_domain_flags
        return Device(made.out_stdev_id, made.out_idev_id, made.out_hwpt_id)

    def replace(self, device: Device, pt_id: int) -> int:
        """Attach the device to another address space or page table; the page table that it has now."""
        done = self._do(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, device.stdev_id, "mock_domain_replace", pt_id=pt_id)
        hwpt_id: int = done.mock_domain_replace.pt_id
        return hwpt_id

    def add_reserved(self, ioas_id: int, start: int, length: int) -> None:
        """Reserve a range of an address space, as a device with such a range does when it is attached."""
        self._do(uapi.IOMMU_TEST_OP_ADD_RESERVED, ioas_id, "add_reserved", start=start, length=length)

    def pasid_attach(self, device: Device, pasid: int, pt_id: int) -> None:
        """Attach a PASID of the device, which must have MOCK_FLAGS_DEVICE_PASID."""
        self._do(uapi.IOMMU_TEST_OP_PASID_ATTACH, device.stdev_id, "pasid_attach", pasid=pasid, pt_id=pt_id)

    def pasid_replace(self, device: Device, pasid: int, pt_id: int) -> None:
        """Attach a PASID that is attached to another page table."""
        self._do(uapi.IOMMU_TEST_OP_PASID_REPLACE, device.stdev_id, "pasid_replace", pasid=pasid, pt_id=pt_id)

    def pasid_detach(self, device: Device, pasid: int) -> None:
        """Detach a PASID; of one that is not attached, the kernel takes no notice."""
        self._do(uapi.IOMMU_TEST_OP_PASID_DETACH, device.stdev_id, "pasid_detach", pasid=pasid)

    def pasid_has(self, device: Device, pasid: int, hwpt_id: int) -> bool:
        """Whether a PASID is attached to this page table; with 0, whether it is attached to none."""
        with self._no() as no:
            self._do(uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, device.stdev_id, "pasid_check", pasid=pasid, hwpt_id=hwpt_id)
        return not no

    def maps(self, hwpt_id: int, iova: int, length: int, address: int) -> bool:
        """Whether a page table of the kernel maps the range to the memory of this process at `address`."""
        with self._no() as no:
            self._do(uapi.IOMMU_TEST_OP_MD_CHECK_MAP, hwpt_id, "check_map", iova=iova, length=length, uptr=address)
        return not no

    def pinned(self, address: int, length: int, times: int) -> bool:
        """Whether each page of memory of this process is pinned so many times."""
        with self._no(errno.EIO) as no:
            self._do(uapi.IOMMU_TEST_OP_MD_CHECK_REFS, 0, "check_refs", uptr=address, length=length, refs=times)
        return not no

    def iotlb(self, hwpt_id: int, entry: int, value: int) -> bool:
        """Whether an IOTLB entry (0..3) of a nested page table has a value: as allocated, or 0 once invalidated."""
        with self._no() as no:
            self._do(uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB, hwpt_id, "check_iotlb", id=entry, iotlb=value)
        return not no

    def cache(self, device: Device, entry: int, value: int) -> bool:
        """Whether an entry (0..3) of a device's cache has a value, 0 once invalidated."""
        with self._no() as no:
            self._do(uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, device.dev_id, "check_dev_cache", id=entry, cache=value)
        return not no

    def dirty(self, hwpt_id: int, iova: int, length: int, page_size: int, pages: int) -> int:
        """Write to the pages whose bits are set in `pages`, lowest first; their number."""
        bits = create_string_buffer(pages.to_bytes(length // page_size // 8 + 1, "little"))
        done = self._do(
            uapi.IOMMU_TEST_OP_DIRTY,
            hwpt_id,
            "dirty",
            iova=iova,
            length=length,
            page_size=page_size,
            uptr=addressof(bits),
        )
        written: int = done.dirty.out_nr_dirty
        return written

    def trigger_iopf(self, device: Device, address: int, *, group: int, pasid: int = 0, permissions: int = 0) -> None:
        """Let the device report a page fault, the last of its group; `permissions` are IOMMU_PGFAULT_PERM_*."""
        self._do(
            uapi.IOMMU_TEST_OP_TRIGGER_IOPF,
            0,
            "trigger_iopf",
            dev_id=device.dev_id,
            pasid=pasid,
            grpid=group,
            perm=permissions,
            addr=address,
        )

    def trigger_vevent(self, device: Device) -> None:
        """Let the vDEVICE of a device report an event."""
        self._do(uapi.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, "trigger_vevent", dev_id=device.dev_id)

    @contextlib.contextmanager
    def memory_limit(self, limit: int = 65536) -> Iterator[None]:
        """Let the core work with so little memory, in bytes, that it pins in many small steps."""
        self._do(uapi.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, 0, "memory_limit", limit=limit)
        try:
            yield
        finally:
            self._do(uapi.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, 0, "memory_limit", limit=65536)

    @contextlib.contextmanager
    def _no(self, number: int = errno.EINVAL) -> Iterator[list[int]]:
        """The error by which a check says no, in the list."""
        no: list[int] = []
        try:
            yield no
        except KernelRefused as error:
            if error.errno != number:
                raise
            no.append(number)

    def _do(self, operation: int, object_id: int, member: str, **values: int) -> Any:
        command = uapi.iommu_test_cmd(size=sizeof(uapi.iommu_test_cmd), op=operation, id=object_id)
        for name, value in values.items():
            setattr(getattr(command, member), name, value)
        try:
            ioctl(self.fd, uapi.IOMMU_TEST_CMD, command)
        except OSError as error:
            raise refused(self.fd, f"IOMMU_TEST_CMD {member}", command, error.errno or 0) from None
        return command

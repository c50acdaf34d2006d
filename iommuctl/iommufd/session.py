# SPDX-License-Identifier: Apache-2.0
"""An open /dev/iommu: one typed method for each call, whose refusals say which field is to blame and why.

Object ids are numbers that the kernel gives; addresses and lengths are in bytes, ranges include their last byte.
Source: Documentation/userspace-api/iommufd.rst and include/uapi/linux/iommufd.h of Linux 7.3.
"""

import errno
import os
from collections.abc import Callable, Sequence
from ctypes import Array, Structure, addressof, c_char, create_string_buffer, sizeof
from fcntl import ioctl
from itertools import count
from typing import NamedTuple, Self, TypeVar

from iommuctl.errors import DeviceNotBound, KernelRefused
from iommuctl.iommufd import uapi
from iommuctl.iommufd.fields import packer
from iommuctl.iommufd.refusals import not_opened, refused
from iommuctl.iommufd.uapi import IOMMU_IOAS_MAP_FILE, IOMMU_IOAS_MAP_FIXED_IOVA, IOMMU_IOAS_UNMAP

PLACEHOLDERS = 0xFFFF0001
"""The first id that a dry run gives. The kernel's own have 31 bits."""
_placeholders = count(PLACEHOLDERS)
_RANGES = 16
_fill_map_file = packer(uapi.iommu_ioas_map_file).pack_into
_fill_unmap = packer(uapi.iommu_ioas_unmap).pack_into
_NO_FILE = 0xFFFF_FFFF
_WHOLE = (0, 2**64 - 1)
_NOT_SHOWN = ("size", "data_uptr", "allowed_iovas", "data")

Log = Callable[[str, dict[str, int]], None]
_Kind = TypeVar("_Kind", bound=Structure)


class HwInfo(NamedTuple):
    """What IOMMU_GET_HW_INFO tells of the IOMMU behind a device."""

    type: int
    """The vendor's number, IOMMU_HW_INFO_TYPE_*."""
    data: bytes
    """The vendor's structure, as long as the kernel's."""
    capabilities: int
    """Bits IOMMU_HW_CAP_*."""
    max_pasid_log2: int
    """Bits of a PASID, 0 for a device without PASIDs."""


class Iommufd:
    """The calls of one open /dev/iommu; not for several threads at once.

    `log` is told the name and the input fields of each call before it is made; pointers to payloads, reserved fields
    and outputs are left out. A `dry` session changes nothing: calls that would are logged, and those that make an
    object give placeholder ids. What only asks is asked, if there is a file; of an object that a dry run has made, it
    tells what holds for a new one. Every method raises `KernelRefused`, with the kernel's error in `errno`.
    """

    def __init__(self, fd: int | None, *, log: Log | None = None, dry: bool = False) -> None:
        self.fd = -1 if fd is None else fd
        self._log = log
        self._dry = dry
        self._plain = log is None and not dry
        self._map_file = bytearray(sizeof(uapi.iommu_ioas_map_file))
        self._unmap = bytearray(sizeof(uapi.iommu_ioas_unmap))
        self._unmapped = memoryview(self._unmap).cast("Q")

    @classmethod
    def open(cls, path: str = "/dev/iommu", *, log: Log | None = None) -> Self:
        """A new, empty iommufd. Raises BackendUnavailable and PermissionRefused, with what to do about it."""
        try:
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC), log=log)
        except OSError as error:
            raise not_opened(path, error) from None

    def close(self) -> None:
        """Close the file; the objects go when no copy of it and no bound device is open."""
        os.close(self.fd)

    def has(self, request: int) -> bool:
        """Whether the kernel knows a call; nothing is done. A structure of no size is refused by every call."""
        try:
            ioctl(self.fd, request, bytes(4))
        except OSError as error:
            if error.errno == errno.ENOTTY:
                return False
            if error.errno != errno.EINVAL:
                raise
        return True

    def destroy(self, object_id: int) -> None:
        """Destroy an object that nothing refers to."""
        self._change("IOMMU_DESTROY", uapi.IOMMU_DESTROY, _new(uapi.iommu_destroy, id=object_id))

    def ioas_alloc(self) -> int:
        """A new address space, which allows every IOVA until a device is attached; its id."""
        argument = _new(uapi.iommu_ioas_alloc)
        return self._make("IOMMU_IOAS_ALLOC", uapi.IOMMU_IOAS_ALLOC, argument, "out_ioas_id")

    def ioas_iova_ranges(self, ioas_id: int) -> tuple[list[tuple[int, int]], int]:
        """The ranges (first, last) that mappings can lie in, and what their ends must be multiples of."""
        if self._imagined(ioas_id):
            return [_WHOLE], 1
        room = _RANGES
        while True:
            array = (uapi.iommu_iova_range * room)()
            argument = _new(
                uapi.iommu_ioas_iova_ranges, ioas_id=ioas_id, num_iovas=room, allowed_iovas=addressof(array)
            )
            number = self._ask("IOMMU_IOAS_IOVA_RANGES", uapi.IOMMU_IOAS_IOVA_RANGES, argument, errno.EMSGSIZE)
            if not number:
                found = array[: argument.num_iovas]
                return [(one.start, one.last) for one in found], argument.out_iova_alignment
            room = argument.num_iovas

    def ioas_allow_iovas(self, ioas_id: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Keep these ranges (first, last) available: attaching a device that cannot use them is refused from now on."""
        array = (uapi.iommu_iova_range * len(ranges))(*(uapi.iommu_iova_range(*one) for one in ranges))
        argument = _new(
            uapi.iommu_ioas_allow_iovas, ioas_id=ioas_id, num_iovas=len(ranges), allowed_iovas=addressof(array)
        )
        self._change("IOMMU_IOAS_ALLOW_IOVAS", uapi.IOMMU_IOAS_ALLOW_IOVAS, argument)

    def ioas_map(self, ioas_id: int, iova: int, length: int, user_va: int, flags: int) -> None:
        """Map memory of this process; `flags` are IOMMU_IOAS_MAP_READABLE and IOMMU_IOAS_MAP_WRITEABLE."""
        argument = _new(uapi.iommu_ioas_map, ioas_id=ioas_id, user_va=user_va, length=length, iova=iova)
        argument.flags = flags | uapi.IOMMU_IOAS_MAP_FIXED_IOVA
        self._change("IOMMU_IOAS_MAP", uapi.IOMMU_IOAS_MAP, argument)

    def ioas_map_file(self, ioas_id: int, iova: int, length: int, fd: int, *, start: int, flags: int) -> None:
        """Map a memfd or a VFIO dma-buf from its byte `start` on; `flags` as for `ioas_map`."""
        packed = self._map_file
        _fill_map_file(packed, 0, 40, flags | IOMMU_IOAS_MAP_FIXED_IOVA, ioas_id, fd, start, length, iova)
        if self._plain:  # whatever else is done here shows: the kernel takes hardly a microsecond for a mapping
            try:
                ioctl(self.fd, IOMMU_IOAS_MAP_FILE, packed)
            except OSError as error:
                argument = uapi.iommu_ioas_map_file.from_buffer(packed)
                raise self._refused("IOMMU_IOAS_MAP_FILE", argument, error) from None
        else:
            self._change("IOMMU_IOAS_MAP_FILE", IOMMU_IOAS_MAP_FILE, uapi.iommu_ioas_map_file.from_buffer(packed))

    def ioas_copy(self, ioas_id: int, iova: int, length: int, *, source_id: int, source_iova: int, flags: int) -> None:
        """Map in one address space what is mapped in another, memory pinned once; `flags` as for `ioas_map`."""
        argument = _new(uapi.iommu_ioas_copy, dst_ioas_id=ioas_id, src_ioas_id=source_id, length=length)
        argument.flags = flags | uapi.IOMMU_IOAS_MAP_FIXED_IOVA
        argument.dst_iova, argument.src_iova = iova, source_iova
        self._change("IOMMU_IOAS_COPY", uapi.IOMMU_IOAS_COPY, argument)

    def ioas_unmap(self, ioas_id: int, iova: int = 0, length: int = 2**64 - 1) -> int:
        """Unmap the mappings that lie in a range, or all; the number of bytes that were mapped.

        When a mapping lies only partly in the range, those that precede it are gone all the same. A dry run does not
        know what is mapped, and gives the length asked for.
        """
        packed = self._unmap
        _fill_unmap(packed, 0, 24, ioas_id, iova, length)
        if self._plain:
            try:
                ioctl(self.fd, IOMMU_IOAS_UNMAP, packed)
            except OSError as error:
                argument = uapi.iommu_ioas_unmap.from_buffer(packed)
                raise self._refused("IOMMU_IOAS_UNMAP", argument, error) from None
        else:
            self._change("IOMMU_IOAS_UNMAP", IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap.from_buffer(packed))
        return self._unmapped[2]

    def ioas_change_process(self) -> None:
        """Charge this process for all that is pinned, in place of those that mapped it."""
        argument = _new(uapi.iommu_ioas_change_process)
        self._change("IOMMU_IOAS_CHANGE_PROCESS", uapi.IOMMU_IOAS_CHANGE_PROCESS, argument)

    def option_get(self, option_id: int, object_id: int = 0) -> int:
        """The value of an option IOMMU_OPTION_*; `object_id` is 0 for those of the whole file."""
        argument = _new(uapi.iommu_option, option_id=option_id, op=uapi.IOMMU_OPTION_OP_GET, object_id=object_id)
        self._ask("IOMMU_OPTION", uapi.IOMMU_OPTION, argument)
        value: int = argument.val64
        return value

    def option_set(self, option_id: int, value: int, object_id: int = 0) -> None:
        """Set an option IOMMU_OPTION_*."""
        argument = _new(uapi.iommu_option, option_id=option_id, op=uapi.IOMMU_OPTION_OP_SET, object_id=object_id)
        argument.val64 = value
        self._change("IOMMU_OPTION", uapi.IOMMU_OPTION, argument)

    def get_hw_info(self, dev_id: int) -> HwInfo:
        """What the IOMMU of a bound device is and can do. Raises DeviceNotBound for one that a dry run has bound."""
        if self._imagined(dev_id):
            raise DeviceNotBound(
                f"the IOMMU of device {dev_id:#x} cannot be asked",
                because="a dry run binds no device",
                hint="bind the device first: iommuctl device bind RID",
            )
        room = 0
        while True:
            data = create_string_buffer(room)
            argument = _new(uapi.iommu_hw_info, dev_id=dev_id, data_len=room, data_uptr=addressof(data))
            self._ask("IOMMU_GET_HW_INFO", uapi.IOMMU_GET_HW_INFO, argument)
            if argument.data_len <= room:
                payload, capabilities = data.raw[: argument.data_len], argument.out_capabilities
                return HwInfo(argument.out_data_type, payload, capabilities, argument.out_max_pasid_log2)
            room = argument.data_len

    def hwpt_alloc(
        self, dev_id: int, pt_id: int, flags: int = 0, *, data_type: int = 0, data: bytes = b"", fault_id: int = 0
    ) -> int:
        """A new page table for the IOMMU of a device; its id.

        `pt_id` is an address space for a table that the kernel manages, or a parent's HWPT or a vIOMMU for one that
        the vendor's payload tells of. `flags` are IOMMU_HWPT_*; `fault_id` counts if IOMMU_HWPT_FAULT_ID_VALID is set.
        """
        payload = _payload(data)
        argument = _new(uapi.iommu_hwpt_alloc, flags=flags, dev_id=dev_id, pt_id=pt_id, data_type=data_type)
        argument.data_len, argument.data_uptr, argument.fault_id = len(data), addressof(payload), fault_id
        return self._make("IOMMU_HWPT_ALLOC", uapi.IOMMU_HWPT_ALLOC, argument, "out_hwpt_id")

    def hwpt_set_dirty_tracking(self, hwpt_id: int, enable: bool) -> None:
        """Begin or end to note what devices write."""
        flags = uapi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE if enable else 0
        argument = _new(uapi.iommu_hwpt_set_dirty_tracking, flags=flags, hwpt_id=hwpt_id)
        self._change("IOMMU_HWPT_SET_DIRTY_TRACKING", uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, argument)

    def hwpt_get_dirty_bitmap(
        self, hwpt_id: int, iova: int, length: int, page_size: int, *, clear: bool = True
    ) -> bytes:
        """A bit for each page of the range that was written since the last time, lowest first, in words of 64 bits."""
        bitmap = create_string_buffer((length // page_size + 63) // 64 * 8 if page_size else 0)
        argument = _new(uapi.iommu_hwpt_get_dirty_bitmap, hwpt_id=hwpt_id, iova=iova, length=length)
        argument.flags = 0 if clear else uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR
        argument.page_size, argument.data = page_size, addressof(bitmap)
        self._change("IOMMU_HWPT_GET_DIRTY_BITMAP", uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, argument)
        return bitmap.raw

    def hwpt_invalidate(self, object_id: int, data_type: int, entries: Sequence[bytes]) -> int:
        """Carry out invalidations of a nested page table or of a vIOMMU, all of one length; their number.

        None at all asks whether the type is known, where the driver can be asked so. Raises InvalidationRefused, which
        tells how far it came.
        """
        payload = _payload(b"".join(entries))
        argument = _new(uapi.iommu_hwpt_invalidate, hwpt_id=object_id, data_type=data_type, entry_num=len(entries))
        argument.data_uptr, argument.entry_len = addressof(payload), len(entries[0]) if entries else 0
        self._change("IOMMU_HWPT_INVALIDATE", uapi.IOMMU_HWPT_INVALIDATE, argument)
        done: int = argument.entry_num
        return done

    def fault_queue_alloc(self) -> tuple[int, int]:
        """A new fault queue: its id, and a file to read page faults from and write responses to (-1 in a dry run)."""
        argument = _new(uapi.iommu_fault_alloc)
        argument.out_fault_fd = _NO_FILE
        try:
            fault_id = self._make("IOMMU_FAULT_QUEUE_ALLOC", uapi.IOMMU_FAULT_QUEUE_ALLOC, argument, "out_fault_id")
        except BaseException:
            # An interrupt may come when the call has been made: nobody would close the file.
            if argument.out_fault_fd != _NO_FILE:
                os.close(argument.out_fault_fd)
            raise
        return fault_id, -1 if self._dry else argument.out_fault_fd

    def viommu_alloc(self, dev_id: int, hwpt_id: int, type: int, data: bytes = b"") -> tuple[int, bytes]:
        """A new vIOMMU over a nest parent, for the IOMMU of a device: its id, and the payload as the kernel left it."""
        payload = _payload(data)
        argument = _new(uapi.iommu_viommu_alloc, type=type, dev_id=dev_id, hwpt_id=hwpt_id, data_len=len(data))
        argument.data_uptr = addressof(payload)
        viommu_id = self._make("IOMMU_VIOMMU_ALLOC", uapi.IOMMU_VIOMMU_ALLOC, argument, "out_viommu_id")
        return viommu_id, payload.raw[: len(data)]

    def vdevice_alloc(self, viommu_id: int, dev_id: int, virt_id: int) -> int:
        """Give a device its number on a vIOMMU; the id of the vDEVICE."""
        argument = _new(uapi.iommu_vdevice_alloc, viommu_id=viommu_id, dev_id=dev_id, virt_id=virt_id)
        return self._make("IOMMU_VDEVICE_ALLOC", uapi.IOMMU_VDEVICE_ALLOC, argument, "out_vdevice_id")

    def veventq_alloc(self, viommu_id: int, type: int, depth: int) -> tuple[int, int]:
        """A new queue of a vIOMMU's events of a type, `depth` at most: its id, and a file to read them by.

        The file is -1 in a dry run. While it is open, the queue cannot be destroyed.
        """
        argument = _new(uapi.iommu_veventq_alloc, viommu_id=viommu_id, type=type, veventq_depth=depth)
        argument.out_veventq_fd = _NO_FILE
        try:
            veventq_id = self._make("IOMMU_VEVENTQ_ALLOC", uapi.IOMMU_VEVENTQ_ALLOC, argument, "out_veventq_id")
        except BaseException:
            # An interrupt may come when the call has been made: nobody would close the file.
            if argument.out_veventq_fd != _NO_FILE:
                os.close(argument.out_veventq_fd)
            raise
        return veventq_id, -1 if self._dry else argument.out_veventq_fd

    def _imagined(self, object_id: int) -> bool:
        return self._dry and (self.fd < 0 or object_id >= PLACEHOLDERS)

    def _change(self, name: str, request: int, argument: Structure) -> None:
        if self._log is not None:
            self._log(name, _inputs(argument))
        if self._dry:
            return
        try:
            ioctl(self.fd, request, argument)
        except OSError as error:
            raise self._refused(name, argument, error) from None

    def _make(self, name: str, request: int, argument: Structure, out: str) -> int:
        self._change(name, request, argument)
        made: int = next(_placeholders) if self._dry else getattr(argument, out)
        return made

    def _ask(self, name: str, request: int, argument: Structure, expected: int = 0) -> int:
        if self._log is not None:
            self._log(name, _inputs(argument))
        try:
            ioctl(self.fd, request, argument)
        except OSError as error:
            if error.errno == expected:
                return expected
            raise self._refused(name, argument, error) from None
        return 0

    def _refused(self, name: str, argument: Structure, error: OSError) -> KernelRefused:
        return refused(self.fd, name, argument, error.errno or 0)


def _new(kind: type[_Kind], **values: int) -> _Kind:
    return kind(size=sizeof(kind), **values)


def _payload(data: bytes) -> Array[c_char]:
    return create_string_buffer(data, len(data))


def _inputs(argument: Structure) -> dict[str, int]:
    """What a call is given. Pointers to payloads say nothing to whoever reads it: they differ from run to run."""
    names = (name for name, *_ in argument._fields_ if not name.startswith(("_", "out_")))
    return {name: getattr(argument, name) for name in names if name not in _NOT_SHOWN}

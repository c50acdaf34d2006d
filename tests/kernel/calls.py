# SPDX-License-Identifier: Apache-2.0
"""The calls of iommufd and of the VFIO cdev on objects in this process, by the numbers and structures of the kernel.

What the kernel holds lives as long as descriptors do, wherever their copies are: each open file is the writing end of a
pipe, whose reading end tells when the last copy was closed. Source: drivers/iommu/iommufd/{main,ioas,io_pagetable,
device,hw_pagetable}.c and drivers/vfio/device_cdev.c of Linux 7.3.
"""

import errno
import os
import select
from collections.abc import Callable
from ctypes import Structure
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from iommuctl.iommufd import uapi
from iommuctl.iommufd import vfio_uapi as vfio
from tests.kernel.objects import Device, Hwpt, Ioas, Mapped, Object

EVERYTHING = 2**64 - 1
PASID_BITS = 16


class Killed(BaseException):
    """The process is killed just before a call, or as it returns."""


@dataclass
class _File:
    """An open /dev/iommu, or with a `node` a VFIO device, which `iommufd` is then bound to."""

    reader: int
    node: str = ""
    iommufd: "_File | None" = None
    objects: dict[int, Object] = field(default_factory=dict)


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class _Plan:
    """What befalls a call of this number after `skip` more of them: an error, or the end of the process."""

    request: int
    skip: int
    error: int = 0
    made: bool = False
    interrupt: bool = False


class Kernel:
    """All files that are open."""

    def __init__(self) -> None:
        self.dead = False
        """Whether the process was killed: it makes no call any more, until there is another one."""
        self._files: dict[int, _File] = {}
        self._plans: list[_Plan] = []
        self._calls: dict[int, Callable[[_File, Any], None]] = {
            uapi.IOMMU_DESTROY: self._destroy,
            uapi.IOMMU_IOAS_ALLOC: self._ioas_alloc,
            uapi.IOMMU_IOAS_IOVA_RANGES: self._ranges,
            uapi.IOMMU_IOAS_MAP_FILE: self._map_file,
            uapi.IOMMU_IOAS_UNMAP: self._unmap,
            uapi.IOMMU_HWPT_ALLOC: self._hwpt_alloc,
            uapi.IOMMU_HWPT_INVALIDATE: self._invalidate,
            uapi.IOMMU_GET_HW_INFO: self._hw_info,
            vfio.VFIO_DEVICE_BIND_IOMMUFD: self._bind,
            vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT: self._attach,
            vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT: self._detach,
        }

    # What a test does and sees

    def open(self, node: str = "") -> int:
        """A new /dev/iommu, or a VFIO device."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._files[os.fstat(writer).st_ino] = _File(reader, node)
        return writer

    def refuse(self, request: int, number: int = errno.EINVAL, *, skip: int = 0) -> None:
        """Have a call fail once, after so many more of them."""
        self._plans.append(_Plan(request, skip, number))

    def kill(self, request: int, *, skip: int = 0, made: bool = False) -> None:
        """Have the process killed at a call, after so many more of them; `made`: when that call is made."""
        self._plans.append(_Plan(request, skip, made=made))

    def interrupt(self, request: int) -> None:
        """Have Ctrl-C come as a call returns that was made."""
        self._plans.append(_Plan(request, 0, made=True, interrupt=True))

    @property
    def objects(self) -> dict[int, Object]:
        """The objects of the iommufd that is open; none if none is."""
        self._collect()
        found = [file.objects for file in self._files.values() if not file.node]
        assert len(found) <= 1, "several iommufds are open"
        return found[0] if found else {}

    def is_open(self, node: str) -> bool:
        """Whether anybody has a VFIO device open."""
        self._collect()
        return any(file.node == node for file in self._files.values())

    def make(self, made: Object) -> int:
        """As a program does that has a copy of the iommufd."""
        self._collect()
        return self._add(next(file for file in self._files.values() if not file.node), made)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file.reader)
        self._files.clear()

    # What takes the place of fcntl.ioctl

    def ioctl(self, descriptor: int, request: int, argument: "Structure | bytes" = b"") -> int:
        self._collect()
        file = self._files[os.fstat(descriptor).st_ino]
        if request not in self._calls:
            raise _fail(errno.ENOTTY)
        if isinstance(argument, bytes):
            raise _fail(errno.EINVAL)
        plan = self._due(request)
        if plan and plan.error:
            raise _fail(plan.error)
        if self.dead or (plan and not plan.made):
            self.dead = True
            raise Killed
        self._calls[request](file, argument)
        if plan and plan.interrupt:
            raise KeyboardInterrupt
        if plan:
            self.dead = True
            raise Killed
        return 0

    def _due(self, request: int) -> _Plan | None:
        for plan in self._plans:
            if plan.request == request:
                plan.skip -= 1
                if plan.skip < 0:
                    self._plans.remove(plan)
                    return plan
        return None

    def _collect(self) -> None:
        """Release what no descriptor stands for any more. A bound device keeps its iommufd."""
        for inode, file in sorted(self._files.items(), key=lambda item: not item[1].node):
            poll = select.poll()
            poll.register(file.reader, 0)
            if not poll.poll(0) or (not file.node and any(other.iommufd is file for other in self._files.values())):
                continue
            if file.iommufd:
                objects = file.iommufd.objects
                for number in [n for n, o in objects.items() if isinstance(o, Device) and o.node == file.node]:
                    del objects[number]
            os.close(file.reader)
            del self._files[inode]

    @staticmethod
    def _add(file: _File, made: Object) -> int:
        number = next(number for number in count(1) if number not in file.objects)
        file.objects[number] = made
        return number

    @staticmethod
    def _ioas(file: _File, number: int) -> Ioas:
        found = file.objects.get(number)
        if not isinstance(found, Ioas):
            raise _fail(errno.ENOENT)
        return found

    @staticmethod
    def _device(file: _File) -> Device:
        objects = file.iommufd.objects.values() if file.iommufd else ()
        for found in objects:
            if isinstance(found, Device) and found.node == file.node:
                return found
        raise _fail(errno.EINVAL)

    def _destroy(self, file: _File, argument: Any) -> None:
        number, objects = argument.id, file.objects
        if number not in objects:
            raise _fail(errno.ENOENT)
        under = {one.under for one in objects.values() if isinstance(one, Hwpt)}
        attached = {pt for one in objects.values() if isinstance(one, Device) for pt in one.slots.values()}
        if number in under | attached or isinstance(objects[number], Device):
            raise _fail(errno.EBUSY)
        del objects[number]

    def _ioas_alloc(self, file: _File, argument: Any) -> None:
        argument.out_ioas_id = self._add(file, Ioas())

    def _ranges(self, file: _File, argument: Any) -> None:
        self._ioas(file, argument.ioas_id)
        room, argument.num_iovas, argument.out_iova_alignment = argument.num_iovas, 1, 1
        if not room:
            raise _fail(errno.EMSGSIZE)
        array = (uapi.iommu_iova_range * 1).from_address(argument.allowed_iovas)
        array[0].start, array[0].last = 0, EVERYTHING

    def _map_file(self, file: _File, argument: Any) -> None:
        mapped = self._ioas(file, argument.ioas_id).mapped
        iova, size = argument.iova, argument.length
        if any(one.iova < iova + size and iova < one.iova + one.size for one in mapped):
            raise _fail(errno.EEXIST)
        name = os.readlink(f"/proc/self/fd/{argument.fd}")
        mapped.append(Mapped(iova, size, name, argument.start, argument.flags & ~uapi.IOMMU_IOAS_MAP_FIXED_IOVA))

    def _unmap(self, file: _File, argument: Any) -> None:
        mapped = self._ioas(file, argument.ioas_id).mapped
        first, last = argument.iova, argument.iova + argument.length
        argument.length = 0
        for one in sorted(one for one in mapped if one.iova < last and first < one.iova + one.size):
            if one.iova < first or one.iova + one.size > last:
                raise _fail(errno.ENOENT)
            mapped.remove(one)
            argument.length += one.size
        if not argument.length and last != EVERYTHING:
            raise _fail(errno.ENOENT)

    def _hwpt_alloc(self, file: _File, argument: Any) -> None:
        under = file.objects.get(argument.pt_id)
        if not isinstance(file.objects.get(argument.dev_id), Device) or under is None:
            raise _fail(errno.ENOENT)
        if isinstance(under, Device):
            raise _fail(errno.EINVAL)
        argument.out_hwpt_id = self._add(file, Hwpt(argument.pt_id))

    def _invalidate(self, file: _File, argument: Any) -> None:
        if not isinstance(file.objects.get(argument.hwpt_id), Hwpt):
            raise _fail(errno.ENOENT)

    def _hw_info(self, file: _File, argument: Any) -> None:
        if not isinstance(file.objects.get(argument.dev_id), Device):
            raise _fail(errno.ENOENT)
        argument.data_len, argument.out_max_pasid_log2 = 0, PASID_BITS

    def _bind(self, file: _File, argument: Any) -> None:
        iommufd = self._files[os.fstat(argument.iommufd).st_ino]
        bound = [one for one in self._files.values() if one.node == file.node and one.iommufd]
        if bound:
            raise _fail(errno.EINVAL if file in bound else errno.EBUSY)
        file.iommufd = iommufd
        argument.out_devid = self._add(iommufd, Device(file.node))

    def _attach(self, file: _File, argument: Any) -> None:
        device = self._device(file)
        assert file.iommufd
        found = file.iommufd.objects.get(argument.pt_id)
        if found is None:
            raise _fail(errno.ENOENT)
        if not isinstance(found, Hwpt):
            raise _fail(errno.EINVAL)
        device.slots[self._pasid(argument)] = argument.pt_id

    def _detach(self, file: _File, argument: Any) -> None:
        self._device(file).slots.pop(self._pasid(argument), None)

    @staticmethod
    def _pasid(argument: Any) -> int | None:
        pasid: int = argument.pasid
        return pasid if argument.flags else None

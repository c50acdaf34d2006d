# SPDX-License-Identifier: Apache-2.0
"""A process that makes calls of iommufd as they are, right or wrong: on this kernel of ours, or on a real one."""

import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from typing import Any

from iommuctl.iommufd import uapi
from iommuctl.iommufd import vfio_uapi as vfio

FIRST, SECOND = "first", "second"
"""Two devices behind one unit, without PASIDs where nothing else is said."""
NEST_PARENT, PASID = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT, uapi.IOMMU_HWPT_ALLOC_PASID
DIRTY, FAULT = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING, uapi.IOMMU_HWPT_FAULT_ID_VALID
TRANSLATE, BYPASS, ABORT = 0x4000_004B, 0x9, 0x1
"""Words 0 of an STE: one CD at the guest's 0x4000_0040, stage 2 alone, and neither."""
VSID = 0x10
Command = tuple[int, int]
NH_ALL, SYNC = (0x10, 0), (0x46, 0)


class Process:
    """It has /dev/iommu open, and devices that are bound to it; `ids` are their objects."""

    def __init__(self, ioctl: Callable[[int, int, Any], object], iommufd: int, cdevs: Mapping[str, int]) -> None:
        self._ioctl = ioctl
        self.iommufd = iommufd
        self.cdevs = dict(cdevs)
        self.ids = {name: self._bind(name) for name in self.cdevs}

    def end(self) -> None:
        for name in list(self.cdevs):
            self.close(name)
        with suppress(OSError):
            os.close(self.iommufd)

    def close(self, name: str) -> None:
        """Close a device."""
        os.close(self.cdevs.pop(name))

    def call(self, request: int, argument: Any, **fields: int) -> Any:
        """One of /dev/iommu, with these fields besides."""
        argument.size = len(bytes(argument))
        for name, value in fields.items():
            setattr(argument, name, value)
        self._ioctl(self.iommufd, request, argument)
        return argument

    def _device(self, name: str, request: int, argument: Any) -> Any:
        argument.argsz = len(bytes(argument))
        self._ioctl(self.cdevs[name], request, argument)
        return argument

    def _bind(self, name: str) -> int:
        argument = vfio.vfio_device_bind_iommufd(iommufd=self.iommufd)
        return int(self._device(name, vfio.VFIO_DEVICE_BIND_IOMMUFD, argument).out_devid)

    def attach(self, name: str, pt_id: int, pasid: int | None = None) -> None:
        argument = vfio.vfio_device_attach_iommufd_pt(flags=pasid is not None, pt_id=pt_id, pasid=pasid or 0)
        self._device(name, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, argument)

    def detach(self, name: str, pasid: int | None = None) -> None:
        argument = vfio.vfio_device_detach_iommufd_pt(flags=pasid is not None, pasid=pasid or 0)
        self._device(name, vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, argument)

    def destroy(self, *object_ids: int) -> None:
        for object_id in object_ids:
            self.call(uapi.IOMMU_DESTROY, uapi.iommu_destroy(id=object_id))

    def ioas(self) -> int:
        return int(self.call(uapi.IOMMU_IOAS_ALLOC, uapi.iommu_ioas_alloc()).out_ioas_id)

    def hwpt(self, under: int, flags: int = 0, name: str = FIRST, *, data: bytes = b"", **fields: int) -> int:
        payload = create_string_buffer(data, len(data))
        argument = uapi.iommu_hwpt_alloc(flags=flags, dev_id=self.ids[name], pt_id=under, data_len=len(data))
        argument.data_type, argument.data_uptr = 2 if data else 0, addressof(payload)
        return int(self.call(uapi.IOMMU_HWPT_ALLOC, argument, **fields).out_hwpt_id)

    def parent(self, name: str = FIRST) -> int:
        return self.hwpt(self.ioas(), NEST_PARENT, name)

    def nested(self, viommu: int, first: int, second: int = 0, name: str = FIRST, *, flags: int = 0) -> int:
        return self.hwpt(viommu, flags, name, data=struct.pack("<QQ", first, second))

    def viommu(self, parent: int, name: str = FIRST, **fields: int) -> int:
        argument = uapi.iommu_viommu_alloc(type=1, dev_id=self.ids[name], hwpt_id=parent)
        return int(self.call(uapi.IOMMU_VIOMMU_ALLOC, argument, **fields).out_viommu_id)

    def vdevice(self, viommu: int, name: str = FIRST, number: int = VSID) -> int:
        argument = uapi.iommu_vdevice_alloc(viommu_id=viommu, dev_id=self.ids[name], virt_id=number)
        return int(self.call(uapi.IOMMU_VDEVICE_ALLOC, argument).out_vdevice_id)

    def veventq(self, viommu: int, **fields: int) -> tuple[int, int]:
        argument = uapi.iommu_veventq_alloc(viommu_id=viommu, type=1, veventq_depth=2)
        self.call(uapi.IOMMU_VEVENTQ_ALLOC, argument, **fields)
        return argument.out_veventq_id, argument.out_veventq_fd

    def invalidate(self, target: int, *commands: Command, **fields: int) -> tuple[int, int]:
        """The error, 0 if there is none, and what came back in entry_num."""
        raw = b"".join(struct.pack("<QQ", *command) for command in commands)
        payload = create_string_buffer(raw, len(raw))
        argument = uapi.iommu_hwpt_invalidate(hwpt_id=target, data_uptr=addressof(payload), data_type=1, entry_len=16)
        argument.entry_num = len(commands)
        return refusal(self.call, uapi.IOMMU_HWPT_INVALIDATE, argument, **fields), argument.entry_num

    def hw_info(self, name: str, room: int) -> tuple[Any, bytes]:
        """The structure as it came back, and the buffer, which was filled with ones."""
        data = create_string_buffer(b"\xff" * room, room)
        argument = uapi.iommu_hw_info(dev_id=self.ids[name], data_len=room, data_uptr=addressof(data))
        return self.call(uapi.IOMMU_GET_HW_INFO, argument), data.raw


def refusal(call: Callable[..., object], *arguments: Any, **fields: Any) -> int:
    """The error of a call, or 0."""
    try:
        call(*arguments, **fields)
    except OSError as error:
        return error.errno or 0
    return 0

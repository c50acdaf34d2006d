# SPDX-License-Identifier: Apache-2.0
"""VIOMMU_ALLOC, VDEVICE_ALLOC, VEVENTQ_ALLOC and the events of a unit, with the checks in the kernel's order.

Source: drivers/iommu/iommufd/{viommu,eventq,driver}.c of Linux 7.3.
"""

import errno
import os
import struct
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

from iommuctl.iommufd import uapi
from tests.kernel.files import File, Files, failure
from tests.kernel.objects import Device, Hwpt, Vdevice, Veventq, Viommu
from tests.kernel.smmuv3_unit import seen_by_guest
from tests.kernel.units import Places

DEEPEST = 1 << 19


class Viommus:
    def __init__(self, files: Files, places: Places) -> None:
        self._files = files
        self._places = places
        self.calls = {
            uapi.IOMMU_VIOMMU_ALLOC: self._viommu_alloc,
            uapi.IOMMU_VDEVICE_ALLOC: self._vdevice_alloc,
            uapi.IOMMU_VEVENTQ_ALLOC: self._veventq_alloc,
        }

    def _viommu_alloc(self, file: File, argument: Any) -> None:
        if argument.flags or argument.type == uapi.IOMMU_VIOMMU_TYPE_DEFAULT:
            raise failure(errno.EOPNOTSUPP)
        unit = self._places.of(file.get(argument.dev_id, Device)).unit
        if argument.type not in unit.viommu_types():
            raise failure(errno.EOPNOTSUPP)
        parent = file.get(argument.hwpt_id, Hwpt)
        if parent.nested:
            raise failure(errno.ENOENT)
        if not parent.nest_parent or parent.unit != unit.name:
            raise failure(errno.EINVAL)
        argument.out_viommu_id = file.add(Viommu(argument.hwpt_id, unit.name, argument.type))

    def _vdevice_alloc(self, file: File, argument: Any) -> None:
        viommu = file.get(argument.viommu_id, Viommu)
        if self._places.of(file.get(argument.dev_id, Device)).unit.name != viommu.unit:
            raise failure(errno.EINVAL)
        for one in file.objects.values():
            if isinstance(one, Vdevice) and (
                one.device == argument.dev_id or (one.viommu, one.virt_id) == (argument.viommu_id, argument.virt_id)
            ):
                raise failure(errno.EEXIST)
        argument.out_vdevice_id = file.add(Vdevice(argument.viommu_id, argument.dev_id, argument.virt_id))

    def _veventq_alloc(self, file: File, argument: Any) -> None:
        if argument.flags or getattr(argument, "__reserved") or argument.type == uapi.IOMMU_VEVENTQ_TYPE_DEFAULT:
            raise failure(errno.EOPNOTSUPP)
        if not 0 < argument.veventq_depth <= DEEPEST:
            raise failure(errno.EINVAL)
        file.get(argument.viommu_id, Viommu)
        if _queue_of(file, argument.viommu_id, argument.type):
            raise failure(errno.EEXIST)
        made = file.add(Veventq(argument.viommu_id, argument.type, argument.veventq_depth))
        argument.out_veventq_id, argument.out_veventq_fd = made, self._files.open_queue(file, made)

    def report(self, file: File, node: str, event: bytes) -> bool:
        """The unit has recorded an event of a device; whether user space is told, if only that some were lost.

        A header that tells of loss stays where it is, and has the number of the first event that was lost; the kernel
        takes it away again when an event that had room follows it, and has the number of the last.
        """
        device = next(one for one in file.objects.values() if isinstance(one, Device) and one.node == node)
        if device.stream is None:
            return False
        viommu, number = device.stream
        found = _queue_of(file, viommu, file.get(viommu, Viommu).type)
        if found is None:
            return False
        queue = file.get(found, Veventq)
        opened = self._files.queue(file, found)
        assert opened, "the last copy of the file was closed"
        record = struct.pack("<2I", 0, queue.sequence) + seen_by_guest(event, number)
        queue.sequence += 1
        full = _unread(opened.ours) >= queue.depth * len(record)
        if not full:
            os.write(opened.ours, record)
        elif not queue.losing:
            os.write(opened.ours, struct.pack("<2I", uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS, queue.sequence - 1))
        queue.losing = full
        return True


def _queue_of(file: File, viommu: int, kind: int) -> int | None:
    for number, one in file.objects.items():
        if isinstance(one, Veventq) and (one.viommu, one.type) == (viommu, kind):
            return number
    return None


def _unread(ours: int) -> int:
    count = bytearray(4)
    ioctl(ours, FIONREAD, count)
    return int.from_bytes(count, "little")

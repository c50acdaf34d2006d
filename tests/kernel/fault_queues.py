# SPDX-License-Identifier: Apache-2.0
"""FAULT_QUEUE_ALLOC, page requests of devices, and reads and writes of a queue's file, in the kernel's order.

Source: drivers/iommu/iommufd/eventq.c and drivers/iommu/io-pgfault.c of Linux 7.3.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from struct import Struct
from typing import Any

from iommuctl.iommufd import uapi
from tests.kernel.files import File, Files, failure
from tests.kernel.objects import Device, FaultQueue, Group, Hwpt

INVALID = uapi.IOMMUFD_PAGE_RESP_INVALID
_FAULT = Struct("<6IQ2I")
_RESPONSE = Struct("<2I")


class FaultQueues:
    def __init__(self, files: Files) -> None:
        self._files = files
        self.calls = {uapi.IOMMU_FAULT_QUEUE_ALLOC: self._alloc}

    def _alloc(self, file: File, argument: Any) -> None:
        if argument.flags:
            raise failure(errno.EOPNOTSUPP)
        argument.out_fault_id = file.add(FaultQueue())
        argument.out_fault_fd = self._files.open_queue(file, argument.out_fault_id)

    def request(self, file: File, group: Group) -> bool:
        """A device asks for pages, the last of them the last of its group; whether anybody will be told."""
        device = file.get(group.device, Device)
        table = file.objects.get(device.slots.get(group.pasid, 0))
        if not isinstance(table, Hwpt) or not table.fault:
            device.answered.append((group.pasid, group.number, INVALID))
            return False
        file.get(table.fault, FaultQueue).unread.append(group)
        if opened := self._files.queue(file, table.fault):
            os.write(opened.ours, b"!")
        return True

    @staticmethod
    def read(descriptor: int, file: File, size: int) -> bytes:
        """As many whole groups as fit; not even one is EINVAL."""
        assert file.iommufd
        queue = file.iommufd.get(file.queue, FaultQueue)
        if size % _FAULT.size:
            raise failure(errno.ESPIPE)
        data = b""
        while queue.unread:
            group = queue.unread[0]
            if len(data) + len(group.pages) * _FAULT.size > size:
                if not data:
                    raise failure(errno.EINVAL)
                break
            cookie = next(number for number in count(1) if number not in queue.read)
            queue.read[cookie] = queue.unread.pop(0)
            data += _records(group, cookie)
        if not queue.unread:
            # What makes the file readable; the queue that was emptied otherwise is so until it is read.
            with suppress(BlockingIOError):
                os.read(descriptor, 1 << 16)
        return data

    @staticmethod
    def write(file: File, data: bytes) -> int:
        """Answers up to the first that is none; if that is the first of all, EINVAL."""
        assert file.iommufd
        queue = file.iommufd.get(file.queue, FaultQueue)
        if len(data) % _RESPONSE.size:
            raise failure(errno.ESPIPE)
        done = 0
        for cookie, code in _RESPONSE.iter_unpack(data):
            if code > INVALID or cookie not in queue.read:
                if not done:
                    raise failure(errno.EINVAL)
                break
            _answer(file.iommufd, queue.read.pop(cookie), code)
            done += _RESPONSE.size
        return done


def end(file: File, device: int, pasid: int | None) -> None:
    """What is attached leaves a slot: iommufd_auto_response_faults."""
    for queue in list(file.objects.values()):
        if isinstance(queue, FaultQueue):
            _reject(file, queue, lambda group: (group.device, group.pasid) == (device, pasid))


def destroyed(file: File, queue: FaultQueue) -> None:
    """iommufd_fault_destroy."""
    _reject(file, queue, lambda _: True)


def _reject(file: File, queue: FaultQueue, chosen: Callable[[Group], bool]) -> None:
    over = [group for group in queue.unread if chosen(group)]
    queue.unread = [group for group in queue.unread if not chosen(group)]
    for cookie in sorted(queue.read):
        if chosen(queue.read[cookie]):
            over.append(queue.read.pop(cookie))
    for group in over:
        _answer(file, group, INVALID)


def _answer(file: File, group: Group, code: int) -> None:
    file.get(group.device, Device).answered.append((group.pasid, group.number, code))


def _records(group: Group, cookie: int) -> bytes:
    flags = uapi.IOMMU_PGFAULT_FLAGS_PASID_VALID if group.pasid is not None else 0
    records = b""
    for index, page in enumerate(group.pages):
        last = uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE if index == len(group.pages) - 1 else 0
        fields = flags | last, group.device, group.pasid or 0, group.number, page.permissions, 0, page.address, 0
        records += _FAULT.pack(*fields, cookie)
    return records

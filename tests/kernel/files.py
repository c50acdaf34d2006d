# SPDX-License-Identifier: Apache-2.0
"""The open files of the kernel in this process: /dev/iommu, VFIO devices, and queues of events.

What the kernel holds lives as long as descriptors do, wherever their copies are. Each file is one end of a pipe, whose
other end tells when its last copy was closed.
"""

import errno
import os
import select
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from tests.kernel.objects import Dead, Device, FaultQueue, Object, Vdevice

_Kind = TypeVar("_Kind", bound=Object)


def failure(number: int) -> OSError:
    """What a call raises that is refused."""
    return OSError(number, os.strerror(number))


@dataclass(eq=False)
class File:
    """An open /dev/iommu; with a `node` a VFIO device, with a `queue` the events of that object, of an `iommufd`."""

    ours: int
    node: str = ""
    queue: int = 0
    iommufd: "File | None" = None
    objects: dict[int, Object] = field(default_factory=dict)

    def add(self, made: Object) -> int:
        """The lowest free id (xa_alloc in _iommufd_object_alloc, main.c); 0 is none."""
        number = next(number for number in count(1) if number not in self.objects)
        self.objects[number] = made
        return number

    def get(self, number: int, kind: type[_Kind]) -> _Kind:
        """An object of that kind, or ENOENT (iommufd_get_object, main.c)."""
        found = self.objects.get(number)
        if not isinstance(found, kind):
            raise failure(errno.ENOENT)
        return found

    def any(self, number: int, missing: int = errno.ENOENT) -> Object:
        """An object of any kind, or the error `missing`."""
        found = self.objects.get(number)
        if found is None or isinstance(found, Dead):
            raise failure(missing)
        return found


class Files:
    """All that are open, by the inode of the end that is not ours."""

    def __init__(self) -> None:
        self._open: dict[int, File] = {}
        self._given: dict[int, int] = {}
        """Descriptors that calls gave to the process, and the inodes that they had."""

    def open(self, node: str = "") -> int:
        """A new /dev/iommu, or a VFIO device."""
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        self._open[os.fstat(theirs).st_ino] = File(ours, node)
        return theirs

    def open_queue(self, iommufd: File, queue: int) -> int:
        """A file to read events from. Without one, a read fails with EAGAIN where the kernel's returns nothing."""
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(theirs, False)
        inode = os.fstat(theirs).st_ino
        self._open[inode] = File(ours, queue=queue, iommufd=iommufd)
        self._given[theirs] = inode
        return theirs

    def at(self, descriptor: int) -> File:
        return self._open[os.fstat(descriptor).st_ino]

    def devices(self, node: str) -> list[File]:
        return [file for file in self._open.values() if file.node == node]

    def queue(self, iommufd: File, number: int) -> File | None:
        """The file of an object, if it is open."""
        return next((one for one in self._open.values() if one.queue == number and one.iommufd is iommufd), None)

    def iommufds(self) -> list[File]:
        return [file for file in self._open.values() if not file.node and not file.queue]

    def end_process(self) -> None:
        """Close what calls gave to a process that is no more. A number that has another file by now is left alone."""
        for descriptor, inode in self._given.items():
            try:
                if os.fstat(descriptor).st_ino == inode:
                    os.close(descriptor)
            except OSError:
                continue
        self._given.clear()

    def collect(self) -> None:
        """Release what no descriptor stands for any more. Bound devices and open queues keep their iommufd."""
        for inode, file in sorted(self._open.items(), key=lambda item: item[1].iommufd is None):
            poll = select.poll()
            poll.register(file.ours, 0)
            if not poll.poll(0) or any(other.iommufd is file for other in self._open.values()):
                continue
            if file.iommufd and file.node:
                _unbind(file.iommufd.objects, file.node)
            os.close(file.ours)
            del self._open[inode]

    def close(self) -> None:
        self.end_process()
        for file in self._open.values():
            os.close(file.ours)
        self._open.clear()


def _unbind(objects: dict[int, Object], node: str) -> None:
    """What is attached is detached, and its vDEVICE goes but for the id (iommufd_device_remove_vdev, device.c).

    Its page requests go with it.
    """
    numbers = [number for number, one in objects.items() if isinstance(one, Device) and one.node == node]
    for number, one in objects.items():
        if isinstance(one, Vdevice) and one.device in numbers:
            objects[number] = Dead()
    for queue in objects.values():
        if isinstance(queue, FaultQueue):
            queue.unread = [group for group in queue.unread if group.device not in numbers]
            queue.read = {cookie: group for cookie, group in queue.read.items() if group.device not in numbers}
    for number in numbers:
        del objects[number]

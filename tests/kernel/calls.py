# SPDX-License-Identifier: Apache-2.0
"""The calls of iommufd and of the VFIO cdev on objects in this process, by the numbers and structures of the kernel."""

import errno
from collections.abc import Callable, Mapping
from ctypes import Structure
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tests.kernel.devices import Devices
from tests.kernel.fault_queues import FaultQueues
from tests.kernel.files import File, Files, failure
from tests.kernel.objects import Device, Group, Object, Page
from tests.kernel.smmuv3_caches import Caches
from tests.kernel.spaces import Spaces
from tests.kernel.tables import Invalidated, Tables
from tests.kernel.units import Place, Places
from tests.kernel.viommus import Viommus

_T = TypeVar("_T")
READ: Final = -1
"""Stands for a read of page requests where a call has a number."""
WRITE: Final = -2
"""The same for their answers."""


class Killed(BaseException):
    """The process is killed just before a call, or as it returns."""


@dataclass
class _Plan:
    """What befalls a call of this number, or any, after `skip` more: an error, or the end of the process."""

    request: int | None
    skip: int
    error: int = 0
    made: bool = False
    interrupt: bool = False


class Kernel:
    """All files that are open, and where devices are by their nodes: without `places`, behind one unit as VT-d's."""

    def __init__(self, places: Mapping[str, Place] | None = None) -> None:
        self.dead = False
        """Whether the process was killed: it makes no call any more, until there is another one."""
        self.invalidated: list[Invalidated] = []
        """The invalidations of vIOMMUs."""
        self._files = Files()
        self._plans: list[_Plan] = []
        self._spaces = Spaces()
        everywhere = Places(places)
        self._viommus = Viommus(self._files, everywhere)
        self._faults = FaultQueues(self._files)
        self.caches = Caches(self._spaces.read)
        self._calls: dict[int, Callable[[File, Any], None]] = {
            **self._spaces.calls,
            **Tables(self._files, everywhere, self.invalidated).calls,
            **self._viommus.calls,
            **self._faults.calls,
            **Devices(self._files, everywhere).calls,
        }

    # What a test does and sees

    def open(self, node: str = "") -> int:
        """A new /dev/iommu, or a VFIO device."""
        return self._files.open(node)

    def refuse(self, request: int, number: int = errno.EINVAL, *, skip: int = 0) -> None:
        """Have a call fail once, after so many more of them."""
        self._plans.append(_Plan(request, skip, number))

    def kill(self, request: int | None, *, skip: int = 0, made: bool = False) -> None:
        """Have the process killed at a call, or any, after so many more of them; `made`: when that call is made."""
        self._plans.append(_Plan(request, skip, made=made))

    def interrupt(self, request: int) -> None:
        """Have Ctrl-C come as a call returns that was made."""
        self._plans.append(_Plan(request, 0, made=True, interrupt=True))

    def next_process(self) -> None:
        """What the process had that was killed is closed, and another one makes calls, which nothing befalls."""
        self._files.end_process()
        self._plans.clear()
        self.dead = False

    @property
    def objects(self) -> dict[int, Object]:
        """The objects of the iommufd that is open; none if none is."""
        self._files.collect()
        found = [file.objects for file in self._files.iommufds()]
        assert len(found) <= 1, "several iommufds are open"
        return found[0] if found else {}

    def is_open(self, node: str) -> bool:
        """Whether anybody has a VFIO device open."""
        self._files.collect()
        return bool(self._files.devices(node))

    def make(self, made: Object) -> int:
        """As a program does that has a copy of the iommufd."""
        self._files.collect()
        return self._files.iommufds()[0].add(made)

    def report(self, node: str, event: bytes) -> bool:
        """The unit records an event of a device; whether its vIOMMU tells of it."""
        self._files.collect()
        return self._viommus.report(self._files.iommufds()[0], node, event)

    def request(self, node: str, number: int, *pages: Page, pasid: int | None = None) -> bool:
        """A device asks for pages; whether anybody will be told."""
        self._files.collect()
        iommufd = self._files.iommufds()[0]
        device = next(key for key, one in iommufd.objects.items() if isinstance(one, Device) and one.node == node)
        return self._faults.request(iommufd, Group(device, pasid, number, pages))

    def close(self) -> None:
        self._files.close()
        self._spaces.close()

    # What takes the place of read and write where page requests are read and answered

    def read(self, descriptor: int, size: int) -> bytes:
        return self._transfer(READ, lambda file: self._faults.read(descriptor, file, size), descriptor)

    def write(self, descriptor: int, data: bytes) -> int:
        return self._transfer(WRITE, lambda file: self._faults.write(file, data), descriptor)

    def _transfer(self, request: int, way: Callable[[File], _T], descriptor: int) -> _T:
        self._files.collect()
        file = self._files.at(descriptor)
        plan = self._due(request)
        if plan and plan.error:
            raise failure(plan.error)
        if self.dead or (plan and not plan.made):
            self.dead = True
            raise Killed
        done = way(file)
        if plan:
            self.dead = True
            raise Killed
        return done

    # What takes the place of fcntl.ioctl

    def ioctl(self, descriptor: int, request: int, argument: "Structure | bytes" = b"") -> int:
        self._files.collect()
        file = self._files.at(descriptor)
        if request not in self._calls:
            raise failure(errno.ENOTTY)
        if isinstance(argument, bytes):
            raise failure(errno.EINVAL)
        plan = self._due(request)
        if plan and plan.error:
            raise failure(plan.error)
        if self.dead or (plan and not plan.made):
            self.dead = True
            raise Killed
        iommufd, noted = file.iommufd or file, len(self.invalidated)
        self.caches.watch(iommufd.objects)
        try:
            self._calls[request](file, argument)
        finally:
            for one in self.invalidated[noted:]:
                for command in one.sent:
                    self.caches.carry_out(iommufd.objects, one.viommu, command)
            self.caches.watch(iommufd.objects)
        if plan and plan.interrupt:
            raise KeyboardInterrupt
        if plan:
            self.dead = True
            raise Killed
        return 0

    def _due(self, request: int) -> _Plan | None:
        for plan in self._plans:
            if plan.request in (None, request):
                plan.skip -= 1
                if plan.skip < 0:
                    self._plans.remove(plan)
                    return plan
        return None

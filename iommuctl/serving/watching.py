# SPDX-License-Identifier: Apache-2.0
"""Watches what IOMMUs tell: faults, page requests and their answers, lines of the kernel's log."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal, NamedTuple, Self

from iommuctl.errors import Unsupported
from iommuctl.iommu import Iommu
from iommuctl.iommufd.kernel_log import KernelLog, Record
from iommuctl.page_requests import PageGroup
from iommuctl.recorded import KnownFault, Mark

SHORTEST, LONGEST = 0.005, 0.200
"""Seconds from one look to the next: while there is something to tell, and when there has been nothing for a while."""


class Told(NamedTuple):
    """Something that has happened: a fault, a group that asks or that was answered, or a line of the log."""

    event: Literal["fault", "page-request", "answer", "log"]
    what: KnownFault | PageGroup | Record


class Watch:
    """What has happened so far, and what happens: each thing is told once.

    `drivers` are the names that lines of the kernel's log begin with when they are about an IOMMU.
    """

    def __init__(self, iommu: Iommu, drivers: tuple[str, ...], log: str = "/dev/kmsg") -> None:
        self._iommu = iommu
        self._drivers = drivers
        self._log = KernelLog(log, old=True)
        self._mark = Mark()

    def __enter__(self) -> Self:
        self._log.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._log.__exit__()

    def look(self) -> list[Told]:
        """What has happened since the last look, all that is known at the first one.

        The queues of the hardware are emptied by that, as by Iommu.faults. Raises Unsupported where the backend is told
        of no faults and the log cannot be read either.
        """
        told = [Told("log", record) for record in self._log.records() if record.text.startswith(self._drivers)]
        before = self._mark
        try:
            faults, groups, self._mark = self._iommu.fault_news(before)
        except Unsupported:
            if not self._log.is_read:
                raise
            return told
        told += [Told("fault", each) for each in faults]
        for group in groups:
            if group.id not in before.groups:
                told.append(Told("page-request", group))
            if group.answer:
                told.append(Told("answer", group))
        return told

    def follow(self, ended: Callable[[], bool]) -> Iterator[Told]:
        """Look again and again, until `ended`."""
        pause = SHORTEST
        while not ended():
            told = self.look()
            yield from told
            pause = SHORTEST if told else min(2 * pause, LONGEST)
            time.sleep(pause)

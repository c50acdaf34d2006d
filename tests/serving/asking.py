# SPDX-License-Identifier: Apache-2.0
"""Devices of a simulated machine that ask for pages, and what they were answered."""

from collections.abc import Callable
from typing import TypeVar

from iommuctl import Iommu
from iommuctl.architecture import PageRequest, PageResponse
from iommuctl.model import Rid, Slot
from iommuctl_sim.system import System

A, B = Rid(0, 0, 1, 0), Rid(0, 0, 2, 0)
PAGE = 0x1000
_T = TypeVar("_T")


def within(iommu: Iommu, act: Callable[[System], _T]) -> _T:
    """What is done in the machine itself."""
    with iommu._change() as operation:
        return act(System(operation.transaction))


def ask(iommu: Iommu, slot: Slot, *pages: int, group: int = 0, access: str = "rw", privileged: bool = False) -> None:
    """A device asks for pages, by their numbers, in one group."""

    allowed = "r" in access, "w" in access
    more = "x" in access, privileged

    def sends(system: System) -> None:
        for number, page in enumerate(pages, 1):
            system.page_request(PageRequest(slot, page * PAGE, *allowed, group, number == len(pages), *more))

    within(iommu, sends)


def told(iommu: Iommu) -> dict[tuple[Slot, int], PageResponse | None]:
    """What devices were answered for the groups that they have ended; None for those that wait."""
    groups = within(iommu, lambda system: system.groups.all())
    return {(each.slot, each.group): each.answer for each in groups if each.ended}

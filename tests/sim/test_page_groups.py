# SPDX-License-Identifier: Apache-2.0
"""What devices remember of their page requests, and the way of a request through the simulated machine and back."""

from pathlib import Path
from typing import Any

import pytest

from iommuctl.architecture import PageRequest
from iommuctl.errors import InUse
from iommuctl.iommu import Iommu
from iommuctl.model import Rid, Slot
from iommuctl_sim.page_groups import PageGroup, PageGroups
from iommuctl_sim.system import System
from tests.machine import DictRows

A, B = Rid(0, 0, 1, 0), Rid(0, 0x80, 0x1F, 7)
ASKS = PageRequest(Slot(A, 5), 0x5000, read=True, write=False, group=0x1FF, last=False)
ENDS = ASKS._replace(last=True)
STOPS = ENDS._replace(read=False)


def groups_of(*requests: PageRequest) -> tuple[PageGroups, list[str]]:
    warnings: list[str] = []
    groups = PageGroups(DictRows(), warnings.append)
    for request in requests:
        groups.sent(request)
    return groups, warnings


def test_a_group_is_begun_waits_and_is_answered() -> None:
    groups, warnings = groups_of(ASKS)
    assert groups.all() == [PageGroup(Slot(A, 5), 0x1FF, False, None)]
    groups.sent(ENDS)
    assert groups.all() == [PageGroup(Slot(A, 5), 0x1FF, True, None)]
    groups.respond(0x8, 5, 0x1FF, "success")
    assert groups.all() == [PageGroup(Slot(A, 5), 0x1FF, True, "success")]
    assert warnings == []
    # Then the index is free.
    groups.sent(ASKS)
    assert groups.all() == [PageGroup(Slot(A, 5), 0x1FF, False, None)]


@pytest.mark.parametrize("again", [ASKS, ENDS])
def test_an_index_is_in_use_until_its_group_is_answered(again: PageRequest) -> None:
    groups, _ = groups_of(ENDS)
    with pytest.raises(InUse, match="group 511"):
        groups.sent(again)
    groups.sent(again._replace(group=0))
    groups.sent(again._replace(slot=Slot(A, 6)))
    groups.respond(0x8, 5, 0x1FF, "invalid")
    groups.sent(again)


def test_stop_markers_wait_for_nothing() -> None:
    groups, _ = groups_of(STOPS)
    assert groups.all() == []
    # Without PASID there are none.
    groups.sent(STOPS._replace(slot=Slot(A)))
    assert groups.all() == [PageGroup(Slot(A), 0x1FF, True, None)]


@pytest.mark.parametrize(
    ("source", "pasid", "group"),
    [(0x8, 5, 1), (0x8, 6, 0x1FF), (0x80FF, 5, 0x1FF), (0x9, 5, 0x1FF), (0x80FF, None, 0x1FF), (0x8, 7, 2)],
)
def test_answers_that_nobody_waits_for(source: int, pasid: int | None, group: int) -> None:
    """They change nothing, and are warned of."""
    groups, warnings = groups_of(ENDS, ASKS._replace(slot=Slot(A, 7), group=2))
    before = groups.all()
    groups.respond(source, pasid, group, "success")
    assert groups.all() == before
    assert warnings == [
        f"{Slot(Rid.of(source), pasid)} was answered success for page request group {group}, "
        "and waits for no such group"
    ]


def test_a_second_answer_is_one_that_nobody_waits_for() -> None:
    groups, warnings = groups_of(ENDS)
    groups.respond(0x8, 5, 0x1FF, "success")
    groups.respond(0x8, 5, 0x1FF, "failure")
    assert groups.all() == [PageGroup(Slot(A, 5), 0x1FF, True, "success")]
    assert len(warnings) == 1


def test_an_answer_without_pasid_is_for_every_group_of_that_index() -> None:
    others = [ENDS._replace(slot=slot) for slot in (Slot(A), Slot(A, 0xFFFFF), Slot(B, 5))]
    groups, warnings = groups_of(*others, ENDS._replace(group=1))
    groups.respond(0x8, None, 0x1FF, "failure")
    assert [(group.slot, group.answer) for group in groups.all()] == [
        (Slot(A), "failure"), (Slot(A, 5), None), (Slot(A, 0xFFFFF), "failure"), (Slot(B, 5), None)
    ]  # fmt: skip
    assert warnings == []


def test_a_device_that_is_gone() -> None:
    groups, _ = groups_of(ENDS, ENDS._replace(slot=Slot(A)), ENDS._replace(slot=Slot(B)))
    groups.drop_device(A)
    assert groups.all() == [PageGroup(Slot(B), 0x1FF, True, None)]


# The machine


def of_system(iommu: Iommu, act: Any) -> Any:
    with iommu._change() as operation:
        return act(System(operation.transaction))


@pytest.mark.parametrize("architecture", ["vtd", "smmuv3"])
def test_a_request_is_queued_in_ram_taken_and_answered(tmp_path: Path, architecture: str) -> None:
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.setup(architecture=architecture)
        iommu.device_add(A, ats=True, pri=True, pasid_bits=8)
        assert iommu.capabilities().page_responses == ("success", "invalid", "failure")
        of_system(iommu, lambda system: system.page_request(ASKS))
        of_system(iommu, lambda system: system.page_request(ENDS))
        with pytest.raises(InUse):
            of_system(iommu, lambda system: system.page_request(ENDS))
        assert of_system(iommu, lambda system: system.driver.take_page_requests()) == ([ASKS, ENDS], False)
        assert of_system(iommu, lambda system: system.groups.all()) == [PageGroup(Slot(A, 5), 0x1FF, True, None)]
        of_system(iommu, lambda system: system.driver.respond(Slot(A, 5), 0x1FF, "invalid"))
        (group,) = of_system(iommu, lambda system: system.groups.all())
        assert group.answer == "invalid"
        assert iommu.check() == []
        iommu.device_remove(A)
        assert of_system(iommu, lambda system: system.groups.all()) == []


@pytest.mark.parametrize(("architecture", "room"), [("vtd", 127), ("smmuv3", 256)])
def test_nothing_is_lost_without_a_word(tmp_path: Path, architecture: str, room: int) -> None:
    """Each group of one request, one more than there is room for: the unit answers that one, and the flag tells."""
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.setup(architecture=architecture)
        iommu.device_add(A, ats=True, pri=True, pasid_bits=8)

        def overflow(system: System) -> Any:
            for index in range(room + 1):
                system.page_request(ENDS._replace(group=index))
            answered = [(group.group, group.answer) for group in system.groups.all() if group.answer]
            driver: Any = system.driver
            return answered, driver.take_page_requests()

        answered, (taken, overflowed) = of_system(iommu, overflow)
        assert answered == [(room, "success")]
        assert ([request.group for request in taken], overflowed) == ([*range(room)], True)

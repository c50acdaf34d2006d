# SPDX-License-Identifier: Apache-2.0
"""Device TLBs against a plain model, and devices that ask again."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.model import Device, Rid, Slot, Step
from iommuctl_sim import devices
from iommuctl_sim.device_tlb import DeviceTlbs, Question, Told
from tests.machine import DictRows

A, B, PLAIN = Rid(0, 0, 1, 0), Rid(0, 0x80, 0x1F, 7), Rid(0, 0, 2, 0)
PAGE = 0x1000
ALL = (0, (1 << 64) - 1)
STEP = Step("vtd.pasid-entry", 0x5000, (9, 1, 0, 0, 0, 0, 0, 0), {"P": 1}, 0)


def tlbs_of(ask: Told | None = None) -> tuple[DeviceTlbs, list[Question]]:
    rows, asked = DictRows(), []
    for rid, ats in ((A, True), (B, True), (PLAIN, False)):
        devices.add(rows, Device(rid, ats=ats))

    def ask_again(question: Question) -> Told | None:
        asked.append(question)
        return ask

    return DeviceTlbs(rows, ask_again), asked


class Entry(NamedTuple):
    rid: Rid
    pasid: int | None
    page: int
    privileged: bool

    def question(self) -> Question:
        return Question(Slot(self.rid, self.pasid), self.page * PAGE, "r", self.privileged)


ENTRIES = st.builds(
    Entry, st.sampled_from([A, B]), st.sampled_from([None, 1, 0xFFFFF]), st.integers(0, 9), st.booleans()
)
RANGES = st.tuples(st.integers(0, 9), st.integers(0, 3))


@settings(deadline=None)
@given(st.lists(ENTRIES), st.lists(st.tuples(ENTRIES, RANGES, st.booleans()), max_size=3))
def test_the_model(fills: list[Entry], drops: list[tuple[Entry, tuple[int, int], bool]]) -> None:
    tlbs, _ = tlbs_of()
    held = set(fills)
    for entry in fills:
        tlbs.fill(entry.question(), Told(entry.page * PAGE + (1 << 30), "r", (1, 2, 3), (STEP,)))
    for (rid, pasid, _, _), (first, more), every in drops:
        span = (first * PAGE, (first + more) * PAGE + PAGE - 1)
        pages = range(first, first + more + 1)
        if every:
            assert tlbs.invalidate_pasids(rid.source_id, *span) == "done"
            held = {e for e in held if e.rid != rid or e.pasid is None or e.page not in pages}
        else:
            assert tlbs.invalidate(rid.source_id, pasid, *span) == "done"
            held = {e for e in held if (e.rid, e.pasid) != (rid, pasid) or e.page not in pages}
    assert tlbs.size() == len(held)
    for entry in fills:
        found = tlbs.find(entry.question())
        assert found == (Told(entry.page * PAGE + (1 << 30), "r", (1, 2, 3), (STEP,)) if entry in held else None)


def test_only_what_it_was_told_it_may() -> None:
    tlbs, _ = tlbs_of()
    question = Question(Slot(A), 5 * PAGE + 0x123, "r", False)
    tlbs.fill(question, Told(0x7000, "r", (), ()))
    assert tlbs.find(question)
    assert tlbs.find(question._replace(access="w")) is None
    tlbs.fill(question._replace(access="w"), Told(0x7000, "rw", (), ()))
    assert tlbs.find(question)
    assert tlbs.size() == 1


@pytest.mark.parametrize("rid", [PLAIN, Rid(0, 0, 3, 0)])
def test_who_has_no_tlb_does_not_answer(rid: Rid) -> None:
    tlbs, _ = tlbs_of()
    assert tlbs.invalidate(rid.source_id, None, *ALL) == "timeout"
    assert tlbs.invalidate_pasids(rid.source_id, *ALL) == "timeout"


def test_a_device_asks_again_for_what_it_has_forgotten() -> None:
    wrong = Told(0x9000, "rw", (1,), (STEP,))
    tlbs, asked = tlbs_of(wrong)
    question = Question(Slot(A, 4), 5 * PAGE, "w", True)
    tlbs.fill(question, Told(0x7000, "rw", (), ()))
    tlbs.fill(question._replace(iova=9 * PAGE), Told(0x8000, "r", (), ()))
    tlbs.invalidate(A.source_id, 4, 5 * PAGE, 6 * PAGE - 1)
    assert asked == [question]
    assert tlbs.find(question) == wrong


def test_a_device_that_goes_takes_its_tlb_along() -> None:
    tlbs, asked = tlbs_of()
    for rid in (A, B):
        tlbs.fill(Question(Slot(rid), 0, "r", False), Told(0, "r", (), ()))
    tlbs.drop_device(A)
    assert (tlbs.size(), asked) == (1, [])

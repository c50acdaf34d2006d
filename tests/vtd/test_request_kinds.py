# SPDX-License-Identifier: Apache-2.0
"""Reasons to refuse page requests and updates of accessed and dirty bits; and that no reason is left untested."""

from typing import NamedTuple

import pytest

from iommuctl.architecture import PageRequest
from iommuctl.model import Slot
from iommuctl_vtd.fault_record import REASONS
from iommuctl_vtd.legacy_walk import LegacyWalk
from iommuctl_vtd.scalable_walk import ScalableWalk
from iommuctl_vtd.unit import LATCHED_ROOT
from iommuctl_vtd.walk import Refused, Request
from tests.vtd.fault_cases import CASES, UPDATES, machine_of
from tests.vtd.handmade import (
    BY_RID,
    CONTEXT,
    DIRECTORY_0,
    DIRECTORY_1,
    ENTRY_FIRST,
    ENTRY_NESTED,
    ENTRY_SECOND,
    NOWHERE,
    RID,
    ROOT,
    RTADDR,
    SECOND,
    handmade,
)
from tests.vtd.machine import Machine
from tests.vtd.test_legacy_walk import CASES as LEGACY_CASES

FPD = 2
EVERYWHERE = {(): 0, (CONTEXT,): FPD, (DIRECTORY_0, DIRECTORY_1): FPD, (ENTRY_FIRST, ENTRY_NESTED, ENTRY_SECOND): FPD}
LEGACY = RTADDR & ~0x400


# Page requests, which end at the context entry


class PageCase(NamedTuple):
    """A page request that is refused: the reason, who asks, and which words differ."""

    code: int
    slot: Slot
    changes: dict[int, int]
    rtaddr: int = RTADDR


PAGE_CASES = {
    "legacy mode": PageCase(0x32, BY_RID, {}, LEGACY),
    "no context entry": PageCase(0x41, BY_RID, {CONTEXT: 0x3018}),
    "reserved": PageCase(0x42, BY_RID, {CONTEXT: 0x3039}),
    "PRE": PageCase(0x47, SECOND, {}),
    "PRE, without PASID": PageCase(0x47, BY_RID, {}),
    "PRE, where translation requests are allowed": PageCase(0x47, SECOND, {CONTEXT: 0x300D}),
    "PRE, then PASID not allowed": PageCase(0x47, SECOND, {CONTEXT: 0x3001}),
    "PASID not allowed": PageCase(0x45, SECOND, {CONTEXT: 0x3011}),
    "PASID beyond PDTS 0": PageCase(0x46, Slot(RID, 8192), {CONTEXT: 0x3019}),
    "no context table": PageCase(0x40, SECOND, {ROOT: NOWHERE | 1}),
}


def page_request(machine: Machine, slot: Slot, iova: int = 0x5123, *, write: bool = False) -> int:
    """What the unit makes of a page request: 0 where it is queued, or the reason that a walk gives."""
    tail = machine.unit.read_register("PQT")
    machine.unit.page_request(PageRequest(slot, iova, not write, write, 0, last=False))
    if machine.unit.read_register("PQT") != tail:
        return 0
    request = Request(slot, iova, write, False, "page")
    root = machine.rows.get("vtd", LATCHED_ROOT)
    mode = ScalableWalk if root & 0x400 else LegacyWalk
    with pytest.raises(Refused) as refused:
        mode(machine.memory, machine.unit.capability, root, request, None).admit()
    return refused.value.code


@pytest.mark.parametrize("name", PAGE_CASES)
@pytest.mark.parametrize("fpd", [0, FPD])
def test_page_requests(name: str, fpd: int) -> None:
    code, slot, changes, rtaddr = PAGE_CASES[name]
    machine = handmade(changes | {CONTEXT: changes.get(CONTEXT, 0x3009) | fpd}, rtaddr=rtaddr)
    # The second one finds the context entry in its cache.
    for _ in range(2):
        assert page_request(machine, slot) == code
    silent = fpd and REASONS[code].qualified
    assert [record >> 96 & 0xFF for record in machine.records()] == ([] if silent else [code, code])


@pytest.mark.parametrize("slot", [BY_RID, SECOND])
def test_page_requests_that_are_let_in(slot: Slot) -> None:
    """Whatever comes after the context entry."""
    machine = handmade({CONTEXT: 0x3019, DIRECTORY_0: 0, DIRECTORY_1: 0})
    assert page_request(machine, slot) == 0
    assert machine.records() == []


@pytest.mark.parametrize("write", [False, True])
def test_the_record_of_a_page_request(write: bool) -> None:
    machine = handmade()
    page_request(machine, SECOND, write=write)
    (record,) = machine.records()
    high, low = record >> 64, record & (1 << 64) - 1
    assert low == 0x5000
    # F, T1 = 0, PASID, reason, PP, T2 = 1, source id; the address type is not known.
    assert high & ~(3 << 60) == 1 << 63 | 0x44 << 40 | 0x47 << 32 | 1 << 31 | 1 << 28 | 0x301


# Accessed and dirty bits that cannot be written


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("where", EVERYWHERE, ids=["nowhere", "context", "directory", "entry"])
def test_updates_that_fail(name: str, where: tuple[int, ...]) -> None:
    case = UPDATES[name]
    machine = machine_of(case, dict.fromkeys(where, FPD))
    answer, hit, _ = case.ask.sent_to(machine)
    assert answer.fault
    assert (answer.fault.code, answer.pa, hit) == (case.code, None, False)
    assert [record >> 96 & 0xFF for record in machine.records()] == ([] if where else [case.code])
    # Nothing is remembered of a translation that there was not.
    assert machine.unit.caches()["iotlb"] == machine.unit.caches()["paging"] == 0
    machine.memory.read_only = (0, 0)
    assert case.ask.sent_to(machine)[0].pa


@pytest.mark.parametrize("name", UPDATES)
def test_bits_that_are_set_need_no_writing(name: str) -> None:
    case = UPDATES[name]
    machine = machine_of(case._replace(read_only=(0, 0)))
    assert case.ask.sent_to(machine)[0].pa
    machine.memory.read_only = (0, 1 << 20)
    written = len(machine.memory.writes)
    assert case.ask.sent_to(machine)[0].pa
    assert len(machine.memory.writes) == written


def test_a_hit_that_needs_a_dirty_bit_can_fail() -> None:
    case = UPDATES["second stage, D"]
    machine = machine_of(case)
    assert case.ask._replace(access="r").sent_to(machine)[0].pa
    answer, hit, _ = case.ask.sent_to(machine)
    assert answer.fault
    assert (answer.fault.code, hit) == (0x7D, False)
    assert case.ask._replace(access="r").sent_to(machine)[1], "reads are served as before"


# All reasons

NOT_PROVOKED = {
    0x48,  # public sources disagree whether a RID_PASID that is out of range is this or 43: docs/decisions.md
    0x5C,  # execute requests, which revision 4 dropped
    0x82,  # execute requests
}


def test_every_reason_has_a_case() -> None:
    tables = (CASES.values(), LEGACY_CASES, UPDATES.values(), PAGE_CASES.values())
    provoked = {case.code for table in tables for case in table}
    assert provoked.isdisjoint(NOT_PROVOKED)
    assert provoked | NOT_PROVOKED == set(REASONS)

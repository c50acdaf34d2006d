# SPDX-License-Identifier: Apache-2.0
"""Walks of legacy mode over words that were made by hand: VT-d 4.1 sections 9.1, 9.3 and 7.1.3."""

import pytest

from iommuctl.model import Rid, Slot
from tests.vtd.fault_cases import CAP, CAP_BITS, ECAP, ECAP_BITS
from tests.vtd.handmade import BASE, NOWHERE, SS1, SS2, SS3, SS4
from tests.vtd.handmade import PAGE_RO as RO
from tests.vtd.handmade import PAGE_RW as RW
from tests.vtd.handmade import PAGE_WO as WO
from tests.vtd.handmade import WORDS as SCALABLE_WORDS
from tests.vtd.machine import Machine, SparseMemory

RID = Rid(0, 3, 0x10, 1)  # devfn 81: legacy mode has one context table for a bus
ROOT, CONTEXT = 0x1030, 0x2810
INTERRUPTS = BASE + 0x7000
SECOND_STAGE = (SS4, SS3, SS2, SS1 + 8 * 4, SS1 + 8 * 5, SS1 + 8 * 6, SS2 + 8)
"""The entries of the hand-made second stage that legacy mode shares with scalable mode."""
WORDS = {
    ROOT: 0x2001,
    # P, TT 0, table at 0x10000; AW 2, DID 0x42.
    CONTEXT: 0x10001,
    CONTEXT + 8: 0x4202,
    **{address: SCALABLE_WORDS[address] for address in SECOND_STAGE},
    SS1 + 8 * 7: 0xFEE00003,
}


def machine(changes: dict[int, int] | None = None, **options: int) -> Machine:
    memory = SparseMemory((0, 0x10_0000))
    memory.put(WORDS | (changes or {}))
    made = Machine(memory, **options)
    made.switch_on(0x1000)
    return made


def code(made: Machine, iova: int, access: str = "r", pasid: int | None = None) -> int | None:
    answer = made.unit.walk(Slot(RID, pasid), iova, "w" if access == "w" else "r", privileged=False)
    return answer.fault.code if answer.fault else None


def test_a_page_and_the_entries_on_the_way() -> None:
    answer = machine().unit.walk(Slot(RID), RW + 0xABC, "w", privileged=False)
    assert (answer.pa, answer.page_size, answer.prot) == (0x99ABC, 4096, "rw")
    assert [(step.structure, step.address) for step in answer.steps] == [
        ("vtd.root-entry", ROOT),
        ("vtd.context-entry", CONTEXT),
        *(("vtd.second-stage-entry", address) for address in (SS4, SS3, SS2, SS1 + 8 * 4)),
    ]


def test_larger_pages_and_pass_through() -> None:
    assert machine().unit.walk(Slot(RID), BASE + 0x21_2345, "r", privileged=False).pa == 0x212345
    through = machine({CONTEXT: 0x9, CONTEXT + 8: 0x103})
    assert through.unit.walk(Slot(RID), 0x1234_5678, "w", privileged=False).pa == 0x1234_5678
    # Pass-through ignores the pointer, so its upper bits may hold anything.
    ignored = machine({CONTEXT: 1 << 48 | 0x9, CONTEXT + 8: 0x103})
    assert code(ignored, 0x1000) is None


@pytest.mark.parametrize(
    ("expected", "iova", "access", "changes"),
    [
        (0x01, RW, "r", {ROOT: 0}),
        (0x0A, RW, "r", {ROOT: 0x2003}),
        (0x0A, RW, "r", {ROOT + 8: 1}),
        (0x0A, RW, "r", {ROOT: 1 << 48 | 0x2001}),
        (0x02, RW, "r", {CONTEXT: 0}),
        (0x09, RW, "r", {ROOT: NOWHERE | 1}),
        (0x0B, RW, "r", {CONTEXT: 0x10011}),
        (0x0B, RW, "r", {CONTEXT + 8: 0x4282}),
        (0x0B, RW, "r", {CONTEXT + 8: 1 << 24 | 0x4202}),
        (0x0B, RW, "r", {CONTEXT: 1 << 48 | 0x10001}),
        (0x03, RW, "r", {CONTEXT: 0x1000D}),
        (0x03, RW, "r", {CONTEXT + 8: 0x4204}),
        (0x03, RW, "r", {CONTEXT: 0x9, CONTEXT + 8: 0x4202}),
        (0x03, RW, "r", {CONTEXT: NOWHERE | 1}),
        (0x07, RW, "r", {SS4: NOWHERE | 3}),
        (0x04, 1 << 48, "r", {}),
        (0x04, 1 << 48, "r", {CONTEXT: 0x9, CONTEXT + 8: 0x103}),
        (0x05, RO, "w", {}),
        (0x06, WO, "r", {}),
        (0x06, BASE, "r", {}),
        (0x05, BASE, "w", {}),
        (0x06, RW, "r", {SS3: 0x12002}),
        (0x0C, RW, "r", {SS4: 0x11083}),
        (0x0C, RW, "r", {SS1 + 8 * 4: 1 << 62 | 0x99003}),
        (0x0E, INTERRUPTS, "r", {}),
    ],
)
def test_reasons(expected: int, iova: int, access: str, changes: dict[int, int]) -> None:
    assert code(machine(changes), iova, access) == expected


def test_a_root_table_outside_memory() -> None:
    made = machine()
    made.switch_on(NOWHERE)
    assert code(made, RW) == 0x08


def test_no_request_has_a_pasid() -> None:
    assert code(machine(), RW, pasid=1) == 0x31


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({CONTEXT: 0x10005}, {"ecap": ECAP & ~(1 << ECAP_BITS["DT"])}),
        ({CONTEXT: 0x9, CONTEXT + 8: 0x103}, {"ecap": ECAP & ~(1 << ECAP_BITS["PT"])}),
        ({}, {"cap": CAP & ~(1 << CAP_BITS["48"])}),
    ],
)
def test_what_the_unit_cannot_do_is_invalid(changes: dict[int, int], options: dict[str, int]) -> None:
    assert code(machine(changes, **options), RW) == 0x03


def test_fpd_keeps_qualified_faults_out_of_the_records() -> None:
    for first, changes, recorded in ((0x05, {CONTEXT: 0x10003}, 0), (0x05, {}, 1), (0x0A, {ROOT: 0x2003}, 1)):
        made = machine(changes)
        answer, _, _ = made.request(Slot(RID), RO, "w", privileged=False)
        assert answer.fault
        assert (answer.fault.code, len(made.records())) == (first, recorded)


def test_the_iotlb_serves_by_domain_id() -> None:
    made = machine()
    for expected_hit in (False, True):
        answer, hit, stale = made.request(Slot(RID), RW, "r", privileged=False)
        assert (answer.pa, hit, stale) == (0x99000, expected_hit, False)


def test_an_invalid_table_mode_refuses_everything() -> None:
    made = machine()
    made.switch_on(0x1800)
    assert code(made, RW) == 0x30

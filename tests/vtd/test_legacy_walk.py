# SPDX-License-Identifier: Apache-2.0
"""Walks of legacy mode over words that were made by hand: VT-d 4.1 sections 9.1, 9.3 and 7.1.3."""

import pytest

from iommuctl.model import Rid, Slot
from tests.machine import SparseMemory
from tests.vtd.fault_cases import CAP, CAP_BITS, ECAP, ECAP_BITS, Case
from tests.vtd.handmade import BASE, NOWHERE, SS1, SS2, SS3, SS4, Ask
from tests.vtd.handmade import PAGE_RO as RO
from tests.vtd.handmade import PAGE_RW as RW
from tests.vtd.handmade import PAGE_WO as WO
from tests.vtd.handmade import WORDS as SCALABLE_WORDS
from tests.vtd.machine import Machine

RID = Rid(0, 3, 0x10, 1)  # devfn 81: legacy mode has one context table for a bus
TABLE, ROOT, CONTEXT = 0x1000, 0x1030, 0x2810
QUALIFIED = {*range(0x02, 0x08), 0x0B, 0x0C, 0x0D, 0x0E}
ATS = {CONTEXT: 0x10005}
"""TT 1."""
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
    made.switch_on(TABLE)
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


def case(code: int, ask: Ask, changes: dict[int, int], rtaddr: int = TABLE) -> Case:
    return Case(code, ask, changes, rtaddr=rtaddr)


BY_RID = Slot(RID)
READ = Ask(BY_RID, RW)
TRANSLATION, TRANSLATED = READ._replace(kind="translation"), READ._replace(kind="translated")
THROUGH = {CONTEXT: 0x9, CONTEXT + 8: 0x103}
CASES = [
    case(0x01, READ, {ROOT: 0}),
    case(0x0A, READ, {ROOT: 0x2003}),
    case(0x0A, READ, {ROOT + 8: 1}),
    case(0x0A, READ, {ROOT: 1 << 48 | 0x2001}),
    case(0x02, READ, {CONTEXT: 0}),
    case(0x09, READ, {ROOT: NOWHERE | 1}),
    case(0x0B, READ, {CONTEXT: 0x10011}),
    case(0x0B, READ, {CONTEXT + 8: 0x4282}),
    case(0x0B, READ, {CONTEXT + 8: 1 << 24 | 0x4202}),
    case(0x0B, READ, {CONTEXT: 1 << 48 | 0x10001}),
    case(0x03, READ, {CONTEXT: 0x1000D}),
    case(0x03, READ, {CONTEXT + 8: 0x4204}),
    case(0x03, READ, {CONTEXT: 0x9, CONTEXT + 8: 0x4202}),
    case(0x03, READ, {CONTEXT: NOWHERE | 1}),
    case(0x07, READ, {SS4: NOWHERE | 3}),
    case(0x04, Ask(BY_RID, 1 << 48), {}),
    case(0x04, Ask(BY_RID, 1 << 48), {CONTEXT: 0x9, CONTEXT + 8: 0x103}),
    case(0x05, Ask(BY_RID, RO, "w"), {}),
    case(0x06, Ask(BY_RID, WO), {}),
    case(0x06, Ask(BY_RID, BASE), {}),
    case(0x05, Ask(BY_RID, BASE, "w"), {}),
    case(0x06, READ, {SS3: 0x12002}),
    case(0x0C, READ, {SS4: 0x11083}),
    case(0x0C, READ, {SS1 + 8 * 4: 1 << 62 | 0x99003}),
    case(0x0E, Ask(BY_RID, INTERRUPTS), {}),
    case(0x08, READ, {}, NOWHERE),
    case(0x30, READ, {}, 0x1800),
    case(0x30, READ, {}, 1 << 48 | TABLE),
    case(0x30, READ, {}, TABLE | 1 << 9),
    case(0x31, Ask(Slot(RID, 1), RW), {}),
    case(0x31, Ask(Slot(RID, 0), RW, kind="translation"), {}),
    case(0x31, Ask(Slot(RID, 1), RW, kind="translated"), {}),
    # TT 1 alone is for translation and translated requests; whether TT 2 is, public sources only remember.
    case(0x0D, TRANSLATION, {}),
    case(0x0D, TRANSLATED, {}),
    case(0x0D, TRANSLATION, THROUGH),
    case(0x0D, TRANSLATED, THROUGH),
    case(0x03, TRANSLATION, {CONTEXT: 0x1000D}),
    case(0x0E, Ask(BY_RID, INTERRUPTS, kind="translation"), ATS),
    case(0x04, Ask(BY_RID, 1 << 48, kind="translation"), ATS),
]


def made_of(fault: Case, more: dict[int, int] | None = None) -> Machine:
    made = machine(fault.changes | (more or {}))
    made.switch_on(fault.rtaddr)
    return made


@pytest.mark.parametrize("fault", CASES, ids=lambda fault: f"{fault.code:02x}")
def test_reasons(fault: Case) -> None:
    answer = fault.ask.of(made_of(fault)).fault
    assert answer
    assert answer.code == fault.code


@pytest.mark.parametrize("fault", CASES, ids=lambda fault: f"{fault.code:02x}")
@pytest.mark.parametrize("fpd", [0, 2])
def test_fpd_keeps_qualified_faults_out_of_the_records(fault: Case, fpd: int) -> None:
    made = made_of(fault, {CONTEXT: fault.changes.get(CONTEXT, WORDS[CONTEXT]) | fpd})
    answer, hit, stale = fault.ask.sent_to(made)
    assert answer.fault
    assert (answer.fault.code, hit, stale) == (fault.code, False, False)
    silent = fpd and fault.code in QUALIFIED
    assert [record >> 96 & 0xFF for record in made.records()] == ([] if silent else [fault.code])
    assert made.unit.caches()["iotlb"] == made.unit.caches()["paging"] == 0


@pytest.mark.parametrize("ask", [READ, TRANSLATION, TRANSLATED])
def test_ats_is_allowed_by_translation_type_1(ask: Ask) -> None:
    assert ask.sent_to(machine(ATS))[0].fault is None


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


def test_the_iotlb_serves_by_domain_id() -> None:
    made = machine()
    for expected_hit in (False, True):
        answer, hit, stale = made.request(Slot(RID), RW, "r", privileged=False)
        assert (answer.pa, hit, stale) == (0x99000, expected_hit, False)

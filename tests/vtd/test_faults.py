# SPDX-License-Identifier: Apache-2.0
"""Every reason to refuse a request, by one small change to good tables: VT-d 4.1 section 7.1.3."""

import pytest

from iommuctl.model import Fault
from tests.vtd.fault_cases import ALL, CAP, CASES, FS_READ, N_READ, ORDER, READ, Case, changed, fault_of, machine_of
from tests.vtd.handmade import (
    CONTEXT,
    DIRECTORY_0,
    DIRECTORY_1,
    ENTRY_FIRST,
    ENTRY_NESTED,
    ENTRY_SECOND,
    ENTRY_THROUGH,
    FS4,
    NESTED,
    PAGE_RO,
    PAGE_RW,
    RID,
    ROOT,
    SECOND,
    SS1,
    SS4,
    THROUGH,
    WORDS,
    Ask,
    handmade,
)


@pytest.mark.parametrize("name", CASES)
def test_reasons(name: str) -> None:
    assert f"{fault_of(CASES[name]).code:02x}" == f"{CASES[name].code:02x}"


def test_every_reason_of_scalable_mode_has_a_case() -> None:
    """But for those of page requests, execute requests and updates that fail: see test_request_kinds."""
    every = {0x30, 0x38, 0x39, 0x3A, *range(0x40, 0x47), 0x50, 0x51, 0x52, 0x58, 0x59, 0x5A, 0x5B, 0x5D}
    every |= set(range(0x70, 0x7D)) | {0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x90}
    assert {case.code for case in CASES.values()} == every


RESERVED = [
    *((0x42, READ, CONTEXT, bit) for bit in (*range(5, 9), 85, 127, 128, 191, 192, 255)),
    *((0x5A, READ, ENTRY_SECOND, bit) for bit in (5, 10, 11, 80, 86, *range(91, 96), 129, *range(136, 140))),
    *((0x5A, READ, ENTRY_SECOND, 64 * word + bit) for word in range(3, 8) for bit in (0, 63)),
    # Without MTS: CD, EMTE, PAT.
    *((0x5A, FS_READ, ENTRY_FIRST, bit) for bit in (89, 90, 96, 127)),
    *((0x5A, Ask(THROUGH), ENTRY_THROUGH, bit) for bit in (5, 86, 129, 192)),
]


@pytest.mark.parametrize(("code", "ask", "entry", "bit"), RESERVED)
def test_reserved_bits(code: int, ask: Ask, entry: int, bit: int) -> None:
    assert fault_of(Case(code, ask, changed(entry + bit // 64 * 8, bit % 64))).code == code


@pytest.mark.parametrize(
    ("code", "ask", "entry", "bit", "needs"),
    [
        (0x42, READ, CONTEXT, 2, "DT"),
        (0x42, READ, CONTEXT, 4, "PRS"),
        (0x42, READ, CONTEXT + 8, 0, "RPS"),
        (0x5A, READ, ENTRY_SECOND, 9, "SSADS"),
        (0x5A, READ, ENTRY_SECOND + 8, 23, "SMPWCS"),
        (0x5A, READ, ENTRY_SECOND + 8, 24, "SC"),
        (0x5A, FS_READ, ENTRY_FIRST + 16, 0, "SRS"),
        (0x5A, FS_READ, ENTRY_FIRST + 16, 7, "EAFS"),
        (0x5B, READ, ENTRY_SECOND, 0, "SSTS"),
        (0x5B, FS_READ, ENTRY_FIRST, 0, "FSTS"),
        (0x5B, N_READ, ENTRY_NESTED, 0, "NEST"),
        (0x5B, Ask(THROUGH), ENTRY_THROUGH, 0, "PT"),
        (0x5B, READ, ENTRY_SECOND, 0, "48"),
        (0x5B, N_READ, ENTRY_NESTED, 0, "48"),
        (0x5B, FS_READ, ENTRY_FIRST + 16, 2, "FS5LP"),
    ],
)
def test_capabilities(code: int, ask: Ask, entry: int, bit: int, needs: str) -> None:
    """A bit that is fine on a unit that has the capability, which `without` takes away."""
    changes = changed(entry, bit)
    other = {"SMPWCS": {ENTRY_FIRST + 8: 7}}.get(needs, {})
    fault = fault_of(Case(code, ask, changes | other, needs))
    assert fault.code == code
    five_levels = {0x20000: 0x20027} if needs == "FS5LP" else {}
    assert ask.of(handmade(changes | five_levels)).pa


@pytest.mark.parametrize("pgtt", [0, 5, 6, 7])
def test_kinds_of_tables_that_there_are_not(pgtt: int) -> None:
    assert fault_of(Case(0x5B, READ, {ENTRY_SECOND: 0x10009 | pgtt << 6})).code == 0x5B


@pytest.mark.parametrize("aw", [0, 4, 5, 6, 7])
@pytest.mark.parametrize(("ask", "entry"), [(READ, ENTRY_SECOND), (N_READ, ENTRY_NESTED)])
def test_widths_that_there_are_not(aw: int, ask: Ask, entry: int) -> None:
    assert fault_of(Case(0x5B, ask, {entry: WORDS[entry] & ~0x1C | aw << 2})).code == 0x5B


@pytest.mark.parametrize(("ask", "entry"), [(FS_READ, ENTRY_FIRST), (Ask(THROUGH), ENTRY_THROUGH)])
@pytest.mark.parametrize("aw", range(8))
def test_others_ignore_the_width(aw: int, ask: Ask, entry: int) -> None:
    assert ask.of(handmade({entry: WORDS[entry] & ~0x1C | aw << 2})).pa


@pytest.mark.parametrize("name", ORDER)
def test_order_of_checks(name: str) -> None:
    assert f"{fault_of(ORDER[name]).code:02x}" == f"{ORDER[name].code:02x}"


def test_only_the_entry_of_the_request_counts() -> None:
    """Reserved bits in all neighbours."""
    others = {ROOT - 16: ALL, ROOT + 16: ALL, CONTEXT - 8: ALL, CONTEXT + 32: ALL, DIRECTORY_0: ALL}
    others |= {ENTRY_SECOND - 8: ALL, ENTRY_SECOND + 64: ALL, SS4 - 8: ALL, SS1 + 8 * 3: ALL, SS1 + 8 * 5: ALL}
    assert READ.of(handmade(others)).pa == 0x99123


@pytest.mark.parametrize(("haw", "iova", "code"), [(46, 1 << 46, 0x83), (46, (1 << 46) - 1, 0), (52, 1 << 51, 0)])
def test_pass_through_ends_at_the_host_address_width(haw: int, iova: int, code: int) -> None:
    answer = Ask(THROUGH, iova).of(handmade(haw=haw))
    assert (answer.fault.code if answer.fault else 0) == code


def test_the_limit_is_mgaw_where_that_is_less() -> None:
    cap = CAP & ~(0x3F << 16) | 39 << 16
    assert Ask(SECOND, PAGE_RW).of(handmade(cap=cap)).pa
    fault = Ask(SECOND, 1 << 40).of(handmade({SS4 + 8: 0x11003}, cap=cap)).fault
    assert fault
    assert fault.code == 0x84
    tables = Ask(NESTED).of(handmade({FS4: 1 << 40 | 0x27}, cap=cap)).fault
    assert tables
    assert tables.code == 0x74


def test_what_a_fault_says() -> None:
    fault = fault_of(Case(0x85, Ask(SECOND, PAGE_RO + 0x10, "w"), {}))
    assert fault == Fault(0x85, "SGN.6", "The tables do not allow the write.", RID, 0x44, PAGE_RO + 0x10, "w")


FPD = 2
UNQUALIFIED = {0x30, 0x38, 0x39, 0x3A, 0x40, 0x50, 0x58}
ENTRIES = (ENTRY_FIRST, ENTRY_NESTED, ENTRY_THROUGH, ENTRY_SECOND)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("where", "least"),
    [((), 0xFF), ((CONTEXT,), 0x41), ((DIRECTORY_0, DIRECTORY_1), 0x51), (ENTRIES, 0x59)],
    ids=["nowhere", "context", "directory", "entry"],
)
def test_fpd(name: str, where: tuple[int, ...], least: int) -> None:
    """It keeps reasons out of the records that are qualified by it, and changes nothing else."""
    case = CASES[name]
    machine = machine_of(case, dict.fromkeys(where, FPD))
    before = machine.memory.words()
    answer, hit, stale = case.ask.sent_to(machine)
    assert answer.fault
    assert answer.fault.code == case.code
    assert (hit, stale) == (False, False)
    silent = case.code >= least and case.code not in UNQUALIFIED
    assert [record >> 96 & 0xFF for record in machine.records()] == ([] if silent else [case.code])
    # A denied access leaves nothing behind: no bits in the tables, no translation in a cache.
    assert machine.memory.words() == before
    assert machine.memory.writes == []
    assert machine.unit.caches()["iotlb"] == machine.unit.caches()["paging"] == 0


@pytest.mark.parametrize("where", [(), (CONTEXT,), (DIRECTORY_1,), (ENTRY_SECOND,)])
def test_fpd_changes_no_translation(where: tuple[int, ...]) -> None:
    assert READ.of(handmade({address: WORDS[address] | FPD for address in where})).pa == 0x99123

# SPDX-License-Identifier: Apache-2.0
"""Which accessed and dirty bits a request sets, in tables that were made by hand: VT-d 4.1 sections 3.6 and 3.7."""

import pytest

from iommuctl.model import Access
from tests.vtd.handmade import (
    ENTRY_FIRST,
    ENTRY_NESTED,
    ENTRY_SECOND,
    FIRST,
    FS1,
    FS2,
    FS3,
    FS4,
    FS_RO,
    GPA1,
    GPA2,
    GPA3,
    GPA4,
    IN_2M,
    NESTED,
    PAGE_RO,
    PAGE_RW,
    SECOND,
    SS1,
    SS2,
    SS3,
    SS4,
    WORDS,
    Ask,
    handmade,
)
from tests.vtd.machine import Machine

RW4, RO5 = 8 * 4, 8 * 5
A, D, EA = 0x20, 0x40, 0x400
SSA, SSD = 0x100, 0x200
SSADE_SECOND = {ENTRY_SECOND: 0x10289}
SSADE_NESTED = {ENTRY_NESTED: 0x102C9}
# The first stage's tree as a guest would leave it: nothing accessed, nothing dirty.
FRESH = {address: WORDS[address] & ~(A | D) for address in (FS4, FS3, FS2, FS2 + 8, FS1 + RW4, FS1 + RO5, FS1 + 8 * 7)}
TABLES = (FS4, FS3, FS2)


def after(machine: Machine, ask: Ask) -> dict[int, int]:
    """Do the request. The words that differ then, as the bits that were set."""
    before = machine.memory.words()
    answer, _, _ = ask.sent_to(machine)
    now = machine.memory.words()
    assert all(now[address] & word == word for address, word in before.items()), "a bit was cleared"
    changes = {address: word ^ before[address] for address, word in now.items() if word != before[address]}
    if answer.fault:
        changes[-1] = answer.fault.code
    return changes


def fault(code: int) -> dict[int, int]:
    """Nothing was set, and the request was refused."""
    return {-1: code}


@pytest.mark.parametrize(("access", "leaf"), [("r", A), ("w", A | D)])
def test_first_stage(access: Access, leaf: int) -> None:
    assert after(handmade(FRESH), Ask(FIRST, access=access)) == {**dict.fromkeys(TABLES, A), FS1 + RW4: leaf}


@pytest.mark.parametrize(("access", "leaf"), [("r", A), ("w", A | D)])
def test_large_page(access: Access, leaf: int) -> None:
    machine = handmade(FRESH)
    assert after(machine, Ask(FIRST, IN_2M, access)) == {FS4: A, FS3: A, FS2 + 8: leaf}


@pytest.mark.parametrize("entry", [ENTRY_FIRST, ENTRY_NESTED])
def test_extended_accessed(entry: int) -> None:
    machine = handmade({entry + 16: 0x20080})
    ask = Ask(FIRST if entry == ENTRY_FIRST else NESTED)
    assert after(machine, ask) == dict.fromkeys((*TABLES, FS1 + RW4), EA)
    assert after(machine, ask) == {}


def test_without_eafe_there_is_no_extended_accessed() -> None:
    assert after(handmade(), Ask(FIRST, access="w")) == {}


def test_only_the_bits_that_are_missing() -> None:
    changes = {FS1 + RW4: WORDS[FS1 + RW4] & ~D}
    assert after(handmade(changes), Ask(FIRST)) == {}
    assert after(handmade(changes), Ask(FIRST, access="w")) == {FS1 + RW4: D}


def test_no_update_is_needed_where_the_bits_are_set() -> None:
    """Then a walk that is not snooped is fine too."""
    assert after(handmade({ENTRY_FIRST + 8: 7}), Ask(FIRST, access="w")) == {}
    unsnooped = {ENTRY_SECOND: 0x10289, ENTRY_SECOND + 8: 0x42}
    accessed = {address: WORDS[address] | SSA for address in (SS4, SS3, SS2)}
    assert after(handmade(unsnooped | accessed | {SS1 + RW4: 0x99103}), Ask(SECOND)) == {}
    assert after(handmade(unsnooped | accessed | {SS1 + RW4: 0x99103}), Ask(SECOND, access="w")) == fault(0x7C)
    assert after(handmade(unsnooped | accessed | {SS1 + RW4: 0x99303}), Ask(SECOND, access="w")) == {}


@pytest.mark.parametrize(("access", "leaf"), [("r", SSA), ("w", SSA | SSD)])
def test_second_stage(access: Access, leaf: int) -> None:
    machine = handmade(SSADE_SECOND)
    assert after(machine, Ask(SECOND, access=access)) == {SS4: SSA, SS3: SSA, SS2: SSA, SS1 + RW4: leaf}
    assert after(handmade(SSADE_SECOND), Ask(SECOND, IN_2M, access)) == {SS4: SSA, SS3: SSA, SS2 + 8: leaf}


@pytest.mark.parametrize("access", ["r", "w"])
def test_the_second_stage_updates_only_with_ssade(access: Access) -> None:
    assert after(handmade(), Ask(SECOND, access=access)) == {}
    assert after(handmade(), Ask(NESTED, access=access)) == {}


@pytest.mark.parametrize(
    ("ask", "changes", "code"),
    [
        (Ask(FIRST, FS_RO, "w"), FRESH, 0x85),
        (Ask(SECOND, PAGE_RO, "w"), SSADE_SECOND, 0x85),
        (Ask(NESTED, FS_RO, "w"), FRESH | SSADE_NESTED, 0x85),
        (Ask(NESTED, PAGE_RO, "w"), FRESH | SSADE_NESTED, 0x85),
        (Ask(NESTED, PAGE_RW, "w"), FRESH | SSADE_NESTED | {GPA1 + 8 * 0x30: 0}, 0x79),
        (Ask(NESTED, PAGE_RW, "w"), FRESH | SSADE_NESTED | {GPA1 + 8 * 0x23: 0x23001}, 0x77),
        (Ask(FIRST, PAGE_RW, "w"), FRESH | {FS1 + RW4: 0xFEE00007}, 0x87),
        (Ask(FIRST, PAGE_RW, "w"), FRESH | {ENTRY_FIRST + 8: 7}, 0x90),
    ],
)
def test_a_refused_request_is_no_access(ask: Ask, changes: dict[int, int], code: int) -> None:
    """The specification lets accessed bits of upper entries stay set; nothing is simpler to see through."""
    assert after(handmade(changes), ask) == fault(code)


def test_nested_sets_the_first_stages_bits_in_guest_memory() -> None:
    """The guest's tables are elsewhere in physical memory than in guest memory."""
    moved = {0x50000 + address % 0x1000: WORDS[address] & ~(A | D) for address in (FS1 + RW4,)}
    machine = handmade({GPA1 + 8 * 0x23: 0x50003} | moved)
    assert after(machine, Ask(NESTED, access="w")) == {0x50000 + RW4: A | D}


def test_nested_with_both_stages_accessed() -> None:
    machine = handmade(FRESH | SSADE_NESTED)
    changes = after(machine, Ask(NESTED, access="w"))
    first = {**dict.fromkeys(TABLES, A), FS1 + RW4: A | D}
    second = dict.fromkeys((GPA4, GPA3, GPA2), SSA) | {GPA1 + 8 * 0x30: SSA | SSD}
    # Whether a page of first-stage tables becomes dirty by their accessed bits, public sources do not tell.
    tables = {address: changes.pop(address) & ~SSD for address in (GPA1 + 8 * page for page in range(0x20, 0x24))}
    assert tables == dict.fromkeys(tables, SSA)
    assert changes == first | second


def test_a_nested_read_leaves_pages_clean() -> None:
    changes = after(handmade(SSADE_NESTED), Ask(NESTED))
    assert set(changes.values()) == {SSA}
    assert GPA1 + 8 * 0x30 in changes


@pytest.mark.parametrize("ask", [Ask(FIRST), Ask(NESTED), Ask(SECOND)])
def test_a_walk_without_effect(ask: Ask) -> None:
    machine = handmade(FRESH | SSADE_SECOND | SSADE_NESTED)
    before, registers = machine.memory.words(), machine.unit.registers()
    assert ask._replace(access="w").of(machine).pa
    assert ask._replace(iova=1 << 50).of(machine).fault
    assert (machine.memory.words(), machine.unit.registers(), sum(machine.unit.caches().values())) == (
        before, registers, 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ask", "changes", "leaf", "bit"),
    [
        (Ask(FIRST), FRESH, FS1 + RW4, D),
        (Ask(SECOND), SSADE_SECOND, SS1 + RW4, SSD),
        (Ask(NESTED), FRESH, FS1 + RW4, D),
        (Ask(NESTED), SSADE_NESTED, GPA1 + 8 * 0x30, SSD),
    ],
)
def test_a_write_after_a_read_makes_dirty_what_the_cache_has(
    ask: Ask, changes: dict[int, int], leaf: int, bit: int
) -> None:
    machine = handmade(changes)
    assert bit not in after(machine, ask).values()
    assert after(machine, ask._replace(access="w")) == {leaf: bit}
    assert after(machine, ask._replace(access="w")) == {}
    assert machine.request(ask.slot, ask.iova, "w", privileged=False)[1], "the cache answers now"

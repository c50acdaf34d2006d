# SPDX-License-Identifier: Apache-2.0
"""What all caches together answer: no more than a walk would, and where the unit may still look."""

import pytest

from iommuctl.model import Rid, Slot
from tests.vtd.handmade import (
    BY_RID,
    ENTRY_FIRST,
    FIRST,
    FS2,
    FS4,
    GPA2,
    GPA4,
    IN_2M,
    NESTED,
    NOWHERE,
    PAGE_RW,
    SECOND,
    SS2,
    SS4,
    THROUGH,
    handmade,
)
from tests.vtd.machine import Machine
from tests.vtd.test_queue import WIDE, Words, run, with_queue

LEGACY = 0x1000
LEGACY_WORDS = {0x2010: 0x10001, 0x2018: 0x4202}
OTHER = Slot(Rid(0, 3, 0, 2))


def tables(machine: Machine) -> set[int]:
    return {*machine.unit.cached_tables()}


def test_no_page_serves_interrupts() -> None:
    """A large page may reach into the interrupt range: only the rest of it is served by the IOTLB."""
    for slot, words, code in (
        (SECOND, {SS2 + 8: 0xFEE00083}, 0x87),
        (FIRST, {FS2 + 8: 0xFEE000E7}, 0x87),
        (NESTED, {GPA2 + 8: 0xFEE00083}, 0x87),
        (BY_RID, {SS2 + 8: 0xFEE00083, **LEGACY_WORDS}, 0x0E),
    ):
        machine = handmade(words, rtaddr=LEGACY if code == 0x0E else 0x1400)
        assert machine.request(slot, IN_2M + 0x100000)[0].pa == 0xFEF00000
        told, _, stale = machine.request(slot, IN_2M + 0xFF123)
        assert told.fault
        assert (told.fault.code, stale) == (code, False)
        assert machine.request(slot, IN_2M + 0x1FF123)[:2] == (machine.request(slot, IN_2M + 0x1FF123)[0], True)


def test_tables_that_cached_entries_point_to() -> None:
    machine = handmade()
    assert tables(machine) == set()
    machine.request(SECOND, PAGE_RW)
    way = {0x2000, 0x3000, 0x4000}
    second = {0x10000, 0x11000, 0x12000, 0x13000}
    assert tables(machine) == way | second
    machine.memory.put(dict.fromkeys((0x1030, 0x2020, 0x3008, 0x4100, SS4, SS2), 0))
    assert tables(machine) == way | second, "they are the caches', whatever memory holds now"
    machine = handmade()
    machine.request(NESTED, PAGE_RW)
    assert tables(machine) == way | {0x10000, 0x14000, 0x15000, 0x16000}, "those of guests are not among them"
    machine = handmade()
    machine.request(THROUGH, PAGE_RW)
    assert tables(machine) == way


def test_tables_of_legacy_mode() -> None:
    words = LEGACY_WORDS | {0x2020: NOWHERE | 9, 0x2028: 0x103}
    machine = handmade(words, rtaddr=LEGACY)
    machine.request(BY_RID, PAGE_RW)
    assert tables(machine) == {0x2000, 0x10000, 0x11000, 0x12000, 0x13000}
    # Pass-through ignores the pointer of its context entry.
    machine = handmade(words, rtaddr=LEGACY)
    assert machine.request(OTHER, 0x5678)[0].pa == 0x5678
    assert tables(machine) == {0x2000}


IH = 0x40


@pytest.mark.parametrize(
    ("descriptor", "page", "others"),
    [
        ((0xD2,), False, False),
        ((0x4200E2,), False, False),
        ((0x700E2,), True, True),
        ((0x4200F2, PAGE_RW), False, False),
        ((0x4200F2, PAGE_RW | IH), False, True),
        ((0x4200F2, PAGE_RW + 0x1000), True, False),
        ((0x4200F2, PAGE_RW + 0x1000 | IH), True, True),
        ((0x4200F2, 0), True, True),
        ((0x700F2, PAGE_RW), True, True),
        ((0x11,), True, True),
        ((0x4200F2, PAGE_RW & -(4096 << 18) | 18), False, False),
    ],
    ids=lambda value: " ".join(f"{word:x}" for word in value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("width", [0, WIDE])
def test_legacy_mode_in_queues_of_both_widths(descriptor: Words, page: bool, others: bool, width: int) -> None:
    """Whether the page, and the tables of all pages around it, are still cached."""
    machine = with_queue(width=width, rtaddr=LEGACY)
    machine.memory.put(LEGACY_WORDS)
    machine.request(BY_RID, PAGE_RW)
    assert run(machine, descriptor) == 0
    assert bool(machine.unit.caches()["paging"]) == others
    assert machine.request(BY_RID, PAGE_RW)[1] == page


def test_both_halves_of_a_root_entry() -> None:
    upper = {0x1038: 0x6001, 0x6020: 0x3009}
    machine = handmade(upper)
    machine.request(Slot(Rid(0, 3, 0x10, 1)), PAGE_RW)
    assert tables(machine) >= {0x2000, 0x6000, 0x3000}


@pytest.mark.parametrize(("esrtps", "left"), [(1 << 63, 0), (0, 1)])
def test_a_new_root_table_empties_all_or_none(esrtps: int, left: int) -> None:
    """CAP.ESRTPS says which."""
    cap = handmade().unit.read_register("CAP") & ~(1 << 63) | esrtps
    machine = handmade({ENTRY_FIRST + 16: 0x20000}, cap=cap)
    for slot in (FIRST, SECOND, NESTED):
        machine.request(slot, PAGE_RW)
    assert all(machine.unit.caches().values())
    machine.switch_on(0x1400)
    assert [bool(size) for size in machine.unit.caches().values()] == [bool(left)] * 4
    assert bool(tables(machine)) == bool(left)
    machine.memory.put({FS4: 0, GPA4: 0, SS4: 0})
    assert bool(machine.request(FIRST, PAGE_RW)[0].pa) == bool(left)

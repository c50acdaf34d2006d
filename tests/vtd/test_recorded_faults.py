# SPDX-License-Identifier: Apache-2.0
"""The fault recording registers as a driver reads them: VT-d 4.1 sections 7.2.1 and 11.4.7.6."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.model import Rid
from iommuctl.recorded import Events
from iommuctl_vtd.fault_record import REASONS
from iommuctl_vtd.recorded_faults import recorded, take_faults
from tests.vtd.fault_cases import CASES, machine_of
from tests.vtd.handmade import SECOND, handmade
from tests.vtd.machine import RECORD_FREE, Machine

PFO = 1
READ = 0xC000_0079_0000_0321_0000_0000_DEAD_B000
"""A read of RID 03:04.1 at page deadb000; the specification's positions, put together by hand."""
WITH_PASID = 0x8123_4571_A000_0321_0000_7F00_0000_1000
"""A privileged write with PASID 12345."""


def fault(machine: Machine, page: int) -> None:
    machine.request(SECOND, page << 12)


def taken(machine: Machine) -> tuple[list[int | None], int]:
    """The pages of the faults, and how many others were lost at least."""
    events = take_faults(machine.unit, "unit0")
    assert events.source == "unit0"
    assert events.exact == (not events.lost)
    assert machine.records() == []
    return [None if fault.iova is None else fault.iova >> 12 for fault in events.faults], events.lost


def test_a_read() -> None:
    reason = REASONS[0x79]
    assert recorded(READ) == (
        0x79, reason.name, reason.sentence, Rid.parse("03:04.1"), None, 0xDEADB000, "r", "vtd.fault-record",
        (0xDEADB000, 0xC000007900000321),
    )  # fmt: skip


def test_a_write_with_pasid() -> None:
    told = recorded(WITH_PASID)
    assert (told.code, told.pasid, told.iova, told.access) == (0x71, 0x12345, 0x7F0000001000, "w")


@pytest.mark.parametrize(
    ("t1", "t2", "exe", "access"),
    [(0, 0, 0, "w"), (1, 0, 0, "r"), (1, 0, 1, "x"), (1, 1, 0, "w"), (0, 1, 0, None), (0, 0, 1, "w")],
)
def test_what_was_requested(t1: int, t2: int, exe: int, access: str | None) -> None:
    record = READ & ~(1 << 126) | t1 << 126 | t2 << 92 | exe << 94
    assert recorded(record).access == access


@pytest.mark.parametrize("code", [0x20, 0x25, 0x00, 0xFF])
def test_a_reason_that_is_not_known_says_nothing_of_the_address(code: int) -> None:
    told = recorded(READ & ~(0xFF << 96) | code << 96)
    assert (told.code, told.name, told.iova) == (code, "unknown", None)
    assert told.raw[0] == 0xDEADB000


@settings(deadline=None)
@given(st.integers(0, 2**128 - 1))
def test_any_record_can_be_told(raw: int) -> None:
    told = recorded(raw)
    assert told.rid.source_id == raw >> 64 & 0xFFFF
    assert told.raw == (raw & 2**64 - 1, raw >> 64)


@pytest.mark.parametrize("name", CASES)
def test_the_record_of_every_reason_says_what_the_walk_does(name: str) -> None:
    case: Any = CASES[name]
    machine = machine_of(case)
    ask = case.ask
    told = machine.request(ask.slot, ask.iova, ask.access, privileged=ask.privileged, kind=ask.kind)[0].fault
    assert told
    (found,) = take_faults(machine.unit, "unit0").faults
    assert found[:5] == (told.code, told.name, told.reason, told.rid, told.pasid)
    assert (found.iova, found.access) == (told.iova & -4096, told.access)


# The registers


def test_no_fault() -> None:
    assert taken(handmade()) == ([], 0)


def test_records_are_taken_once_and_their_registers_are_free() -> None:
    machine = handmade()
    for turn in range(3):
        for page in range(5):
            fault(machine, 8 * turn + page)
        assert taken(machine) == ([8 * turn + page for page in range(5)], 0)
        assert machine.unit.read_register("FSTS") == 0


def test_they_are_read_from_the_oldest_on_and_around() -> None:
    machine = handmade()
    for page in range(6):
        fault(machine, page)
    assert taken(machine) == ([0, 1, 2, 3, 4, 5], 0)
    for page in range(10, 18):
        fault(machine, page)
    assert machine.unit.read_register("FRCD6") & RECORD_FREE
    assert taken(machine) == ([*range(10, 18)], 0)


def test_an_overflow_is_told_once_and_recording_goes_on() -> None:
    machine = handmade()
    for page in range(11):
        fault(machine, page)
    assert taken(machine) == ([*range(8)], 1)
    assert machine.unit.read_register("FSTS") & PFO == 0
    fault(machine, 20)
    assert taken(machine) == ([20], 0)


def test_a_unit_with_one_record() -> None:
    machine = handmade(cap=handmade().unit.read_register("CAP") & ~(0xFF << 40))
    for page in (5, 6):
        fault(machine, page)
    assert taken(machine) == ([5], 1)
    fault(machine, 7)
    assert taken(machine) == ([7], 0)


def test_what_is_told_names_its_source() -> None:
    assert take_faults(handmade().unit, "here") == Events("here", [], 0)

# SPDX-License-Identifier: Apache-2.0
"""The event queue as a driver reads it, and what records say: IHI0070 G.b sections 3.5, 7.2 and 7.3."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.model import Rid
from iommuctl.recorded import Events
from iommuctl_smmuv3 import vevents
from iommuctl_smmuv3.events import EVENTS
from iommuctl_smmuv3.recorded_faults import recorded, take_faults
from tests.smmuv3.fault_cases import CASES, machine_of
from tests.smmuv3.handmade import ABSENT, ONE, TWO, handmade
from tests.smmuv3.machine import Machine
from tests.smmuv3.test_event_queue import queue

SID = Rid.parse("01:01.0")
"""StreamID 108."""


def words(*each: int) -> int:
    return sum(word << 64 * number for number, word in enumerate(each))


def fault(machine: Machine, number: int) -> None:
    machine.goes(ONE, ABSENT + number)


def taken(machine: Machine) -> tuple[list[int], int]:
    """The numbers in the addresses, and how many others were lost at least."""
    events = take_faults(machine.memory, machine.unit, machine.unit.features, "unit0")
    assert events.source == "unit0"
    assert events.exact == (not events.lost)
    return [(fault.iova or 0) - ABSENT for fault in events.faults], events.lost


# What a record says


@pytest.mark.parametrize(
    ("raw", "name", "where", "request_"),
    [
        ((0x0000010800000004, 0, 0, 0), "C_BAD_STE", "", (None, None, None)),
        (
            (0x0000010800005810, 0x0000020800000000, 0x0000FFFFF0001234, 0),
            "F_TRANSLATION", " (stage 1)", (5, 0xFFFFF0001234, "r"),
        ),
        (
            (0x0000010800000010, 0x0000018000000000, 0x7F001000, 0x0000000910001000),
            "F_TRANSLATION", " (stage 2, fetch of a stage 1 table)", (None, 0x7F001000, "w"),
        ),
        ((0x0000010800000013, 0x000002028000ABCD, 0x8000, 0), "F_PERMISSION", " (stage 1)", (None, 0x8000, "w")),
        ((0x0000010800000009, 0, 0, 0x0000000880010140), "F_CD_FETCH", "", (None, None, None)),
        # A SubstreamID that does not count, one that always does, and one of an event that has none.
        ((0x0000010800005010, 0x0000020C00000000, 0, 0), "F_TRANSLATION", " (stage 1)", (None, 0, "x")),
        ((0x0000010800005008, 0, 0, 0), "C_BAD_SUBSTREAMID", "", (5, None, None)),
        ((0x0000010800005806, 0, 0, 0), "F_STREAM_DISABLED", "", (None, None, None)),
        # A write fetches no instruction; a class that is reserved has no name.
        ((0x0000010800000010, 0x0000038400000000, 0, 0), "F_TRANSLATION", " (stage 2)", (None, 0, "w")),
    ],
)  # fmt: skip
def test_worked_records(
    raw: tuple[int, ...], name: str, where: str, request_: tuple[int | None, int | None, str | None]
) -> None:
    """PASID, address and access are those of the request."""
    told = recorded(words(*raw))
    assert told
    assert (told.code, told.name, told.rid) == (raw[0] & 0xFF, name, SID)
    assert (told.pasid, told.iova, told.access) == request_
    assert told.reason.endswith(where)
    assert told.reason.count("(") == bool(where)
    assert (told.structure, told.raw) == (EVENTS[raw[0] & 0xFF].name, raw)


def test_the_hint_is_no_fault() -> None:
    assert recorded(0x24) is None


@pytest.mark.parametrize("number", [0x00, 0x14, 0xE0, 0xEF, 0xFF])
def test_an_event_that_is_not_known(number: int) -> None:
    raw = words(0x0000010800005800 | number, 0x0000020800000000, 7, 8)
    told = recorded(raw)
    assert told
    assert (told.code, told.name, told.structure) == (number, f"EVENT_{number:02X}", "")
    assert (told.rid, told.pasid, told.iova, told.access) == (SID, None, None, None)
    assert told.raw == (0x0000010800005800 | number, 0x0000020800000000, 7, 8)


def test_a_stream_id_of_more_bits_has_the_segment_in_them() -> None:
    told = recorded(words(0x0003_0108_0000_0004))
    assert told
    assert told.rid == SID._replace(segment=3)


@pytest.mark.parametrize("name", CASES)
def test_the_record_of_every_case_says_what_the_walk_does(name: str) -> None:
    case = CASES[name]
    ask, machine = case.ask, machine_of(case)
    fault = machine.unit.request(
        ask.slot, ask.iova, ask.access, privileged=ask.privileged, kind=ask.kind
    ).translation.fault
    events = take_faults(machine.memory, machine.unit, machine.unit.features, "unit0")
    assert fault
    assert len(events.faults) == (case.record is not None)
    for found in events.faults:
        assert (found.code, found.name, found.rid) == (fault.code, fault.name, fault.rid)
        assert found.iova in (None, fault.iova)
        assert found.raw == case.record
        told = EVENTS[found.code].values(words(*found.raw))
        if told.get("SSV"):
            assert found.pasid == fault.pasid
        if "RnW" in told:
            assert found.access == fault.access


# The queue


def test_an_empty_queue() -> None:
    machine = handmade()
    assert taken(machine) == ([], 0)
    assert machine.get("EVENTQ_CONS") == 0


def test_records_are_taken_once_and_there_is_room_again() -> None:
    machine = queue(2)
    for turn in range(5):
        for number in range(3):
            fault(machine, 3 * turn + number)
        assert taken(machine) == ([3 * turn + number for number in range(3)], 0)
        assert machine.get("EVENTQ_CONS") == machine.get("EVENTQ_PROD") == 3 * (turn + 1) % 8
        assert taken(machine) == ([], 0)


def test_a_full_queue() -> None:
    machine = queue(2)
    for number in range(4):
        fault(machine, number)
    assert taken(machine) == ([0, 1, 2, 3], 0)


def test_an_overflow_is_told_once() -> None:
    machine = queue(1)
    for turn in range(3):
        for number in range(4):
            fault(machine, number)
        assert taken(machine) == ([0, 1], 1)
        assert (machine.get("EVENTQ_CONS") ^ machine.get("EVENTQ_PROD")) == 0
        assert taken(machine) == ([], 0)
        fault(machine, turn)
        assert taken(machine) == ([turn], 0)


def test_hints_make_room_and_are_no_faults() -> None:
    machine = queue(1)
    for number in range(2):
        fault(machine, number)
    machine.memory.put({0xE8000: 0x24})
    assert taken(machine) == ([1], 0)
    assert machine.get("EVENTQ_CONS") == 2


def test_what_each_stage_refused() -> None:
    machine = handmade()
    machine.goes(ONE, ABSENT)
    machine.goes(TWO, 0x39000)
    events = take_faults(machine.memory, machine.unit, machine.unit.features, "unit0")
    assert [fault.reason[-9:] for fault in events.faults] == ["(stage 1)", "(stage 2)"]


def test_what_is_told_names_its_source() -> None:
    machine = handmade()
    assert take_faults(machine.memory, machine.unit, machine.unit.features, "here") == Events("here", [], 0)


# What the kernel hands to a vIOMMU


def test_events_of_the_kernel() -> None:
    bad = words(0x0000010800000004).to_bytes(32, "little")
    read = words(0x0000010800005810, 0x0000020800000000, 0x0000FFFFF0001234).to_bytes(32, "little")
    hint = b"\x24".ljust(32, b"\0")
    assert [fault.name for fault in vevents.faults([bad, hint, read])] == ["C_BAD_STE", "F_TRANSLATION"]
    assert len(bad) == vevents.SIZE


@settings(deadline=None)
@given(st.lists(st.binary(min_size=32, max_size=32)))
def test_any_bytes_can_be_told(events: list[bytes]) -> None:
    found = vevents.faults(events)
    assert len(found) == sum(event[0] != 0x24 for event in events)
    for fault in found:
        assert Rid.parse(str(fault.rid)) == fault.rid
        assert fault.pasid is None or fault.pasid < 1 << 20

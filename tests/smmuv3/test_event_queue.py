# SPDX-License-Identifier: Apache-2.0
"""The event queue in memory: where records go, and what becomes of them without room. IHI0070 G.b sections 3.5, 7.4."""

import pytest

from iommuctl_smmuv3.register_bank import DEFAULTS
from tests.smmuv3.handmade import ABSENT, NOWHERE, ONE, handmade
from tests.smmuv3.machine import Machine

OVERFLOW = 1 << 31


def queue(log2size: int, base: int = 0xE8000, idr1: int = DEFAULTS["IDR1"]) -> Machine:
    machine = handmade(idr1=idr1)
    machine.unit.write_register("CR0", 9)
    machine.unit.write_register("EVENTQ_BASE", base | log2size)
    machine.unit.write_register("CR0", 0xD)
    return machine


def fault(machine: Machine, number: int = 0) -> None:
    """A request that is not translated; `number` is in its record."""
    machine.goes(ONE, ABSENT + number)


def told(machine: Machine, place: int) -> int:
    """The number in the record there."""
    return machine.memory.word(place + 16) - ABSENT


def test_records_lie_one_behind_the_other() -> None:
    machine = queue(2)
    for number in range(4):
        assert machine.get("EVENTQ_PROD") == number
        fault(machine, number)
    assert machine.get("EVENTQ_PROD") == 4
    assert [told(machine, 0xE8000 + 32 * number) for number in range(4)] == [0, 1, 2, 3]


def test_a_full_queue_overflows() -> None:
    """The record is lost, the flag changes once, and records are written again as soon as there is room."""
    machine = queue(1)
    for number in range(4):
        fault(machine, number)
    assert machine.get("EVENTQ_PROD") == OVERFLOW | 2
    assert [told(machine, 0xE8000), told(machine, 0xE8020)] == [0, 1]
    machine.unit.write_register("EVENTQ_CONS", 1)
    fault(machine, 5)
    # The flag stays as it is until it is acknowledged, and the index wraps.
    assert machine.get("EVENTQ_PROD") == OVERFLOW | 3
    assert told(machine, 0xE8000) == 5
    fault(machine, 6)
    assert machine.get("EVENTQ_PROD") == OVERFLOW | 3
    machine.unit.write_register("EVENTQ_CONS", OVERFLOW | 1)
    fault(machine, 7)
    assert machine.get("EVENTQ_PROD") == 3
    machine.unit.write_register("EVENTQ_CONS", 3)
    fault(machine, 8)
    assert (machine.get("EVENTQ_PROD"), told(machine, 0xE8020)) == (0, 8)


@pytest.mark.parametrize(
    ("log2size", "base", "place"), [(0, 0xE8020, 0xE8020), (1, 0xE8020, 0xE8000), (2, 0xE80E0, 0xE8080)]
)
def test_a_queue_is_aligned_to_its_size(log2size: int, base: int, place: int) -> None:
    machine = queue(log2size, base)
    fault(machine)
    assert told(machine, place) == 0


def test_no_larger_than_the_unit_says() -> None:
    """EVENTQS is 1 here."""
    machine = queue(8, idr1=DEFAULTS["IDR1"] & ~(0x1F << 16) | 1 << 16)
    for number in range(3):
        fault(machine, number)
    assert machine.get("EVENTQ_PROD") == OVERFLOW | 2


def test_a_queue_that_is_off() -> None:
    """Records are lost, and that is not an overflow."""
    machine = queue(1)
    machine.unit.write_register("CR0", 9)
    for _ in range(3):
        fault(machine)
    assert (machine.get("EVENTQ_PROD"), machine.get("GERROR")) == (0, 0)
    assert machine.memory.word(0xE8000) == 0


def test_a_queue_without_memory() -> None:
    """GERROR.EVENTQ_ABT_ERR, and nothing is written until it is acknowledged."""
    machine = queue(2, NOWHERE)
    fault(machine)
    assert (machine.get("GERROR"), machine.get("EVENTQ_PROD")) == (4, 0)
    fault(machine)
    assert (machine.get("GERROR"), machine.get("EVENTQ_PROD")) == (4, 0)
    machine.unit.write_register("GERRORN", 4)
    fault(machine)
    # The error is active again: the bit goes back.
    assert machine.get("GERROR") == 0
    machine.unit.write_register("GERRORN", 0)
    machine.unit.write_register("CR0", 9)
    machine.unit.write_register("EVENTQ_BASE", 0xE8002)
    machine.unit.write_register("CR0", 0xD)
    fault(machine, 3)
    assert (machine.get("GERROR"), machine.get("EVENTQ_PROD"), told(machine, 0xE8000)) == (0, 1, 3)


def test_an_error_that_is_not_acknowledged_keeps_records_away() -> None:
    """Also when there is memory again."""
    machine = queue(2)
    machine.memory.read_only = (0xE8000, 0x1000)
    fault(machine)
    machine.memory.read_only = (0, 0)
    fault(machine)
    assert machine.get("EVENTQ_PROD") == 0
    machine.unit.write_register("GERRORN", 4)
    fault(machine)
    assert machine.get("EVENTQ_PROD") == 1


def test_events_of_a_unit_that_does_not_translate() -> None:
    """ATS alone has some then."""
    machine = handmade(cr0=0xC)
    machine.ask(ONE, 0x1234, kind="translation")
    machine.ask(ONE, 0x1234, "w", kind="translated")
    machine.ask(ONE, 0x1234)
    assert machine.records() == [(0x08_0000_0005, 0, 0x1234, 0), (0x08_0000_0007, 0, 0x1234, 0)]

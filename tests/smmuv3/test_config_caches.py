# SPDX-License-Identifier: Apache-2.0
"""Cached STEs, CDs and their level 1 descriptors serve until the right command comes: IHI0070 G.b 3.21, 4.3."""

import pytest

from tests.smmuv3.handmade import (
    BOTH,
    CD_0,
    CD_5,
    CD_WORDS,
    I3,
    NOWHERE,
    ONE,
    ONE_5,
    RW,
    TWO,
    Ask,
    handmade,
    ste,
)
from tests.smmuv3.machine import Machine, Words, slot, structures

STREAM, BOTH_STREAM = 8 << 32, 10 << 32
ALL_TLB = (0x30,)
OFF = "C_BAD_STE"
READ = Ask(ONE)


def cached(changes: dict[int, int] | None = None) -> Machine:
    """All requests have been made once."""
    machine = handmade(changes)
    for ask in (READ, Ask(ONE_5), Ask(BOTH), Ask(TWO, 0x30123)):
        assert not isinstance(ask.of(machine), str)
    return machine


def both(machine: Machine, ask: Ask) -> tuple[int | str, int | str]:
    """By the caches, and by the tables."""
    return ask.of(machine), machine.reaches(ask.slot, ask.iova, ask.access)


# STEs and CDs

STE_COMMANDS: dict[str, tuple[Words, bool]] = {
    "CFGI_STE": ((STREAM | 3, 1), True),
    "CFGI_STE, not the leaf alone": ((STREAM | 3, 0), True),
    "CFGI_STE of another": ((9 << 32 | 3, 0), False),
    "CFGI_STE of one that is not": ((0xFFFF_FFFF << 32 | 3, 0), False),
    "CFGI_STE_RANGE of two": ((STREAM | 4, 0), True),
    "CFGI_STE_RANGE of two, not aligned": ((9 << 32 | 4, 0), True),
    "CFGI_STE_RANGE of the next two": ((10 << 32 | 4, 0), False),
    "CFGI_STE_RANGE of eight, before": ((4, 2), False),
    "CFGI_STE_RANGE of sixteen": ((4, 3), True),
    "CFGI_STE_RANGE of 2**31": ((0xFFFF << 32 | 4, 30), True),
    "CFGI_ALL": ((4, 31), True),
    "CFGI_ALL, with a stream": ((0xFFFF_FFFF << 32 | 4, 31), True),
    "CFGI_CD": ((STREAM | 5, 0), False),
    "CFGI_CD_ALL": ((STREAM | 6,), False),
    "NSNH_ALL": (ALL_TLB, False),
    "EL2_ALL": ((0x20,), False),
    "SYNC": ((0x46,), False),
}


@pytest.mark.parametrize("name", STE_COMMANDS)
def test_ste(name: str) -> None:
    machine = cached()
    machine.memory.put({ste(ONE): 0})
    assert both(machine, READ) == (0x30123, OFF)
    command, gone = STE_COMMANDS[name]
    assert machine.send(command) == 0
    assert READ.of(machine) == (OFF if gone else 0x30123)


@pytest.mark.parametrize("before", [0, 1, 0x9])
def test_an_ste_that_was_not_used_is_cached_too(before: int) -> None:
    """Not valid, or abort, or bypass: the change needs its command."""
    good = structures((0x1800_0000_0000_300B, 0x1000_1000_00D6, 0x11), ste(ONE))
    machine = handmade(dict.fromkeys(good, 0) | {ste(ONE): before})
    first = READ.of(machine)
    machine.memory.put(good)
    assert both(machine, READ) == (first, 0x30123)
    machine.send((STREAM | 3, 1))
    assert READ.of(machine) == 0x30123


CD_COMMANDS: dict[str, tuple[Words, bool]] = {
    "CFGI_CD": ((STREAM | 5 << 12 | 5, 1), True),
    "CFGI_CD, not the leaf alone": ((STREAM | 5 << 12 | 5, 0), True),
    "CFGI_CD of another": ((STREAM | 4 << 12 | 5, 0), False),
    "CFGI_CD of another stream": ((BOTH_STREAM | 5 << 12 | 5, 0), False),
    "CFGI_CD_ALL": ((STREAM | 6,), True),
    "CFGI_CD_ALL of another stream": ((BOTH_STREAM | 6,), False),
    # The CDs of a stream go with its STE.
    "CFGI_STE": ((STREAM | 3, 1), True),
    "CFGI_STE of another": ((9 << 32 | 3, 1), False),
    "CFGI_STE_RANGE": ((STREAM | 4, 0), True),
    "CFGI_ALL": ((4, 31), True),
    "NSNH_ALL": (ALL_TLB, False),
}


@pytest.mark.parametrize("name", CD_COMMANDS)
def test_cd(name: str) -> None:
    machine = cached()
    ask = Ask(ONE_5)
    machine.memory.put({CD_5: 0})
    assert both(machine, ask) == (0x30123, "C_BAD_CD")
    command, gone = CD_COMMANDS[name]
    assert machine.send(command) == 0
    assert ask.of(machine) == ("C_BAD_CD" if gone else 0x30123)
    assert READ.of(machine) == 0x30123


def test_the_cd_of_requests_without_pasid_is_number_0() -> None:
    machine = cached()
    machine.memory.put({CD_0: 0})
    machine.send((STREAM | 5 << 12 | 5, 1))
    assert READ.of(machine) == 0x30123
    machine.send((STREAM | 5, 1))
    assert READ.of(machine) == "C_BAD_CD"


def test_a_cd_that_was_not_valid_is_cached_too() -> None:
    machine = handmade({CD_0: 0})
    assert READ.of(machine) == "C_BAD_CD"
    machine.memory.put(structures(CD_WORDS, CD_0))
    assert READ.of(machine) == "C_BAD_CD"
    machine.send((STREAM | 5, 1))
    assert READ.of(machine) == 0x30123


def test_what_could_not_be_read_is_not_cached() -> None:
    """An external abort, or a fault of stage 2: the next request finds what is there then."""
    machine = handmade({I3 + 8 * 3: 0})
    assert Ask(BOTH).of(machine) == "F_TRANSLATION"
    machine.memory.put({I3 + 8 * 3: NOWHERE | 0x7FF})
    assert Ask(BOTH).of(machine) == "F_CD_FETCH"
    machine.memory.put({I3 + 8 * 3: 0x37FF})
    # Stage 2's page that led nowhere was not kept either, as the request did not go well.
    assert Ask(BOTH).of(machine) == 0x98123


# Level 1 descriptors


def two_levels() -> Machine:
    """Streams by 256, of which 0x208 and 0x209 are bypassed."""
    machine = handmade({0x810: 0x40009, 0x40200: 0x9, 0x40240: 0x9, 0x50200: 0x1, 0x50240: 0x1})
    machine.unit.write_register("CR0", 0xC)
    machine.switch_on(0x800, 0x10210)
    assert machine.goes(slot(0x208), 0x1234) == 0x1234
    machine.memory.put({0x810: 0x50009})
    return machine


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        ((0x46,), 0x1234, 0x1234),
        # The descriptor stays with Leaf, and it leads to the old STE.
        ((0x208_0000_0003, 1), 0x1234, 0x1234),
        ((0x208_0000_0003, 0), "ABORT", "ABORT"),
        # Of a stream in its span.
        ((0x2FF_0000_0003, 0), 0x1234, "ABORT"),
        ((0x300_0000_0003, 0), 0x1234, 0x1234),
        ((0x1FF_0000_0003, 0), 0x1234, 0x1234),
        ((0x200_0000_0004, 7), "ABORT", "ABORT"),
        ((0x200_0000_0004, 2), 0x1234, "ABORT"),
        ((0x100_0000_0004, 7), 0x1234, 0x1234),
        ((0x4, 31), "ABORT", "ABORT"),
    ],
)
def test_level_1_descriptor_of_streams(command: Words, first: int | str, second: int | str) -> None:
    """`first` is the stream that was cached, `second` one that needs the descriptor."""
    machine = two_levels()
    assert machine.send(command) == 0
    assert machine.goes(slot(0x208), 0x1234) == first
    assert machine.goes(slot(0x209), 0x1234) == second


def two_levels_of_cds() -> Machine:
    """PASIDs by 64: 0x45 and 0x46 have CDs, which are not valid any more at the new place."""
    changes = {ste(ONE): 0x6000_0000_0004_001B, 0x40008: 0x50001}
    changes |= structures(CD_WORDS, 0x50140) | structures(CD_WORDS, 0x50180)
    machine = handmade(changes)
    assert machine.goes(slot(8, 0x45), RW) == 0x30000
    machine.memory.put({0x40008: 0x60001})
    return machine


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        ((0x46,), 0x30000, 0x30000),
        ((STREAM | 0x45 << 12 | 5, 1), 0x30000, 0x30000),
        ((STREAM | 0x45 << 12 | 5, 0), "C_BAD_CD", "C_BAD_CD"),
        ((STREAM | 0x7F << 12 | 5, 0), 0x30000, "C_BAD_CD"),
        ((STREAM | 0x80 << 12 | 5, 0), 0x30000, 0x30000),
        ((STREAM | 0x3F << 12 | 5, 0), 0x30000, 0x30000),
        ((9 << 32 | 0x45 << 12 | 5, 0), 0x30000, 0x30000),
        ((STREAM | 6,), "C_BAD_CD", "C_BAD_CD"),
        # It goes with the STE, also with Leaf.
        ((STREAM | 3, 1), "C_BAD_CD", "C_BAD_CD"),
    ],
)
def test_level_1_descriptor_of_cds(command: Words, first: int | str, second: int | str) -> None:
    machine = two_levels_of_cds()
    assert machine.send(command) == 0
    assert machine.goes(slot(8, 0x45), RW) == first
    assert machine.goes(slot(8, 0x46), RW) == second


def test_a_level_1_descriptor_that_is_not_valid_is_cached() -> None:
    machine = handmade({ste(ONE): 0x6000_0000_0004_001B} | structures(CD_WORDS, 0x50140))
    assert machine.goes(slot(8, 0x45), RW) == "C_BAD_SUBSTREAMID"
    machine.memory.put({0x40008: 0x50001})
    assert machine.goes(slot(8, 0x45), RW) == "C_BAD_SUBSTREAMID"
    machine.send((STREAM | 0x45 << 12 | 5, 0))
    assert machine.goes(slot(8, 0x45), RW) == 0x30000

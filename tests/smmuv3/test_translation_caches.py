# SPDX-License-Identifier: Apache-2.0
"""Cached translations and descriptors of tables serve until the right command comes: IHI0070 G.b 3.17, 3.21."""

import pytest

from tests.smmuv3.fault_cases import with_bits
from tests.smmuv3.handmade import (
    BOTH,
    CD_0,
    CD_5,
    I2,
    I3,
    IN_2M,
    IN_2M_OVER_4K,
    L1,
    L2,
    L3,
    ONE,
    RO,
    RW,
    TWO,
    Ask,
    handmade,
    ste,
)
from tests.smmuv3.machine import Words
from tests.smmuv3.test_config_caches import READ, STREAM, both, cached, two_levels, two_levels_of_cds

ALL_TLB = (0x30,)
NH_ALL, NH_ALL_BOTH, S12, S2_IPA = 0x11_0000_0010, 0x2B_0000_0010, 0x2B_0000_0028, 0x2B_0000_002A


# Structures and translations are apart


def test_a_changed_cd_needs_both() -> None:
    """TTB0: the CD's command leaves the pages, the TLB's command leaves the CD."""
    other = {0x24008: 0x25003, 0x25010: 0x26003, 0x26018: 0x27003, 0x27020: 0x32F47, CD_0 + 8: 0x24000}
    for first, second in ((((STREAM | 5, 1)), (NH_ALL,)), ((NH_ALL,), (STREAM | 5, 1))):
        machine = cached()
        machine.memory.put(other)
        machine.send(first)
        assert both(machine, READ) == (0x30123, 0x32123)
        machine.send(second)
        assert READ.of(machine) == (0x32123 if first == (STREAM | 5, 1) else 0x30123)
        machine.send((NH_ALL,))
        assert READ.of(machine) == 0x32123


def test_a_changed_stage_2_needs_both() -> None:
    machine = cached()
    machine.memory.put({ste(TWO) + 24: 0x18000, 0x18000: 0})
    ask = Ask(TWO, 0x30123)
    machine.send((9 << 32 | 3, 1))
    assert both(machine, ask) == (0x98123, "F_TRANSLATION")
    machine.send((0x2A_0000_0028,))
    assert ask.of(machine) == "F_TRANSLATION"


# Pages and tables


PAGE_COMMANDS: list[tuple[Words, int]] = [
    ((0x0012_0011_0000_0012, RW | 1), 0x3F123),
    ((0x0012_0011_0000_0012, RW), 0x3F123),
    ((0x0015_0011_0000_0012, RW | 1), 0x30123),
    ((0x0012_002B_0000_0012, RW | 1), 0x30123),
    ((0x0012_0011_0000_0012, RO | 1), 0x30123),
    ((0x11_0000_0013, RW | 1), 0x3F123),
    ((0x0012_0011_0000_0011,), 0x3F123),
    ((NH_ALL,), 0x3F123),
    ((0x11_0000_0028,), 0x3F123),
    (ALL_TLB, 0x3F123),
    ((0x11_0000_002A, RW), 0x30123),
    ((4, 31), 0x30123),
]


@pytest.mark.parametrize(("command", "pa"), PAGE_COMMANDS)
def test_pages(command: Words, pa: int) -> None:
    machine = cached()
    machine.memory.put({L3 + 8 * 4: 0x3FF47})
    assert both(machine, READ) == (0x30123, 0x3F123)
    assert machine.send(command) == 0
    assert READ.of(machine) == pa


@pytest.mark.parametrize("table", [L1, L2])
def test_tables(table: int) -> None:
    """A command about leaves takes the page, but the table's descriptor stays, and its page is found again."""
    machine = cached()
    machine.memory.put({table: 0})
    assert machine.send((0x0012_0011_0000_0012, RW | 1)) == 0
    assert both(machine, READ) == (0x30123, "F_TRANSLATION")
    assert machine.goes(ONE, RO) == 0x31000
    assert machine.send((0x0012_0011_0000_0012, RW)) == 0
    assert READ.of(machine) == "F_TRANSLATION"


def test_a_table_that_was_not_there_is_not_cached() -> None:
    """Nor is a page: what is invalid, or faults, needs no command to become valid."""
    machine = handmade({L1: 0})
    assert READ.of(machine) == "F_TRANSLATION"
    machine.memory.put({L1: 0x22003, L3 + 8 * 4: 0x30B47})
    assert READ.of(machine) == "F_ACCESS"
    machine.memory.put({L3 + 8 * 4: 0x30F07})
    assert READ.of(machine) == "F_PERMISSION"
    machine.memory.put({L3 + 8 * 4: 0x30F47})
    assert READ.of(machine) == 0x30123


# Both stages


def test_stage_2_under_stage_1() -> None:
    """Neither the command for stage 2 alone nor that for stage 1 alone is enough; both are, or one for all."""
    for commands, pa in (
        ([(S2_IPA, 0x30000)], 0x98123),
        ([(NH_ALL_BOTH,)], 0x98123),
        ([(NH_ALL_BOTH,), (S2_IPA, 0x30000)], 0x9F123),
        ([(S2_IPA, 0x30000), (NH_ALL_BOTH,)], 0x9F123),
        ([(S2_IPA, 0x30001), (0x2B_0000_0013, RW | 1)], 0x9F123),
        ([(S12,)], 0x9F123),
        ([(S2_IPA + (1 << 32), 0x30000), (NH_ALL_BOTH,)], 0x98123),
    ):
        machine = cached()
        machine.memory.put({I3 + 8 * 0x30: 0x9F7FF})
        assert machine.send(*commands) == 0
        assert both(machine, Ask(BOTH)) == (pa, 0x9F123)


def test_tables_of_stage_2() -> None:
    """Also when the page has gone: the descriptor of stage 2's table has been kept."""
    machine = cached()
    machine.memory.put({I2: 0})
    assert machine.send((NH_ALL_BOTH,), (S2_IPA, 0x30001)) == 0
    assert both(machine, Ask(BOTH)) == (0x98123, "F_TRANSLATION")
    assert machine.send((NH_ALL_BOTH,), (S2_IPA, 0x30000)) == 0
    assert Ask(BOTH).of(machine) == "F_TRANSLATION"


def test_the_place_of_a_table_of_stage_1() -> None:
    """Where stage 2 has a table moved, what was read of it is known by stage 1's addresses."""
    machine = cached()
    machine.memory.put({I3 + 8 * 0x23: 0x2B7FF, 0x2B028: 0x3_2FC7})
    ask = Ask(BOTH, RO)
    assert ask.of(machine) == 0x99000
    assert machine.send((S2_IPA, 0x23000)) == 0
    assert machine.goes(BOTH, RO + 0x10) == 0x99010
    assert machine.send((NH_ALL_BOTH,)) == 0
    assert ask.of(machine) == 0x9A000


def test_a_block_of_stage_1_that_stage_2_has_in_pages() -> None:
    """A command about any address of the block takes away all of its pages, those of other blocks stay."""
    for iova, pa in ((IN_2M_OVER_4K, 0x9B234), (IN_2M_OVER_4K + 0x1F_F000, 0x9B234), (IN_2M, 0x91234)):
        machine = cached({L2 + 24: 0x40_0F45})
        where = IN_2M_OVER_4K + 0x1234
        assert machine.goes(BOTH, where) == 0x91234
        machine.memory.put({L2 + 16: 0x40_A000 & -0x20_0000 | 0xF45, 0x17008: 0x9B7FF})
        assert machine.send((S2_IPA, 0x40_1000)) == 0
        assert machine.goes(BOTH, where) == 0x91234
        assert machine.send((0x0012_002B_0000_0012, iova | 1)) == 0
        assert machine.goes(BOTH, where) == pa


def test_nothing_is_cached_of_bypass() -> None:
    """What no translation takes part in is in no TLB."""
    machine = handmade(with_bits(ste(ONE) + 8, 1, 3))
    assert machine.goes(ONE, 0x1234) == 0x1234
    assert machine.unit.caches() == {"tlb": 0, "walk": 0, "ste": 1, "cd": 0}


def test_what_caches_hold() -> None:
    machine = cached()
    # Pages: one of each stage 1, the page of both stages, its IPA and those of a CD and four tables, and one of TWO.
    assert machine.unit.caches() == {"tlb": 2 + 1 + 6 + 1, "walk": 3 * 3 + 3 + 3, "ste": 3, "cd": 3}


def test_tables_that_can_be_read_at_any_time() -> None:
    machine = cached()
    assert set(machine.unit.cached_tables()) == {
        # Of STEs: CDs, and tables of stage 2; of CDs that are not a guest's: tables of stage 1.
        0x3000, 0x10000, 0x20000,
        # Of descriptors: both stages, but for what is a guest's.
        0x21000, 0x22000, 0x23000, 0x14000, 0x15000, 0x16000,
    }  # fmt: skip
    machine.send((4, 31), ALL_TLB)
    assert set(machine.unit.cached_tables()) == set()
    machine = two_levels()
    assert set(machine.unit.cached_tables()) == {0x40000}
    machine = two_levels_of_cds()
    assert {0x40000, 0x50000} <= set(machine.unit.cached_tables())


def test_tables_of_a_guest_are_none_of_these() -> None:
    """Where they are, stage 2 says; what leads there are its tables."""
    machine = handmade()
    assert Ask(BOTH).of(machine) == 0x98123
    assert set(machine.unit.cached_tables()) == {0x10000, 0x14000, 0x15000, 0x16000}


def test_a_start_table_that_is_off_is_not_read() -> None:
    """EPD1: whatever TTB1 holds."""
    machine = cached({CD_0 + 16: 0x7_0000, CD_5 + 16: 0x7_0000})
    assert 0x7_0000 not in set(machine.unit.cached_tables())

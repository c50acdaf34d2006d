# SPDX-License-Identifier: Apache-2.0
"""Where requests go, by tables that were made by hand: the worked look-up, nested and single stages, block sizes."""

import pytest

from iommuctl.model import Slot, Translation
from tests.machine import SparseMemory
from tests.smmuv3.handmade import (
    ABORTED,
    BOTH,
    BOTH_5,
    CD_0,
    CD_5,
    GLOBAL,
    HYP,
    IN_1G,
    IN_2M,
    IN_2M_OVER_4K,
    ONE,
    ONE_5,
    RW,
    THROUGH,
    TWO,
    Ask,
    handmade,
    ste,
)
from tests.smmuv3.machine import Machine, idr0_with, slot, structures

GIB = 1 << 30


def visited(told: Translation) -> list[tuple[str, int, int]]:
    """The structures that a walk met, by name, place and first word."""
    return [(step.structure.removeprefix("smmuv3."), step.address, step.raw[0]) for step in told.steps]


def worked() -> Machine:
    """The tables of the worked look-up, on a unit that can stall, as its STE forbids that."""
    memory = SparseMemory(
        (0, 0x10_0000), (0x8_0040_0000, 0x4000), (0x8_8000_0000, 0x2000), (0x8_8001_0000, 0x10000),
        (0x8_8800_0000, 0x1000), (0x9_1000_0000, 0x4000),
    )  # fmt: skip
    memory.put({0x8_8800_0008: 0x8_0040_0009, 0x8_8000_0008: 0x8_8001_0001})
    memory.put(structures((0xA000_0008_8000_002B, 0x1800_00D6), 0x8_0040_0200))
    memory.put(structures((0x0012_E205_C000_3510, 0x9_1000_0000, 0, 0xF404_FF44), 0x8_8001_0140))
    memory.put({0x9_1000_07F0: 0x9_1000_1003, 0x9_1000_1240: 0x9_1000_2003, 0x9_1000_2D10: 0x9_1000_3003})
    memory.put({0x9_1000_3B38: 0x60_0008_0000_3F47})
    machine = Machine(memory, idr0=idr0_with(STALL_MODEL=0))
    machine.switch_on(0x4000_0008_8800_0000, 0x10210)
    return machine


def test_the_worked_look_up() -> None:
    """W1: stream 0x108, SubstreamID 0x405, VA 0x7f1234567abc."""
    told = worked().unit.walk(slot(0x108, 0x405), 0x7F1234567ABC, "r", privileged=False)
    assert visited(told) == [
        ("l1std", 0x8_8800_0008, 0x8_0040_0009),
        ("ste", 0x8_0040_0200, 0xA000_0008_8000_002B),
        ("l1cd", 0x8_8000_0008, 0x8_8001_0001),
        ("cd", 0x8_8001_0140, 0x0012_E205_C000_3510),
        ("stage-1-descriptor", 0x9_1000_07F0, 0x9_1000_1003),
        ("stage-1-descriptor", 0x9_1000_1240, 0x9_1000_2003),
        ("stage-1-descriptor", 0x9_1000_2D10, 0x9_1000_3003),
        ("stage-1-descriptor", 0x9_1000_3B38, 0x60_0008_0000_3F47),
    ]
    assert (told.pa, told.page_size, told.prot) == (0x8_0000_3ABC, 4096, "rw")


def test_a_request_is_answered_as_the_tables_say() -> None:
    """And the answer names what it was made of: from the STE on, without the stream table's descriptor."""
    machine = worked()
    way = [0x8_0040_0200, 0x8_8000_0008, 0x8_8001_0140, 0x9_1000_07F0, 0x9_1000_1240, 0x9_1000_2D10, 0x9_1000_3B38]
    for hit in (False, True):
        answer = machine.ask(slot(0x108, 0x405), 0x7F1234567ABC, "w")
        assert (answer.translation.pa, answer.hit) == (0x8_0000_3ABC, hit)
        # A cached CD needs no level 1 descriptor.
        assert [step.address for step in answer.made_of] == [place for place in way if not hit or place != way[1]]
    assert machine.records() == []


def test_nested() -> None:
    """Each descriptor of stage 1, and the CD, is found by stage 2; stage 2's own have four levels."""
    told = handmade().unit.walk(BOTH, RW + 0x123, "r", privileged=False)
    two = [("stage-2-descriptor", 0x10000, 0x14003), ("stage-2-descriptor", 0x14000, 0x15003)]
    two.append(("stage-2-descriptor", 0x15000, 0x16003))
    expected = [("ste", 0x1280, 0x1800_0000_0000_300F)]
    for page, leaf, found in (
        (0x03, 0x37FF, ("cd", 0x3000, 0x0012_E205_C000_3510)),
        (0x20, 0x207FF, ("stage-1-descriptor", 0x20008, 0x21003)),
        (0x21, 0x217FF, ("stage-1-descriptor", 0x21010, 0x22003)),
        (0x22, 0x227FF, ("stage-1-descriptor", 0x22018, 0x23003)),
        (0x23, 0x237FF, ("stage-1-descriptor", 0x23020, 0x30F47)),
        (0x30, 0x987FF, None),
    ):
        expected += [*two, ("stage-2-descriptor", 0x16000 + 8 * page, leaf), *([found] if found else [])]
    assert visited(told) == expected
    assert (told.pa, told.page_size, told.prot) == (0x98123, 4096, "rwx")


@pytest.mark.parametrize(
    ("where", "iova", "pa", "size"),
    [
        (ONE, RW + 0xFFF, 0x30FFF, 1 << 12),
        (ONE_5, RW, 0x30000, 1 << 12),
        (ONE, IN_2M + 0x12345, 0x21_2345, 1 << 21),
        (ONE, IN_1G + 0x1234_5678, 0x5234_5678, 1 << 30),
        (TWO, 0x30123, 0x98123, 1 << 12),
        (TWO, 0x21_2345, 0x61_2345, 1 << 21),
        (TWO, 0x5234_5678, 0x9234_5678, 1 << 30),
        (BOTH, RW + 0x123, 0x98123, 1 << 12),
        (BOTH_5, RW + 0x123, 0x98123, 1 << 12),
        # The smaller of both pages.
        (BOTH, IN_2M + 0x12345, 0x61_2345, 1 << 21),
        (BOTH, IN_2M_OVER_4K + 0x1234, 0x91234, 1 << 12),
        (BOTH, IN_1G + 0x1234_5678, 0x9234_5678, 1 << 30),
        (HYP, GLOBAL + 4, 0x34004, 1 << 12),
        (THROUGH, 0xFFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF, 1 << 12),
    ],
)
def test_where_requests_go(where: Slot, iova: int, pa: int, size: int) -> None:
    machine = handmade()
    walked = machine.unit.walk(where, iova, "r", privileged=False)
    assert (walked.pa, walked.page_size) == (pa, size)
    for _ in range(2):
        told = machine.ask(where, iova).translation
        assert (told.pa, told.page_size, told.prot) == (pa, size, walked.prot)


def test_a_walk_changes_nothing() -> None:
    machine = handmade()
    before = machine.memory.words(), machine.unit.registers()
    for where in (ONE, TWO, BOTH, THROUGH, ABORTED):
        machine.unit.walk(where, RW, "w", privileged=False)
    assert (machine.memory.words(), machine.unit.registers()) == before
    assert set(machine.unit.caches().values()) == {0}


# Stream tables and CD tables


SPLITS = {6: 6, 8: 8, 10: 10, 0: 6, 7: 6, 31: 6}


@pytest.mark.parametrize("split", SPLITS)
def test_splits(split: int) -> None:
    """SPLITs that mean nothing behave as 6."""
    stream, bits = 0x5A5, SPLITS[split]
    memory = SparseMemory((0, 0x10_0000))
    # A Span for the whole second level: its address is a multiple of its size.
    memory.put({0x2000 + 8 * (stream >> bits): 0x40000 | bits + 1})
    memory.put({0x40000 + 64 * (stream % (1 << bits)): 0x9})
    machine = Machine(memory)
    machine.switch_on(0x2000, 1 << 16 | split << 6 | 16)
    assert machine.goes(slot(stream), 0x1234) == 0x1234


@pytest.mark.parametrize(
    ("base", "config", "stream", "place"),
    [
        # Lower bits than the table's size are taken as zero, of both kinds of tables.
        (0x1FC0, 5, 8, 0x1A00),
        (0x4000_0000_0000_1000, 5, 8, 0x1200),
        (0x17C0, 4, 8, 0x1600),
        # LOG2SIZE beyond SIDSIZE; formats that mean nothing are linear.
        (0x1000, 5 | 2 << 16, 8, 0x1200),
        (0x1000, 5 | 3 << 16 | 8 << 6, 8, 0x1200),
    ],
)
def test_linear_tables(base: int, config: int, stream: int, place: int) -> None:
    memory = SparseMemory((0, 0x10_0000))
    memory.put({place: 0x9})
    machine = Machine(memory)
    machine.switch_on(base, config)
    assert machine.goes(slot(stream), 0x1234) == 0x1234


def test_no_more_streams_than_the_unit_has() -> None:
    """LOG2SIZE 32 on a unit of 16 bits: the table is of 4 MB."""
    memory = SparseMemory((0, 0x80_0000))
    memory.put({0x40_0000 + 64 * 0xFFFF: 0x9})
    machine = Machine(memory)
    machine.switch_on(0x7F_0000, 32)
    assert machine.goes(slot(0xFFFF), 0x1234) == 0x1234


def test_first_levels_are_aligned_to_their_size() -> None:
    """256 descriptors of 8 bytes, so 0x800; second levels by their Span."""
    memory = SparseMemory((0, 0x10_0000))
    memory.put({0x1008: 0x40FC5, 0x40C00 + 64 * 3: 0x9})
    machine = Machine(memory)
    machine.switch_on(0x17C0, 1 << 16 | 8 << 6 | 16)
    assert machine.goes(slot(0x103), 0x1234) == 0x1234


@pytest.mark.parametrize(
    ("s1fmt", "pasid", "words"),
    [
        (0, 0x45, {0x41140: 0}),
        (3, 0x45, {0x41140: 0}),
        # A leaf of 64 CDs, one of 1024 CDs; the latter's address is a multiple of 64 KB.
        (1, 0x45, {0x40008: 0x50001, 0x50140: 0}),
        (2, 0x445, {0x40008: 0x5F001, 0x51140: 0}),
    ],
)
def test_cd_tables(s1fmt: int, pasid: int, words: dict[int, int]) -> None:
    """Of 2**12 CDs or, linear, 2**8. The last of the words is where the CD is."""
    *_, place = words
    most = 12 if s1fmt in (1, 2) else 8
    base = 0x40000 if most == 12 else 0x43000
    changes = words | structures((0x0012_E205_C000_3510, 0x20000, 0, 0xF404_FF44), place)
    changes |= {ste(ONE): most << 59 | base | s1fmt << 4 | 0xB}
    expected = 0x30123
    assert handmade(changes).goes(slot(8, pasid), RW + 0x123) == expected


def test_cds_of_a_stream_are_its_own() -> None:
    """Only the CD of the request counts, and only the STE of the stream."""
    garbage = (1 << 64) - 1
    others = {ste(ONE) - 64: garbage, ste(ONE) + 64: garbage, CD_0: garbage, CD_5 - 8: garbage, CD_5 + 64: garbage}
    assert Ask(ONE_5).of(handmade(others)) == 0x30123

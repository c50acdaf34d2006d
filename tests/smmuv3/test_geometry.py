# SPDX-License-Identifier: Apache-2.0
"""Where walks begin and which addresses they take: granules, sizes, both halves, start tables side by side, 52 bits.

IHI0070 G.b section 3.4 and DDI0487 M.a.a section D8.2.
"""

from typing import NamedTuple

import pytest

from tests.machine import SparseMemory
from tests.smmuv3.handmade import BOTH, CD_0, CD_WORDS, I0, L0, L1, ONE, RW, TWO, WORDS, handmade, ste
from tests.smmuv3.machine import Machine

STT, ALL_52, ALL_48 = 0xE14, 0x4F6, 0x75
"""IDR3 with small tables, IDR5 with DS, 52-bit input addresses and OAS 52, and with none of these."""
TABLES = 0x40000
PAGE = 0x1230_0000
KB4, KB64, KB16 = 0, 1, 2
"""Values of TG0 and S2TG."""


class Split(NamedTuple):
    """An address, and the index at each level, from the start table on."""

    granule: int
    t0sz: int
    address: int
    indices: tuple[int, ...]
    sl0: int = 0
    sl0_2: int = 0


STAGE_1 = [
    # The worked splits.
    Split(KB4, 16, 0x7F1234567000, (254, 72, 418, 359)),
    Split(KB16, 16, 0x7F1234567000, (0, 2033, 282, 345)),
    Split(KB16, 17, 0x7F1234567000, (2033, 282, 345)),
    Split(KB64, 16, 0x7F1234567000, (31, 6289, 5206)),
    Split(KB64, 12, 0xF7F1234567000, (991, 6289, 5206)),
    Split(KB4, 25, 0x3F1234567, (15, 393, 52)),
    # The ends of each start level, and the last address.
    Split(KB4, 24, 0xFFFFFFF000, (1, 511, 511, 511)),
    Split(KB4, 33, 0x7FFFF000, (1, 511, 511)),
    Split(KB4, 34, 0x3FFFF000, (511, 511)),
    Split(KB4, 42, 0x3FF000, (1, 511)),
    Split(KB4, 43, 0x1FF000, (511,)),
    Split(KB4, 48, 0xF000, (15,)),
    Split(KB16, 27, 0x1FFFFFC000, (1, 2047, 2047)),
    Split(KB16, 28, 0xFFFFFC000, (2047, 2047)),
    Split(KB16, 38, 0x3FFC000, (1, 2047)),
    Split(KB16, 39, 0x1FFC000, (2047,)),
    Split(KB16, 48, 0xC000, (3,)),
    Split(KB64, 21, 0x7FFFFFF0000, (1, 8191, 8191)),
    Split(KB64, 22, 0x3FFFFFF0000, (8191, 8191)),
    Split(KB64, 34, 0x3FFF0000, (1, 8191)),
    Split(KB64, 35, 0x1FFF0000, (8191,)),
    Split(KB64, 47, 0x10000, (1,)),
]


def tree(split: Split, root: int = TABLES) -> dict[int, int]:
    """Tables of 64 KB, one behind the other, and a page at their end."""
    words, table = {}, root
    for depth, index in enumerate(split.indices):
        last = depth == len(split.indices) - 1
        after = TABLES + 0x20000 + 0x10000 * depth
        words[table + 8 * index] = PAGE | 0xFFF & ~0xB8 if last else after | 3
        table = after
    return words


def cd(granule: int, t0sz: int, ips: int = 5, ttb: int = TABLES, ds: int = 0) -> dict[int, int]:
    word = CD_WORDS[0] & ~0xFF & ~(7 << 32) | granule << 6 | t0sz | ips << 32
    return {CD_0: word, CD_0 + 8: ttb, CD_0 + 16: ds << 58}


@pytest.mark.parametrize("split", STAGE_1)
def test_stage_1(split: Split) -> None:
    """Small tables and 52-bit input addresses are of units that have them."""
    machine = handmade(tree(split) | cd(split.granule, split.t0sz), idr3=STT, idr5=0x475)
    offset = split.address & {KB4: 0xFFF, KB16: 0x3FFF, KB64: 0xFFFF}[split.granule]
    assert machine.reaches(ONE, split.address) == PAGE | offset
    # One bit more is too many.
    assert machine.goes(ONE, split.address | 1 << 64 - split.t0sz) == "F_TRANSLATION"


@pytest.mark.parametrize(
    ("granule", "t0sz", "idr3", "idr5"),
    [
        (KB4, 15, STT, 0x475),
        (KB64, 11, STT, 0x475),
        (KB64, 15, STT, ALL_48),
        (KB4, 40, 0xC14, ALL_48),
        (KB64, 40, 0xC14, ALL_48),
        (KB4, 49, STT, ALL_48),
        (KB64, 48, STT, ALL_48),
        (KB16, 16, 0xC14, 0x55),
        (3, 16, 0xC14, ALL_48),
    ],
)
def test_sizes_of_stage_1_that_there_are_not(granule: int, t0sz: int, idr3: int, idr5: int) -> None:
    assert handmade(cd(granule, t0sz), idr3=idr3, idr5=idr5).goes(ONE, 0) == "C_BAD_CD"


STAGE_2 = [
    # One start table.
    Split(KB4, 16, 0x7F1234567000, (254, 72, 418, 359), 2),
    Split(KB4, 25, 0x3F1234567, (15, 393, 52), 1),
    Split(KB4, 34, 0x3FFFF000, (511, 511), 0),
    Split(KB4, 43, 0x1FF000, (511,), 3),
    Split(KB16, 17, 0x7F1234567000, (2033, 282, 345), 2),
    Split(KB16, 28, 0xFFFFFC000, (2047, 2047), 1),
    Split(KB16, 39, 0x1FFC000, (2047,), 0),
    Split(KB64, 16, 0x7F1234567000, (31, 6289, 5206), 2),
    Split(KB64, 22, 0x3FFFFFF0000, (8191, 8191), 1),
    Split(KB64, 35, 0x1FFF0000, (8191,), 0),
    # Side by side: the worked split, of two tables, then what needs the last of 16, 8 and 2.
    Split(KB4, 24, 0xFF12345678, (1020, 145, 325), 1),
    Split(KB4, 21, 0x7FF_FFFF_F000, (8191, 511, 511), 1),
    Split(KB4, 30, 0x3_FFFF_F000, (8191, 511), 0),
    Split(KB4, 31, 0x1_FFFF_F000, (4095, 511), 0),
    Split(KB16, 16, 0xFFFF_FFFF_C000, (4095, 2047, 2047), 2),
    Split(KB16, 38, 0x3FF_C000, (4095,), 0),
    Split(KB64, 21, 0x7FF_FFFF_0000, (16383, 8191), 1),
]


def stage_2(split: Split, ps: int = 5, root: int = TABLES, ds: int = 0) -> dict[int, int]:
    word = 0x0448_3500_0000_002A | split.t0sz << 32 | split.sl0 << 38 | split.granule << 46 | ps << 48
    return {ste(TWO) + 16: word, ste(TWO) + 24: root | split.sl0_2 << 2 | ds << 3}


@pytest.mark.parametrize("split", STAGE_2)
def test_stage_2(split: Split) -> None:
    machine = handmade(tree(split) | stage_2(split), idr3=STT)
    offset = split.address & {KB4: 0xFFF, KB16: 0x3FFF, KB64: 0xFFFF}[split.granule]
    assert machine.reaches(TWO, split.address) == PAGE | offset
    beyond = machine.goes(TWO, split.address | 1 << 64 - split.t0sz)
    assert beyond == ("F_ADDR_SIZE" if split.t0sz == 16 else "F_TRANSLATION")


@pytest.mark.parametrize(
    ("split", "beyond"),
    [(STAGE_2[10], 0x1000), (STAGE_2[11], 0x8000), (STAGE_2[13], 0x4000), (STAGE_2[1], 0x100)],
)
def test_start_tables_are_aligned_to_their_whole_size(split: Split, beyond: int) -> None:
    """Lower bits of S2TTB are taken as zero; `beyond` is the highest of them."""
    words = tree(split)
    assert handmade(words | stage_2(split, root=TABLES | beyond), idr3=STT).goes(TWO, split.address & ~0xFFF) == PAGE


@pytest.mark.parametrize(
    ("t0sz", "sl0", "granule"),
    [(33, 2, KB4), (24, 0, KB4), (20, 1, KB4), (15, 2, KB4), (20, 3, KB4), (20, 3, KB64), (16, 3, KB16), (20, 2, 3)],
)
def test_starts_of_stage_2_that_there_are_not(t0sz: int, sl0: int, granule: int) -> None:
    split = Split(granule, t0sz, 0, (), sl0)
    assert handmade(stage_2(split)).goes(TWO, 0) == "C_BAD_STE"


# The upper half


UPPER = {CD_0: 0x0012_E205_B599_3510, CD_0 + 16: 0x40000}
"""V12's TTB1: 39 bits, 4 KB; TTB0 is on as well."""
HIGH = 0xFFFF_FFBF_1234_5678


def upper(changes: dict[int, int] | None = None) -> Machine:
    """HIGH has the indices 0xfc of 512 at level 1, 0x91, 0x145."""
    tables = {TABLES + 8 * 0xFC: 0x41003, 0x41000 + 8 * 0x91: 0x42003, 0x42000 + 8 * 0x145: PAGE | 0xF47}
    return handmade(tables | UPPER | (changes or {}))


def test_both_halves() -> None:
    machine = upper()
    assert machine.goes(ONE, HIGH) == PAGE | 0x678
    assert machine.goes(ONE, RW) == 0x30000
    # What is cached of one half is not of the other.
    assert machine.goes(ONE, HIGH & (1 << 39) - 1) == "F_TRANSLATION"
    assert machine.ask(ONE, HIGH).hit


def test_the_same_indices_in_both_halves() -> None:
    """Tables that are cached of one half are not of the other."""
    lower = {0x20000: 0x43003, 0x43000 + 8 * 0xFC: 0x44003, 0x44000 + 8 * 0x91: 0x45003, 0x45000 + 8 * 0x145: 0x31F47}
    machine = upper(lower)
    assert machine.goes(ONE, HIGH) == PAGE | 0x678
    assert machine.goes(ONE, HIGH & (1 << 39) - 1) == 0x31678


@pytest.mark.parametrize("bit", [39, 47, 48, 54, 55, 56, 63])
def test_bits_above(bit: int) -> None:
    """All must be ones in the upper half, and zeros in the lower one. Bit 55 says which."""
    assert upper().goes(ONE, HIGH ^ 1 << bit) == "F_TRANSLATION"
    if bit >= 48:
        assert upper().goes(ONE, RW ^ 1 << bit) == "F_TRANSLATION"


TBI0, TBI1 = 1 << 38, 1 << 39


@pytest.mark.parametrize(("tbi", "high", "low"), [(TBI0, False, True), (TBI1, True, False), (TBI0 | TBI1, True, True)])
def test_top_byte_ignored(tbi: int, high: bool, low: bool) -> None:
    """The byte and no more. What is cached is found with any byte."""
    machine = upper({CD_0: UPPER[CD_0] | tbi})
    assert machine.goes(ONE, HIGH & ~(0xA5 << 56)) == (PAGE | 0x678 if high else "F_TRANSLATION")
    assert machine.goes(ONE, RW | 0xA5 << 56) == (0x30000 if low else "F_TRANSLATION")
    assert machine.goes(ONE, HIGH ^ 1 << 54) == machine.goes(ONE, RW ^ 1 << 54) == "F_TRANSLATION"
    assert machine.ask(ONE, HIGH | 0xFF << 56).hit == high
    assert machine.ask(ONE, RW).hit == low


@pytest.mark.parametrize(("epd", "high", "low"), [(1 << 30, False, True), (1 << 14, True, False)])
def test_epd(epd: int, high: bool, low: bool) -> None:
    """Of the half that is off, nothing is checked."""
    garbage = 0xFF_0000 if epd == 1 << 30 else 0xFF
    machine = upper({CD_0: UPPER[CD_0] & ~garbage | garbage | epd})
    assert machine.goes(ONE, HIGH) == (PAGE | 0x678 if high else "F_TRANSLATION")
    assert machine.goes(ONE, RW) == (0x30000 if low else "F_TRANSLATION")


# 52 bits


FAR = 0xF_1234_5678_0000


def test_pages_of_64_kb_with_52_bits() -> None:
    """P6, below tables whose addresses have bits above 48, too."""
    memory = SparseMemory((0, 0x10_0000), (0xC_0000_0000_0000, 0x3_0000))
    memory.put(WORDS | cd(KB64, 12, 6, 0xC_0000_0000_0000))
    memory.put({0xC_0000_0000_0000 + 8 * 991: 0x1_C003, 0xC_0000_0001_0000 + 8 * 6289: 0x2_C003})
    memory.put({0xC_0000_0002_0000 + 8 * 5206: 0x0060_1234_5678_FF47})
    machine = Machine(memory, idr5=ALL_52)
    machine.switch_on(0x1000, 5)
    assert machine.goes(ONE, 0xF7F1234567ABC) == FAR | 0x7ABC


def test_pages_of_4_kb_with_ds() -> None:
    """P7, from level -1 on."""
    split = Split(KB4, 12, 0xD_7F12_3456_7000, (13, 254, 72, 418, 359))
    words = tree(split)
    words[max(words)] = 0x0062_1234_5678_9F47
    machine = handmade(words | cd(KB4, 12, 6, ds=1), idr5=ALL_52)
    assert machine.goes(ONE, split.address | 0xABC) == 0xE_1234_5678_9ABC
    machine = handmade(words | cd(KB4, 12, 5, ds=1), idr5=ALL_52)
    assert machine.goes(ONE, split.address) == "F_ADDR_SIZE"
    assert handmade(words | cd(KB4, 12, 6, ds=1), idr5=ALL_52 & ~0x80).goes(ONE, 0) == "C_BAD_CD"


def test_stage_2_with_ds() -> None:
    """S2SL0_2 with S2SL0 0 is level -1."""
    split = Split(KB4, 12, 0xD_7F12_3456_7000, (13, 254, 72, 418, 359), 0, 1)
    words = tree(split)
    words[max(words)] = 0x0002_1234_5678_9CFF | 3 << 8
    machine = handmade(words | stage_2(split, 6, ds=1), idr5=ALL_52)
    assert machine.goes(TWO, split.address | 0xABC) == 0xE_1234_5678_9ABC


@pytest.mark.parametrize(
    ("granule", "ips", "ds", "leaf", "expected"),
    [
        # Without the formats for them, bits 48 and 49 are no address, and IPS ends at 48.
        (KB4, 6, 0, 3 << 48 | 0x30F47, 0x30000),
        (KB4, 6, 0, 0xFFFF_FFFF_0F47, 0xFFFF_FFFF_0000),
        (KB4, 6, 1, 3 << 48 | 0x30C47, 0x3_0000_0003_0000),
        (KB4, 5, 1, 1 << 48 | 0x30C47, "F_ADDR_SIZE"),
        (KB4, 5, 1, 0x30D47, "F_ADDR_SIZE"),
        (KB4, 4, 0, 1 << 44 | 0x30F47, "F_ADDR_SIZE"),
        (KB4, 4, 0, 0xFFF_FFFF_0F47, 0xFFF_FFFF_0000),
        (KB64, 6, 0, 0x3_FF47, 0xF_0000_0003_0000),
        (KB64, 5, 0, 0x3_1F47, "F_ADDR_SIZE"),
    ],
)
def test_output_sizes(granule: int, ips: int, ds: int, leaf: int, expected: int | str) -> None:
    split = Split(granule, 35, 0x1FFF_0000, (0xFF, 0x1F0) if granule == KB4 else (0x1FFF,))
    words = tree(split)
    words[max(words)] = leaf
    assert handmade(words | cd(granule, 35, ips, ds=ds), idr5=ALL_52).goes(ONE, split.address) == expected


def test_oas_is_a_limit_whatever_ips_says() -> None:
    """A unit of 40 bits."""
    machine = handmade({0x23020: 1 << 40 | 0x30F47}, idr5=0x72)
    assert machine.goes(ONE, RW) == "F_ADDR_SIZE"


@pytest.mark.parametrize(
    ("granule", "ds", "idr5", "block", "expected"),
    [
        # 512 GB, 1 GB; 64 GB; 4 TB.
        (KB4, 0, ALL_52, 0xC41, "F_TRANSLATION"),
        (KB4, 1, ALL_52, 0xC41, 0x12_3456_7000),
        (KB64, 0, ALL_52, 0xF41, 0x312_3456_7000),
        (KB64, 0, ALL_48, 0xF41, "F_TRANSLATION"),
        (KB16, 0, ALL_52, 0xF41, "F_TRANSLATION"),
        (KB16, 1, ALL_52, 0xC41, 0x2_3456_7000),
    ],
)
def test_large_blocks(granule: int, ds: int, idr5: int, block: int, expected: int | str) -> None:
    """On the first level of 48, 47 and 48 bits; of 4 KB that is level 0, of the others level 1."""
    t0sz = 17 if granule == KB16 else 16
    address = 0x7312_3456_7000
    shift = {KB4: 39, KB16: 36, KB64: 42}[granule]
    index = address >> shift
    machine = handmade({TABLES + 8 * index: block} | cd(granule, t0sz, ds=ds), idr5=idr5)
    assert machine.goes(ONE, address) == expected


def test_small_start_tables() -> None:
    """They are aligned to their size, or to 64 bytes where output addresses have 52 bits."""
    split = Split(KB64, 20, 0x800_0000_0000, (2, 0, 0))
    for ips, root in ((5, TABLES + 0x20), (6, TABLES)):
        machine = handmade(tree(split, root) | cd(KB64, 20, ips, TABLES + 0x20), idr5=ALL_52)
        assert machine.goes(ONE, split.address) == PAGE


def test_a_table_beyond_the_output_size() -> None:
    assert handmade({L1: 1 << 44 | 0x22003, CD_0: CD_WORDS[0] & ~(1 << 32)}).goes(ONE, RW) == "F_ADDR_SIZE"
    assert handmade({I0: 1 << 44 | 0x14003}).goes(TWO, 0) == "F_ADDR_SIZE"
    # Stage 1's is an address of stage 2, which has fewer bits.
    assert handmade({L0: 1 << 44 | 0x21003}).goes(BOTH, RW) == "F_TRANSLATION"

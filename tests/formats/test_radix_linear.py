# SPDX-License-Identifier: Apache-2.0
"""Formats whose entries are linear within a part of the output addresses only."""

import pytest

from iommuctl.formats import radix
from iommuctl.formats.memory import read_word
from iommuctl.formats.radix import Leaf
from iommuctl.formats.runs import parts
from tests.formats.toy import SplitFormat, ToyMemory

FMT = SplitFormat(4096, width=39, levels=3, page_levels=2)
K4, M2 = FMT.page_sizes
PART = 1 << FMT.linear


@pytest.mark.parametrize("page_size", FMT.page_sizes)
@pytest.mark.parametrize("pa", [0, M2, 7 * PART - M2, (1 << 50) - M2])
def test_each_entry_is_that_of_its_address(page_size: int, pa: int) -> None:
    memory = ToyMemory()
    root = radix.new_root(FMT, memory)
    size = 3 * PART
    radix.map_range(FMT, memory, root, M2, size, pa, "rw", (page_size,))
    level = FMT.page_sizes.index(page_size) + 1
    leaves = [visit for visit in radix.entries(FMT, memory, root) if visit.entry.kind == "leaf"]
    assert [visit.raw for visit in leaves] == [
        FMT.leaf(level, pa + offset, "rw") for offset in range(0, size, page_size)
    ]
    assert list(radix.leaves(FMT, memory, root)) == [
        Leaf(M2 + offset, page_size, pa + offset, "rw") for offset in range(0, size, page_size)
    ]
    assert radix.unmap_range(FMT, memory, root, M2, size).leaves == size // page_size
    assert not list(radix.entries(FMT, memory, root))


def test_tables_on_both_sides_of_a_boundary() -> None:
    memory = ToyMemory(base=9 * PART - 3 * K4)
    root = radix.new_root(FMT, memory)
    radix.map_range(FMT, memory, root, 0, 5 * M2, 0, "rw", (K4,))
    middle = FMT.decode(3, read_word(memory, root)).address
    assert middle == root + K4
    assert [read_word(memory, middle + 8 * number) for number in range(5)] == [
        FMT.table(2, middle + K4 + number * K4) for number in range(5)
    ]
    assert middle + K4 < 9 * PART < middle + 6 * K4
    assert len(list(radix.leaves(FMT, memory, root))) == 5 * 512


def test_parts() -> None:
    assert list(parts(0x3000, 0x3000, 12)) == []
    assert list(parts(0x3000, 0x9000, 64)) == [(0x3000, 0x9000)]
    assert list(parts(0x3000, 0x9000, 14)) == [(0x3000, 0x4000), (0x4000, 0x8000), (0x8000, 0x9000)]
    assert list(parts(0x4000, 0x8000, 14)) == [(0x4000, 0x8000)]

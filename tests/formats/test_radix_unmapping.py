# SPDX-License-Identifier: Apache-2.0
"""unmap_range where the format does not matter: what is written, what is given back, what is refused."""

import pytest

from iommuctl.errors import (
    DamagedTable,
    IommuError,
    Misaligned,
    OutOfAperture,
    PartialUnmap,
    ZeroSize,
)
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run, read_word, write_word
from tests.formats.toy import ToyEntry, pages_of
from tests.formats.toy_tree import BASE, FMT, G1, K4, M2, RESERVED, USED, damaged_tree, entry_address, tree


@pytest.mark.parametrize(
    ("iova", "size", "error"),
    [
        (M2, 0, ZeroSize),
        (M2 + 1, K4, Misaligned),
        (M2, 1, Misaligned),
        (1 << 39, K4, OutOfAperture),
        (G1, K4, PartialUnmap),
        (M2 + K4, K4, PartialUnmap),
        (10 * M2, K4, PartialUnmap),
        (10 * M2 + K4, M2, PartialUnmap),
        (9 * M2 + K4, M2, PartialUnmap),
        (M2, 3 * K4, DamagedTable),
        (M2, 2 * M2, DamagedTable),
        (3 * M2, M2, DamagedTable),
        (4 * M2, 2 * M2, DamagedTable),
    ],
)
def test_what_cannot_be_unmapped(iova: int, size: int, error: type[IommuError]) -> None:
    memory, root = damaged_tree()
    before = memory.read(BASE, 3 << 20)
    with pytest.raises(error):
        radix.unmap_range(FMT, memory, root, iova, size)
    assert memory.read(BASE, 3 << 20) == before


def test_unmap_writes_each_table_once_and_leaves_freeing_to_the_caller() -> None:
    memory, root = tree((0, 3 * M2, 0), (4 * M2, K4, 0))
    used = set(memory.used)
    leaf_tables = [memory.read(entry_address(memory, root, at, 1), 8) for at in (0, M2)]
    assert all(leaf_tables)
    done = radix.unmap_range(FMT, memory, root, M2 - 2 * K4, M2 + 4 * K4)
    assert done.leaves == 516
    assert len(pages_of(done.freed)) == 1
    assert memory.used == used
    middle = entry_address(memory, root, 0, 2)
    first, last = entry_address(memory, root, M2 - 2 * K4, 1), entry_address(memory, root, 2 * M2, 1)
    assert sorted(memory.writes) == sorted([(first, 16), (last, 16), (middle + 8, 8)])
    assert [leaf.iova for leaf in radix.leaves(FMT, memory, root)] == [
        *range(0, M2 - 2 * K4, K4),
        *range(2 * M2 + 2 * K4, 3 * M2, K4),
        4 * M2,
    ]


def test_unmap_takes_out_every_table_that_becomes_empty() -> None:
    memory, root = tree((M2, K4, 0), (2 * M2 - K4, K4, 0))
    assert radix.unmap_range(FMT, memory, root, M2, K4).freed == []
    assert radix.unmap_range(FMT, memory, root, 2 * M2 - K4, K4) == ([Run(BASE + PAGE, 2)], 1)
    assert memory.read(root, PAGE) == bytes(PAGE)


def test_unmap_looks_between_the_first_and_the_last_page() -> None:
    memory, root = tree((0, M2, 0))
    middle = entry_address(memory, root, 7 * K4, 1)
    write_word(memory, middle, RESERVED | ToyEntry.V.mask)
    with pytest.raises(DamagedTable):
        radix.unmap_range(FMT, memory, root, 0, M2)
    write_word(memory, middle, USED)
    write_word(memory, middle + 8, 0)
    assert radix.unmap_range(FMT, memory, root, 0, M2) == ([Run(BASE + PAGE, 2)], 510)


def test_unmap_takes_out_a_table_with_what_hardware_ignores() -> None:
    memory, root = tree((0, K4, 0))
    write_word(memory, entry_address(memory, root, M2 - K4, 1), USED)
    assert radix.unmap_range(FMT, memory, root, 0, K4).freed == []
    radix.map_range(FMT, memory, root, 0, K4, 0, "rw", (K4,))
    assert radix.unmap_range(FMT, memory, root, 0, M2).freed == [Run(BASE + PAGE, 2)]


def test_unmap_counts_pages_that_hardware_has_marked() -> None:
    memory, root = tree((0, M2, 0))
    for iova in (0, 5 * K4, M2 - K4):
        at = entry_address(memory, root, iova, 1)
        write_word(memory, at, read_word(memory, at) | USED)
    assert radix.unmap_range(FMT, memory, root, 0, M2).leaves == 512

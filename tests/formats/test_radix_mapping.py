# SPDX-License-Identifier: Apache-2.0
"""map_range where the format does not matter: the cost, the order of writes, what is refused."""

from collections.abc import Callable

import pytest

from iommuctl.errors import (
    BadStructure,
    DamagedTable,
    IommuError,
    Misaligned,
    NoRoom,
    OutOfAperture,
    Overlap,
    ZeroSize,
)
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run, write_word
from iommuctl.formats.radix import Leaf
from tests.formats.toy import ToyFormat, ToyMemory, WideFormat, pages_of
from tests.formats.toy_tree import BASE, FMT, G1, K4, M2, USED, damaged_tree, entry_address, tree


class CountingFormat(ToyFormat):
    decoded = 0

    def decode(self, level: int, raw: int) -> radix.Entry:
        self.decoded += 1
        return super().decode(level, raw)


def test_a_gib_takes_few_calls() -> None:
    """The guard for the time of a bulk map: 262144 entries, 513 new tables."""
    fmt = CountingFormat(4096, width=39, levels=3, page_levels=3)
    memory, root = tree()
    radix.map_range(fmt, memory, root, G1, G1, 3 * G1, "rw", (K4,))
    assert memory.allocations == 2
    assert len(memory.writes) == 8 + 2
    assert sum(size for _, size in memory.writes) == 513 * PAGE + 8
    assert radix.table_runs(fmt, memory, root) == [Run(BASE, 514)]
    assert fmt.decoded == 513, "leaf entries are not looked at"
    memory.writes.clear()
    memory.reads.clear()
    assert radix.unmap_range(fmt, memory, root, G1, G1) == ([Run(BASE + PAGE, 513)], 512 * 512)
    assert memory.writes == [(root + 8, 8)]
    assert len(memory.reads) == 514
    assert fmt.decoded < 4 * 514, "two entries stand for a leaf table"


def test_tables_are_written_before_what_points_to_them() -> None:
    """After each write hardware finds a good tree, though fresh memory is full of garbage."""
    seen = []

    class Watched(ToyMemory):
        def write(self, address: int, data: bytes) -> None:
            super().write(address, data)
            seen.append((radix.check(FMT, self, BASE), len(list(radix.leaves(FMT, self, BASE)))))

    memory = Watched(1 << 20, BASE)
    assert radix.new_root(FMT, memory) == BASE
    radix.map_range(FMT, memory, BASE, M2 - K4, M2 + 2 * K4, G1 - K4, "rw", FMT.page_sizes)
    radix.map_range(FMT, memory, BASE, M2 - 3 * K4, 2 * K4, 0, "rw", FMT.page_sizes)
    assert [count for findings, count in seen] == sorted(count for findings, count in seen)
    assert not any(findings for findings, _ in seen)
    assert seen[-1][1] == 5


def test_live_entries_are_written_after_all_fresh_tables() -> None:
    memory, root = tree((M2, K4, 0), (9 * M2 - K4, K4, 0))
    live = set(memory.used)
    radix.map_range(FMT, memory, root, M2 + K4, 8 * M2 - 2 * K4, 0, "rw", (K4,))
    late = [address - address % PAGE in live for address, _ in memory.writes]
    assert late == sorted(late)
    assert sum(late) == 3, "the rest of both leaf tables, and the entries between them"
    assert len(list(radix.leaves(FMT, memory, root))) == 8 * 512


def test_scattered_memory() -> None:
    fmt = WideFormat(16384, width=48, levels=3, page_levels=2)
    memory = ToyMemory(4 << 20, BASE, fragment=9)
    root = radix.new_root(fmt, memory)
    assert root % (32 << 10) == 0, "concatenated tables are aligned to the size of all"
    granule = fmt.page_sizes[0]
    start, size = 5 * granule, 9 * granule * fmt.entries(1)
    radix.map_range(fmt, memory, root, start, size, 0, "rw", (granule,))
    assert list(radix.leaves(fmt, memory, root)) == [
        Leaf(start + offset, granule, offset, "rw") for offset in range(0, size, granule)
    ]
    assert set(pages_of(radix.table_runs(fmt, memory, root))) == memory.used
    assert all(step.entry.address % granule == 0 for step in radix.entries(fmt, memory, root))


@pytest.mark.parametrize(
    ("iova", "size", "pa", "error"),
    [
        (K4, 0, 0, ZeroSize),
        (K4, -K4, 0, ZeroSize),
        (0x800, K4, 0, Misaligned),
        (K4, K4 + 1, 0, Misaligned),
        (K4, K4, 0x800, Misaligned),
        ((1 << 39) - K4, 2 * K4, 0, OutOfAperture),
        (1 << 39, K4, 0, OutOfAperture),
        (-K4, 2 * K4, 0, OutOfAperture),
        (K4, 2 * K4, (1 << 52) - K4, BadStructure),
        (M2, K4, 0, Overlap),
        (0, G1, 0, Overlap),
        (M2 - K4, 2 * K4, 0, Overlap),
        (M2 + 2 * K4, K4, 0, DamagedTable),
        (2 * M2, K4, 0, DamagedTable),
        (3 * M2, K4, 0, DamagedTable),
        (4 * M2, 5 * M2, 0, DamagedTable),
    ],
)
def test_what_cannot_be_mapped(iova: int, size: int, pa: int, error: type[IommuError]) -> None:
    memory, root = damaged_tree()
    before = memory.read(BASE, 3 << 20)
    with pytest.raises(error):
        radix.map_range(FMT, memory, root, iova, size, pa, "rw", FMT.page_sizes)
    assert memory.read(BASE, 3 << 20) == before
    assert not memory.allocations


def test_errors_name_the_place() -> None:
    memory, root = damaged_tree()

    def message(action: Callable[..., object], *arguments: object) -> str:
        with pytest.raises(IommuError) as caught:
            action(FMT, memory, root, *arguments)
        return str(caught.value)

    assert message(radix.map_range, 0, M2 + K4, 0, "rw", (K4,)) == (
        "error[overlap]: IOVA 0x200000 is mapped already\nbecause: a page of 0x1000 bytes is mapped to 0x7000 there"
    )
    assert "has reserved bit 55 set" in message(radix.map_range, M2 + 2 * K4, K4, 0, "rw", (K4,))
    assert "level 1 at 0x10000000000 is outside memory" in message(radix.unmap_range, 3 * M2, M2)
    assert "is reached a second time" in message(radix.unmap_range, 4 * M2, 2 * M2)
    assert "page of 0x200000 bytes at IOVA 0x1400000 is only partly" in message(radix.unmap_range, 10 * M2, K4)
    assert "nothing is mapped in IOVA 0x40000000..0x40000fff" in message(radix.unmap_range, G1, K4)
    assert "multiples of the smallest page size, 0x200000" in message(radix.map_range, 0, K4, 0, "rw", (M2, G1))


def test_no_room_changes_no_live_table() -> None:
    memory = ToyMemory(4 * PAGE, BASE)
    root = radix.new_root(FMT, memory)
    radix.map_range(FMT, memory, root, 0, K4, 0, "rw", (K4,))
    with pytest.raises(NoRoom):
        radix.map_range(FMT, memory, root, K4, 3 * M2, 0, "rw", (K4,))
    assert list(radix.leaves(FMT, memory, root)) == [Leaf(0, K4, 0, "rw")]


def test_an_empty_entry_may_hold_what_hardware_ignores() -> None:
    memory, root = tree((M2, K4, 0))
    for level, iova in ((1, M2 + K4), (2, 2 * M2), (3, G1)):
        write_word(memory, entry_address(memory, root, iova, level), USED)
    assert len(list(radix.entries(FMT, memory, root))) == 3
    radix.map_range(FMT, memory, root, M2 + K4, M2, 0, "rw", (K4,))
    assert radix.unmap_range(FMT, memory, root, 0, 1 << 39).leaves == 513
    assert not list(radix.entries(FMT, memory, root))

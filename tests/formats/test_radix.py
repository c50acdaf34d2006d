# SPDX-License-Identifier: Apache-2.0
"""The page-table engine where the format does not matter: order of writes, bounds, damage, hostile memory."""

import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.errors import (
    BadStructure,
    DamagedTable,
    IommuError,
    Misaligned,
    NoRoom,
    OutOfAperture,
    OutsideMemory,
    Overlap,
    PartialUnmap,
    ZeroSize,
)
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, BytesMemory, Run, read_word, write_word
from iommuctl.formats.radix import Leaf
from tests.formats.toy import ToyEntry, ToyFormat, ToyMemory, WideFormat, pages_of

FMT = ToyFormat(4096, width=39, levels=3, page_levels=3)
K4, M2, G1 = FMT.page_sizes
BASE = 0x4000_3000
USED = ToyEntry.USED.mask
RESERVED = 1 << 55


def tree(*mappings: tuple[int, int, int]) -> tuple[ToyMemory, int]:
    """Memory with a tree that has these mappings, read-write and from pages of 4 KiB."""
    memory = ToyMemory(3 << 20, BASE)
    root = radix.new_root(FMT, memory)
    for iova, size, pa in mappings:
        radix.map_range(FMT, memory, root, iova, size, pa, "rw", (K4,))
    memory.writes.clear()
    memory.allocations = 0
    return memory, root


def entry_address(memory: ToyMemory, root: int, iova: int, level: int) -> int:
    return next(step.address for step in radix.walk(FMT, memory, root, iova) if step.level == level)


class CountingFormat(ToyFormat):
    decoded = 0

    def decode(self, level: int, raw: int) -> radix.Entry:
        self.decoded += 1
        return super().decode(level, raw)


# The driver side.


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
    memory, root = tree((M2, K4, 0), (G1 - K4, K4, 0))
    live = set(memory.used)
    radix.map_range(FMT, memory, root, M2 + K4, G1 - M2 - 2 * K4, 0, "rw", (K4,))
    late = [address - address % PAGE in live for address, _ in memory.writes]
    assert late == sorted(late)
    assert sum(late) == 3, "the rest of both leaf tables, and the entries between them"
    assert len(list(radix.leaves(FMT, memory, root))) == (G1 - M2) // K4


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


def damaged_tree() -> tuple[ToyMemory, int]:
    """A page at 2 MiB and garbage behind it; at 4 MiB garbage, at 6 MiB a pointer to nowhere, at 8 and 10 MiB a table
    that is shared, at 20 MiB a page of 2 MiB."""
    memory, root = tree((M2, K4, 0x7000))
    radix.map_range(FMT, memory, root, 10 * M2, M2, 0, "rw", (M2,))
    write_word(memory, entry_address(memory, root, M2 + 2 * K4, 1), FMT.leaf(1, 0, "r") | RESERVED)
    middle = entry_address(memory, root, 0, 2)
    write_word(memory, middle + 8 * 2, FMT.table(2, 0) | RESERVED)
    write_word(memory, middle + 8 * 3, FMT.table(2, 1 << 40))
    shared = memory.allocate_run(1)
    memory.write(shared, bytes(PAGE))
    write_word(memory, middle + 8 * 4, FMT.table(2, shared))
    write_word(memory, middle + 8 * 5, FMT.table(2, shared))
    memory.allocations = 0
    return memory, root


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


# The hardware side.


def test_walk_shows_every_step() -> None:
    memory, root = tree((M2 + 3 * K4, K4, 0x9000))
    steps = list(radix.walk(FMT, memory, root, M2 + 3 * K4 + 0x123))
    assert [(step.level, step.entry.kind, step.iova, step.size) for step in steps] == [
        (3, "table", 0, G1),
        (2, "table", M2, M2),
        (1, "leaf", M2 + 3 * K4, K4),
    ]
    assert [step.address for step in steps] == [root, root + PAGE + 8, root + 2 * PAGE + 24]
    assert [step.raw for step in steps] == [read_word(memory, step.address) for step in steps]
    assert steps[-1].entry == ("leaf", 0x9000, "rw", 0)


def test_walk_ignores_upper_bits() -> None:
    memory, root = tree(((1 << 39) - K4, K4, 0x9000))
    assert list(radix.walk(FMT, memory, root, -1))[-1].entry.address == 0x9000
    assert list(radix.walk(FMT, memory, root, (1 << 64) - 1))[-1].entry.address == 0x9000


def test_walk_lets_exceptions_of_memory_through() -> None:
    memory, root = tree()
    write_word(memory, root, FMT.table(3, 1 << 40))
    walk = radix.walk(FMT, memory, root, 0)
    assert next(walk).entry == ("table", 1 << 40, "rwx", 0)
    with pytest.raises(OutsideMemory):
        next(walk)


def test_walk_ends_at_the_first_level_whatever_is_there() -> None:
    class Odd(ToyFormat):
        def decode(self, level: int, raw: int) -> radix.Entry:  # noqa: ARG002
            return radix.Entry("table", BASE + (4 - level) * PAGE)

    memory, root = tree()
    write_word(memory, root, 1)
    assert [step.level for step in radix.walk(Odd(4096, 39, 3, 3), memory, root, 0)] == [3, 2, 1]
    assert len(list(radix.entries(Odd(4096, 39, 3, 3), memory, root))) == 1 + 512 + 512


def test_entries_come_depth_first_in_order() -> None:
    memory, root = tree((M2, 2 * K4, 0))
    radix.map_range(FMT, memory, root, G1, G1, 0, "r", FMT.page_sizes)
    assert [(visit.level, visit.entry.kind, visit.iova) for visit in radix.entries(FMT, memory, root)] == [
        (3, "table", 0),
        (2, "table", M2),
        (1, "leaf", M2),
        (1, "leaf", M2 + K4),
        (3, "leaf", G1),
    ]


@pytest.mark.parametrize(
    ("top", "middle", "leaf", "together"),
    [
        ("rwx", "rwx", "r", "r"),
        ("rw", "rx", "rwx", "r"),
        ("r", "w", "rw", ""),
        ("rwp", "rwx", "rw", "rwp"),
        ("rwx", "rwxp", "rx", "rxp"),
        ("rw", "rw", "rwp", "rwp"),
    ],
)
def test_levels_allow_together(top: str, middle: str, leaf: str, together: str) -> None:
    memory, root = tree()
    radix.map_range(FMT, memory, root, 0, K4, 0, leaf, (K4,))
    radix.map_range(FMT, memory, root, G1, K4, 0, "rwx", (K4,))
    for level, prot in ((3, top), (2, middle)):
        at = entry_address(memory, root, 0, level)
        child = FMT.decode(level, read_word(memory, at)).address
        write_word(memory, at, FMT.encode(child, prot))
    assert list(radix.leaves(FMT, memory, root)) == [Leaf(0, K4, 0, together), Leaf(G1, K4, 0, "rwx")]


# Trees that nobody should build.


def test_check_names_what_is_wrong() -> None:
    memory, root = damaged_tree()
    write_word(memory, root + 16, ToyEntry.V.mask)
    middle = entry_address(memory, root, 0, 2)
    leaf = entry_address(memory, root, M2 + 2 * K4, 1)
    shared = read_word(memory, middle + 8 * 5) & ToyEntry.ADDR.mask
    garbage = [read_word(memory, at) for at in (leaf, middle + 16)]
    assert radix.check(FMT, memory, root) == [
        f"the entry of level 1 at {leaf:#x} for IOVA 0x202000, {garbage[0]:#x}, has reserved bit 55 set",
        f"the entry of level 2 at {middle + 16:#x} for IOVA 0x400000, {garbage[1]:#x}, has reserved bit 55 set",
        "the table of level 1 at 0x10000000000 for IOVA 0x600000 is outside memory",
        f"the table of level 1 at {shared:#x} for IOVA 0xa00000 is reached a second time: "
        "entries share it, or form a loop",
        f"the entry of level 3 at {root + 16:#x} for IOVA 0x80000000, 0x1, is not a valid one",
    ]
    assert radix.check(FMT, memory, 1 << 40) == ["the table of level 3 at 0x10000000000 for IOVA 0x0 is outside memory"]


def test_check_does_not_go_on_for_ever() -> None:
    memory, root = tree()
    memory.write(root, struct.pack("<Q", RESERVED | 1) * 512)
    findings = radix.check(FMT, memory, root)
    assert len(findings) == 101
    assert findings[-1] == "the check ends here, there may be more"


def test_loops_and_shared_tables_are_entered_once() -> None:
    memory, root = tree()
    middle, last = memory.allocate_run(1), memory.allocate_run(1)
    memory.write(root, FMT.table(3, middle).to_bytes(8, "little") * 512)
    memory.write(middle, FMT.table(2, root).to_bytes(8, "little") + FMT.table(2, last).to_bytes(8, "little") * 511)
    memory.write(last, FMT.leaf(1, 0x5000, "r").to_bytes(8, "little") * 512)
    memory.reads.clear()
    assert len(list(radix.leaves(FMT, memory, root))) == 512
    assert len(list(radix.entries(FMT, memory, root))) == 512 * 3
    assert radix.table_runs(FMT, memory, root) == [Run(root, 3)]
    assert len(memory.reads) == 9


def test_table_runs_leave_out_what_is_outside_memory() -> None:
    memory, root = tree((0, K4, 0), (G1, K4, 0))
    write_word(memory, entry_address(memory, root, M2, 2), FMT.table(2, 1 << 40))
    assert set(pages_of(radix.table_runs(FMT, memory, root))) == memory.used


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_hostile_memory(data: st.DataObject) -> None:
    """Pages full of entries that point anywhere: everything ends, and ends in errors of our own."""
    pages = 5
    words = st.one_of(
        st.just(0),
        st.integers(0, (1 << 64) - 1),
        st.builds(FMT.table, st.just(2), st.integers(0, pages).map(lambda page: page * PAGE)),
        st.builds(FMT.leaf, st.just(1), st.integers(0, pages).map(lambda page: page * PAGE), st.just("rwx")),
    )
    pattern = data.draw(st.lists(words, min_size=1, max_size=24))
    raw = struct.pack(f"<{len(pattern)}Q", *pattern) * (pages * PAGE)
    memory = HostileMemory(bytearray(raw[: pages * PAGE]))
    assert len(list(radix.entries(FMT, memory, 0))) <= pages * 512
    radix.check(FMT, memory, 0)
    assert set(pages_of(radix.table_runs(FMT, memory, 0))) <= set(range(0, pages * PAGE, PAGE))
    start, size = data.draw(st.sampled_from([(0, 1 << 39), (M2, G1), (3 * K4, K4)]))
    for iova in (start, size, start + size - 1):
        assert 1 <= len(steps_until_outside(memory, iova)) <= 3
    for change in (
        lambda: radix.unmap_range(FMT, memory, 0, start, size),
        lambda: radix.map_range(FMT, memory, 0, start, size, 0, "rw", (G1, M2, K4)),
    ):
        with suppress(IommuError):
            change()


class HostileMemory(BytesMemory):
    """A few pages, all of them in use already."""

    def allocate(self, pages: int) -> list[Run]:
        raise NoRoom(f"no {pages} pages")

    def allocate_run(self, pages: int) -> int:
        raise NoRoom(f"no {pages} pages")

    def free(self, run: Run) -> None:
        raise AssertionError(f"{run} was not allocated")


def steps_until_outside(memory: HostileMemory, iova: int) -> list[radix.Visit]:
    steps = []
    with suppress(OutsideMemory):
        for step in radix.walk(FMT, memory, 0, iova):
            steps.append(step)
    return steps

# SPDX-License-Identifier: Apache-2.0
"""Walks and tours of trees, good ones and such as nobody should build."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.errors import (
    IommuError,
    NoRoom,
    OutsideMemory,
)
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run, read_word, write_word
from iommuctl.formats.radix import Leaf
from tests.formats.toy import BytesMemory, ToyEntry, ToyFormat, pages_of
from tests.formats.toy_tree import BASE, FMT, G1, K4, M2, RESERVED, damaged_tree, entry_address, tree


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

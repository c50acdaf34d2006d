# SPDX-License-Identifier: Apache-2.0
"""Contiguous runs: which entries get the hint, which unmaps take them, and hints that lie."""

from collections.abc import Sequence

import pytest

from iommuctl.errors import Overlap, PartialUnmap
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, read_word, write_word
from iommuctl.formats.radix import Entry, Leaf
from tests.formats.toy import RunEntry, RunFormat, ToyMemory


class CountingFormat(RunFormat):
    decoded = 0

    def decode(self, level: int, raw: int) -> Entry:
        self.decoded += 1
        return super().decode(level, raw)


FMT = RunFormat(4096, width=39, levels=3, page_levels=2)
K4, K16, M2, M16 = FMT.page_sizes
USED = RunEntry.USED.mask


def tree(*mappings: tuple[int, int, int], sizes: Sequence[int] = FMT.page_sizes) -> tuple[ToyMemory, int]:
    """Memory with a tree that has these mappings, read-write."""
    memory = ToyMemory(3 << 20)
    root = radix.new_root(FMT, memory)
    for iova, size, pa in mappings:
        radix.map_range(FMT, memory, root, iova, size, pa, "rw", sizes)
    return memory, root


def hinted(memory: ToyMemory, root: int) -> list[int]:
    """Input addresses of the entries with the hint."""
    return [visit.iova for visit in radix.entries(FMT, memory, root) if visit.raw & FMT.hint]


def entry_address(memory: ToyMemory, root: int, iova: int) -> int:
    return list(radix.walk(FMT, memory, root, iova))[-1].address


@pytest.mark.parametrize(
    ("iova", "size", "pa", "first", "end"),
    [
        (0, K16, 0, 0, 4),
        (K4, 10 * K4, K4, 4, 8),
        (K4, 11 * K4, K4, 4, 12),
        (3 * K4, 5 * K4, M2 + 3 * K4, 4, 8),
        (0, 3 * K4, 0, 0, 0),
        (2 * K4, 4 * K4, 2 * K4, 0, 0),
        (0, 12 * K4, K4, 0, 0),
        (0, 12 * K4, 2 * K4, 0, 0),
    ],
)
def test_whole_aligned_runs_have_the_hint(iova: int, size: int, pa: int, first: int, end: int) -> None:
    memory, root = tree((iova, size, pa))
    assert hinted(memory, root) == [number * K4 for number in range(first, end)]
    mapped = [(leaf.iova, leaf.size) for leaf in radix.leaves(FMT, memory, root)]
    singles = [number for number in range(iova // K4, (iova + size) // K4) if not first <= number < end]
    assert mapped == sorted([(n * K4, K4) for n in singles] + [(n * K4, K16) for n in range(first, end, 4)])


def test_page_sizes_say_whether_there_are_runs() -> None:
    whole = (0, 2 * M16, 0)
    for sizes, found in (
        ((K4, M2), []),
        ((K4, K16, M2), []),
        ((K4, M2, M16), [number * M2 for number in range(16)]),
        ((K4, M16), [number * M2 for number in range(16)]),
        ((M16,), [number * M2 for number in range(16)]),
    ):
        memory, root = tree(whole, sizes=sizes)
        assert hinted(memory, root) == found
        assert sum(leaf.size for leaf in radix.leaves(FMT, memory, root)) == 2 * M16
    memory, root = tree((0, M2, K16), sizes=(K16,))
    assert len(hinted(memory, root)) == 512
    memory, root = tree((0, M16 + M2, 0), sizes=(K4, M16))
    assert hinted(memory, root) == [number * M2 for number in range(8)]
    assert len(list(radix.leaves(FMT, memory, root))) == 1 + 512


def test_the_hint_is_for_runs_that_one_call_maps() -> None:
    memory, root = tree((0, 2 * K4, 0), (2 * K4, 2 * K4, 2 * K4))
    assert hinted(memory, root) == []
    radix.unmap_range(FMT, memory, root, 2 * K4, 2 * K4)
    radix.map_range(FMT, memory, root, 2 * K4, 6 * K4, 2 * K4, "rw", FMT.page_sizes)
    assert hinted(memory, root) == [4 * K4, 5 * K4, 6 * K4, 7 * K4]


def test_bulk_is_run_by_run() -> None:
    """In tables that are full of runs, as in the entries at their ends."""
    start, size = K4, 2 * M2 + 5 * K16
    bulk, bulk_root = tree((start, size, start))
    one, one_root = tree(*((iova, K4, iova) for iova in range(K4, K16, K4)))
    for iova in range(K16, start + size - K4, K16):
        radix.map_range(FMT, one, one_root, iova, K16, iova, "rw", FMT.page_sizes)
    radix.map_range(FMT, one, one_root, start + size - K4, K4, start + size - K4, "rw", FMT.page_sizes)
    # The second 2 MiB are a page when they are mapped as a whole.
    assert [leaf.size for leaf in radix.leaves(FMT, bulk, bulk_root)].count(M2) == 1
    pieces = [Leaf(iova, K16, iova, "rw") for iova in range(M2, 2 * M2, K16)]
    by_run = [leaf for leaf in radix.leaves(FMT, one, one_root) if leaf not in pieces]
    assert [leaf for leaf in radix.leaves(FMT, bulk, bulk_root) if leaf.size < M2] == by_run


def test_unmap_takes_whole_runs_only() -> None:
    memory, root = tree((0, 4 * K16, 0))
    before = list(radix.leaves(FMT, memory, root))
    for iova, size in ((0, K4), (3 * K4, K4), (K4, 7 * K4), (0, 7 * K4), (2 * K4, K16), (K4, 3 * K16)):
        memory.writes.clear()
        with pytest.raises(PartialUnmap, match=r"the page of 0x4000 bytes at IOVA 0x\w+ is only partly in the range"):
            radix.unmap_range(FMT, memory, root, iova, size)
        assert not memory.writes
    assert radix.unmap_range(FMT, memory, root, K16, 2 * K16).leaves == 8
    assert list(radix.leaves(FMT, memory, root)) == [before[0], before[3]]
    assert radix.check(FMT, memory, root) == []


def test_unmap_of_runs_looks_at_two_entries_of_a_table() -> None:
    fmt = CountingFormat(4096, width=39, levels=3, page_levels=2)
    memory, root = tree((0, M2, 0), sizes=(K16,))
    assert radix.unmap_range(fmt, memory, root, 0, M2).leaves == 512
    assert fmt.decoded < 8


def test_what_hardware_sets_is_no_difference() -> None:
    memory, root = tree((0, 2 * K16, 0))
    for iova in (K4, 6 * K4):
        at = entry_address(memory, root, iova)
        write_word(memory, at, read_word(memory, at) | USED)
    assert list(radix.leaves(FMT, memory, root)) == [Leaf(0, K16, 0, "rw"), Leaf(K16, K16, K16, "rw")]
    assert radix.check(FMT, memory, root) == []
    assert radix.unmap_range(FMT, memory, root, 0, 2 * K16).leaves == 8


def test_a_run_is_in_the_way_as_its_pages_are() -> None:
    memory, root = tree((0, K16, 0))
    for iova in range(0, K16, K4):
        with pytest.raises(Overlap):
            radix.map_range(FMT, memory, root, iova, K4, 0, "rw", FMT.page_sizes)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    "lie",
    [
        FMT.leaf(1, 0x7000, "rw") | FMT.hint,
        FMT.leaf(1, 0x7000, "r"),
        FMT.table(2, 0x5000) & ~1,
    ],
)
def test_hints_that_lie(number: int, lie: int) -> None:
    memory, root = tree((0, 2 * K16, 0))
    at = entry_address(memory, root, number * K4)
    write_word(memory, at, lie)
    findings = radix.check(FMT, memory, root)
    assert findings
    for finding in findings:
        assert finding.endswith(
            "says that it is part of a contiguous run of 0x4000 bytes at IOVA 0x0, "
            "but the entries there do not map one aligned range in the same way"
        )
    others = [Leaf(iova, K4, iova, "rw") for iova in range(0, K16, K4) if iova != number * K4]
    entry = FMT.decode(1, lie)
    changed = [Leaf(number * K4, K4, entry.address, entry.prot)] if entry.kind == "leaf" else []
    assert list(radix.leaves(FMT, memory, root)) == [*sorted(others + changed), Leaf(K16, K16, K16, "rw")]
    with pytest.raises(PartialUnmap):
        radix.unmap_range(FMT, memory, root, 0 if number else K4, K4)
    assert radix.unmap_range(FMT, memory, root, 0, 2 * K16).leaves == 7 + len(changed)


def test_a_lie_in_the_same_way_for_all() -> None:
    """A run must begin at a multiple of its size, and permissions must be the same."""
    memory, root = tree((0, K16, 0), (K16, K16, K16))
    for number in range(4):
        write_word(memory, entry_address(memory, root, number * K4), FMT.leaf(1, (number + 1) * K4, "rw") | FMT.hint)
    assert len(radix.check(FMT, memory, root)) == 1
    write_word(memory, entry_address(memory, root, K16), FMT.leaf(1, K16, "r") | FMT.hint)
    assert len(radix.check(FMT, memory, root)) == 2


def test_permissions_of_a_run_that_is_none() -> None:
    memory, root = tree((0, K16, 0))
    write_word(memory, entry_address(memory, root, K4), FMT.leaf(1, K4, "r") | FMT.hint)
    assert [leaf.prot for leaf in radix.leaves(FMT, memory, root)] == ["rw", "r", "rw", "rw"]


def test_only_pages_have_a_hint() -> None:
    """Other entries that have the bit are told of one by one."""
    memory, root = tree((0, K16, 0))
    for iova in (0, K4, 2 * K4):
        write_word(memory, entry_address(memory, root, iova), FMT.table(2, 0x5000) | 1 << 59 | FMT.hint)
    assert [text.split(", ")[1] for text in radix.check(FMT, memory, root)[:3]] == [
        f"{FMT.table(2, 0x5000) | 1 << 59 | FMT.hint:#x}"
    ] * 3


def test_check_does_not_go_on_for_ever() -> None:
    memory, root = tree((0, K4, 0))
    table = entry_address(memory, root, 0)
    memory.write(table, b"".join((FMT.leaf(1, 0, "rw") | FMT.hint).to_bytes(8, "little") for _ in range(PAGE // 8)))
    assert len(radix.check(FMT, memory, root)) == 101

# SPDX-License-Identifier: Apache-2.0
"""Adding mappings to a tree.

The tree is looked at first, then written. Tables that nothing points to yet are written whole, from the leaves up;
the entries of live tables, which make them reachable, come last. The work is done in runs of entries and of tables:
nothing is done for each page, and little for each table.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from iommuctl.errors import DamagedTable, Overlap
from iommuctl.formats.format import WORD, Format, Visit, index, present, visit
from iommuctl.formats.live import LiveTables, check_range
from iommuctl.formats.memory import PAGE, Memory, Run, TableMemory
from iommuctl.formats.runs import parts, progression

_CHUNK = 256 << 10
"""Bytes of fresh tables per write: fewer cost calls, more cost page faults."""


def new_root(fmt: Format, memory: TableMemory) -> int:
    """The address of a new empty root table, aligned to its size. Raises NoRoom."""
    pages = -(-WORD * fmt.entries(fmt.levels) // PAGE)
    root = allocate_aligned(memory, pages)
    memory.write(root, bytes(pages * PAGE))
    return root


def allocate_aligned(memory: TableMemory, pages: int) -> int:
    """The address of `pages` contiguous pages, a multiple of their size. Raises NoRoom."""
    several = 2 * pages - 1
    return _cut(memory, Run(memory.allocate_run(several), several), pages, pages).address


def map_range(  # noqa: PLR0917 - they are what iommu_map takes, in its order
    fmt: Format, memory: TableMemory, root: int, iova: int, size: int, pa: int, prot: str, page_sizes: Collection[int]
) -> None:
    """Map `size` bytes from `iova` on to `pa` on, each part with the largest of `page_sizes` that fits there.

    Raises ZeroSize; Misaligned to the smallest of `page_sizes`; OutOfAperture; BadStructure where `pa` is too wide for
    an entry; Overlap; DamagedTable where what is in the way is not a valid table; NoRoom. No live table has
    changed then.
    """
    check_range(fmt, iova, size, pa, min(page_sizes))
    fmt.leaf(1, pa + size - fmt.page_sizes[0], prot)
    gaps = list(_Gaps(fmt, memory).within(fmt.levels, root, iova, iova + size))
    filler = _Filler(fmt, memory, pa - iova, prot, page_sizes)
    for address, words in [(gap.address, b"".join(filler.row(gap.level, gap.iova, gap.end))) for gap in gaps]:
        memory.write(address, words)


class _Gap(NamedTuple):
    """Adjacent empty entries of a live table: the address of the first, and the part of a range that they translate."""

    address: int
    level: int
    iova: int
    end: int


class _Gaps:
    """Finds room for a mapping in a live tree."""

    def __init__(self, fmt: Format, memory: Memory) -> None:
        self._fmt = fmt
        self._live = LiveTables(fmt, memory)

    def within(self, level: int, table: int, iova: int, end: int) -> Iterator[_Gap]:
        """The empty entries of a tree that a range meets. Raises Overlap and DamagedTable for all else but tables."""
        shift = self._fmt.shift(level)
        first = index(self._fmt, level, iova)
        data = self._live.read(level, table, first, (end - 1 >> shift) - (iova >> shift) + 1)
        start = iova
        for offset, raw in present(data):
            found = visit(self._fmt, level, table, iova + (offset << shift), raw)
            if found.entry.kind == "empty":
                continue
            _refuse_present(self._fmt, found)
            here, there = max(iova, found.iova), min(end, found.iova + found.size)
            if start < here:
                yield _Gap(table + WORD * index(self._fmt, level, start), level, start, here)
            yield from self.within(level - 1, found.entry.address, here, there)
            start = there
        if start < end:
            yield _Gap(table + WORD * index(self._fmt, level, start), level, start, end)


def _refuse_present(fmt: Format, found: Visit) -> None:
    if found.entry.kind == "leaf":
        raise Overlap(
            f"IOVA {found.iova:#x} is mapped already",
            because=f"a page of {found.size:#x} bytes is mapped to {found.entry.address:#x} there",
        )
    if found.entry.kind == "reserved":
        raise DamagedTable(found.complaint(fmt))


class _Filler:
    """Makes the entries of one mapping, IOVA to IOVA + `delta`."""

    def __init__(self, fmt: Format, memory: TableMemory, delta: int, prot: str, page_sizes: Collection[int]) -> None:
        self._fmt = fmt
        self._memory = memory
        self._delta = delta
        self._prot = prot
        self._pages: list[list[tuple[int, int]]] = [[]]
        """By level, the sizes of pages that can be used, descending, and the hint where they are contiguous runs."""
        for level in range(1, fmt.levels + 1):
            size = 1 << fmt.shift(level)
            sizes = {size * fmt.contiguous(level): fmt.hint, size: 0}
            self._pages.append(
                [(size, hint) for size, hint in sizes.items() if size in page_sizes and not delta % size]
            )

    def row(self, level: int, iova: int, end: int, smaller: int = 0) -> Iterator[bytes]:
        """All entries of a level for iova..end, in pieces, as if the tables of that level lay end to end.

        `smaller` leaves so many of the larger page sizes out.
        """
        if smaller == len(self._pages[level]):
            yield from self._tables(level, iova, end)
            return
        size, hint = self._pages[level][smaller]
        first, last = -(-iova // size) * size, end // size * size
        if first >= last:
            yield from self.row(level, iova, end, smaller + 1)
            return
        yield from self.row(level, iova, first, smaller + 1)
        step = 1 << self._fmt.shift(level)
        for pa, stop in parts(first + self._delta, last + self._delta, self._fmt.linear):
            yield from progression(self._fmt.leaf(level, pa, self._prot) | hint, step, (stop - pa) // step)
        yield from self.row(level, last, end, smaller + 1)

    def _tables(self, level: int, iova: int, end: int) -> Iterator[bytes]:
        """Entries of a level that point to fresh tables for iova..end, which are written before."""
        if iova == end:
            return
        granule, shift = self._fmt.page_sizes[0], self._fmt.shift(level)
        pages = granule // PAGE
        count = (end - 1 >> shift) - (iova >> shift) + 1
        for run in _allocate(self._memory, count * pages, pages):
            tables = run.pages // pages
            stop = (iova >> shift) + tables << shift
            self._write(level - 1, run, iova, min(end, stop))
            for table, end_of_part in parts(run.address, run.address + tables * granule, self._fmt.linear):
                yield from progression(self._fmt.table(level, table), granule, (end_of_part - table) // granule)
            iova = stop

    def _write(self, level: int, run: Run, iova: int, end: int) -> None:
        """Write a run of fresh tables of a level, those for iova..end."""
        address = run.address
        words = bytes(WORD * index(self._fmt, level, iova))
        for piece in self.row(level, iova, end):
            words += piece
            if len(words) >= _CHUNK:
                self._memory.write(address, words)
                address += len(words)
                words = b""
        if left := run.address + run.pages * PAGE - address:
            self._memory.write(address, words.ljust(left, b"\0"))


def _allocate(memory: TableMemory, pages: int, unit: int) -> Iterator[Run]:
    """Pages in runs of whole units of `unit` pages, aligned to their size; `pages` in all. Raises NoRoom."""
    while pages:
        for run in memory.allocate(pages + unit - 1):
            cut = _cut(memory, run, unit, pages)
            pages -= cut.pages
            if cut.pages:
                yield cut


def _cut(memory: TableMemory, run: Run, unit: int, pages: int) -> Run:
    """The aligned whole units in a run, `pages` pages at most. What is before and after them is given back."""
    before = min(-(run.address // PAGE) % unit, run.pages)
    used = min((run.pages - before) // unit * unit, pages)
    start = run.address + before * PAGE
    after = run.pages - before - used
    if before:
        memory.free(Run(run.address, before))
    if after:
        memory.free(Run(start + used * PAGE, after))
    return Run(start, used)

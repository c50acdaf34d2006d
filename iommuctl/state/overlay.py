# SPDX-License-Identifier: Apache-2.0
"""Memory as one transaction sees it: what it wrote, over what the file holds.

Pages that the transaction allocated are *fresh*: nothing in the file reaches them, so they can be written before the
commit. Every other page is *live*: its writes are kept in order, become redo rows, and reach the file only after the
commit.

A transaction may have several steps, each of which can be taken back. What an earlier step allocated is still fresh,
as the file goes, but the machine uses it: `used` and `new_pages` are as seen from the step.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

from iommuctl.errors import DamagedTable
from iommuctl.formats.memory import PAGE, Memory, Run, check_inside
from iommuctl.model import MemoryWrite
from iommuctl.state.extents import Extents

IOV_MAX = 1024


class Backing(Memory, Protocol):
    """What lies below an overlay."""

    base: int
    size: int

    def write_pages(self, address: int, pages: Sequence[bytearray | memoryview]) -> None:
        """Write contiguous pages, at most IOV_MAX. Raises OutsideMemory."""

    def reserve(self, address: int, size: int) -> None:
        """Have room for a range, so that writing to it cannot fail for want of it. Raises OSError."""


class Step:
    """What one step did: the pages that it allocated, its writes to others, and these pages as they were."""

    def __init__(self, live: int = 0) -> None:
        self.new: set[int] = set()
        self.used: list[tuple[int, bytes, bytes]] = []
        self.before: dict[int, bytes | None] = {}
        self.live = live


class Overlay:
    """A hookspecs.Context.memory: reads through, keeps writes, allocates from `tables`."""

    def __init__(self, file: Backing, tables: Extents, table_range: tuple[int, int]) -> None:
        self._file = file
        self._tables = tables
        self._table_range = table_range
        self._pages: dict[int, bytearray | memoryview] = {}
        self._fresh: set[int] = set()
        self.live: list[tuple[int, bytes, bytes]] = []
        """Writes to live pages in order: address, the old bytes, the new ones."""
        self._step = Step()

    def read(self, address: int, size: int) -> bytes:
        check_inside(address, size, self._file.base, self._file.size)
        first = address & -PAGE
        if address + size <= first + PAGE:
            page = self._pages.get(first)
            if page is None:
                return self._file.read(address, size)
            return bytes(page[address - first : address - first + size])
        if not any(page in self._pages for page in range(first, address + size, PAGE)):
            return self._file.read(address, size)
        return b"".join(self.read(start, end - start) for start, end in _by_page(address, size))

    def write(self, address: int, data: bytes) -> None:
        check_inside(address, len(data), self._file.base, self._file.size)
        view = memoryview(data)
        for start, end in _by_page(address, len(data)):
            part = view[start - address : end - address]
            page = start & -PAGE
            if page not in self._step.new:
                self._note(page, start, bytes(part))
            if page in self._fresh and len(part) == PAGE:
                self._pages[page] = part
            else:
                self._patch(page, start, part)

    def allocate(self, pages: int) -> list[Run]:
        runs = self._tables.allocate(pages)
        for run in runs:
            self.mark_fresh(run)
        return runs

    def allocate_run(self, pages: int) -> int:
        address = self._tables.allocate_run(pages)
        self.mark_fresh(Run(address, pages))
        return address

    def free(self, run: Run) -> None:
        low, size = self._table_range
        if not low <= run.address <= run.address + run.pages * PAGE <= low + size:
            raise DamagedTable(f"the page at {run.address:#x} is no table's", hint="`iommuctl check` looks for more")
        self._tables.free(run)

    def mark_fresh(self, run: Run) -> None:
        """Say that nothing reaches these pages, so that their writes need no redo rows.

        Pages that were written before are left out: the redo rows of that write would come after this one.
        """
        pages = range(run.address, run.address + run.pages * PAGE, PAGE)
        fresh = {page for page in pages if page not in self._pages}
        self._fresh |= fresh
        self._step.new |= fresh

    def begin_step(self) -> None:
        """What follows can be taken back."""
        self._step = Step(len(self.live))

    def undo_step(self) -> None:
        """Take back what was done since `begin_step`."""
        step = self._step
        for page in step.new:
            self._pages.pop(page, None)
        for page, content in step.before.items():
            if content is None:
                del self._pages[page]
            else:
                self._pages[page] = bytearray(content)
        self._fresh -= step.new
        del self.live[step.live :]

    @property
    def changed(self) -> bool:
        """Whether anything was written or allocated, and not taken back."""
        return bool(self._pages or self._fresh)

    @property
    def used(self) -> list[tuple[int, bytes, bytes]]:
        """The step's writes to memory that was in use before it: address, the old bytes, the new ones."""
        return self._step.used

    def new_pages(self) -> set[int]:
        """The pages that the step allocated and wrote."""
        return self._step.new & self._pages.keys()

    def writes(self) -> Iterator[MemoryWrite]:
        """Every 64-bit word that the step changes: its new pages, then words in use in the order of their writes."""
        for page in sorted(self.new_pages()):
            yield from _words(page, self._file.read(page, PAGE), bytes(self._pages[page]))
        for address, old, new in self.used:
            # A DMA writes bytes; the words around them are shown whole.
            first, last = address & -8, (address + len(new) + 7) & -8
            around = self.read(first, last - first)
            head, tail = around[: address - first], around[address - first + len(new) :]
            yield from _words(first, head + old + tail, head + new + tail)

    def write_fresh(self) -> None:
        """Bring the fresh pages to the file, contiguous ones together."""
        pages = sorted(self._fresh & self._pages.keys())
        breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(pages)) if b != a + PAGE), len(pages)]
        for start, end in pairwise(breaks):
            for i in range(start, end, IOV_MAX):
                run = pages[i : min(i + IOV_MAX, end)]
                self._file.write_pages(run[0], [self._pages[page] for page in run])

    def write_out(self) -> bool:
        """Bring the fresh pages to the file before the commit. They are in use then: what follows is a live write.

        Returns whether the file has all that was written.
        """
        self.write_fresh()
        written = self._fresh & self._pages.keys()
        self._fresh -= written
        self._step.new -= written
        return not self.live

    def write_live(self) -> None:
        """Bring the live writes to the file, in their order."""
        for address, _, new in self.live:
            self._file.write(address, new)

    def reserve_live(self) -> None:
        """Have the file system find room for the live writes while failing is still harmless.

        Table pages have their blocks since they were fresh; other RAM may still be a hole of the sparse file.
        """
        low, size = self._table_range
        pages = {address & -PAGE for address, _, _ in self.live if not low <= address < low + size}
        for page in sorted(pages):
            self._file.reserve(page, PAGE)

    def _note(self, page: int, start: int, new: bytes) -> None:
        """Before memory that is in use changes: keep what undoing it needs, and what the commit does."""
        stored = (start, self.read(start, len(new)), new)
        self._step.used.append(stored)
        if page not in self._fresh:
            self.live.append(stored)
        if page not in self._step.before:
            content = self._pages.get(page)
            self._step.before[page] = None if content is None else bytes(content)

    def _patch(self, page: int, start: int, part: memoryview) -> None:
        content = self._pages.get(page)
        if not isinstance(content, bytearray):
            content = self._pages[page] = bytearray(content if content is not None else self._file.read(page, PAGE))
        content[start - page : start - page + len(part)] = part


def _by_page(address: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that lie in one page each, as (start, end)."""
    end = address + size
    while address < end:
        stop = min((address & -PAGE) + PAGE, end)
        yield address, stop
        address = stop


def _words(address: int, old: bytes, new: bytes) -> Iterator[MemoryWrite]:
    if old == new:
        return
    for i in range(0, len(new), 8):
        before, after = old[i : i + 8], new[i : i + 8]
        if before != after:
            yield MemoryWrite(address + i, int.from_bytes(before, "little"), int.from_bytes(after, "little"))

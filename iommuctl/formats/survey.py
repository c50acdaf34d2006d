# SPDX-License-Identifier: Apache-2.0
"""Reading page tables: the page walk of the hardware side, and tours of whole trees for dumps and checks.

Only the geometry and `decode` of a format are used here, nothing that the driver side knows. Whatever memory holds is
taken as hostile: a table is entered once, however many entries point to it.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from iommuctl.errors import OutsideMemory
from iommuctl.formats.contiguous import grouped, is_run, page
from iommuctl.formats.format import WORD, Format, Visit, index, present, read_table, visit
from iommuctl.formats.memory import PAGE, Memory, Run, read_word
from iommuctl.formats.runs import page_runs

_ENOUGH = 100
"""So many findings say all that a reader wants to know about a tree."""


class Leaf(NamedTuple):
    """A page of a tree. `prot` is what all levels together allow."""

    iova: int
    size: int
    pa: int
    prot: str


def walk(
    fmt: Format,
    memory: Memory,
    root: int,
    iova: int,
    recall: Callable[[int, int], tuple[int, int] | None] = lambda _level, _iova: None,
) -> Iterator[Visit]:
    """The page walk of the hardware: each entry from the root down, up to the first that is not of kind "table".

    Bits of `iova` above the format's width are ignored. An entry is read when it is asked for, not before, and what
    `memory` raises comes through: for a nested walk `memory` is a view that walks the second stage. `recall` stands
    for a cache of entries that point to tables: by level and first input address, (address, raw) or None.
    """
    iova %= 1 << fmt.width
    table = root
    for level in range(fmt.levels, 0, -1):
        shift = fmt.shift(level)
        if known := recall(level, iova >> shift << shift):
            address, raw = known
            step = Visit(level, address, raw, fmt.decode(level, raw), iova >> shift << shift, 1 << shift)
        else:
            raw = read_word(memory, table + WORD * index(fmt, level, iova))
            step = visit(fmt, level, table, iova, raw)
        yield step
        if step.entry.kind != "table":
            return
        table = step.entry.address


def entries(fmt: Format, memory: Memory, root: int) -> Iterator[Visit]:
    """Every entry of a tree that is not empty, depth first in the order of input addresses.

    Tables outside memory are passed over, and so are tables that were visited before.
    """
    return _Tour(fmt, memory).visits(fmt.levels, root, 0)


def leaves(fmt: Format, memory: Memory, root: int) -> Iterator[Leaf]:
    """Every page of a tree, in the order of input addresses. A contiguous run is one page, unless its hint lies."""
    allowed, hint = {fmt.levels + 1: "rwx"}, fmt.hint
    for group in grouped(fmt, entries(fmt, memory, root)):
        level, _, raw, entry, iova, size = group[0]
        allowed[level] = combine(allowed[level + 1], entry.prot)
        if entry.kind != "leaf":
            continue
        if raw & hint and not is_run(fmt, group):
            for one in group:
                yield Leaf(one.iova, size, one.entry.address, combine(allowed[level + 1], one.entry.prot))
        else:
            yield Leaf(iova, size * len(group), entry.address, allowed[level])


@cache
def combine(prot: str, other: str) -> str:
    """What two levels allow together: what both allow, to privileged requests only where either says so."""
    return "".join(c for c in "rwxp" if (c in prot or c in other if c == "p" else c in prot and c in other))


def check(fmt: Format, memory: Memory, root: int) -> list[str]:
    """Sentences about what is wrong with a tree; none for a good one.

    These are entries with reserved bits set, contiguous runs that are none, tables outside memory, and tables that are
    reached twice. After some hundred findings the last one says that there may be more.
    """
    tour = _Tour(fmt, memory)
    hint = fmt.hint
    for group in grouped(fmt, tour.visits(fmt.levels, root, 0)):
        found = group[0]
        if found.entry.kind == "reserved":
            tour.findings.append(found.complaint(fmt))
        elif found.raw & hint and found.entry.kind == "leaf" and not is_run(fmt, group):
            start, size = page(fmt, found)
            tour.findings.append(
                f"{found.called(fmt)} says that it is part of a contiguous run of {size:#x} bytes at IOVA {start:#x}, "
                "but the entries there do not map one aligned range in the same way"
            )
        if len(tour.findings) >= _ENOUGH:
            return [*tour.findings, "the check ends here, there may be more"]
    return tour.findings


def table_runs(fmt: Format, memory: Memory, root: int) -> list[Run]:
    """The pages of all tables of a tree, the root's among them, each page once."""
    tour = _Tour(fmt, memory)
    for _ in tour.visits(fmt.levels, root, 0, lowest=2):
        pass
    return page_runs(
        page
        for table, level in tour.entered.items()
        for page in range(table - table % PAGE, table + WORD * fmt.entries(level), PAGE)
    )


class _Tour:
    """One way through a tree, which remembers the tables that it entered and what was wrong."""

    def __init__(self, fmt: Format, memory: Memory) -> None:
        self._fmt = fmt
        self._memory = memory
        self.entered: dict[int, int] = {}
        """Levels of the tables by their addresses."""
        self.findings: list[str] = []

    def visits(self, level: int, table: int, iova: int, lowest: int = 1) -> Iterator[Visit]:
        """The entries of a table that translates from `iova` on, and of the tables below it.

        The entries of levels below `lowest` are left out.
        """
        place = f"the table of level {self._fmt.numbered(level)} at {table:#x} for IOVA {iova:#x}"
        if table in self.entered:
            self.findings.append(f"{place} is reached a second time: entries share it, or form a loop")
            return
        try:
            data = read_table(self._fmt, self._memory, level, table)
        except OutsideMemory:
            self.findings.append(f"{place} is outside memory")
            return
        self.entered[table] = level
        if level < lowest:
            return
        shift = self._fmt.shift(level)
        for number, raw in present(data):
            entry = self._fmt.decode(level, raw)
            if entry.kind == "empty":
                continue
            start = iova + (number << shift)
            yield Visit(level, table + WORD * number, raw, entry, start, 1 << shift)
            if entry.kind == "table" and level > 1:
                yield from self.visits(level - 1, entry.address, start, lowest)

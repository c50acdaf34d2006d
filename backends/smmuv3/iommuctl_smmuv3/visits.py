# SPDX-License-Identifier: Apache-2.0
"""What one request makes the unit read: structures out of memory or caches, in their order."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from iommuctl.architecture import Recalled
from iommuctl.errors import OutsideMemory
from iommuctl.formats.bits import Layout
from iommuctl.formats.format import Format, Visit
from iommuctl.formats.memory import Memory, read_word, write_word
from iommuctl.formats.survey import walk
from iommuctl.model import Step
from iommuctl_smmuv3.config_cache import Cached, ConfigCache
from iommuctl_smmuv3.tlb import Page, Table, Tag, Tlb, steps_of

_NT = 1 << 16


class Caches(NamedTuple):
    """The caches of one unit."""

    config: ConfigCache
    tlb: Tlb


class Unreadable(Exception):
    """There is nothing to be read at a physical address, or it cannot be written."""

    def __init__(self, address: int) -> None:
        super().__init__(address)
        self.address = address


class Conflict(Exception):
    """The TLB has several translations of an address."""


class Visits:
    """The record of one request. Without `caches` everything is read from memory, and nothing is kept or written.

    `trace` is what was visited; `recalled` what of it came from caches.
    """

    def __init__(self, memory: Memory, caches: Caches | None) -> None:
        self.memory = memory
        self.caches = caches
        self.trace: list[Step] = []
        self.recalled: list[Recalled] = []
        self._pages: list[tuple[Tag, int, Page]] = []
        self._tables: list[tuple[Tag, int, Table]] = []

    def structure(self, layout: type[Layout], address: int) -> int:
        """Read a structure. Raises Unreadable."""
        try:
            raw = int.from_bytes(self.memory.read(address, layout.bits // 8), "little")
        except OutsideMemory:
            raise Unreadable(address) from None
        self.note(layout, address, raw)
        return raw

    def probe(self, address: int, size: int) -> None:
        """Read what no translation is made of: it is not in the trace. Raises Unreadable."""
        try:
            self.memory.read(address, size)
        except OutsideMemory:
            raise Unreadable(address) from None

    def from_cache(self, layout: type[Layout], found: Cached, cache: str, *tag: int) -> int:
        """Take a structure that a cache has."""
        step = self.note(layout, found.address, found.raw)
        self.recalled.append(Recalled(cache, tag, (step,)))
        return found.raw

    def cached_page(self, tag: Tag, address: int, layouts: dict[str, type[Layout]], *, resolves: bool) -> Page | None:
        """The translation that the TLB has; where it has several, one of them if it `resolves`. Raises Conflict."""
        found = self.caches.tlb.find(tag, address) if self.caches else []
        if len(found) > 1 and not resolves:
            for page in found:
                self.page_from_cache(tag, page, layouts)
            raise Conflict
        return found[0] if found else None

    def page_from_cache(self, tag: Tag, page: Page, layouts: dict[str, type[Layout]]) -> None:
        """Take a translation that the TLB has."""
        steps = tuple(steps_of(page, layouts))
        self.trace += steps
        self.recalled.append(Recalled("tlb", tag, steps))

    def update(self, address: int, sets: int, clears: int = 0) -> None:
        """Set and clear bits of a descriptor. Raises Unreadable."""
        if not self.caches:
            return
        try:
            write_word(self.memory, address, (read_word(self.memory, address) | sets) & ~clears)
        except OutsideMemory:
            raise Unreadable(address) from None

    def keep(self, tag: Tag, address: int, page: Page, start: int) -> None:
        """Have a translation kept, if the request goes well. Its descriptors are in the trace from `start` on."""
        if page.nt:
            return
        made_of = [(step.structure, step.address, step.raw[0], step.stage) for step in self.trace[start:]]
        self._pages.append((tag, address, page._replace(made_of=made_of)))

    def note(self, layout: type[Layout], address: int, raw: int, stage: int = 0) -> Step:
        step = Step(layout.name, address, layout.to_words(raw), layout.values(raw), stage)
        self.trace.append(step)
        return step

    def descriptors(  # noqa: PLR0917 - they are what a walk is made of
        self, fmt: Format, root: int, address: int, tag: Tag, stage: int, through: Callable[[int], int] | None = None
    ) -> Iterator[Visit]:
        """The page walk; `through` finds the physical addresses of the guest's descriptors. Raises Unreadable.

        The last step of the trace is the descriptor, at its physical address.
        """
        view = _Descriptors(self.memory, through)
        upper = address >> fmt.width << fmt.width
        granule = fmt.shift(1)
        known: dict[int, Table] = {}

        def recall(level: int, first: int) -> tuple[int, int] | None:
            # The last level has no tables, so nothing to look up.
            if not self.caches or level == 1:
                return None
            table = self.caches.tlb.find_table(tag, fmt.numbered(level), upper | first)
            if table is None:
                return None
            known[level] = table
            return table.address, table.raw

        for visit in walk(fmt, view, root, address, recall):
            if table := known.get(visit.level):
                step = self.note(fmt.layout, table.place, visit.raw, stage)
                self.recalled.append(Recalled("walk", tag, (step,)))
                yield visit
                continue
            self.note(fmt.layout, view.place, visit.raw, stage)
            if visit.entry.kind == "table":
                order = visit.size.bit_length() - 1
                target = None if through else visit.entry.address
                kept = Table(visit.address, visit.raw, view.place, fmt.numbered(visit.level), granule, order, target)
                self._tables.append((tag, upper | visit.iova, kept))
            yield visit

    def remember(self) -> None:
        """Keep translations and descriptors of tables, now that the request has gone well."""
        if self.caches:
            for tag, address, page in self._pages:
                self.caches.tlb.fill(tag, address, page)
            for tag, first, table in self._tables:
                self.caches.tlb.fill_table(tag, first, table)


def run_order(fmt: Format, visit: Visit) -> int:
    """log2 of the size of a page, or of the contiguous run that its descriptor says that it is a part of."""
    count = fmt.contiguous(visit.level) if visit.raw & fmt.hint else 1
    return (visit.size * count).bit_length() - 1


def has_nt(visit: Visit, bbml: int) -> bool:
    """Whether a block says that what comes of it must not conflict with other entries: IHI0070 G.b 3.21.1.2."""
    return bbml == 1 and visit.level > 1 and bool(visit.raw & _NT)


class _Descriptors:
    """Memory as a walk reads descriptors from it; `place` is where the last one was."""

    def __init__(self, memory: Memory, through: Callable[[int], int] | None) -> None:
        self._memory = memory
        self._through = through
        self.place = 0

    def read(self, address: int, size: int) -> bytes:
        self.place = self._through(address) if self._through else address
        try:
            return self._memory.read(self.place, size)
        except OutsideMemory:
            raise Unreadable(self.place) from None

    def write(self, address: int, data: bytes) -> None:
        raise TypeError(f"the engine does not write {len(data)} bytes at {address:#x}: a walk only reads")

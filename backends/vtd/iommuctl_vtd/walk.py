# SPDX-License-Identifier: Apache-2.0
"""What the unit's walks of both modes share: reading, tracing, and the second stage.

Nothing here knows what a driver meant; a walk reads memory as the unit does, and fails with the unit's own reason
codes. VT-d 4.1 sections 3.7 and 9.8.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

from iommuctl.errors import OutsideMemory
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory
from iommuctl.formats.radix import Format, Visit, walk
from iommuctl.model import Slot, Step
from iommuctl_vtd.capability import INTERRUPT_RANGE, Capability
from iommuctl_vtd.second_stage import SecondStageEntry


class Request(NamedTuple):
    """What a device asks for. An untranslated request reads or writes."""

    slot: Slot
    iova: int
    write: bool
    privileged: bool


class Refused(Exception):
    """The request faults for the reason `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Rights(NamedTuple):
    """What both stages allow: the first stage users and writes, the second stage reads and writes."""

    user: bool = True
    fs_write: bool = True
    ss_read: bool = True
    ss_write: bool = True

    def denied(self, *, write: bool, privileged: bool, wpe: bool) -> int:
        """The reason code for what is not allowed, or 0."""
        if not privileged and not self.user:
            return 0x81
        if write:
            return 0 if self.ss_write and (self.fs_write or (privileged and not wpe)) else 0x85
        return 0 if self.ss_read else 0x86


class Mapped(NamedTuple):
    """The end of a walk. `dirty` says that a write needs no more updates of dirty bits."""

    pa: int
    page_size: int
    rights: Rights
    dirty: bool


class Reasons(NamedTuple):
    """The second stage's fault codes, by mode. `absent` is None where `read` or `write` tells."""

    limit: int
    top: int
    lower: int
    reserved: int
    absent: int | None
    read: int
    write: int
    not_snooped: int
    interrupt: int


class Walk(ABC):
    """One walk over memory. `trace` and `fpd` tell afterwards what was visited, and whether faults are silent.

    Accessed and dirty bits that the walk must set are collected in `updates`, as (address, bits to set). A subclass
    knows the way from the root to what names the tables.
    """

    reasons: ClassVar[Reasons]

    def __init__(self, memory: Memory, capability: Capability, root: int, request: Request) -> None:
        self.trace: list[Step] = []
        self.updates: list[tuple[int, int]] = []
        self.fpd = False
        self.privileged = request.privileged
        self.wpe = False
        self.did = self.pgtt = self.pasid = 0
        """What tags the translation, once `find_tables` has found it."""
        self._memory = memory
        self._capability = capability
        self._root = root
        self._request = request
        self._width = 0
        self._second_stage_root = 0
        self._tracks = self._snoops = False

    @abstractmethod
    def find_tables(self) -> None:
        """Read the structures that name the request's tables. Raises Refused."""

    @abstractmethod
    def end(self) -> Mapped:
        """Walk the tables that `find_tables` found. Raises Refused."""

    def translate(self) -> Mapped:
        """Where the request goes. Raises Refused."""
        mapped = self.end()
        if INTERRUPT_RANGE[0] <= mapped.pa <= INTERRUPT_RANGE[1]:
            raise Refused(self.reasons.interrupt)
        return mapped

    def _second_stage(self, address: int, *, write: bool, limit: int | None = None) -> Mapped:
        """The second stage's answer to one access. Raises Refused when it does not allow it."""
        if address >> min(self._capability.mgaw, self._width):
            raise Refused(limit or self.reasons.limit)
        fmt = self._capability.second_stage(self._width)
        denied = self.reasons.write if write else self.reasons.read
        read = writable = True
        visits: list[Visit] = []
        for visit in self._walk(
            fmt, self._memory, self._second_stage_root, address, top=self.reasons.top, lower=self.reasons.lower
        ):
            if visit.entry.kind == "reserved":
                raise Refused(self.reasons.reserved)
            read &= "r" in visit.entry.prot
            writable &= "w" in visit.entry.prot
            if not (read or writable):
                raise Refused(self.reasons.absent or denied)
            visits.append(visit)
        if not (writable if write else read):
            raise Refused(denied)
        if self._tracks:
            self._update_second_stage(visits, write=write)
        leaf = visits[-1]
        dirty = not self._tracks or write or bool(leaf.raw & SecondStageEntry.D.mask)
        pa = leaf.entry.address | address & leaf.size - 1
        return Mapped(pa, leaf.size, Rights(ss_read=read, ss_write=writable), dirty)

    def _update_second_stage(self, visits: list[Visit], *, write: bool) -> None:
        for visit in visits:
            needed = SecondStageEntry.A.mask
            if write and visit is visits[-1]:
                needed |= SecondStageEntry.D.mask
            if missing := needed & ~visit.raw:
                if not self._snoops:
                    raise Refused(self.reasons.not_snooped)
                self.updates.append((visit.address, missing))

    def _walk(
        self,
        fmt: Format,
        memory: Memory,
        root: int,
        address: int,
        *,
        top: int,
        lower: int,
        where: Callable[[int], int] = lambda address: address,
    ) -> Iterator[Visit]:
        """The page walk, traced. `top` and `lower` are the reasons for tables that cannot be read."""
        code = top
        try:
            for visit in walk(fmt, memory, root, address):
                self._note(fmt.layout, where(visit.address), visit.raw)
                yield visit
                code = lower
        except OutsideMemory:
            raise Refused(code) from None

    def _read(self, layout: type[Layout], address: int, access_error: int) -> int:
        try:
            raw = int.from_bytes(self._memory.read(address, layout.bits // 8), "little")
        except OutsideMemory:
            raise Refused(access_error) from None
        self._note(layout, address, raw)
        return raw

    def _note(self, layout: type[Layout], address: int, raw: int) -> None:
        self.trace.append(Step(layout.name, address, layout.to_words(raw), layout.values(raw)))

    def _check_reserved(self, layout: type[Layout], raw: int, code: int, *addresses: int) -> None:
        if raw & self._capability.reserved(layout) or any(address >> self._capability.haw for address in addresses):
            raise Refused(code)

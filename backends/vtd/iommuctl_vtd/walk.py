# SPDX-License-Identifier: Apache-2.0
"""What the unit's walks of both modes share: reading, tracing, and the second stage.

Nothing here knows what a driver meant; a walk reads memory as the unit does, and fails with the unit's own reason
codes. VT-d 4.1 sections 3.7 and 9.8.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from iommuctl.architecture import Recalled
from iommuctl.errors import OutsideMemory
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory
from iommuctl.formats.radix import Format, Visit, walk
from iommuctl.model import RequestKind, Slot, Step
from iommuctl_vtd.capability import INTERRUPT_RANGE, Capability
from iommuctl_vtd.config_caches import Cached
from iommuctl_vtd.paging_cache import SECOND_STAGE_PASID, Pointer
from iommuctl_vtd.pasid_entry import FIRST_STAGE, NESTED
from iommuctl_vtd.second_stage import SecondStageEntry

if TYPE_CHECKING:
    from iommuctl_vtd.caches import Caches


Kind = RequestKind | Literal["page"]


class Request(NamedTuple):
    """What a device asks for: to read or write, or for the translation to do so, or for pages."""

    slot: Slot
    iova: int
    write: bool
    privileged: bool
    kind: Kind = "untranslated"

    @property
    def needs_ats(self) -> bool:
        """Whether only devices with a device TLB send it."""
        return self.kind in ("translation", "translated")


class Tag(NamedTuple):
    """What a cached translation is found by besides its address. The second stage's entries have no PASID."""

    did: int
    pgtt: int
    pasid: int

    @property
    def owner(self) -> str:
        """The beginning of the keys of its IOTLB entries."""
        return self.owner_of(1 if self.pgtt in (FIRST_STAGE, NESTED) else 2)

    def owner_of(self, stage: int) -> str:
        """The beginning of the keys of cached entries of one stage's tables."""
        return f"{self.did:04x}.{f'{self.pasid:05x}' if stage == 1 else SECOND_STAGE_PASID}."


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
    not_updated: int
    interrupt: int


class Update(NamedTuple):
    """Bits that the unit must set in an entry, and the reason code for memory that cannot be written."""

    address: int
    bits: int
    failed: int


class Walk(ABC):
    """One walk over memory, and over `caches` where these are given. A subclass knows the way from the root to what
    names the tables.

    `trace`, `recalled` and `fpd` tell afterwards what was visited, what of it came from caches, and whether faults are
    silent. Accessed and dirty bits that the walk must set are collected in `updates`. Valid structures on the way to
    the tables are cached at once, entries that point to tables by `remember`.
    """

    reasons: ClassVar[Reasons]

    def __init__(
        self, memory: Memory, capability: Capability, root: int, request: Request, caches: "Caches | None" = None
    ) -> None:
        self.trace: list[Step] = []
        self.recalled: list[Recalled] = []
        self.updates: list[Update] = []
        self.fpd = False
        self.privileged = request.privileged
        self.wpe = False
        self.tag = Tag(0, 0, 0)
        """What tags the translation, once `find_tables` has found it."""
        self.above_tables = 0
        """How many steps of the trace are on the way to what names the tables, which comes next."""
        self._memory = memory
        self._capability = capability
        self._root = root
        self._request = request
        self._caches = caches
        self._pointers: list[tuple[str, int, int, Pointer]] = []
        self._width = 0
        self._second_stage_root = 0
        self._tracks = self._snoops = False

    @abstractmethod
    def admit(self) -> None:
        """Read the structures that tell whether such requests of the device are let in. Raises Refused."""

    @abstractmethod
    def find_tables(self) -> None:
        """`admit`, and read the structures that name the request's tables. Raises Refused."""

    @abstractmethod
    def end(self) -> Mapped:
        """Walk the tables that `find_tables` found. Raises Refused."""

    def translate(self) -> Mapped:
        """Where the request goes. Raises Refused."""
        mapped = self.end()
        if INTERRUPT_RANGE[0] <= mapped.pa <= INTERRUPT_RANGE[1]:
            raise Refused(self.reasons.interrupt)
        return mapped

    def remember(self) -> None:
        """Cache the entries that point to tables, now that their accessed bits are set."""
        if self._caches:
            bits = {update.address: update.bits for update in self.updates}
            for owner, level, iova, pointer in self._pointers:
                raw = pointer.raw | bits.get(pointer.place, 0)
                self._caches.paging.fill(owner, level, iova, pointer._replace(raw=raw))

    def _second_stage(self, address: int, *, write: bool, limit: int | None = None) -> Mapped:
        """The second stage's answer to one access. Raises Refused when it does not allow it."""
        if address >> min(self._capability.mgaw, self._width):
            raise Refused(limit or self.reasons.limit)
        fmt = self._capability.second_stage(self._width)
        denied = self.reasons.write if write else self.reasons.read
        read = writable = True
        visits: list[Visit] = []
        for visit, _ in self._walk(
            fmt, self._memory, self._second_stage_root, address, 2, top=self.reasons.top, lower=self.reasons.lower
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
                self.updates.append(Update(visit.address, missing, self.reasons.not_updated))

    def _walk(
        self,
        fmt: Format,
        memory: Memory,
        root: int,
        address: int,
        stage: int,
        *,
        top: int,
        lower: int,
        where: Callable[[int], int] = lambda address: address,
    ) -> Iterator[tuple[Visit, int]]:
        """The page walk, traced, with the physical address of each entry.

        `top` and `lower` are the reasons for tables that cannot be read.
        """
        code = top
        owner, upper = self.tag.owner_of(stage), address >> fmt.width << fmt.width
        known: dict[int, Pointer] = {}

        def recall(level: int, iova: int) -> tuple[int, int] | None:
            if not self._caches or level == 1:
                return None
            if pointer := self._caches.paging.find(owner, level, upper | iova):
                known[level] = pointer
                return pointer.address, pointer.raw
            return None

        try:
            for visit in walk(fmt, memory, root, address, recall):
                if pointer := known.get(visit.level):
                    place = pointer.place
                    step = self._note(fmt.layout, place, visit.raw, stage)
                    self.recalled.append(Recalled("paging", self.tag, (step,)))
                else:
                    place = where(visit.address)
                    self._note(fmt.layout, place, visit.raw, stage)
                    if visit.entry.kind == "table":
                        pointer = Pointer(visit.address, visit.raw, place)
                        self._pointers.append((owner, visit.level, upper | visit.iova, pointer))
                yield visit, place
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

    def _recall(self, cache: str, layout: type[Layout], found: Cached, *tag: int) -> int:
        """Take a structure from a cache."""
        step = self._note(layout, found.address, found.raw)
        self.recalled.append(Recalled(cache, tag, (step,)))
        self.fpd |= found.fpd
        return found.raw

    def _note(self, layout: type[Layout], address: int, raw: int, stage: int = 0) -> Step:
        step = Step(layout.name, address, layout.to_words(raw), layout.values(raw), stage)
        self.trace.append(step)
        return step

    def _check_reserved(self, layout: type[Layout], raw: int, code: int, *addresses: int) -> None:
        if raw & self._capability.reserved(layout) or any(address >> self._capability.haw for address in addresses):
            raise Refused(code)

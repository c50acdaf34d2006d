# SPDX-License-Identifier: Apache-2.0
"""The unit's way from a request to an address, through every structure in memory: VT-d 4.1 chapters 3 and 9.

Nothing here knows what a driver meant; it reads memory as the unit does, and fails with the unit's own reason codes.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from iommuctl.errors import OutsideMemory
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory
from iommuctl.formats.radix import Format, Visit, walk
from iommuctl.model import Slot, Step
from iommuctl_vtd.capability import INTERRUPT_RANGE, SCALABLE_MODE, WIDTHS, Capability
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.pasid_entry import (
    FIRST_STAGE,
    NESTED,
    PASS_THROUGH,
    SECOND_STAGE,
    PasidDirectoryEntry,
    PasidEntry,
)
from iommuctl_vtd.registers import RTADDR
from iommuctl_vtd.root_entry import ScalableRootEntry
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


class Walker:
    """One walk over memory. `trace` and `fpd` tell afterwards what was visited, and whether faults are silent.

    Accessed and dirty bits that the walk must set are collected in `updates`, as (address, bits to set).
    """

    def __init__(self, memory: Memory, capability: Capability, root: int, request: Request) -> None:
        self.trace: list[Step] = []
        self.updates: list[tuple[int, int]] = []
        self.fpd = False
        self.privileged = request.privileged
        self.pasid = 0
        self.entry = 0
        """The PASID table entry, once `find_entry` has found it."""
        self._memory = memory
        self._capability = capability
        self._root = root
        self._request = request

    # From the root to the PASID table entry: sections 9.2 to 9.6

    def find_entry(self) -> None:
        """Read the structures that name the request's tables. Raises Refused."""
        context = self._context_entry()
        slot = self._request.slot
        if slot.pasid is not None and not ScalableContextEntry.PASIDE.get(context):
            raise Refused(0x45)
        limit = 1 << ScalableContextEntry.PDTS.get(context) + 13
        if slot.pasid is None:
            self.pasid = ScalableContextEntry.RID_PASID.get(context) if self._capability.has("RPS") else 0
            self.privileged = bool(ScalableContextEntry.RID_PRIV.get(context))
            # Public sources disagree whether this is SCT.4 or SCT.9; see docs/decisions.md.
            too_large = 0x43
        else:
            self.pasid, too_large = slot.pasid, 0x46
        if self.pasid >= limit:
            raise Refused(too_large)
        self.entry = self._pasid_entry(ScalableContextEntry.PASIDDIRPTR.get(context))

    def _context_entry(self) -> int:
        if RTADDR.TTM.get(self._root) != SCALABLE_MODE:
            raise Refused(0x30)
        self._check_reserved(RTADDR, self._root, 0x30, self._root)
        source = self._request.slot.rid.source_id
        address = RTADDR.RTA.get(self._root) + 16 * (source >> 8)
        root = self._read(ScalableRootEntry, address, 0x38)
        half = root >> 64 if source & 0x80 else root & (1 << 64) - 1
        if not half & 1:
            raise Refused(0x39)
        # The half that is not used is not looked at.
        if half & (ScalableRootEntry.reserved & (1 << 64) - 1) or half >> self._capability.haw:
            raise Refused(0x3A)
        entry = self._read(ScalableContextEntry, (half & -4096) + 32 * (source & 0x7F), 0x40)
        self.fpd |= bool(ScalableContextEntry.FPD.get(entry))
        if not ScalableContextEntry.P.get(entry):
            raise Refused(0x41)
        self._check_reserved(ScalableContextEntry, entry, 0x42, ScalableContextEntry.PASIDDIRPTR.get(entry))
        return entry

    def _pasid_entry(self, directory: int) -> int:
        address = directory + 8 * (self.pasid >> 6)
        pointer = self._read(PasidDirectoryEntry, address, 0x50)
        self.fpd |= bool(PasidDirectoryEntry.FPD.get(pointer))
        if not PasidDirectoryEntry.P.get(pointer):
            raise Refused(0x51)
        table = PasidDirectoryEntry.SMPTBLPTR.get(pointer)
        self._check_reserved(PasidDirectoryEntry, pointer, 0x52, table)
        entry = self._read(PasidEntry, table + 64 * (self.pasid & 0x3F), 0x58)
        self.fpd |= bool(PasidEntry.FPD.get(entry))
        if not PasidEntry.P.get(entry):
            raise Refused(0x59)
        pgtt = PasidEntry.PGTT.get(entry)
        first_stage = PasidEntry.FSPTPTR.get(entry) if pgtt != NESTED else 0
        self._check_reserved(PasidEntry, entry, 0x5A, PasidEntry.SSPTPTR.get(entry), first_stage)
        if not self._is_programmed_well(entry, pgtt):
            raise Refused(0x5B)
        if pgtt in (FIRST_STAGE, NESTED) and self.privileged and not PasidEntry.SRE.get(entry):
            raise Refused(0x5D)
        return entry

    def _is_programmed_well(self, entry: int, pgtt: int) -> bool:
        has = self._capability.has
        first = PasidEntry.FSPM.get(entry) + 4 in self._capability.first_stage_levels
        second = WIDTHS.get(PasidEntry.AW.get(entry)) in self._capability.widths
        return {
            FIRST_STAGE: has("FSTS") and first,
            SECOND_STAGE: has("SSTS") and second,
            NESTED: has("NEST") and first and second,
            PASS_THROUGH: has("PT"),
        }.get(pgtt, False)

    # From the entry to the page: sections 3.6 to 3.8

    def translate(self) -> Mapped:
        """Walk the tables that the entry names. Raises Refused."""
        iova, write = self._request.iova, self._request.write
        pgtt = PasidEntry.PGTT.get(self.entry)
        if pgtt == PASS_THROUGH:
            if iova >> self._capability.haw:
                raise Refused(0x83)
            mapped = Mapped(iova, 4096, Rights(), True)
        elif pgtt == SECOND_STAGE:
            mapped = self._second_stage(iova, write=write)
        else:
            mapped = self._first_stage(iova, nested=pgtt == NESTED)
        if INTERRUPT_RANGE[0] <= mapped.pa <= INTERRUPT_RANGE[1]:
            raise Refused(0x87)
        return mapped

    def _first_stage(self, iova: int, *, nested: bool) -> Mapped:
        fmt = self._capability.first_stage(PasidEntry.FSPM.get(self.entry) + 4)
        upper = iova >> fmt.width - 1
        if upper not in (0, (1 << 65 - fmt.width) - 1):
            raise Refused(0x80)
        root = PasidEntry.FSPTPTR.get(self.entry)
        write = self._request.write
        user = fs_write = True
        memory = _GuestTables(self, root) if nested else self._memory
        where: Callable[[int], int] = memory.last_address if isinstance(memory, _GuestTables) else lambda gpa: gpa
        pending: list[tuple[int, int, int]] = []
        for visit in self._walk(fmt, memory, root, iova, top=0x73, lower=0x70, where=where):
            entry = visit.entry
            if entry.kind == "empty":
                raise Refused(0x71)
            if entry.kind == "reserved":
                raise Refused(0x72)
            user &= "p" not in entry.prot
            fs_write &= "w" in entry.prot
            needed = FirstStageEntry.A.mask
            if PasidEntry.EAFE.get(self.entry):
                needed |= FirstStageEntry.EA.mask
            if write and entry.kind == "leaf":
                needed |= FirstStageEntry.D.mask
            if missing := needed & ~visit.raw:
                pending.append((visit.address, where(visit.address), missing))
        rights = Rights(user, fs_write)
        wpe = bool(PasidEntry.WPE.get(self.entry))
        if code := rights.denied(write=write, privileged=self.privileged, wpe=wpe):
            raise Refused(code)
        self._update_first_stage(pending, nested=nested)
        dirty = bool(visit.raw & FirstStageEntry.D.mask) or write
        address = entry.address | iova & visit.size - 1
        if not nested:
            return Mapped(address, visit.size, rights, dirty)
        end = self._second_stage(address, write=write)
        rights = rights._replace(ss_read=end.rights.ss_read, ss_write=end.rights.ss_write)
        return Mapped(end.pa, min(visit.size, end.page_size), rights, dirty and end.dirty)

    def _update_first_stage(self, pending: list[tuple[int, int, int]], *, nested: bool) -> None:
        """Accessed and dirty bits, which in a nested walk are writes to the guest's memory."""
        if pending and not PasidEntry.PWSNP.get(self.entry):
            raise Refused(0x90)
        for gpa, address, bits in pending:
            if nested:
                try:
                    self._second_stage(gpa, write=True)
                except Refused as refused:
                    raise Refused(0x77) if refused.code == 0x85 else refused from None
            self.updates.append((address, bits))

    def _second_stage(self, address: int, *, write: bool, limit: int = 0x84) -> Mapped:
        """The second stage's answer to one access. Raises Refused when it does not allow it."""
        width = WIDTHS[PasidEntry.AW.get(self.entry)]
        if address >> min(self._capability.mgaw, width):
            raise Refused(limit)
        fmt = self._capability.second_stage(width)
        root = PasidEntry.SSPTPTR.get(self.entry)
        read = writable = True
        visits: list[Visit] = []
        for visit in self._walk(fmt, self._memory, root, address, top=0x7B, lower=0x78):
            if visit.entry.kind == "reserved":
                raise Refused(0x7A)
            read &= "r" in visit.entry.prot
            writable &= "w" in visit.entry.prot
            if not (read or writable):
                raise Refused(0x79)
            visits.append(visit)
        if not (writable if write else read):
            raise Refused(0x85 if write else 0x86)
        track = bool(PasidEntry.SSADE.get(self.entry))
        if track:
            self._update_second_stage(visits, write=write)
        leaf = visits[-1]
        dirty = not track or write or bool(leaf.raw & SecondStageEntry.D.mask)
        return Mapped(
            leaf.entry.address | address & leaf.size - 1, leaf.size, Rights(ss_read=read, ss_write=writable), dirty
        )

    def _update_second_stage(self, visits: list[Visit], *, write: bool) -> None:
        for visit in visits:
            needed = SecondStageEntry.A.mask
            if write and visit is visits[-1]:
                needed |= SecondStageEntry.D.mask
            if missing := needed & ~visit.raw:
                if not PasidEntry.PWSNP.get(self.entry):
                    raise Refused(0x7C)
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

    def guest_table(self, gpa: int, *, top: bool) -> int:
        """Where a first-stage entry at a guest physical address lies. Raises Refused."""
        try:
            return self._second_stage(gpa, write=False, limit=0x74).pa
        except Refused as refused:
            if refused.code == 0x86:
                raise Refused(0x75 if top else 0x76) from None
            raise


class _GuestTables:
    """Memory as a nested walk reads first-stage entries: each address goes through the second stage."""

    def __init__(self, walker: Walker, root: int) -> None:
        self._walker = walker
        self._root = root
        self._found: dict[int, int] = {}

    def read(self, address: int, size: int) -> bytes:
        top = self._root <= address < self._root + 4096
        pa = self._found[address] = self._walker.guest_table(address, top=top)
        return self._walker._memory.read(pa, size)

    def write(self, address: int, data: bytes) -> None:
        raise TypeError(f"a walk does not write {len(data)} bytes at {address:#x}: it collects updates")

    def last_address(self, gpa: int) -> int:
        """The physical address of an entry that was read."""
        return self._found[gpa]

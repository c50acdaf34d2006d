# SPDX-License-Identifier: Apache-2.0
"""The walk of scalable mode, with or without PASID: VT-d 4.1 sections 3.4 to 3.8 and 9.2 to 9.8."""

from collections.abc import Callable

from iommuctl_vtd.capability import WIDTHS
from iommuctl_vtd.config_caches import Cached
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
from iommuctl_vtd.walk import Mapped, Reasons, Refused, Rights, Tag, Update, Walk


class ScalableWalk(Walk):
    """A walk over the tables of scalable mode."""

    reasons = Reasons(
        limit=0x84,
        top=0x7B,
        lower=0x78,
        reserved=0x7A,
        absent=0x79,
        read=0x86,
        write=0x85,
        not_snooped=0x7C,
        not_updated=0x7D,
        interrupt=0x87,
    )

    # From the root to the PASID table entry: sections 9.2 to 9.6

    def admit(self) -> None:
        context = self._context_entry()
        request = self._request
        if request.needs_ats and not ScalableContextEntry.DTE.get(context):
            raise Refused(0x44)
        if request.kind == "page" and not ScalableContextEntry.PRE.get(context):
            raise Refused(0x47)
        if request.slot.pasid is not None and not ScalableContextEntry.PASIDE.get(context):
            raise Refused(0x45)
        if request.slot.pasid is None:
            self._pasid = ScalableContextEntry.RID_PASID.get(context) if self._capability.has("RPS") else 0
            self.privileged = bool(ScalableContextEntry.RID_PRIV.get(context))
            # Public sources disagree whether this is SCT.4 or SCT.9; see docs/decisions.md.
            too_large = 0x43
        else:
            self._pasid, too_large = request.slot.pasid, 0x46
        if self._pasid >> ScalableContextEntry.PDTS.get(context) + 13:
            raise Refused(too_large)
        self._directory = ScalableContextEntry.PASIDDIRPTR.get(context)

    def find_tables(self) -> None:
        self.admit()
        entry = self._entry = self._pasid_entry()
        self.above_tables = len(self.trace) - 1
        self.tag = Tag(PasidEntry.DID.get(entry), PasidEntry.PGTT.get(entry), self._pasid)
        if self.tag.pgtt in (FIRST_STAGE, NESTED) and self.privileged and not PasidEntry.SRE.get(entry):
            raise Refused(0x5D)
        self.wpe = bool(PasidEntry.WPE.get(entry))
        self._width = WIDTHS.get(PasidEntry.AW.get(entry), 0)
        self._second_stage_root = PasidEntry.SSPTPTR.get(entry)
        self._tracks, self._snoops = bool(PasidEntry.SSADE.get(entry)), bool(PasidEntry.PWSNP.get(entry))

    @property
    def _source(self) -> int:
        return self._request.slot.rid.source_id

    def _context_entry(self) -> int:
        source = self._source
        if self._caches and (found := self._caches.contexts.find(source)):
            return self._recall("context", ScalableContextEntry, found, source)
        root = self._root_entry(source)
        half = root >> 64 if source & 0x80 else root & (1 << 64) - 1
        address = (half & -4096) + 32 * (source & 0x7F)
        entry = self._read(ScalableContextEntry, address, 0x40)
        self.fpd = bool(ScalableContextEntry.FPD.get(entry))
        if not ScalableContextEntry.P.get(entry):
            raise Refused(0x41)
        self._check_reserved(ScalableContextEntry, entry, 0x42, ScalableContextEntry.PASIDDIRPTR.get(entry))
        if self._caches:
            self._caches.contexts.fill(source, Cached(address, entry, fpd=self.fpd))
        return entry

    def _root_entry(self, source: int) -> int:
        self._check_reserved(RTADDR, self._root, 0x30, self._root)
        if self._caches and (found := self._caches.contexts.root(source >> 7)):
            return self._recall("context", ScalableRootEntry, found, source)
        address = RTADDR.RTA.get(self._root) + 16 * (source >> 8)
        root = self._read(ScalableRootEntry, address, 0x38)
        half = root >> 64 if source & 0x80 else root & (1 << 64) - 1
        if not half & 1:
            raise Refused(0x39)
        # The half that is not used is not looked at.
        if half & (ScalableRootEntry.reserved & (1 << 64) - 1) or half >> self._capability.haw:
            raise Refused(0x3A)
        if self._caches:
            self._caches.contexts.fill_root(source >> 7, Cached(address, root))
        return root

    def _pasid_entry(self) -> int:
        source, pasid = self._source, self._pasid
        if self._caches and (found := self._caches.pasids.find(source, pasid)):
            return self._recall("pasid", PasidEntry, found, found.did, pasid)
        pointer = self._directory_entry()
        address = PasidDirectoryEntry.SMPTBLPTR.get(pointer) + 64 * (pasid & 0x3F)
        entry = self._read(PasidEntry, address, 0x58)
        fpd = bool(PasidEntry.FPD.get(entry) | PasidDirectoryEntry.FPD.get(pointer))
        self.fpd |= fpd
        if not PasidEntry.P.get(entry):
            raise Refused(0x59)
        pgtt = PasidEntry.PGTT.get(entry)
        first_stage = PasidEntry.FSPTPTR.get(entry) if pgtt != NESTED else 0
        self._check_reserved(PasidEntry, entry, 0x5A, PasidEntry.SSPTPTR.get(entry), first_stage)
        if not self._is_programmed_well(entry, pgtt):
            raise Refused(0x5B)
        if self._caches:
            self._caches.pasids.fill(source, pasid, Cached(address, entry, PasidEntry.DID.get(entry), fpd))
        return entry

    def _directory_entry(self) -> int:
        source, pasid = self._source, self._pasid
        if self._caches and (found := self._caches.pasids.directory(source, pasid)):
            return self._recall("pasid", PasidDirectoryEntry, found, found.did, pasid)
        address = self._directory + 8 * (pasid >> 6)
        pointer = self._read(PasidDirectoryEntry, address, 0x50)
        fpd = bool(PasidDirectoryEntry.FPD.get(pointer))
        self.fpd |= fpd
        if not PasidDirectoryEntry.P.get(pointer):
            raise Refused(0x51)
        self._check_reserved(PasidDirectoryEntry, pointer, 0x52, PasidDirectoryEntry.SMPTBLPTR.get(pointer))
        if self._caches:
            self._caches.pasids.fill_directory(source, pasid, Cached(address, pointer, fpd=fpd))
        return pointer

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

    def end(self) -> Mapped:
        iova = self._request.iova
        if self.tag.pgtt == PASS_THROUGH:
            if iova >> self._capability.haw:
                raise Refused(0x83)
            return Mapped(iova, 4096, Rights(), True)
        if self.tag.pgtt == SECOND_STAGE:
            return self._second_stage(iova, write=self._request.write)
        return self._first_stage(iova, nested=self.tag.pgtt == NESTED)

    def _first_stage(self, iova: int, *, nested: bool) -> Mapped:
        fmt = self._capability.first_stage(PasidEntry.FSPM.get(self._entry) + 4)
        upper = iova >> fmt.width - 1
        if upper not in (0, (1 << 65 - fmt.width) - 1):
            raise Refused(0x80)
        root = PasidEntry.FSPTPTR.get(self._entry)
        write = self._request.write
        user = fs_write = True
        memory = _GuestTables(self, root) if nested else self._memory
        where: Callable[[int], int] = memory.last_address if isinstance(memory, _GuestTables) else lambda gpa: gpa
        pending: list[tuple[int, int, int]] = []
        for visit, place in self._walk(fmt, memory, root, iova, 1, top=0x73, lower=0x70, where=where):
            entry = visit.entry
            if entry.kind == "empty":
                raise Refused(0x71)
            if entry.kind == "reserved":
                raise Refused(0x72)
            user &= "p" not in entry.prot
            fs_write &= "w" in entry.prot
            needed = FirstStageEntry.A.mask
            if PasidEntry.EAFE.get(self._entry):
                needed |= FirstStageEntry.EA.mask
            if write and entry.kind == "leaf":
                needed |= FirstStageEntry.D.mask
            if missing := needed & ~visit.raw:
                pending.append((visit.address, place, missing))
        rights = Rights(user, fs_write)
        if code := rights.denied(write=write, privileged=self.privileged, wpe=self.wpe):
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
        if pending and not self._snoops:
            raise Refused(0x90)
        for gpa, address, bits in pending:
            if nested:
                known = len(self.trace)
                try:
                    self._second_stage(gpa, write=True)
                    # These entries were shown when the first-stage entry was read.
                    del self.trace[known:]
                except Refused as refused:
                    raise Refused(0x77) if refused.code == 0x85 else refused from None
            self.updates.append(Update(address, bits, 0x91))

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

    def __init__(self, walker: ScalableWalk, root: int) -> None:
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

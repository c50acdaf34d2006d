# SPDX-License-Identifier: Apache-2.0
"""The walk of legacy mode: root entry, context entry, second stage. VT-d 4.1 sections 3.4.2, 9.1 and 9.3."""

from iommuctl_vtd.capability import WIDTHS
from iommuctl_vtd.config_caches import Cached
from iommuctl_vtd.context_entry import PASSES_THROUGH, TRANSLATE, TRANSLATE_WITH_ATS, ContextEntry
from iommuctl_vtd.pasid_entry import PASS_THROUGH, SECOND_STAGE
from iommuctl_vtd.registers import RTADDR
from iommuctl_vtd.root_entry import RootEntry
from iommuctl_vtd.walk import Mapped, Reasons, Refused, Rights, Tag, Walk


class LegacyWalk(Walk):
    """A walk over the tables of legacy mode, where no request has a PASID."""

    reasons = Reasons(
        limit=0x04,
        top=0x03,
        lower=0x07,
        reserved=0x0C,
        absent=None,
        read=0x06,
        write=0x05,
        not_snooped=0,
        not_updated=0,
        interrupt=0x0E,
    )

    def admit(self) -> None:
        if self._request.slot.pasid is not None:
            raise Refused(0x31)
        if self._request.kind == "page":
            raise Refused(0x32)
        entry = self._entry = self._context_entry()
        if self._request.needs_ats and ContextEntry.TT.get(entry) != TRANSLATE_WITH_ATS:
            raise Refused(0x0D)

    def find_tables(self) -> None:
        self.admit()
        self.above_tables = len(self.trace) - 1
        through = ContextEntry.TT.get(self._entry) == PASSES_THROUGH
        self.tag = Tag(ContextEntry.DID.get(self._entry), PASS_THROUGH if through else SECOND_STAGE, 0)
        self._width = WIDTHS[ContextEntry.AW.get(self._entry)]
        self._second_stage_root = ContextEntry.SSPTPTR.get(self._entry)

    def _context_entry(self) -> int:
        source = self._request.slot.rid.source_id
        if self._caches and (found := self._caches.contexts.find(source)):
            return self._recall("context", ContextEntry, found, source, found.did)
        address = RootEntry.CTP.get(self._root_entry(source)) + 16 * (source & 0xFF)
        entry = self._read(ContextEntry, address, 0x09)
        self.fpd = bool(ContextEntry.FPD.get(entry))
        if not ContextEntry.P.get(entry):
            raise Refused(0x02)
        kind = ContextEntry.TT.get(entry)
        # Pass-through does not look at the pointer.
        pointer = 0 if kind == PASSES_THROUGH else ContextEntry.SSPTPTR.get(entry)
        self._check_reserved(ContextEntry, entry, 0x0B, pointer)
        if not self._is_programmed_well(kind, WIDTHS.get(ContextEntry.AW.get(entry), 0)):
            raise Refused(0x03)
        if self._caches:
            self._caches.contexts.fill(source, Cached(address, entry, ContextEntry.DID.get(entry), self.fpd))
        return entry

    def _root_entry(self, source: int) -> int:
        self._check_reserved(RTADDR, self._root, 0x30, self._root)
        index = source >> 8 << 1
        if self._caches and (found := self._caches.contexts.root(index)):
            return self._recall("context", RootEntry, found, source)
        address = RTADDR.RTA.get(self._root) + 16 * (source >> 8)
        root = self._read(RootEntry, address, 0x08)
        if not RootEntry.P.get(root):
            raise Refused(0x01)
        self._check_reserved(RootEntry, root, 0x0A, RootEntry.CTP.get(root))
        if self._caches:
            self._caches.contexts.fill_root(index, Cached(address, root))
        return root

    def _is_programmed_well(self, kind: int, width: int) -> bool:
        widths, has = self._capability.widths, self._capability.has
        return {
            TRANSLATE: width in widths,
            TRANSLATE_WITH_ATS: width in widths and has("DT"),
            PASSES_THROUGH: has("PT") and width == max(widths, default=None),
        }.get(kind, False)

    def end(self) -> Mapped:
        iova = self._request.iova
        if self.tag.pgtt == PASS_THROUGH:
            if iova >> self._capability.haw:
                raise Refused(0x04)
            return Mapped(iova, 4096, Rights(), True)
        return self._second_stage(iova, write=self._request.write)

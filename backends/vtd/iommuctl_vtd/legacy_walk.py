# SPDX-License-Identifier: Apache-2.0
"""The walk of legacy mode: root entry, context entry, second stage. VT-d 4.1 sections 3.4.2, 9.1 and 9.3."""

from iommuctl_vtd.capability import WIDTHS
from iommuctl_vtd.context_entry import ContextEntry
from iommuctl_vtd.pasid_entry import PASS_THROUGH, SECOND_STAGE
from iommuctl_vtd.registers import RTADDR
from iommuctl_vtd.root_entry import RootEntry
from iommuctl_vtd.walk import Mapped, Reasons, Refused, Rights, Walk

TRANSLATE, TRANSLATE_WITH_ATS, PASSES_THROUGH = 0, 1, 2
"""Values of TT."""


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
        interrupt=0x0E,
    )

    def find_tables(self) -> None:
        slot = self._request.slot
        if slot.pasid is not None:
            raise Refused(0x31)
        source = slot.rid.source_id
        root = self._read(RootEntry, RTADDR.RTA.get(self._root) + 16 * (source >> 8), 0x08)
        if not RootEntry.P.get(root):
            raise Refused(0x01)
        self._check_reserved(RootEntry, root, 0x0A, RootEntry.CTP.get(root))
        entry = self._read(ContextEntry, RootEntry.CTP.get(root) + 16 * (source & 0xFF), 0x09)
        self.fpd = bool(ContextEntry.FPD.get(entry))
        if not ContextEntry.P.get(entry):
            raise Refused(0x02)
        kind = ContextEntry.TT.get(entry)
        # Pass-through does not look at the pointer.
        pointer = 0 if kind == PASSES_THROUGH else ContextEntry.SSPTPTR.get(entry)
        self._check_reserved(ContextEntry, entry, 0x0B, pointer)
        self._width = WIDTHS.get(ContextEntry.AW.get(entry), 0)
        if not self._is_programmed_well(kind):
            raise Refused(0x03)
        self.did = ContextEntry.DID.get(entry)
        self.pgtt = PASS_THROUGH if kind == PASSES_THROUGH else SECOND_STAGE
        self._second_stage_root = pointer

    def _is_programmed_well(self, kind: int) -> bool:
        widths, has = self._capability.widths, self._capability.has
        return {
            TRANSLATE: self._width in widths,
            TRANSLATE_WITH_ATS: self._width in widths and has("DT"),
            PASSES_THROUGH: has("PT") and self._width == max(widths, default=None),
        }.get(kind, False)

    def end(self) -> Mapped:
        iova = self._request.iova
        if self.pgtt == PASS_THROUGH:
            if iova >> self._capability.haw:
                raise Refused(0x04)
            return Mapped(iova, 4096, Rights(), True)
        return self._second_stage(iova, write=self._request.write)

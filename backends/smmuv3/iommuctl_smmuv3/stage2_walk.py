# SPDX-License-Identifier: Apache-2.0
"""Stage 2 as the unit walks it: intermediate physical addresses to physical ones. IHI0070 G.b section 3.4, 7.3."""

from functools import cache
from typing import NamedTuple, Protocol

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3 import permissions
from iommuctl_smmuv3.events import CLASS_IN
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.permissions import ALL
from iommuctl_smmuv3.refused import (
    F_ACCESS,
    F_ADDR_SIZE,
    F_PERMISSION,
    F_TLB_CONFLICT,
    F_TRANSLATION,
    F_WALK_EABT,
    Refused,
)
from iommuctl_smmuv3.stage2 import Stage2Descriptor, Stage2Descriptor64K, Stage2DescriptorDs, Stage2Format
from iommuctl_smmuv3.stage2_geometry import GRANULES, start_level
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.tlb import GLOBAL, IPA, Page, Tag
from iommuctl_smmuv3.visits import Conflict, Unreadable, Visits, has_nt, run_order

_LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout for layout in (Stage2Descriptor, Stage2Descriptor64K, Stage2DescriptorDs)
}
_WRITE_BIT = 1 << 7
"""S2AP[1]."""
_NORMAL = 0b1100
"""Bits of MemAttr that memory of devices does not have, with and without S2FWB."""


class Access(NamedTuple):
    """What stage 2 is asked for: the right, in the CLASS of records."""

    need: int
    kind: int
    table_read: int | None = None
    """For accesses of stage 1 to its tables, TTRnW."""


class Mapped(NamedTuple):
    """Where an address goes, and the page that says so."""

    pa: int
    page: Page
    hit: bool = False


class Behind(Protocol):
    """What the addresses go through that stage 1 gives, and those of its tables."""

    def translate(self, address: int, access: Access) -> Mapped:
        """Where an address goes. Raises Refused."""


class Stage2:
    """Stage 2 of one STE, for one request."""

    def __init__(self, ste: int, features: Features, visits: Visits) -> None:
        self._ste = ste
        self._features = features
        self._visits = visits
        self._format = _format(
            Ste.S2TG.get(ste),
            Ste.S2T0SZ.get(ste),
            Ste.S2SL0.get(ste),
            Ste.S2SL0_2.get(ste),
            Ste.S2PS.get(ste),
            bool(Ste.S2DS.get(ste)),
            features,
        )
        top = 8 * self._format.entries(self._format.levels)
        self._root = Ste.S2TTB.get(ste) & -top
        self.tag = Tag(IPA, Ste.S2VMID.get(ste), GLOBAL)

    def translate(self, ipa: int, access: Access) -> Mapped:
        """Where an intermediate physical address goes. Raises Refused."""
        try:
            page = self._visits.cached_page(self.tag, ipa, _LAYOUTS, resolves=self._features.resolves_conflicts)
        except Conflict:
            raise Refused(F_TLB_CONFLICT, fields=_told(ipa, access)) from None
        if page and self._serves(page, access):
            self._visits.page_from_cache(self.tag, page, _LAYOUTS)
            return Mapped(page.pa | ipa & (1 << page.order) - 1, page, True)
        start = len(self._visits.trace)
        page = self._walk(ipa, access)
        self._visits.keep(self.tag, ipa, page, start)
        return Mapped(page.pa | ipa & (1 << page.order) - 1, page)

    def _serves(self, page: Page, access: Access) -> bool:
        writes = access.need & (permissions.WRITE | permissions.WRITE << 3)
        allowed = page.stage2 & access.need and not (page.device and self._is_protected(access))
        return bool(allowed) and (page.dirty or not writes)

    def _walk(self, ipa: int, access: Access) -> Page:
        fmt = self._format
        if ipa >> fmt.width:
            raise self._fault(F_TRANSLATION, ipa, access, f"stage 2 has addresses of {fmt.width} bits")
        try:
            for visit in self._visits.descriptors(fmt, self._root, ipa, self.tag, 2):
                entry, level = visit.entry, fmt.numbered(visit.level)
                if entry.kind == "empty" or (entry.kind == "reserved" and not entry.reserved):
                    raise self._fault(F_TRANSLATION, ipa, access, f"the stage 2 descriptor of level {level} is invalid")
                if entry.kind == "reserved":
                    what = f"the stage 2 descriptor of level {level} has an address of more than the output's bits"
                    raise self._fault(F_ADDR_SIZE, ipa, access, what)
        except Unreadable as error:
            raise _aborted(error, access) from None
        sets = self._accessed(visit.raw, ipa, access)
        writable = self._writable_clean(visit.raw)
        rights = permissions.stage2(visit.raw, writable=writable, xnx=self._features.xnx)
        device = not Stage2Descriptor.MemAttr.get(visit.raw) & _NORMAL
        if not rights & access.need:
            raise self._fault(F_PERMISSION, ipa, access, "the stage 2 page does not allow the access")
        if device and self._is_protected(access):
            raise self._fault(F_PERMISSION, ipa, access, "the stage 2 page is of a device, and S2PTW protects it")
        dirty = not writable or bool(Stage2Descriptor.S2AP.get(visit.raw) & 2)
        if not dirty and access.need & (permissions.WRITE | permissions.WRITE << 3):
            sets, dirty = sets | _WRITE_BIT, True
        if sets:
            self._update(self._visits.trace[-1].address, sets, access)
        order, run = visit.size.bit_length() - 1, run_order(fmt, visit)
        level = fmt.numbered(visit.level)
        nt = has_nt(visit, self._features.bbml)
        return Page(visit.entry.address, order, run, ALL, rights, level, fmt.shift(1), order, dirty, device, [], nt)

    def _update(self, address: int, sets: int, access: Access) -> None:
        try:
            self._visits.update(address, sets)
        except Unreadable as error:
            raise _aborted(error, access) from None

    def _is_protected(self, access: Access) -> bool:
        """Whether the access must not reach devices: it is one to a table or CD."""
        return access.kind != CLASS_IN and bool(Ste.S2PTW.get(self._ste))

    def _accessed(self, raw: int, ipa: int, access: Access) -> int:
        """The accessed flag, where it is to be set. With S2HA, S2AFFD does not count."""
        if Stage2Descriptor.AF.get(raw):
            return 0
        if Ste.S2HA.get(self._ste):
            return Stage2Descriptor.AF.mask
        if not Ste.S2AFFD.get(self._ste):
            raise self._fault(F_ACCESS, ipa, access, "the accessed flag of the stage 2 page is not set")
        return 0

    def _writable_clean(self, raw: int) -> bool:
        return bool(Ste.S2HA.get(self._ste) and Ste.S2HD.get(self._ste) and Stage2Descriptor.DBM.get(raw))

    def _fault(self, event: int, ipa: int, access: Access, because: str) -> Refused:
        fields = _told(ipa, access)
        if event == F_PERMISSION and access.table_read is not None:
            fields["TTRnW"] = access.table_read
        stalls = bool(Ste.S2S.get(self._ste))
        return Refused(event, because, fields, recorded=stalls or bool(Ste.S2R.get(self._ste)), stalls=stalls)


def _told(ipa: int, access: Access) -> dict[str, int]:
    """The fields of a record about an intermediate physical address."""
    return {"S2": 1, "CLASS": access.kind, "IPA": ipa & -4096 & (1 << 56) - 1}


def _aborted(error: Unreadable, access: Access) -> Refused:
    return Refused(F_WALK_EABT, fields={"S2": 1, "CLASS": access.kind, "FetchAddr": error.address & -8})


@cache
def _format(tg: int, t0sz: int, sl0: int, sl0_2: int, ps: int, ds: bool, features: Features) -> Stage2Format:  # noqa: PLR0917
    granule, counts = GRANULES[tg], ds and features.ds
    return Stage2Format(
        granule,
        64 - t0sz,
        output=features.output_bits(ps, granule, counts),
        oas=features.oas,
        start_level=start_level(tg, sl0, sl0_2, counts),
        ds=counts,
        xnx=features.xnx,
    )

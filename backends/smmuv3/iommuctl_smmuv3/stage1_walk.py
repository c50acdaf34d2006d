# SPDX-License-Identifier: Apache-2.0
"""Stage 1 as the unit walks it: virtual addresses, to physical ones or through stage 2. IHI0070 G.b 3.4, 7.3."""

from functools import cache

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3 import permissions
from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.cd_rules import TG1_GRANULES, StreamWorld
from iommuctl_smmuv3.events import CLASS_IN, CLASS_TT
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.permissions import ALL, Hierarchy
from iommuctl_smmuv3.refused import (
    F_ACCESS,
    F_ADDR_SIZE,
    F_PERMISSION,
    F_TLB_CONFLICT,
    F_TRANSLATION,
    F_WALK_EABT,
    Refused,
)
from iommuctl_smmuv3.stage1 import Stage1Descriptor, Stage1Descriptor64K, Stage1DescriptorDs, Stage1Format
from iommuctl_smmuv3.stage2 import Stage2Descriptor, Stage2Descriptor64K, Stage2DescriptorDs
from iommuctl_smmuv3.stage2_geometry import GRANULES
from iommuctl_smmuv3.stage2_walk import Access, Behind, Mapped
from iommuctl_smmuv3.tlb import EL2, EL2_E2H, GLOBAL, VA, Page, Tag
from iommuctl_smmuv3.visits import Conflict, Unreadable, Visits, has_nt, run_order

LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (
        Stage1Descriptor,
        Stage1Descriptor64K,
        Stage1DescriptorDs,
        Stage2Descriptor,
        Stage2Descriptor64K,
        Stage2DescriptorDs,
    )
}
_READ_ONLY = 1 << 7
"""AP[2]."""
_TABLE_READ = Access(permissions.READ << 3, CLASS_TT, 1)
_TABLE_WRITE = Access(permissions.WRITE << 3, CLASS_TT, 0)
_TOP_BYTE = 0xFF << 56


class Stage1:
    """Stage 1 of one CD, for one request."""

    def __init__(  # noqa: PLR0917
        self, cd: int, vmid: int, world: StreamWorld, features: Features, visits: Visits, stage2: Behind | None
    ) -> None:
        self._cd = cd
        self._world = world
        self._features = features
        self._visits = visits
        self._stage2 = stage2
        asid = GLOBAL if world is StreamWorld.NS_EL2 else Cd.ASID.get(cd)
        if world is StreamWorld.NS_EL1:
            self.tag = Tag(VA, vmid, asid, Cd.ASET.get(cd))
        else:
            self.tag = Tag(EL2 if world is StreamWorld.NS_EL2 else EL2_E2H, 0, asid)

    def translate(self, iova: int, need: int) -> Mapped:
        """Where an address goes, through stage 2 where there is one. Raises Refused."""
        half = iova >> 55 & 1 if self._world is not StreamWorld.NS_EL2 else 0
        address = self._canonical(iova, half)
        try:
            page = self._visits.cached_page(self.tag, address, LAYOUTS, resolves=self._features.resolves_conflicts)
        except Conflict:
            raise Refused(F_TLB_CONFLICT, fields={"S2": 0, "CLASS": CLASS_IN}) from None
        if page and self._serves(page, need):
            self._visits.page_from_cache(self.tag, page, LAYOUTS)
            return Mapped(page.pa | address & (1 << page.order) - 1, page, True)
        start = len(self._visits.trace)
        page, own = self._walk(address, half, need)
        tag = self.tag if Stage1Descriptor.nG.get(own) else self.tag.for_all(self.tag.aset)
        self._visits.keep(tag, address, page, start)
        return Mapped(page.pa | address & (1 << page.order) - 1, page)

    @staticmethod
    def _serves(page: Page, need: int) -> bool:
        writes = need & (permissions.WRITE | permissions.WRITE << 3)
        return bool(page.stage1 & page.stage2 & need) and (page.dirty or not writes)

    def _canonical(self, iova: int, half: int) -> int:
        """The address without what TBI has ignored."""
        if Cd.field(f"TBI{half}").get(self._cd):
            return iova | _TOP_BYTE if half else iova & ~_TOP_BYTE
        return iova

    def _walk(self, address: int, half: int, need: int) -> tuple[Page, int]:
        """The page, and its stage 1 descriptor."""
        cd = self._cd
        if Cd.field(f"EPD{half}").get(cd):
            raise self._fault(F_TRANSLATION, f"CD.EPD{half} forbids walks from TTB{half}")
        fmt = _format(cd, half, self._features)
        if address >> fmt.width != ((1 << 64 - fmt.width) - 1 if half else 0):
            raise self._fault(F_TRANSLATION, f"TTB{half} has addresses of {fmt.width} bits")
        wide = self._features.output_bits(Cd.IPS.get(cd), 1 << fmt.shift(1), Cd.DS.get(cd)) > 48
        start_table = max(64 if wide else 8, 8 * fmt.entries(fmt.levels))
        root = Cd.field(f"TTB{half}").get(cd) & -start_table
        above = Hierarchy(disabled=bool(self._features.had and Cd.field(f"HAD{half}").get(cd)))
        stage2 = self._stage2

        through = (lambda address: stage2.translate(address, _TABLE_READ).pa) if stage2 else None
        try:
            for visit in self._visits.descriptors(fmt, root, address, self.tag, 1, through):
                entry, level = visit.entry, fmt.numbered(visit.level)
                if entry.kind == "empty" or (entry.kind == "reserved" and not entry.reserved):
                    raise self._fault(F_TRANSLATION, f"the stage 1 descriptor of level {level} is invalid")
                if entry.kind == "reserved":
                    what = f"the stage 1 descriptor of level {level} has an address of more than the output's bits"
                    raise self._fault(F_ADDR_SIZE, what)
                if entry.kind == "table":
                    above.add(visit.raw)
        except Unreadable as error:
            raise _aborted(error) from None
        raw = visit.raw
        update = self._accessed(raw)
        writable = bool(Cd.HA.get(cd) and Cd.HD.get(cd) and Stage1Descriptor.DBM.get(raw))
        rights = permissions.stage1(
            raw, above, self._world, writable=writable, wxn=bool(Cd.WXN.get(cd)), pan=bool(Cd.PAN.get(cd))
        )
        if not rights & need:
            raise self._fault(F_PERMISSION, f"the stage 1 page does not allow {permissions.words(need)}")
        dirty, clears = not writable or not raw & _READ_ONLY, 0
        if not dirty and need & (permissions.WRITE | permissions.WRITE << 3):
            dirty, clears = True, _READ_ONLY
        if update or clears:
            self._update(visit.address, self._visits.trace[-1].address, update, clears)
        order, run = visit.size.bit_length() - 1, run_order(fmt, visit)
        nt = has_nt(visit, self._features.bbml)
        page = Page(entry.address, order, run, rights, ALL, level, fmt.shift(1), order, dirty, False, [], nt)
        return (self._through(stage2, page, address, need) if stage2 else page), raw

    def _through(self, stage2: Behind, page: Page, address: int, need: int) -> Page:
        """The page of both stages."""
        ipa = page.pa | address & (1 << page.order) - 1
        end = stage2.translate(ipa, Access(need, CLASS_IN))
        order = min(page.order, end.page.order)
        pa = end.pa >> order << order
        run, dirty, nt = min(page.run, end.page.run), page.dirty and end.page.dirty, page.nt or end.page.nt
        return page._replace(pa=pa, order=order, run=run, stage2=end.page.stage2, dirty=dirty, nt=nt)

    def _update(self, descriptor: int, place: int, sets: int, clears: int) -> None:
        if self._stage2:
            known = len(self._visits.trace)
            self._stage2.translate(descriptor, _TABLE_WRITE)
            # These descriptors were shown when the one of stage 1 was read.
            del self._visits.trace[known:]
        try:
            self._visits.update(place, sets, clears)
        except Unreadable as error:
            raise _aborted(error) from None

    def _accessed(self, raw: int) -> int:
        """The accessed flag, where it is to be set. With HA, AFFD does not count."""
        if Stage1Descriptor.AF.get(raw):
            return 0
        if Cd.HA.get(self._cd):
            return Stage1Descriptor.AF.mask
        if not Cd.AFFD.get(self._cd):
            raise self._fault(F_ACCESS, "the accessed flag of the stage 1 page is not set")
        return 0

    def _fault(self, event: int, because: str) -> Refused:
        stalls = bool(Cd.S.get(self._cd))
        recorded = stalls or bool(Cd.R.get(self._cd))
        return Refused(event, because, {"S2": 0, "CLASS": CLASS_IN}, recorded=recorded, stalls=stalls)


def _aborted(error: Unreadable) -> Refused:
    return Refused(F_WALK_EABT, fields={"S2": 0, "CLASS": CLASS_TT, "FetchAddr": error.address & -8})


def _format(cd: int, half: int, features: Features) -> Stage1Format:
    codes = GRANULES if half == 0 else TG1_GRANULES
    return _cached_format(
        codes[Cd.field(f"TG{half}").get(cd)],
        64 - Cd.field(f"T{half}SZ").get(cd),
        Cd.IPS.get(cd),
        bool(Cd.DS.get(cd) and features.ds),
        bool(features.had and Cd.field(f"HAD{half}").get(cd)),
        features,
    )


@cache
def _cached_format(granule: int, width: int, ips: int, ds: bool, had: bool, features: Features) -> Stage1Format:  # noqa: PLR0917
    output = features.output_bits(ips, granule, ds)
    return Stage1Format(granule, width, output=output, oas=features.oas, ds=ds, had=had)

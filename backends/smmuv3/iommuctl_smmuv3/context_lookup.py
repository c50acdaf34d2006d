# SPDX-License-Identifier: Apache-2.0
"""From a SubstreamID to its CD: IHI0070 G.b section 3.3.2. With stage 2, all of it lies in the guest's memory."""

from iommuctl_smmuv3 import permissions
from iommuctl_smmuv3.cd import Cd, L1Cd, illegal
from iommuctl_smmuv3.config_cache import CDS, L1CDS, Cached
from iommuctl_smmuv3.events import CLASS_CD
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.refused import C_BAD_CD, C_BAD_SUBSTREAMID, F_CD_FETCH, Refused
from iommuctl_smmuv3.stage2_walk import Access, Behind
from iommuctl_smmuv3.ste import TWO_LEVEL_4K, TWO_LEVEL_64K, Ste, cd_table_size
from iommuctl_smmuv3.visits import Unreadable, Visits

_CD_SIZE, _L1CD_SIZE = Cd.bits // 8, L1Cd.bits // 8
_LEAF_BITS = {TWO_LEVEL_4K: 6, TWO_LEVEL_64K: 10}
"""log2 of the CDs of a leaf table."""
# CDs are read as data, with privilege.
_FETCH = Access(permissions.READ << 3, CLASS_CD)


def find_cd(  # noqa: PLR0917
    visits: Visits, stream: int, substream: int, ste: int, stage2: Behind | None, features: Features, e2h: bool
) -> int:
    """The CD of a substream, which can be used. `substream` is below 2**S1CDMax. Raises Refused."""
    config = visits.caches and visits.caches.config
    if config and (found := config.find(CDS, stream, substream)):
        cd = visits.from_cache(Cd, found, "cd", stream, substream)
    else:
        address = _cd_address(visits, stream, substream, ste, stage2, features)
        place, cd = _fetched(visits, Cd, address, stage2)
        if config:
            config.fill(CDS, Cached(place, cd, substream, substream, stage2 is not None), stream, substream)
    if because := illegal(cd, ste, features, e2h=e2h):
        raise Refused(C_BAD_CD, because)
    return cd


def _cd_address(  # noqa: PLR0917
    visits: Visits, stream: int, substream: int, ste: int, stage2: Behind | None, features: Features
) -> int:
    form, most = Ste.S1Fmt.get(ste), Ste.S1CDMax.get(ste)
    base = Ste.S1ContextPtr.get(ste) & -cd_table_size(form, most)
    bits = _LEAF_BITS.get(form)
    if not most or bits is None:
        return base + _CD_SIZE * substream
    number, index = divmod(substream, 1 << bits)
    first = number << bits
    config = visits.caches and visits.caches.config
    if config and (found := config.find(L1CDS, stream, first)):
        descriptor = visits.from_cache(L1Cd, found, "cd", stream, substream)
    else:
        place, descriptor = _fetched(visits, L1Cd, base + _L1CD_SIZE * number, stage2)
        if config:
            last = first | (1 << bits) - 1
            config.fill(L1CDS, Cached(place, descriptor, first, last, stage2 is not None), stream, first)
    if not L1Cd.V.get(descriptor):
        raise Refused(C_BAD_SUBSTREAMID, "its level 1 descriptor has V = 0", {"SubstreamID": substream})
    table = L1Cd.L2Ptr.get(descriptor) & -(_CD_SIZE << bits)
    if stage2 is None and table >> features.oas:
        because = f"its level 1 descriptor has an address of more than {features.oas} bits"
        raise Refused(C_BAD_SUBSTREAMID, because, {"SubstreamID": substream})
    return table + _CD_SIZE * index


def _fetched(visits: Visits, layout: type[Cd | L1Cd], address: int, stage2: Behind | None) -> tuple[int, int]:
    """Where the structure lies, and what it is."""
    place = stage2.translate(address, _FETCH).pa if stage2 else address
    try:
        return place, visits.structure(layout, place)
    except Unreadable as error:
        raise Refused(F_CD_FETCH, fields={"FetchAddr": error.address & -8}) from None

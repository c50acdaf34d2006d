# SPDX-License-Identifier: Apache-2.0
"""Random invalidation descriptors, good and bad: VT-d 4.1 section 6.5.2."""

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from iommuctl_vtd.invalidation import (
    DESCRIPTORS,
    ContextCacheInvalidate,
    IotlbInvalidate,
    PasidCacheInvalidate,
    PasidIotlbInvalidate,
)
from tests.differential.vtd.build import WAIT
from tests.differential.vtd.hand_tables import FIRST_DID
from tests.differential.vtd.kinds import Kind


def global_invalidation(kind: Kind) -> tuple[int, ...]:
    """All caches forget everything."""
    pasids = () if kind.legacy else (PasidCacheInvalidate.encode(G=3),)
    return (ContextCacheInvalidate.encode(G=1), *pasids, IotlbInvalidate.encode(G=1), WAIT)


@st.composite
def descriptor_streams(draw: DrawFn, kind: Kind, addresses: tuple[int, ...], domains: int) -> tuple[int, ...]:
    """Some descriptors, mostly for these addresses and for DIDs that are in use; some with an error."""
    used = range(FIRST_DID, FIRST_DID + domains) if kind.first_stage else range(1, domains + 1)
    dids = st.sampled_from([*used, *used, *used, domains + 1, FIRST_DID + domains, 0, 0xFFFF])
    stream: list[int] = []
    for _ in range(draw(st.integers(1, 4))):
        one = draw(_descriptors(kind, addresses, dids))
        if draw(st.integers(0, 5)) == 0:
            one ^= 1 << draw(st.one_of(st.integers(0, 127), st.integers(0, 15), st.integers(0, 255)))
        stream.append(one if not kind.legacy else one & (1 << 128) - 1)
    return (*stream, WAIT)


@st.composite
def _descriptors(draw: DrawFn, kind: Kind, addresses: tuple[int, ...], dids: st.SearchStrategy[int]) -> int:
    did = draw(dids)
    address = draw(st.sampled_from([*addresses, 0x1000, 1 << 30])) + draw(st.sampled_from([0, 0, 0, 0x1000]))
    address &= (1 << 64) - 4096
    order = draw(st.sampled_from([0, 0, 1, 3, 9, 18, 19, 40]))
    choice = draw(st.integers(0, 9))
    if choice <= 4:
        granularity = draw(st.sampled_from([0, 1, 2, 2, 3, 3, 3]))
        hint = draw(st.integers(0, 1))
        return IotlbInvalidate.encode(G=granularity, DID=did, AM=order, IH=hint, ADDR=address)
    if choice <= 6 and not kind.legacy:
        granularity = draw(st.sampled_from([0, 1, 2, 2, 3, 3, 3]))
        pasid = draw(st.sampled_from([0, 0, 0, 1]))
        return PasidIotlbInvalidate.encode(G=granularity, DID=did, PASID=pasid, AM=order, ADDR=address)
    layout = DESCRIPTORS[draw(st.sampled_from(sorted(DESCRIPTORS)))]
    values = {field.name: draw(st.sampled_from([0, 1, 2, 3])) & field.mask >> field.lsb for field in layout.fields[1:3]}
    if "SW" in values:
        return WAIT
    return layout.encode(**{name: value for name, value in values.items() if name != "TYPE_HIGH"})

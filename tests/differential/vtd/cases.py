# SPDX-License-Identifier: Apache-2.0
"""The smallest configuration that shows each deviation, so that every run meets all of them."""

from collections.abc import Mapping

from iommuctl_vtd.invalidation import (
    InvalidationWait,
    IotlbInvalidate,
    PageGroupResponse,
    PageGroupResponseRev3,
    PasidIotlbInvalidate,
)
from tests.differential.plans import Clear, Dma, Flip, Range
from tests.differential.vtd.descriptors import global_invalidation
from tests.differential.vtd.hand_tables import FIRST_DID
from tests.differential.vtd.kinds import KINDS
from tests.differential.vtd.plans import Configuration, Event, Queue, Space

_EDU = 1
_OTHER = 2
_PAGE, _READ_ONLY, _HOLE, _LARGE, _HIGHER = 0, 0x1000, 0x2000, 0x20_0000, 1 << 29
"""Addresses of pages of three kinds, of a page that is large where such pages are allowed, and far away from them."""
_W, _R = Dma(_EDU, "w", _PAGE, 8), Dma(_EDU, "r", _PAGE, 8)
_WAITS = 0x1200_0800
"""Where a wait writes."""
_HIGH = 50
"""A bit beyond the host's addresses."""


def _configuration(
    kind: str, *events: Event, through: bool = False, used: bool = True, width: int = 0
) -> Configuration:
    """Two devices share a space. What changes before the first DMA is followed by a global invalidation."""
    unit = KINDS[kind]
    ranges = (Range(_PAGE, 0x1000, 0x1000_0000, "rw"), Range(_READ_ONLY, 0x1000, 0x1100_0000, "r"), _INTERRUPTS, _FAR)
    width = width or max(unit.widths)
    tables = Space("first" if unit.first_stage else "second", width, (1 << 12, 1 << 21), ranges, used)
    space = Space("through", width, (), ()) if through else tables
    flips = [event for event in events if isinstance(event, Flip)]
    rest = [event for event in events if event not in flips]
    return Configuration(kind, (space,), (0,) * 5, (*flips, Queue(global_invalidation(unit)), *rest))


_FAR = Range(_HIGHER, 0x1000, 0x1200_0000, "rw")
_INTERRUPTS = Range(_LARGE, 0x20_0000, 0xFEE0_0000, "rw")

CASES: Mapping[str, Configuration] = {
    # Bit 4 of a scalable-mode context entry is PRE.
    "context-gates": _configuration("scalable-39", Flip(_EDU, _PAGE, 5, 4), _W),
    # A bit that is always reserved, and SSADE, which is without ECAP.SSADS.
    "pasid-reserved": _configuration("scalable-39", Flip(_EDU, _PAGE, 3, 10), Flip(_EDU, _PAGE, 0, 9), _W),
    "pasid-pointers": _configuration("scalable-39", Flip(_EDU, _PAGE, 3, 128 + _HIGH), _W),
    "updates-unsnooped": _configuration("first-stage", _W, used=False),
    "both-root-halves": _configuration("scalable-39", Flip(_EDU, _PAGE, 6, 64 + 5), _W),
    "through-pointer": _configuration("legacy", Flip(_EDU, _PAGE, 0, _HIGH), _W, through=True),
    # TT becomes 10 in an entry for 39 bits.
    "through-width": _configuration("legacy", Flip(_EDU, _PAGE, 3, 3), _W, width=39),
    "through-unchecked": _configuration("legacy", Dma(_EDU, "w", 1 << _HIGH, 8), through=True),
    # P and the upper bit of PGTT.
    "type-first": _configuration("scalable-39", Flip(_EDU, _PAGE, 3, 7), Flip(_EDU, _PAGE, 0, 0), _W),
    "pointer-read": _configuration("scalable-39", Flip(_EDU, _PAGE, 3, _HIGH), _W),
    # AW becomes 0, which is 30 bits, and the address has bit 29.
    "canonical-width": _configuration("first-stage-tracking", Flip(_EDU, _HIGHER, 4, 3), Dma(_EDU, "w", _HIGHER, 8)),
    "rights-at-once": _configuration("scalable-39", Flip(_EDU, _READ_ONLY, 0, 62), Dma(_EDU, "w", _READ_ONLY, 8)),
    "interrupt-page": _configuration("scalable-39", Dma(_EDU, "w", _LARGE + 0x18_0000, 8)),
    "interrupt-code": _configuration("legacy-on-scalable", Dma(_EDU, "w", _LARGE, 8)),
    # FPD, then P.
    "own-fpd": _configuration("scalable-39", Flip(_EDU, _PAGE, 4, 1), Flip(_EDU, _PAGE, 4, 0), _W),
    "always-recorded": _configuration("legacy", Flip(_EDU, _PAGE, 4, 1), Flip(_EDU, _PAGE, 4, 5), _W),
    "snoop-unchecked": _configuration("scalable-39", Flip(_EDU, _PAGE, 0, 11), _W),
    "legacy-codes": _configuration("scalable-39", Dma(_EDU, "w", _HOLE, 8)),
    "page-group-response": _configuration("scalable-39", Queue((PageGroupResponse.encode(),))),
    "response-of-revision-3": _configuration("scalable-39", Queue((PageGroupResponseRev3.encode(PP=1, LPIG=1),))),
    "pasid-address-mask": _configuration("scalable-39", Queue((PasidIotlbInvalidate.encode(G=3, AM=19),))),
    "idle-wait": _configuration("scalable-39", Queue((InvalidationWait.encode(),))),
    "no-refetch": _configuration("scalable-39", Queue((IotlbInvalidate.encode(G=0),))),
    "cached-rights": _configuration("scalable-39", Dma(_EDU, "r", _READ_ONLY, 8), Dma(_EDU, "w", _READ_ONLY, 8)),
    "cached-dirty": _configuration("first-stage-tracking", _R, _W, used=False),
    "dirty-with-accessed": _configuration("first-stage-tracking", Flip(_EDU, _PAGE, 0, 6), _W),
    "tagged-by-rid": _configuration("scalable-39", _R, Clear(_EDU, _PAGE), Dma(_OTHER, "r", _PAGE, 8)),
    "accessed-on-the-way": _configuration("first-stage-tracking", Dma(_EDU, "w", _READ_ONLY, 8), used=False),
}
"""By the name of the deviation."""

_ASK = Dma(_EDU, "w", _HOLE, 8)
AGREED: Mapping[str, Configuration] = {
    "FPD of a legacy context entry": _configuration("legacy", Flip(_EDU, _PAGE, 4, 1), _ASK),
    "FPD of a scalable context entry": _configuration("scalable", Flip(_EDU, _PAGE, 6, 1), _ASK),
    "FPD of a PASID directory entry": _configuration("scalable", Flip(_EDU, _PAGE, 5, 1), _ASK),
    "FPD of a PASID entry": _configuration("first-stage", Flip(_EDU, _PAGE, 4, 1), _ASK),
    "a response without PASID, with private data": _configuration(
        "scalable", Queue((PageGroupResponseRev3.encode(PRIVATE_DATA=1 << 46),))
    ),
    "FPD does not silence a root entry": _configuration("legacy", Flip(_EDU, _PAGE, 4, 1), Flip(_EDU, _PAGE, 5, 3), _W),
    "a domain is invalidated": _configuration(
        "scalable", _R, Clear(_EDU, _PAGE), Queue((IotlbInvalidate.encode(G=2, DID=1),)), _R
    ),
    "another domain is invalidated": _configuration(
        "scalable", _R, Clear(_EDU, _PAGE), Queue((IotlbInvalidate.encode(G=2, DID=2),)), _R
    ),
    "a page is invalidated": _configuration(
        "legacy", _R, Clear(_EDU, _PAGE), Queue((IotlbInvalidate.encode(G=3, DID=1, ADDR=_PAGE),)), _R
    ),
    "a domain of first stages is invalidated": _configuration(
        "first-stage", _R, Clear(_EDU, _PAGE), Queue((IotlbInvalidate.encode(G=2, DID=FIRST_DID),)), _R
    ),
    "a page of a domain is invalidated, which takes all of its first stages": _configuration(
        "first-stage", _R, Clear(_EDU, _PAGE), Queue((IotlbInvalidate.encode(G=3, DID=FIRST_DID, ADDR=0x5000),)), _R
    ),
    "another domain of first stages is invalidated": _configuration(
        "first-stage", _R, Clear(_EDU, _PAGE), Queue((IotlbInvalidate.encode(G=2, DID=FIRST_DID + 1),)), _R
    ),
    "PD of a wait is reserved without ECAP.PDS": _configuration(
        "scalable", Queue((InvalidationWait.encode(SW=1, FN=1, PD=1, STADDR=_WAITS),))
    ),
    # The entry of the third level points to a table at 0x202000; it becomes a page at 0.
    "a page of 1 GiB in a first stage": _configuration(
        "first-stage", Flip(_EDU, _PAGE, 2, 21), Flip(_EDU, _PAGE, 1, 13), Flip(_EDU, _PAGE, 1, 7), _R
    ),
    "a PASID is invalidated": _configuration(
        "first-stage", _R, Clear(_EDU, _PAGE), Queue((PasidIotlbInvalidate.encode(G=2, DID=FIRST_DID),)), _R
    ),
    "another PASID is invalidated": _configuration(
        "first-stage", _R, Clear(_EDU, _PAGE), Queue((PasidIotlbInvalidate.encode(G=2, DID=FIRST_DID, PASID=1),)), _R
    ),
}
"""Where both must do the same, but for fault codes."""

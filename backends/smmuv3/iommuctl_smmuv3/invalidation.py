# SPDX-License-Identifier: Apache-2.0
"""The commands for a scope of the table of rules: IHI0070 G.b chapter 4. Ranges are split as Linux splits them."""

from collections.abc import Iterator
from typing import NamedTuple

from iommuctl.formats.bits import Layout
from iommuctl.model import Slot
from iommuctl_smmuv3.commands import WHOLE_ADDRESS_SPACE, AtcInv
from iommuctl_smmuv3.configuration_commands import EVERY_STREAM, CfgiCd, CfgiCdAll, CfgiSte, CfgiSteRange
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.rules import Scope
from iommuctl_smmuv3.streams import stream_id
from iommuctl_smmuv3.tags import NO_STAGE_2, Tag
from iommuctl_smmuv3.tlb_commands import (
    TlbiEl2All,
    TlbiNhAll,
    TlbiNhAsid,
    TlbiNhVa,
    TlbiNsnhAll,
    TlbiS2Ipa,
    TlbiS12Vmall,
)

SPLIT = 8
"""A level 2 stream table is for so many bits of StreamIDs: those of a bus."""
_MOST_COMMANDS = 512
"""More addresses than that, one by one, are not worth it: CMDQ_MAX_TLBI_OPS of Linux with pages of 4 KiB."""
_LARGEST_SCALE = 31
"""More takes a bit that exists with IDR5.DS only."""
_LARGEST_NUM = 31
"""NUM + 1 is below that and one more: Linux's CMDQ_TLBI_RANGE_NUM_MAX."""


class Span(NamedTuple):
    """Addresses first..last of tables with that granule in bytes, and whether only leaf descriptors changed.

    `page` is the size of each leaf where all are of one size, else 0.
    """

    first: int
    last: int
    leaf: bool
    granule: int = 4096
    page: int = 0


class Target(NamedTuple):
    """What a command is about: a slot, what tags its translations, and addresses (None is all)."""

    slot: Slot
    tag: Tag
    span: Span | None = None


def commands(scope: Scope, target: Target, features: Features) -> Iterator[int]:  # noqa: PLR0912
    """The commands, in their order. What is next wider where the unit has no ranges and there would be too many."""
    slot, (vmid, asid), span = target
    stream = stream_id(slot.rid)
    match scope:
        case Scope.EVERY_STREAM:
            yield CfgiSteRange.encode(Range=EVERY_STREAM)
        case Scope.BUS:
            yield CfgiSteRange.encode(StreamID=stream >> SPLIT << SPLIT, Range=SPLIT - 1)
        case Scope.STREAM:
            yield CfgiSte.encode(StreamID=stream, Leaf=1)
        case Scope.SUBSTREAM | Scope.SUBSTREAM_TABLE:
            yield CfgiCd.encode(StreamID=stream, SubstreamID=slot.pasid or 0, Leaf=scope is Scope.SUBSTREAM)
        case Scope.ALL_SUBSTREAMS:
            yield CfgiCdAll.encode(StreamID=stream)
        case Scope.EVERY_TRANSLATION:
            # What software had the unit before may have used StreamWorlds of EL2, which the other command leaves.
            if features.hyp:
                yield TlbiEl2All.encode()
            yield TlbiNsnhAll.encode()
        case Scope.VMID:
            yield TlbiS12Vmall.encode(VMID=vmid)
        case Scope.IPAS:
            pieces = _pieces(TlbiS2Ipa, span, features)
            yield from ([piece | TlbiS2Ipa.VMID.put(vmid) for piece in pieces] or [TlbiS12Vmall.encode(VMID=vmid)])
        case Scope.STAGE_1_OF_VMID:
            yield TlbiNhAll.encode(VMID=vmid)
        case Scope.ASID:
            yield TlbiNhAsid.encode(VMID=vmid, ASID=asid or 0)
        case Scope.ADDRESSES:
            own = TlbiNhVa.encode(VMID=vmid, ASID=asid or 0)
            pieces = _pieces(TlbiNhVa, span, features)
            # Below a stage 2 a guest may have global pages, which the command for an ASID leaves.
            wider = Scope.ASID if vmid == NO_STAGE_2 else Scope.STAGE_1_OF_VMID
            yield from ([piece | own for piece in pieces] or commands(wider, target, features))
        case Scope.DEVICE_TLB:
            yield _device_tlb(slot, None)
        case Scope.DEVICE_TLB_ADDRESSES:
            yield _device_tlb(slot, span)


def _pieces(layout: type[Layout], span: Span | None, features: Features) -> list[int]:
    """Commands without tags that mean these addresses; none where all of the tag's is meant."""
    if span is None:
        return []
    step = span.page or span.granule
    first, count = span.first & -step, (span.last - (span.first & -step)) // step + 1
    if count == 1 or not features.ril:
        if count > _MOST_COMMANDS:
            return []
        return [layout.encode(Leaf=span.leaf, Addr=first + number * step) for number in range(count)]
    if span.last - first >= span.granule << _LARGEST_SCALE:
        return []
    return list(_ranges(layout, span, first))


def _ranges(layout: type[Layout], span: Span, first: int) -> Iterator[int]:
    """Ranges of up to 31 times a power of two, the smallest first."""
    order = span.granule.bit_length() - 1
    pages = (span.last - first >> order) + 1
    # A level is told where it is one, and known.
    level = 4 - (span.page.bit_length() - 1 - 3) // (order - 3) if span.leaf and span.page else 0
    if not level and pages & _LARGEST_NUM == 1:
        # One page alone is no range.
        pages += 1
    address = first
    while pages:
        scale = (pages & -pages).bit_length() - 1
        number = pages >> scale & _LARGEST_NUM
        range_fields = {"NUM": number - 1, "SCALE": scale, "TTL": level, "TG": (order - 10) // 2}
        yield layout.encode(Leaf=span.leaf, Addr=address, **range_fields)
        address += number << scale + order
        pages -= number << scale


def _device_tlb(slot: Slot, span: Span | None) -> int:
    """The smallest aligned block that covers the addresses, or all."""
    first, order = 0, WHOLE_ADDRESS_SPACE
    if span:
        order = (span.first >> 12 ^ span.last >> 12).bit_length()
        first = span.first >> 12 + order << 12 + order
    tag = {} if slot.pasid is None else {"SSV": 1, "SubstreamID": slot.pasid}
    return AtcInv.encode(StreamID=stream_id(slot.rid), Size=order, Addr=first, **tag)

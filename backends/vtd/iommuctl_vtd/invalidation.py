# SPDX-License-Identifier: Apache-2.0
"""Descriptors of the invalidation queue, 256 bits wide as scalable mode requires: VT-d 4.1 section 6.5.2.

Those of legacy mode have 128 bits: the first two words of what is declared here, the others being zero anyway. A
descriptor's type has seven bits: the upper three stand in bits 11:9 and are zero in all types that there are.
"""

from collections.abc import Mapping
from types import MappingProxyType

from iommuctl.architecture import PageResponse
from iommuctl.formats.bits import Address, Bit, Bits, Field, Fixed, Layout
from iommuctl.formats.checks import Check, named, only

FUNCTION_MASKS = {
    0: "exactly SID", 1: "ignore bit 2 of SID", 2: "ignore bits 2:1 of SID", 3: "ignore bits 2:0 of SID",
}  # fmt: skip
"""Which functions of a device are meant with the one that SID names: values of FM and SQ."""
_PAGE_SHIFT = 12


def _aligned(address: Field) -> Check:
    """Hardware ignores the lower bits of a block's address; by convention they are zero."""
    demand = "should be a multiple of the 2**AM pages"
    return Check(address, demand, lambda entry: entry.G != 3 or not entry.ADDR % (1 << _PAGE_SHIFT + entry.AM))


def _ended(address: Field) -> Check:
    """The lowest zero bit of the address ends the size of a block, so that there must be one."""
    demand = "must have a zero bit where S is 0x1"
    return Check(address, demand, lambda entry: not entry.S or ~entry.ADDR & (1 << 64) - (1 << _PAGE_SHIFT) != 0)


class ContextCacheInvalidate(Layout, bits=256, name="vtd.context-cache-invalidate"):
    """Context-cache invalidate descriptor: VT-d 4.1 section 6.5.2.1."""

    TYPE = Fixed(3, 0, 1)
    G = Bits(5, 4, values={1: "global", 2: "domain", 3: "device"})
    TYPE_HIGH = Fixed(11, 9, 0)
    DID = Bits(31, 16)
    """The domain id that is meant."""
    SID = Bits(47, 32)
    """The requester that is meant."""
    FM = Bits(49, 48, values=FUNCTION_MASKS)

    checks = (named(G), only(SID, G=3), only(FM, G=3))


class IotlbInvalidate(Layout, bits=256, name="vtd.iotlb-invalidate"):
    """IOTLB invalidate descriptor: VT-d 4.1 section 6.5.2.3."""

    TYPE = Fixed(3, 0, 2)
    G = Bits(5, 4, values={1: "global", 2: "domain", 3: "pages in domain"})
    DW = Bit(6)
    """Writes are drained."""
    DR = Bit(7)
    """Reads are drained."""
    TYPE_HIGH = Fixed(11, 9, 0)
    DID = Bits(31, 16)
    """The domain id that is meant."""
    AM = Bits(69, 64)
    """2**AM pages are meant."""
    IH = Bit(70)
    """Only leaf entries changed."""
    ADDR = Address(127, 76)
    """The first page."""

    checks = (named(G), only(AM, G=3), _aligned(ADDR))


class DeviceTlbInvalidate(Layout, bits=256, name="vtd.device-tlb-invalidate"):
    """Device-TLB invalidate descriptor: VT-d 4.1 section 6.5.2.5. S and ADDR: see `device_tlb_range`."""

    TYPE = Fixed(3, 0, 3)
    TYPE_HIGH = Fixed(11, 9, 0)
    PFSID_LO = Bits(15, 12, needs="DIT")
    """Lower bits of the source id of the physical function."""
    MIP = Bits(20, 16)
    """How many invalidations the device queues; 0 is 32."""
    SID = Bits(47, 32)
    """The device that is meant."""
    PFSID_HI = Bits(63, 52, needs="DIT")
    """Upper bits of the source id of the physical function."""
    S = Bit(64)
    """ADDR tells a block of more than one page."""
    ADDR = Address(127, 76)
    """The page, or the block: see `device_tlb_range`."""

    checks = (_ended(ADDR),)


class IecInvalidate(Layout, bits=256, name="vtd.iec-invalidate"):
    """Interrupt entry cache invalidate descriptor: VT-d 4.1 section 6.5.2.7."""

    TYPE = Fixed(3, 0, 4)
    G = Bit(4, values={0: "global", 1: "indices"})
    TYPE_HIGH = Fixed(11, 9, 0)
    IM = Bits(31, 27)
    """2**IM entries are meant; at most ECAP.MHMV."""
    IIDX = Bits(47, 32)
    """The first entry."""

    checks = (only(IM, G=1), only(IIDX, G=1))


class InvalidationWait(Layout, bits=256, name="vtd.invalidation-wait"):
    """Invalidation wait descriptor: VT-d 4.1 section 6.5.2.8."""

    TYPE = Fixed(3, 0, 5)
    IF = Bit(4)
    """Completion raises an interrupt."""
    SW = Bit(5)
    """Completion writes STDATA to STADDR."""
    FN = Bit(6)
    """Later descriptors wait."""
    PD = Bit(7, needs="PDS")
    """Page requests are drained."""
    TYPE_HIGH = Fixed(11, 9, 0)
    STDATA = Bits(63, 32)
    """What completion writes."""
    STADDR = Address(127, 66)
    """Where completion writes it."""


class PasidIotlbInvalidate(Layout, bits=256, name="vtd.pasid-iotlb-invalidate"):
    """PASID-based IOTLB invalidate descriptor: VT-d 4.1 section 6.5.2.4."""

    TYPE = Fixed(3, 0, 6)
    G = Bits(5, 4, values={2: "PASID", 3: "pages in PASID"})
    TYPE_HIGH = Fixed(11, 9, 0)
    DID = Bits(31, 16)
    """The domain id that is meant."""
    PASID = Bits(51, 32)
    """The PASID that is meant."""
    AM = Bits(69, 64)
    """2**AM pages are meant."""
    IH = Bit(70)
    """Only leaf entries changed."""
    ADDR = Address(127, 76)
    """The first page."""

    checks = (named(G), only(AM, G=3), _aligned(ADDR))


class PasidCacheInvalidate(Layout, bits=256, name="vtd.pasid-cache-invalidate"):
    """PASID-cache invalidate descriptor: VT-d 4.1 section 6.5.2.2."""

    TYPE = Fixed(3, 0, 7)
    G = Bits(5, 4, values={0: "domain", 1: "PASID in domain", 3: "global"})
    TYPE_HIGH = Fixed(11, 9, 0)
    DID = Bits(31, 16)
    """The domain id that is meant."""
    PASID = Bits(51, 32)
    """The PASID that is meant."""

    checks = (named(G), only(PASID, G=1))


class PasidDeviceTlbInvalidate(Layout, bits=256, name="vtd.pasid-device-tlb-invalidate"):
    """PASID-based device-TLB invalidate descriptor: VT-d 4.1 section 6.5.2.6. S and ADDR: see `device_tlb_range`."""

    TYPE = Fixed(3, 0, 8)
    MIP = Bits(8, 4)
    """How many invalidations the device queues; 0 is 32."""
    TYPE_HIGH = Fixed(11, 9, 0)
    PFSID_LO = Bits(15, 12, needs="DIT")
    """Lower bits of the source id of the physical function."""
    SID = Bits(31, 16)
    """The device that is meant."""
    PASID = Bits(51, 32)
    """The PASID that is meant."""
    PFSID_HI = Bits(63, 52, needs="DIT")
    """Upper bits of the source id of the physical function."""
    G = Bit(64, values={0: "this PASID", 1: "all PASIDs"})
    S = Bit(75)
    """ADDR tells a block of more than one page."""
    ADDR = Address(127, 76)
    """The page, or the block: see `device_tlb_range`."""

    checks = (only(PASID, G=0), _ended(ADDR))


class PageGroupResponse(Layout, bits=256, name="vtd.page-group-response", revision=4):
    """Page group response descriptor: VT-d 4.1 section 6.5.2. It answers the last page request of a group."""

    TYPE = Fixed(3, 0, 9)
    PP = Bit(4)
    """The request had a PASID."""
    TYPE_HIGH = Fixed(11, 9, 0)
    RC = Bits(15, 12, values={0: "success", 1: "invalid request", 15: "failure"})
    RID = Bits(31, 16)
    """Whom it answers."""
    PASID = Bits(51, 32)
    """The PASID of the request."""
    PRGI = Bits(75, 67)
    """Index of the group."""

    checks = (named(RC), only(PASID, PP=1))


RESPONSES: Mapping[int, PageResponse] = MappingProxyType({0: "success", 1: "invalid", 15: "failure"})
"""What RC means."""


class PageGroupResponseRev3(PageGroupResponse, revision=3):
    """Page group response descriptor of revision 3, with fields that VT-d 4.1 section 6.5.2 reserves."""

    PDP = Bit(5)
    """The request had private data, which is echoed here."""
    LPIG = Bit(66)
    """The request was the last of its group."""
    PRIVATE_DATA = Bits(255, 128)
    """The private data of the request."""


DESCRIPTORS: Mapping[int, type[Layout]] = MappingProxyType({
    layout.TYPE.value: layout
    for layout in (
        ContextCacheInvalidate,
        IotlbInvalidate,
        DeviceTlbInvalidate,
        IecInvalidate,
        InvalidationWait,
        PasidIotlbInvalidate,
        PasidCacheInvalidate,
        PasidDeviceTlbInvalidate,
        PageGroupResponse,
    )
})  # fmt: skip
"""The descriptors by type."""


def covering_block(first: int, last: int) -> tuple[int, int]:
    """The smallest aligned block of 2**order pages that holds the addresses first..last, as (address, order)."""
    order = max(0, (first ^ last).bit_length() - _PAGE_SHIFT)
    return first & -(1 << _PAGE_SHIFT + order), order


def device_tlb_range(address: int, order: int) -> tuple[int, int]:
    """How device-TLB descriptors write an aligned block of 2**order pages, as (ADDR, S).

    With S, the lowest zero bit of ADDR from bit 12 on is the highest bit of an offset into the block.
    """
    if order == 0:
        return address, 0
    return address | (1 << _PAGE_SHIFT + order - 1) - (1 << _PAGE_SHIFT), 1


def device_tlb_block(address: int, s: int) -> tuple[int, int]:
    """The addresses that ADDR and S of a device-TLB descriptor mean, as (first, last): all where no bit is zero."""
    if not s:
        return address, address | (1 << _PAGE_SHIFT) - 1
    page = address >> _PAGE_SHIFT
    size = (~page & page + 1) << _PAGE_SHIFT + 1
    return (address & -size, address | size - 1) if size < 1 << 64 else (0, (1 << 64) - 1)

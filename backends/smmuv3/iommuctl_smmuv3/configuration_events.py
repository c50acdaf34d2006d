# SPDX-License-Identifier: Apache-2.0
"""Records of the event queue about transactions that found no usable configuration, or that the STE refuses.

Bits of records that the unit may use at places that are not declared are ignored. InputAddr is the whole address.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Fixed, Ignored, Layout


class FUut(Layout, bits=256, name="smmuv3.f-uut"):
    """F_UUT: IHI0070 G.b section 7.3. The type of the transaction is not supported."""

    Event = Fixed(7, 0, 0x01)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    Reason = Bits(79, 64)
    """IMPLEMENTATION DEFINED."""
    PnU = Bit(97)
    """The transaction was privileged."""
    InD = Bit(98)
    """It fetched an instruction."""
    RnW = Bit(99, values={0: "write", 1: "read"})
    InputAddr = Bits(191, 128)
    """The address of the transaction."""


class CBadStreamid(Layout, bits=256, name="smmuv3.c-bad-streamid"):
    """C_BAD_STREAMID: IHI0070 G.b section 7.3. The stream table has no such StreamID."""

    Event = Fixed(7, 0, 0x02)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""


class FSteFetch(Layout, bits=256, name="smmuv3.f-ste-fetch"):
    """F_STE_FETCH: IHI0070 G.b section 7.3. The STE, or the descriptor that leads to it, could not be read."""

    Event = Fixed(7, 0, 0x03)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    Reason = Bits(79, 64)
    """IMPLEMENTATION DEFINED."""
    GPCF = Bit(80)
    """The granule protection check failed."""
    FetchAddr = Address(247, 195)
    """What could not be read."""


class CBadSte(Layout, bits=256, name="smmuv3.c-bad-ste"):
    """C_BAD_STE: IHI0070 G.b section 7.3. The STE is not valid, or ILLEGAL."""

    Event = Fixed(7, 0, 0x04)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""


class FBadAtsTreq(Layout, bits=256, name="smmuv3.f-bad-ats-treq"):
    """F_BAD_ATS_TREQ: IHI0070 G.b section 7.3. A translation request came from a stream without ATS."""

    Event = Fixed(7, 0, 0x05)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    PERMISSIONS_AND_SPAN = Ignored(127, 64)
    InputAddr = Bits(191, 128)
    """The address of the transaction."""


class FStreamDisabled(Layout, bits=256, name="smmuv3.f-stream-disabled"):
    """F_STREAM_DISABLED: IHI0070 G.b section 7.3. The STE allows no transaction without SubstreamID, or none with 0."""

    Event = Fixed(7, 0, 0x06)
    StreamID = Bits(63, 32)
    """Whose transaction it was."""


class FTranslForbidden(Layout, bits=256, name="smmuv3.f-transl-forbidden"):
    """F_TRANSL_FORBIDDEN: IHI0070 G.b section 7.3. A translated transaction came that the STE does not allow."""

    Event = Fixed(7, 0, 0x07)
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    RnW = Bit(99, values={0: "write", 1: "read"})
    InputAddr = Bits(191, 128)
    """The address of the transaction."""


class CBadSubstreamid(Layout, bits=256, name="smmuv3.c-bad-substreamid"):
    """C_BAD_SUBSTREAMID: IHI0070 G.b section 7.3. The stream has no such SubstreamID, or none at all."""

    Event = Fixed(7, 0, 0x08)
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""


class FCdFetch(Layout, bits=256, name="smmuv3.f-cd-fetch"):
    """F_CD_FETCH: IHI0070 G.b section 7.3. The CD, or the descriptor that leads to it, could not be read."""

    Event = Fixed(7, 0, 0x09)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    Reason = Bits(79, 64)
    """IMPLEMENTATION DEFINED."""
    GRANULE_PROTECTION = Ignored(80, 80)
    FetchAddr = Address(247, 195)
    """What could not be read."""


class CBadCd(Layout, bits=256, name="smmuv3.c-bad-cd"):
    """C_BAD_CD: IHI0070 G.b section 7.3. The CD is not valid, or ILLEGAL."""

    Event = Fixed(7, 0, 0x0A)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""


class FCfgConflict(Layout, bits=256, name="smmuv3.f-cfg-conflict"):
    """F_CFG_CONFLICT: IHI0070 G.b section 7.3. STEs that CONT says are the same are not."""

    Event = Fixed(7, 0, 0x21)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    Reason = Bits(95, 64)
    """IMPLEMENTATION DEFINED."""


class FVmsFetch(Layout, bits=256, name="smmuv3.f-vms-fetch"):
    """F_VMS_FETCH: IHI0070 G.b section 7.3. The virtual machine structure could not be read."""

    Event = Fixed(7, 0, 0x25)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    Reason = Bits(79, 64)
    """IMPLEMENTATION DEFINED."""
    GPCF = Bit(80)
    """The granule protection check failed."""
    FetchAddr = Address(247, 195)
    """What could not be read."""

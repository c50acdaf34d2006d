# SPDX-License-Identifier: Apache-2.0
"""Records of the event queue: what the unit tells about transactions that it could not translate, and hints.

All records by number: those about configuration are in `configuration_events`. Bits that the unit may use at places
that are not declared are ignored. InputAddr is the whole address.
"""

from collections.abc import Mapping
from types import MappingProxyType

from iommuctl.formats.bits import Address, Bit, Bits, Fixed, Ignored, Layout
from iommuctl_smmuv3 import configuration_events as configuration

CLASS_CD, CLASS_TT, CLASS_IN = 0, 1, 2
"""Values of CLASS."""
_CLASSES = {CLASS_CD: "fetch of a CD", CLASS_TT: "fetch of a stage 1 table", CLASS_IN: "input address"}


class FWalkEabt(Layout, bits=256, name="smmuv3.f-walk-eabt"):
    """F_WALK_EABT: IHI0070 G.b section 7.3. A descriptor of a table could not be read or updated."""

    Event = Fixed(7, 0, 0x0B)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    Reason = Bits(79, 64)
    """IMPLEMENTATION DEFINED."""
    GRANULE_PROTECTION = Ignored(80, 80)
    PnU = Bit(97)
    """The transaction was privileged."""
    InD = Bit(98)
    """It fetched an instruction."""
    RnW = Bit(99, values={0: "write", 1: "read"})
    S2 = Bit(103, values={0: "stage 1", 1: "stage 2"})
    CLASS = Bits(105, 104, values=_CLASSES)
    """What was translated when it went wrong."""
    NSIPA = Ignored(107, 106)
    FEATURES = Ignored(127, 108)
    InputAddr = Bits(191, 128)
    """The address of the transaction."""
    FetchAddr = Address(247, 195)
    """What could not be read."""


class FTranslation(Layout, bits=256, name="smmuv3.f-translation"):
    """F_TRANSLATION: IHI0070 G.b section 7.3. The address has no translation."""

    Event = Fixed(7, 0, 0x10)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    STAG = Bits(79, 64)
    """The tag by which the stalled transaction is answered."""
    Stall = Bit(95)
    """The transaction is stalled."""
    PnU = Bit(97)
    """The transaction was privileged."""
    InD = Bit(98)
    """It fetched an instruction."""
    RnW = Bit(99, values={0: "write", 1: "read"})
    S2 = Bit(103, values={0: "stage 1", 1: "stage 2"})
    CLASS = Bits(105, 104, values=_CLASSES)
    """What was translated when it went wrong."""
    NSIPA = Ignored(107, 106)
    FEATURES = Ignored(127, 108)
    InputAddr = Bits(191, 128)
    """The address of the transaction."""
    IPA = Address(247, 204)
    """The page that stage 2 could not translate, where S2 is 1."""


class FAddrSize(Layout, bits=256, name="smmuv3.f-addr-size"):
    """F_ADDR_SIZE: IHI0070 G.b section 7.3. A descriptor leads beyond the size of output addresses."""

    Event = Fixed(7, 0, 0x11)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    STAG = Bits(79, 64)
    """The tag by which the stalled transaction is answered."""
    Stall = Bit(95)
    """The transaction is stalled."""
    PnU = Bit(97)
    """The transaction was privileged."""
    InD = Bit(98)
    """It fetched an instruction."""
    RnW = Bit(99, values={0: "write", 1: "read"})
    S2 = Bit(103, values={0: "stage 1", 1: "stage 2"})
    CLASS = Bits(105, 104, values=_CLASSES)
    """What was translated when it went wrong."""
    NSIPA = Ignored(107, 106)
    FEATURES = Ignored(127, 108)
    InputAddr = Bits(191, 128)
    """The address of the transaction."""
    IPA = Address(247, 204)
    """The page that stage 2 could not translate, where S2 is 1."""


class FAccess(Layout, bits=256, name="smmuv3.f-access"):
    """F_ACCESS: IHI0070 G.b section 7.3. The accessed flag of a page is not set."""

    Event = Fixed(7, 0, 0x12)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    STAG = Bits(79, 64)
    """The tag by which the stalled transaction is answered."""
    Stall = Bit(95)
    """The transaction is stalled."""
    PnU = Bit(97)
    """The transaction was privileged."""
    InD = Bit(98)
    """It fetched an instruction."""
    RnW = Bit(99, values={0: "write", 1: "read"})
    S2 = Bit(103, values={0: "stage 1", 1: "stage 2"})
    CLASS = Bits(105, 104, values=_CLASSES)
    """What was translated when it went wrong."""
    NSIPA = Ignored(107, 106)
    FEATURES = Ignored(127, 108)
    InputAddr = Bits(191, 128)
    """The address of the transaction."""
    IPA = Address(247, 204)
    """The page that stage 2 could not translate, where S2 is 1."""


class FPermission(Layout, bits=256, name="smmuv3.f-permission"):
    """F_PERMISSION: IHI0070 G.b section 7.3. The page does not allow the access."""

    Event = Fixed(7, 0, 0x13)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    STAG = Bits(79, 64)
    """The tag by which the stalled transaction is answered."""
    Stall = Bit(95)
    """The transaction is stalled."""
    PnU = Bit(97)
    """The transaction was privileged."""
    InD = Bit(98)
    """It fetched an instruction."""
    RnW = Bit(99, values={0: "write", 1: "read"})
    S2 = Bit(103, values={0: "stage 1", 1: "stage 2"})
    CLASS = Bits(105, 104, values=_CLASSES)
    """What was translated when it went wrong."""
    NSIPA = Ignored(107, 106)
    TTRnW = Bit(108, values={0: "write", 1: "read"})
    """How stage 1 accessed its table, where CLASS is of a stage 1 table."""
    FEATURES = Ignored(127, 109)
    InputAddr = Bits(191, 128)
    """The address of the transaction."""
    IPA = Address(247, 204)
    """The page that stage 2 could not translate, where S2 is 1."""


class FTlbConflict(Layout, bits=256, name="smmuv3.f-tlb-conflict"):
    """F_TLB_CONFLICT: IHI0070 G.b section 7.3. Several entries of the TLB match."""

    Event = Fixed(7, 0, 0x20)
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
    S2 = Bit(103, values={0: "stage 1", 1: "stage 2"})
    CLASS = Bits(105, 104, values=_CLASSES)
    """What was translated when it went wrong."""
    NSIPA = Ignored(107, 106)
    FEATURES = Ignored(127, 108)
    InputAddr = Bits(191, 128)
    """The address of the transaction."""
    IPA = Address(247, 204)
    """The page that stage 2 could not translate, where S2 is 1."""


class EPageRequest(Layout, bits=256, name="smmuv3.e-page-request"):
    """E_PAGE_REQUEST: IHI0070 G.b section 7.3. A hint: pages will be wanted."""

    Event = Fixed(7, 0, 0x24)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """The PASID of the transaction; unknown where SSV is 0."""
    StreamID = Bits(63, 32)
    """Whose transaction it was."""
    uX = Bit(97)  # noqa: N815
    """Unprivileged execution will be wanted."""
    uW = Bit(98)  # noqa: N815
    """Unprivileged writes will be wanted."""
    uR = Bit(99)  # noqa: N815
    """Unprivileged reads will be wanted."""
    pX = Bit(101)  # noqa: N815
    """Privileged execution will be wanted."""
    pW = Bit(102)  # noqa: N815
    """Privileged writes will be wanted."""
    pR = Bit(103)  # noqa: N815
    """Privileged reads will be wanted."""
    Span = Bits(115, 108)
    """Of how many pages of 4 KB."""
    InputAddr = Address(191, 140)
    """The first page."""


EVENTS: Mapping[int, type[Layout]] = MappingProxyType({
    layout.Event.value: layout
    for layout in (
        configuration.FUut,
        configuration.CBadStreamid,
        configuration.FSteFetch,
        configuration.CBadSte,
        configuration.FBadAtsTreq,
        configuration.FStreamDisabled,
        configuration.FTranslForbidden,
        configuration.CBadSubstreamid,
        configuration.FCdFetch,
        configuration.CBadCd,
        FWalkEabt,
        FTranslation,
        FAddrSize,
        FAccess,
        FPermission,
        FTlbConflict,
        configuration.FCfgConflict,
        EPageRequest,
        configuration.FVmsFetch,
    )
})  # fmt: skip
"""The records by number."""

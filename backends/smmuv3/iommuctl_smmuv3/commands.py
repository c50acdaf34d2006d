# SPDX-License-Identifier: Apache-2.0
"""Commands to devices, answers to stalled transactions and page requests, and the one that waits for the others.

All commands by opcode: those about structures and translations are in `configuration_commands` and `tlb_commands`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from iommuctl.architecture import PageResponse
from iommuctl.formats.bits import Address, Bit, Bits, Fixed, Ignored, Layout
from iommuctl.formats.checks import Check, named, only
from iommuctl_smmuv3 import configuration_commands as configuration
from iommuctl_smmuv3 import tlb_commands as tlb

WHOLE_ADDRESS_SPACE = 52
"""The Size with which ATC_INV means all addresses."""
_PAGE_SHIFT = 12


class AtcInv(Layout, bits=128, name="smmuv3.atc-inv"):
    """CMD_ATC_INV: IHI0070 G.b section 4.5. Have a device forget translations of 2**Size pages of 4 KB."""

    Opcode = Fixed(7, 0, 0x40)
    Global = Bit(9)
    """Of all PASIDs."""
    SSV = Bit(11)
    """Of this SubstreamID; without it, the device is told of no PASID."""
    SubstreamID = Bits(31, 12)
    """The PASID that is meant."""
    StreamID = Bits(63, 32)
    """The device that is meant."""
    Size = Bits(69, 64, values={WHOLE_ADDRESS_SPACE: "all addresses"})
    """2**Size pages of 4 KB are meant."""
    Addr = Address(127, 76)
    """The first page: lower bits than the block's size are ignored."""

    checks = (
        only(Global, SSV=1),
        only(SubstreamID, SSV=1),
        Check(Size, f"must be at most {WHOLE_ADDRESS_SPACE}", lambda command: command.Size <= WHOLE_ADDRESS_SPACE),
        Check(
            Addr,
            "should be a multiple of the 2**Size pages",
            lambda command: not command.Addr % (1 << _PAGE_SHIFT + command.Size),
        ),
    )


class PriResp(Layout, bits=128, name="smmuv3.pri-resp"):
    """CMD_PRI_RESP: IHI0070 G.b section 4.5. Answer the page requests of a group."""

    Opcode = Fixed(7, 0, 0x41)
    SSV = Bit(11)
    """The requests had a PASID, which is in SubstreamID."""
    SubstreamID = Bits(31, 12)
    """The PASID of the requests."""
    StreamID = Bits(63, 32)
    """Whom it answers."""
    PRGIndex = Bits(72, 64)
    """The group of requests."""
    Resp = Bits(77, 76, values={0: "failure", 1: "invalid request", 2: "success"})

    checks = (only(SubstreamID, SSV=1), named(Resp))


RESPONSES: Mapping[int, PageResponse] = MappingProxyType({0: "failure", 1: "invalid", 2: "success"})
"""What Resp means."""


class Resume(Layout, bits=128, name="smmuv3.resume"):
    """CMD_RESUME: IHI0070 G.b section 4.7. Answer a stalled transaction."""

    Opcode = Fixed(7, 0, 0x44)
    SSec = Fixed(10, 10, 0)
    Ac = Bit(12, values={0: "terminate", 1: "retry"})
    Ab = Bit(13, values={0: "read as zero, ignore writes", 1: "abort"})
    """How to terminate; ignored on a retry, and by units that always abort."""
    StreamID = Bits(63, 32)
    """Whose transaction it is."""
    STAG = Bits(79, 64)
    """The tag of its event record."""


class StallTerm(Layout, bits=128, name="smmuv3.stall-term"):
    """CMD_STALL_TERM: IHI0070 G.b section 4.7. Abort all stalled transactions of a stream.

    That StreamID stands where CMD_RESUME has it is inferred.
    """

    Opcode = Fixed(7, 0, 0x45)
    SSec = Fixed(10, 10, 0)
    StreamID = Bits(63, 32)
    """Whose transactions are meant."""


class Sync(Layout, bits=128, name="smmuv3.sync"):
    """CMD_SYNC: IHI0070 G.b section 4.7. Wait until the commands before it are complete, and tell so."""

    Opcode = Fixed(7, 0, 0x46)
    CS = Bits(13, 12, values={0: "no signal", 1: "interrupt", 2: "event to processors"})
    MSH = Bits(23, 22, values={0: "non-shareable", 2: "outer shareable", 3: "inner shareable"})
    """Shareability of the interrupt's write."""
    MSIAttr = Bits(27, 24)
    """Memory type of the interrupt's write, in the encoding of stage 2."""
    MSIData = Bits(63, 32)
    """What the interrupt writes."""
    MSIAddr = Address(119, 66)
    """Where the interrupt writes it; 0 is no write."""
    MSI_NS = Ignored(127, 127)

    checks = (named(CS),)


COMMANDS: Mapping[int, type[Layout]] = MappingProxyType({
    layout.Opcode.value: layout
    for layout in (
        configuration.PrefetchConfig,
        configuration.PrefetchAddr,
        configuration.CfgiSte,
        configuration.CfgiSteRange,
        configuration.CfgiCd,
        configuration.CfgiCdAll,
        configuration.CfgiVmsPidm,
        tlb.TlbiNhAll,
        tlb.TlbiNhAsid,
        tlb.TlbiNhVa,
        tlb.TlbiNhVaa,
        tlb.TlbiEl2All,
        tlb.TlbiEl2Asid,
        tlb.TlbiEl2Va,
        tlb.TlbiEl2Vaa,
        tlb.TlbiS12Vmall,
        tlb.TlbiS2Ipa,
        tlb.TlbiNsnhAll,
        AtcInv,
        PriResp,
        Resume,
        StallTerm,
        Sync,
    )
})  # fmt: skip
"""The commands of a non-secure queue by opcode."""

# SPDX-License-Identifier: Apache-2.0
"""The context descriptor, which describes stage 1, and the first level of a two-level table of them."""

from types import SimpleNamespace

from iommuctl.formats.bits import Address, Bit, Bits, Ignored, Layout
from iommuctl.formats.checks import named
from iommuctl_smmuv3.cd_rules import RULES, stream_world
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.used_bits import used_by_context

_CACHE = {0: "non-cacheable", 1: "write-back, write-allocate", 2: "write-through", 3: "write-back"}
_SHAREABILITY = {0: "non-shareable", 2: "outer shareable", 3: "inner shareable"}
_SIZES = {
    0: "32 bits",
    1: "36 bits",
    2: "40 bits",
    3: "42 bits",
    4: "44 bits",
    5: "48 bits",
    6: "52 bits",
    7: "56 bits",
}


class L1Cd(Layout, bits=64, name="smmuv3.l1cd", present="V"):
    """Level 1 context descriptor: IHI0070 G.b section 5.3. Upper bits of a SubstreamID select it."""

    V = Bit(0)
    """There is a table of CDs."""
    L2Ptr = Address(55, 12)
    """A table of CDs, of 4 KB or 64 KB as S1Fmt says: an IPA where the STE has stage 2."""


class Cd(Layout, bits=512, name="smmuv3.cd", present="V"):
    """Context descriptor: IHI0070 G.b section 5.4.

    Fields of TTB0 count where EPD0 is 0, those of TTB1 where EPD1 is 0; the StreamWorld NS-EL2 has no TTB1. TG1 has
    other codes than TG0. A reserved bit does not make a CD ILLEGAL; `illegal` says what does.
    """

    T0SZ = Bits(5, 0)
    """Input addresses of TTB0 have 64 - T0SZ bits."""
    TG0 = Bits(7, 6, values={0: "4 KB", 1: "64 KB", 2: "16 KB"})
    """Granule of TTB0."""
    IR0 = Bits(9, 8, values=_CACHE)
    """Inner cacheability of walks from TTB0."""
    OR0 = Bits(11, 10, values=_CACHE)
    """Outer cacheability of walks from TTB0."""
    SH0 = Bits(13, 12, values=_SHAREABILITY)
    """Shareability of walks from TTB0."""
    EPD0 = Bit(14)
    """There are no walks from TTB0: its addresses fault."""
    ENDI = Bit(15, values={0: "little-endian tables", 1: "big-endian tables"})
    T1SZ = Bits(21, 16)
    """Input addresses of TTB1 have 64 - T1SZ bits."""
    TG1 = Bits(23, 22, values={1: "16 KB", 2: "4 KB", 3: "64 KB"})
    """Granule of TTB1."""
    IR1 = Bits(25, 24, values=_CACHE)
    """Inner cacheability of walks from TTB1."""
    OR1 = Bits(27, 26, values=_CACHE)
    """Outer cacheability of walks from TTB1."""
    SH1 = Bits(29, 28, values=_SHAREABILITY)
    """Shareability of walks from TTB1."""
    EPD1 = Bit(30)
    """There are no walks from TTB1: its addresses fault."""
    V = Bit(31)
    """The CD is valid."""
    IPS = Bits(34, 32, values=_SIZES)
    """Size of output addresses, but no more than OAS."""
    AFFD = Bit(35)
    """Descriptors without the accessed flag do not fault."""
    WXN = Bit(36)
    """Pages that can be written are never executable."""
    UWXN = Bit(37)
    """Pages that EL0 can write are never executable at EL1."""
    TBI0 = Bit(38)
    """The top byte of addresses of TTB0 is ignored."""
    TBI1 = Bit(39)
    """The top byte of addresses of TTB1 is ignored."""
    PAN = Bit(40)
    """Privileged data accesses to pages that EL0 can access fault."""
    AA64 = Bit(41, values={0: "VMSAv8-32 LPAE", 1: "VMSAv8-64"})
    HD = Bit(42, needs="HTTU")
    """The unit updates the dirty state."""
    HA = Bit(43, needs="HTTU")
    """The unit sets accessed flags."""
    S = Bit(44)
    """Faults of stage 1 stall."""
    R = Bit(45)
    """Faults of stage 1 are recorded."""
    A = Bit(46)
    """Faults of stage 1 abort; without it, reads are answered with zero and writes are ignored."""
    ASET = Bit(47)
    """The ASID is not one of those that processors use."""
    ASID = Bits(63, 48)
    """By which caches tag what they keep of pages that are not global."""

    NSCFG0 = Bit(64)
    """Walks from TTB0 are to non-secure addresses; secure streams only."""
    HAD0 = Bit(65, needs="HAD")
    """Permissions in table descriptors below TTB0 are ignored."""
    E0PD0 = Bit(66, needs="E0PD")
    """Unprivileged access through TTB0 faults."""
    HAFT = Bit(67, needs="HTTU")
    """The unit sets accessed flags of table descriptors."""
    TTB0 = Address(119, 68)
    """The start table of the lower addresses: an IPA where the STE has stage 2."""
    PnCH = Bit(122)
    """Bit of descriptors: protected instead of contiguous."""
    EPAN = Bit(123, needs="EPAN")
    """PAN counts pages that EL0 can execute, too."""
    HWU059 = Bit(124, needs="PBHA")
    """Bit 59 of descriptors below TTB0 is a hardware attribute."""
    HWU060 = Bit(125, needs="PBHA")
    """Bit 60 of descriptors below TTB0 is a hardware attribute."""
    HWU061 = Bit(126, needs="PBHA")
    """Bit 61 of descriptors below TTB0 is a hardware attribute; part of SKL0 with 128-bit descriptors."""
    HWU062 = Bit(127, needs="PBHA")
    """Bit 62 of descriptors below TTB0 is a hardware attribute; part of SKL0 with 128-bit descriptors."""

    NSCFG1 = Bit(128)
    """Walks from TTB1 are to non-secure addresses; secure streams only."""
    HAD1 = Bit(129, needs="HAD")
    """Permissions in table descriptors below TTB1 are ignored."""
    E0PD1 = Bit(130, needs="E0PD")
    """Unprivileged access through TTB1 faults."""
    AIE = Bit(131, needs="AIE")
    """There are 16 memory attributes."""
    TTB1 = Address(183, 132)
    """The start table of the upper addresses: an IPA where the STE has stage 2."""
    DS = Bit(186, needs="DS")
    """Descriptors of 4 KB and 16 KB have the 52-bit format."""
    PIE = Bit(187, needs="S1PI")
    """Stage 1 has indirect permissions."""
    HWU159 = Bit(188, needs="PBHA")
    """Bit 59 of descriptors below TTB1 is a hardware attribute."""
    HWU160 = Bit(189, needs="PBHA")
    """Bit 60 of descriptors below TTB1 is a hardware attribute."""
    HWU161 = Bit(190, needs="PBHA")
    """Bit 61 of descriptors below TTB1 is a hardware attribute; part of SKL1 with 128-bit descriptors."""
    HWU162 = Bit(191, needs="PBHA")
    """Bit 62 of descriptors below TTB1 is a hardware attribute; part of SKL1 with 128-bit descriptors."""

    MAIR0 = Bits(223, 192)
    """Memory attributes 0 to 3, of 8 bits each."""
    MAIR1 = Bits(255, 224)
    """Memory attributes 4 to 7, of 8 bits each."""

    AMAIR0 = Bits(287, 256)
    """IMPLEMENTATION DEFINED attributes 0 to 3."""
    AMAIR1 = Bits(319, 288)
    """IMPLEMENTATION DEFINED attributes 4 to 7."""

    IMPLEMENTATION_DEFINED = Ignored(351, 320)
    PARTID = Bits(367, 352, needs="MPAM")
    """Partition of the memory system."""
    PMG = Bits(375, 368, needs="MPAM")
    """Performance monitoring group."""

    PIIU = Bits(431, 384, needs="S1PI")
    """Sixteen unprivileged permissions of 3 bits, PIIU0 to PIIU15."""
    PIIP = Bits(495, 448, needs="S1PI")
    """Sixteen privileged permissions of 3 bits, PIIP0 to PIIP15."""

    checks = (
        named(TG0, EPD0=0),
        named(SH0, EPD0=0),
        named(TG1, EPD1=0),
        named(SH1, EPD1=0),
    )

    @classmethod
    def used(cls, raw: int) -> int:
        return used_by_context(cls, raw)


def illegal(raw: int, ste: int, features: Features, *, e2h: bool = False) -> str:
    """Why a CD is ILLEGAL or not valid below that STE, so that its use is C_BAD_CD; nothing when it can be used.

    `e2h` is CR2.E2H, which makes the StreamWorld of EL2 one with ASIDs and two tables.
    """
    cd, entry = SimpleNamespace(**Cd.values(raw)), SimpleNamespace(**Ste.values(ste))
    if not cd.V:
        return "V is 0"
    world = stream_world(entry.Config, entry.STRW, features, e2h=e2h)
    return next((found for rule in RULES if (found := rule(cd, entry, world, features))), "")

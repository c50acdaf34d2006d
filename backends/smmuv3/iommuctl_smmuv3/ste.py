# SPDX-License-Identifier: Apache-2.0
"""The stream table entry: what becomes of a device's transactions."""

from types import SimpleNamespace
from typing import Any

from iommuctl.formats.bits import Address, Bit, Bits, Ignored, Layout
from iommuctl.formats.checks import Check, named
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.ste_rules import RULES, STAGE_2_RULES
from iommuctl_smmuv3.used_bits import used_by_stream

ABORT, BYPASS, STAGE_1, STAGE_2, BOTH_STAGES = 0, 4, 5, 6, 7
"""Values of Config; those from 1 to 3 abort, too."""
WITH_STAGE_1, WITH_STAGE_2 = (STAGE_1, BOTH_STAGES), (STAGE_2, BOTH_STAGES)
LINEAR, TWO_LEVEL_4K, TWO_LEVEL_64K = 0, 1, 2
"""Values of S1Fmt; 3 behaves as LINEAR."""
DSS_TERMINATE, DSS_BYPASS, DSS_SUBSTREAM_0 = 0, 1, 2
"""Values of S1DSS; 3 behaves as DSS_TERMINATE."""
STRW_EL1, STRW_EL2 = 0, 2
"""Values of STRW in a non-secure stream table."""
NO_ATS, FULL_ATS, SPLIT_ATS, FULL_ATS_DPT = 0, 1, 2, 3
"""Values of EATS."""

_FETCH_CACHE = {0: "non-cacheable", 1: "write-back, read-allocate", 2: "write-through", 3: "write-back"}
_WALK_CACHE = {0: "non-cacheable", 1: "write-back, write-allocate", 2: "write-through", 3: "write-back"}
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
_LEAF_CDS = {TWO_LEVEL_4K: 6, TWO_LEVEL_64K: 10}
"""log2 of the CDs that one L1CD leads to."""


def cd_table_size(s1fmt: int, s1cdmax: int) -> int:
    """Bytes of what S1ContextPtr points to, and its alignment: a CD, a CD table, or the L1CDs of one."""
    if s1cdmax and s1fmt in _LEAF_CDS:
        return max(64, 8 << max(0, s1cdmax - _LEAF_CDS[s1fmt]))
    return 64 << s1cdmax


def _aligned(entry: Any) -> bool:
    return entry.Config not in WITH_STAGE_1 or not entry.S1ContextPtr % cd_table_size(entry.S1Fmt, entry.S1CDMax)


class Ste(Layout, bits=512, name="smmuv3.ste", present="V"):
    """Stream table entry: IHI0070 G.b section 5.2.

    Fields whose names begin with S1 count where Config has stage 1, those that begin with S2 where it has stage 2; but
    S2VMID counts with either. A reserved bit does not make an STE ILLEGAL; `illegal` says what does.
    """

    V = Bit(0)
    """The STE is valid."""
    Config = Bits(3, 1, values={
        0: "abort", 1: "abort", 2: "abort", 3: "abort", BYPASS: "bypass", STAGE_1: "stage 1", STAGE_2: "stage 2",
        BOTH_STAGES: "stage 1 and stage 2",
    })  # fmt: skip
    S1Fmt = Bits(5, 4, values={
        LINEAR: "linear", TWO_LEVEL_4K: "two levels, leaves of 4 KB", TWO_LEVEL_64K: "two levels, leaves of 64 KB",
    })  # fmt: skip
    S1ContextPtr = Address(55, 6)
    """The CD, or the table of CDs or L1CDs: an intermediate physical address where Config has stage 2."""
    S1CDMax = Bits(63, 59)
    """There are 2**S1CDMax CDs; 0 is one CD, and no substreams."""

    S1DSS = Bits(65, 64, values={
        DSS_TERMINATE: "abort", DSS_BYPASS: "skip stage 1", DSS_SUBSTREAM_0: "use CD 0",
    })  # fmt: skip
    """What becomes of transactions without SubstreamID, where S1CDMax is not 0."""
    S1CIR = Bits(67, 66, values=_FETCH_CACHE)
    """Inner cacheability of fetches of CDs."""
    S1COR = Bits(69, 68, values=_FETCH_CACHE)
    """Outer cacheability of fetches of CDs."""
    S1CSH = Bits(71, 70, values=_SHAREABILITY)
    """Shareability of fetches of CDs."""
    S2HWU59 = Bit(72, needs="PBHA")
    """Bit 59 of stage 2 descriptors is a hardware attribute."""
    S2HWU60 = Bit(73, needs="PBHA")
    """Bit 60 of stage 2 descriptors is a hardware attribute."""
    S2HWU61 = Bit(74, needs="PBHA")
    """Bit 61 of stage 2 descriptors is a hardware attribute."""
    S2HWU62 = Bit(75, needs="PBHA")
    """Bit 62 of stage 2 descriptors is a hardware attribute."""
    DRE = Bit(76)
    """Destructive reads are allowed."""
    CONT = Bits(80, 77)
    """An aligned block of 2**CONT STEs are the same, but for CONT."""
    DCP = Bit(81)
    """Directed cache prefetches are allowed."""
    PPAR = Bit(82, needs="PRI")
    """Automatic PRI responses have the PASID of the request."""
    MEV = Bit(83)
    """Events may be merged."""
    SW_RESERVED = Ignored(87, 84)
    S1PIE = Bit(88, needs="S1PI")
    """Stage 1 has indirect permissions."""
    S2FWB = Bit(89, needs="FWB")
    """MemAttr of stage 2 descriptors is in the encoding that can force write-back."""
    S1MPAM = Bit(90, needs="MPAM")
    """PARTID and PMG come from the CD."""
    S1STALLD = Bit(91)
    """No CD of this STE may stall."""
    EATS = Bits(93, 92, needs="ATS", values={
        NO_ATS: "no ATS", FULL_ATS: "full ATS", SPLIT_ATS: "split-stage ATS",
        FULL_ATS_DPT: "full ATS, device permission table",
    })  # fmt: skip
    STRW = Bits(95, 94, values={STRW_EL1: "NS-EL1", STRW_EL2: "NS-EL2"})
    """The StreamWorld, where Config is stage 1 alone and the unit has Hyp; NS-EL2 is NS-EL2-E2H with CR2.E2H."""
    MemAttr = Bits(99, 96, needs="ATTR_TYPES_OVR")
    """The memory type that MTCFG puts in, in the encoding of stage 2."""
    MTCFG = Bit(100, needs="ATTR_TYPES_OVR")
    """The incoming memory type is replaced."""
    ALLOCCFG = Bits(104, 101, needs="ATTR_TYPES_OVR")
    """With bit 3, bits 2:0 replace the hints read-allocate, write-allocate and transient."""
    SHCFG = Bits(109, 108, needs="ATTR_TYPES_OVR", values={
        0: "non-shareable", 1: "incoming", 2: "outer shareable", 3: "inner shareable",
    })  # fmt: skip
    NSCFG = Bits(111, 110, values={0: "incoming", 2: "secure or realm", 3: "non-secure"})
    """Which address space a bypass leads to; secure and realm stream tables only."""
    PRIVCFG = Bits(113, 112, needs="ATTR_PERMS_OVR", values={
        0: "incoming", 1: "incoming", 2: "unprivileged", 3: "privileged",
    })  # fmt: skip
    INSTCFG = Bits(115, 114, needs="ATTR_PERMS_OVR", values={
        0: "incoming", 1: "incoming", 2: "data", 3: "instruction",
    })  # fmt: skip
    IMPLEMENTATION_DEFINED_1 = Ignored(127, 116)

    S2VMID = Bits(143, 128)
    """By which caches tag what they keep: also where Config is stage 1 alone, of NS-EL1."""
    IMPLEMENTATION_DEFINED_2 = Ignored(159, 144)
    S2T0SZ = Bits(165, 160)
    """Input addresses of stage 2 have 64 - S2T0SZ bits."""
    S2SL0 = Bits(167, 166)
    """Start level of stage 2, by a code of each granule."""
    S2IR0 = Bits(169, 168, values=_WALK_CACHE)
    """Inner cacheability of walks."""
    S2OR0 = Bits(171, 170, values=_WALK_CACHE)
    """Outer cacheability of walks."""
    S2SH0 = Bits(173, 172, values=_SHAREABILITY)
    """Shareability of walks."""
    S2TG = Bits(175, 174, values={0: "4 KB", 1: "64 KB", 2: "16 KB"})
    """Granule of stage 2."""
    S2PS = Bits(178, 176, values=_SIZES)
    """Size of output addresses, but no more than OAS."""
    S2AA64 = Bit(179, values={0: "VMSAv8-32 LPAE", 1: "VMSAv8-64"})
    S2ENDI = Bit(180, values={0: "little-endian tables", 1: "big-endian tables"})
    S2AFFD = Bit(181)
    """Descriptors without the accessed flag do not fault."""
    S2PTW = Bit(182)
    """Fetches of CDs and of stage 1 tables fault where stage 2 maps them as Device."""
    S2HD = Bit(183, needs="HTTU")
    """The unit updates the dirty state."""
    S2HA = Bit(184, needs="HTTU")
    """The unit sets accessed flags."""
    S2S = Bit(185)
    """Faults of stage 2 stall."""
    S2R = Bit(186)
    """Faults of stage 2 are recorded."""
    S2HAFT = Bit(187, needs="HTTU")
    """The unit sets accessed flags of table descriptors."""
    S2PIE = Bit(188, needs="S2PI")
    """Stage 2 has indirect permissions."""
    S2POE = Bit(189, needs="S2PO")
    """Stage 2 has permission overlays."""
    DPT_VMATCH = Bits(191, 190, needs="DPT")
    """How the device permission table compares VMIDs."""

    S2NSW = Bit(192)
    """Walks of the non-secure IPA space are to non-secure addresses; secure streams only."""
    S2NSA = Bit(193)
    """Outputs of the non-secure IPA space are non-secure addresses; secure streams only."""
    S2SL0_2 = Bit(194, needs="DS")
    """A third bit of the start level's code, for level -1."""
    S2DS = Bit(195, needs="DS")
    """Descriptors of 4 KB and 16 KB have the 52-bit format."""
    S2TTB = Address(247, 196)
    """The start table of stage 2, or the first of those that are concatenated."""
    S2SKL = Bits(254, 253, needs="D128")
    """How many levels a walk of 128-bit descriptors skips."""

    IMPLEMENTATION_DEFINED_3 = Ignored(271, 256)
    PARTID = Bits(287, 272, needs="MPAM")
    """Partition of the memory system."""
    S_S2T0SZ = Bits(293, 288)
    """S2T0SZ of the secure IPA space."""
    S_S2SL0 = Bits(295, 294)
    """S2SL0 of the secure IPA space."""
    S_S2TG = Bits(303, 302)
    """S2TG of the secure IPA space."""
    MECID = Bits(319, 304)
    """Memory encryption context; realm streams only."""

    PMG = Bits(327, 320, needs="MPAM")
    """Performance monitoring group."""
    MPAM_NS = Bit(328, needs="MPAM")
    """PARTID is in the non-secure space."""
    AssuredOnly = Bit(329, needs="THE")
    """Stage 2 has pages that assured translations alone may use."""
    TL0 = Bit(330, needs="THE")
    """TopLevel control of TTB0."""
    TL1 = Bit(331, needs="THE")
    """TopLevel control of TTB1."""
    VMSPtr = Address(375, 332, needs="MPAM")
    """The virtual machine structure."""

    S2SW = Bit(384)
    """Walks of the secure IPA space are to non-secure addresses; secure streams only."""
    S2SA = Bit(385)
    """Outputs of the secure IPA space are non-secure addresses; secure streams only."""
    S_S2SL0_2 = Bit(386)
    """S2SL0_2 of the secure IPA space."""
    S_S2TTB = Address(439, 388)
    """S2TTB of the secure IPA space."""
    S_S2SKL = Bits(446, 445)
    """S2SKL of the secure IPA space."""

    S2POI = Bits(511, 448, needs="S2PO")
    """Sixteen overlay permissions of 4 bits, S2POI0 to S2POI15."""

    checks = (
        named(S1Fmt, Config=WITH_STAGE_1),
        Check(S1ContextPtr, "should be a multiple of the size of what it points to", _aligned),
        named(S1DSS, Config=WITH_STAGE_1),
        named(S1CSH, Config=WITH_STAGE_1),
        named(STRW, Config=STAGE_1),
        named(S2SH0, Config=WITH_STAGE_2),
        named(S2TG, Config=WITH_STAGE_2),
    )

    @classmethod
    def checked(cls, raw: int) -> int:
        """Of an STE that aborts, V and Config alone count."""
        if cls.V.get(raw) and not cls.Config.get(raw) & BYPASS:
            return cls.V.mask | cls.Config.mask
        return super().checked(raw)

    @classmethod
    def used(cls, raw: int) -> int:
        return used_by_stream(cls, raw)


def illegal(raw: int, features: Features) -> str:
    """Why an STE is ILLEGAL or not valid, so that its use is C_BAD_STE; nothing when it can be used."""
    entry = SimpleNamespace(**Ste.values(raw))
    if not entry.V:
        return "V is 0"
    if not entry.Config & BYPASS:
        return ""
    rules = RULES + STAGE_2_RULES if entry.Config in WITH_STAGE_2 else RULES
    return next((found for rule in rules if (found := rule(entry, features))), "")

# SPDX-License-Identifier: Apache-2.0
"""The registers that tell what a unit is and can do. IDR4 has no fields that the architecture names.

Fields of IDR0 to IDR5 are what `needs` of a structure's field names.
"""

from iommuctl.formats.bits import Bit, Bits, Layout
from iommuctl.formats.checks import named


class IDR0(Layout, bits=32, name="smmuv3.idr0"):
    """Identification register 0, offset 0000: IHI0070 G.b section 6.3."""

    S2P = Bit(0)
    """There is stage 2."""
    S1P = Bit(1)
    """There is stage 1."""
    TTF = Bits(3, 2, values={1: "VMSAv8-32 LPAE", 2: "VMSAv8-64", 3: "VMSAv8-32 LPAE and VMSAv8-64"})
    COHACC = Bit(4)
    """Accesses to structures, tables and queues are coherent with processor caches."""
    BTM = Bit(5)
    """TLB maintenance that processors broadcast is obeyed."""
    HTTU = Bits(7, 6, values={
        0: "none", 1: "accessed flag", 2: "accessed flag and dirty state",
        3: "accessed flag and dirty state, accessed flag of tables",
    })  # fmt: skip
    DORMHINT = Bit(8)
    """STATUSR.DORMANT counts."""
    Hyp = Bit(9)
    """There are StreamWorlds of EL2."""
    ATS = Bit(10)
    """Devices may have TLBs of their own."""
    NS1ATS = Bit(11)
    """ATS cannot translate stage 1 alone (split-stage ATS)."""
    ASID16 = Bit(12, values={0: "ASIDs of 8 bits", 1: "ASIDs of 16 bits"})
    MSI = Bit(13)
    """The unit can write message-signalled interrupts."""
    SEV = Bit(14)
    """The unit can send events to processors."""
    ATOS = Bit(15)
    """There are address translation operations."""
    PRI = Bit(16)
    """Devices can ask for pages."""
    VMW = Bit(17)
    """CR0.VMW counts: invalidations can ignore lower bits of a VMID."""
    VMID16 = Bit(18, values={0: "VMIDs of 8 bits", 1: "VMIDs of 16 bits"})
    CD2L = Bit(19)
    """CD tables can have two levels."""
    VATOS = Bit(20)
    """There are address translation operations for guests."""
    TTENDIAN = Bits(22, 21, values={0: "both", 2: "little-endian tables only", 3: "big-endian tables only"})
    ATSRECERR = Bit(23)
    """CR2.REC_CFG_ATS counts."""
    STALL_MODEL = Bits(25, 24, values={0: "stall and terminate", 1: "terminate only", 2: "stall only"})
    TERM_MODEL = Bit(26, values={0: "abort or read as zero", 1: "abort only"})
    ST_LEVEL = Bits(28, 27, values={0: "linear stream tables", 1: "linear and two-level stream tables"})
    RME_IMPL = Bit(30)
    """There is the realm management extension."""

    checks = (named(TTF), named(TTENDIAN), named(STALL_MODEL), named(ST_LEVEL))


class IDR1(Layout, bits=32, name="smmuv3.idr1"):
    """Identification register 1, offset 0004: IHI0070 G.b section 6.3."""

    SIDSIZE = Bits(5, 0)
    """Width of a StreamID, at most 32."""
    SSIDSIZE = Bits(10, 6)
    """Width of a SubstreamID, at most 20; 0 where there are none."""
    PRIQS = Bits(15, 11)
    """The PRI queue has at most 2**PRIQS entries."""
    EVENTQS = Bits(20, 16)
    """The event queue has at most 2**EVENTQS entries."""
    CMDQS = Bits(25, 21)
    """The command queue has at most 2**CMDQS entries."""
    ATTR_PERMS_OVR = Bit(26)
    """STE and GBPA can replace privilege and instruction."""
    ATTR_TYPES_OVR = Bit(27)
    """STE and GBPA can replace memory type, allocation hints and shareability."""
    REL = Bit(28)
    """Preset bases are relative to the base of the registers."""
    QUEUES_PRESET = Bit(29)
    """The places of the queues cannot be chosen."""
    TABLES_PRESET = Bit(30)
    """The place of the stream table cannot be chosen."""
    ECMDQ = Bit(31)
    """There are enhanced command queues."""


class IDR2(Layout, bits=32, name="smmuv3.idr2"):
    """Identification register 2, offset 0008: IHI0070 G.b section 6.3."""

    BA_VATOS = Bits(9, 0)
    """The page of VATOS is at 0x20000 + 0x10000 * BA_VATOS."""


class IDR3(Layout, bits=32, name="smmuv3.idr3"):
    """Identification register 3, offset 000c: IHI0070 G.b section 6.3."""

    HAD = Bit(2)
    """Attributes of table descriptors can be switched off."""
    PBHA = Bit(3)
    """Bits of descriptors can be given to page-based hardware attributes."""
    XNX = Bit(4)
    """Execute-never of stage 2 tells EL0 and EL1 apart."""
    PPS = Bit(5)
    """Automatic PRI responses have the PASID of the request, whatever PPAR says."""
    MPAM = Bit(7)
    """There is memory system resource partitioning and monitoring."""
    FWB = Bit(8)
    """Stage 2 can force write-back."""
    STT = Bit(9)
    """There are small translation tables."""
    RIL = Bit(10)
    """TLB invalidations can have ranges and levels."""
    BBML = Bits(12, 11, values={0: "level 0", 1: "level 1", 2: "level 2"})
    """What a change of page size needs no break-before-make for."""
    E0PD = Bit(13)
    """Unprivileged access through a table can be denied."""
    PTWNNC = Bit(14)
    """Walks of stage 1 that stage 2 maps as Device are made as Normal Non-cacheable."""
    DPT = Bit(15)
    """There are device permission tables."""
    PASIDTT = Bit(16)
    """Translated requests can have a PASID."""
    EPAN = Bit(17)
    """PAN can count execute-only pages."""
    S1PI = Bit(18)
    """Stage 1 has indirect permissions."""
    S2PI = Bit(19)
    """Stage 2 has indirect permissions."""
    S2PO = Bit(20)
    """Stage 2 has permission overlays."""
    THE = Bit(21)
    """There is the translation hardening extension."""
    MTEPERM = Bit(22)
    """There are the permissions of memory tagging."""
    AIE = Bit(23)
    """There can be 16 memory attributes."""

    checks = (named(BBML),)


class IDR5(Layout, bits=32, name="smmuv3.idr5"):
    """Identification register 5, offset 0014: IHI0070 G.b section 6.3."""

    OAS = Bits(2, 0, values={
        0: "32 bits", 1: "36 bits", 2: "40 bits", 3: "42 bits", 4: "44 bits", 5: "48 bits", 6: "52 bits", 7: "56 bits",
    })  # fmt: skip
    GRAN4K = Bit(4)
    """Pages can have 4 KB."""
    GRAN16K = Bit(5)
    """Pages can have 16 KB."""
    GRAN64K = Bit(6)
    """Pages can have 64 KB."""
    DS = Bit(7)
    """There are 52-bit formats of 4 KB and 16 KB."""
    D128 = Bit(8)
    """There are descriptors of 128 bits."""
    VAX = Bits(11, 10, values={0: "48 bits", 1: "52 bits", 2: "56 bits"})
    STALL_MAX = Bits(31, 16)
    """How many transactions can be stalled at once."""

    checks = (named(VAX),)


class MPAMIDR(Layout, bits=32, name="smmuv3.mpamidr"):
    """Identification register of partitions, offset 0130: IHI0070 G.b section 6.3. Units with IDR3.MPAM have it."""

    PARTID_MAX = Bits(15, 0)
    """The largest partition of the memory system."""
    PMG_MAX = Bits(23, 16)
    """The largest performance monitoring group."""


class IIDR(Layout, bits=32, name="smmuv3.iidr"):
    """Implementation identification register, offset 0018: IHI0070 G.b section 6.3."""

    Implementer = Bits(11, 0, values={0x43B: "Arm"})
    Revision = Bits(15, 12)
    """Minor revision of the product."""
    Variant = Bits(19, 16)
    """Major revision of the product."""
    ProductID = Bits(31, 20)
    """The product, by the implementer's numbers: Arm's 0x483 is MMU-600, 0x487 MMU-700, 0x48a MMU-L1, 0x498 MMU-S3."""


class AIDR(Layout, bits=32, name="smmuv3.aidr"):
    """Architecture identification register, offset 001c: IHI0070 G.b section 6.3."""

    ArchMinorRev = Bits(3, 0, values={n: f"SMMUv3.{n}" for n in range(5)})
    ArchMajorRev = Bits(7, 4)
    """0 is SMMUv3."""


class IDR6(Layout, bits=32, name="smmuv3.idr6"):
    """Identification register 6, offset 0190: IHI0070 G.b section 6.3. It tells of enhanced command queues."""

    LOG2NUMQ = Bits(19, 16)
    """log2 of the queues of a page."""
    LOG2NUMP = Bits(27, 24)
    """log2 of the pages of queues."""

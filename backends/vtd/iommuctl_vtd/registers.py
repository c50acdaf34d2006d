# SPDX-License-Identifier: Apache-2.0
"""The registers that a driver needs to switch translation on, feed the invalidation queue and read faults.

Queue positions are byte offsets. Capabilities of CAP and ECAP are what `needs` of a field names. Other registers are in
`invalidation_registers`, `page_request` and `interrupt_remap`.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Ignored, Layout


class VER(Layout, bits=32, name="vtd.ver"):
    """Version register, offset 000: VT-d 4.1 section 11.4.1. It is not the revision of the specification."""

    MIN = Bits(3, 0)
    MAX = Bits(7, 4)


class CAP(Layout, bits=64, name="vtd.cap"):
    """Capability register, offset 008: VT-d 4.1 section 11.4.2."""

    ND = Bits(2, 0, values={n: f"{1 << 4 + 2 * n} domain ids" for n in range(7)})
    AFL = Bit(3)
    RWBF = Bit(4)
    PLMR = Bit(5)
    PHMR = Bit(6)
    CM = Bit(7)
    """Entries that are not present may be cached."""
    SAGAW = Bits(12, 8)
    """Second-stage widths: bit 1 for 39, bit 2 for 48, bit 3 for 57."""
    MGAW = Bits(21, 16)
    """Width of the largest guest address, minus 1."""
    ZLR = Bit(22)
    ISOCH = Ignored(23, 23)
    FRO = Bits(33, 24)
    """Offset of the fault records, in units of 16 bytes."""
    SSLPS = Bits(37, 34, values={0: "4K", 1: "4K, 2M", 3: "4K, 2M, 1G"})
    """Large pages of the second stage: bit 0 for 2 MiB, bit 1 for 1 GiB."""
    PSI = Bit(39)
    NFR = Bits(47, 40)
    """Number of fault records, minus 1."""
    MAMV = Bits(53, 48)
    """Largest address mask of a page-selective invalidation of the second stage."""
    DWD = Bit(54)
    DRD = Bit(55)
    FS1GP = Bit(56)
    PI = Bit(59)
    FS5LP = Bit(60)
    ECMDS = Bit(61)
    ESIRTPS = Bit(62)
    ESRTPS = Bit(63)


class ECAP(Layout, bits=64, name="vtd.ecap"):
    """Extended capability register, offset 010: VT-d 4.1 section 11.4.3."""

    C = Bit(0)
    QI = Bit(1)
    DT = Bit(2)
    IR = Bit(3)
    EIM = Bit(4)
    PT = Bit(6)
    SC = Bit(7)
    IRO = Bits(17, 8)
    """Offset of the IOTLB registers, in units of 16 bytes."""
    MHMV = Bits(23, 20)
    ECS = Ignored(24, 24)
    MTS = Bit(25)
    NEST = Bit(26)
    DIS = Ignored(27, 27)
    OLD_PASID = Ignored(28, 28)
    PRS = Bit(29)
    ERS = Bit(30)
    SRS = Bit(31)
    POT = Ignored(32, 32)
    NWFS = Bit(33)
    EAFS = Bit(34)
    PSS = Bits(39, 35)
    """Width of a PASID, minus 1."""
    PASID = Bit(40)
    DIT = Bit(41)
    PDS = Bit(42)
    SMTS = Bit(43)
    VCS = Bit(44)
    SSADS = Bit(45)
    SSTS = Bit(46)
    FSTS = Bit(47)
    SMPWCS = Bit(48)
    RPS = Bit(49)
    TDXIO = Bit(50)
    PMS = Bit(51)
    ADMS = Bit(52)
    RPRIVS = Bit(53)
    HPTS = Bit(55)
    PTRS = Bit(56)
    PBDS = Bit(57)
    SMS = Bit(58)


class GCMD(Layout, bits=32, name="vtd.gcmd"):
    """Global command register, offset 018, write-only: VT-d 4.1 section 11.4.4."""

    CFI = Bit(23)
    SIRTP = Bit(24)
    IRE = Bit(25)
    QIE = Bit(26)
    WBF = Bit(27)
    EAFL = Bit(28)
    SFL = Bit(29)
    SRTP = Bit(30)
    TE = Bit(31)


class GSTS(Layout, bits=32, name="vtd.gsts"):
    """Global status register, offset 01c: VT-d 4.1 section 11.4.4. Its bits answer those of GCMD."""

    CFIS = Bit(23)
    IRTPS = Bit(24)
    IRES = Bit(25)
    QIES = Bit(26)
    WBFS = Bit(27)
    AFLS = Bit(28)
    FLS = Bit(29)
    RTPS = Bit(30)
    TES = Bit(31)


class RTADDR(Layout, bits=64, name="vtd.rtaddr"):
    """Root table address register, offset 020: VT-d 4.1 section 11.4.5."""

    TTM = Bits(11, 10, values={0: "legacy mode", 1: "scalable mode", 3: "abort DMA"})
    RTA = Address(63, 12)


class FSTS(Layout, bits=32, name="vtd.fsts"):
    """Fault status register, offset 034: VT-d 4.1 section 11.4.7."""

    PFO = Bit(0)
    PPF = Bit(1)
    AFO = Bit(2)
    APF = Bit(3)
    IQE = Bit(4)
    ICE = Bit(5)
    ITE = Bit(6)
    PRO = Bit(7)
    FRI = Bits(15, 8)
    """The fault record that was pending first."""


class FECTL(Layout, bits=32, name="vtd.fectl"):
    """Fault event control register, offset 038: VT-d 4.1 section 11.4.7."""

    IP = Bit(30)
    IM = Bit(31)


class PMEN(Layout, bits=32, name="vtd.pmen"):
    """Protected memory enable register, offset 064: VT-d 4.1 section 11.4."""

    PRS = Bit(0)
    """Memory is protected now."""
    EPM = Bit(31)
    """Protect it."""


class IQH(Layout, bits=64, name="vtd.iqh"):
    """Invalidation queue head register, offset 080: VT-d 4.1 section 11.4.9."""

    QH = Address(18, 4)


class IQT(Layout, bits=64, name="vtd.iqt"):
    """Invalidation queue tail register, offset 088: VT-d 4.1 section 11.4.9."""

    QT = Address(18, 4)


class IQA(Layout, bits=64, name="vtd.iqa"):
    """Invalidation queue address register, offset 090: VT-d 4.1 section 11.4.9.3."""

    QS = Bits(2, 0)
    """The queue has 4096 << QS bytes."""
    DW = Bit(11, values={0: "descriptors of 128 bits", 1: "descriptors of 256 bits"})
    IQA = Address(63, 12)


class IQERCD(Layout, bits=64, name="vtd.iqercd"):
    """Invalidation queue error record register, offset 0b0: VT-d 4.1 section 11.4.9.9."""

    IQEI = Bits(3, 0, values={
        0: "none",
        1: "the tail is not in the queue",
        2: "a descriptor could not be read",
        3: "invalid type of descriptor",
        4: "reserved field of a descriptor",
        5: "invalid descriptor width",
        6: "the tail is not aligned to the descriptor width",
        7: "invalid translation table mode",
    })  # fmt: skip
    ITESID = Bits(47, 32)
    """Whose device-TLB invalidation timed out, while FSTS.ITE is set."""
    ICESID = Bits(63, 48)

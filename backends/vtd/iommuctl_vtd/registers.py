# SPDX-License-Identifier: Apache-2.0
"""The registers that a driver needs to switch translation on, feed the invalidation queue and read faults.

Queue positions are byte offsets. Capabilities of CAP and ECAP are what `needs` of a field names. Other registers are in
`invalidation_registers`, `page_request` and `interrupt_remap`.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Ignored, Layout
from iommuctl.formats.checks import named


class VER(Layout, bits=32, name="vtd.ver"):
    """Version register, offset 000: VT-d 4.1 section 11.4.1. It is not the revision of the specification."""

    MIN = Bits(3, 0)
    """Minor version of the register interface."""
    MAX = Bits(7, 4)
    """Major version of the register interface."""


class CAP(Layout, bits=64, name="vtd.cap"):
    """Capability register, offset 008: VT-d 4.1 section 11.4.2."""

    ND = Bits(2, 0, values={n: f"{1 << 4 + 2 * n} domain ids" for n in range(7)})
    AFL = Bit(3)
    """The fault log can be in memory (advanced fault log)."""
    RWBF = Bit(4)
    """The write buffer has to be flushed after tables change (GCMD.WBF)."""
    PLMR = Bit(5)
    """There is a protected range of low memory."""
    PHMR = Bit(6)
    """There is a protected range of high memory."""
    CM = Bit(7)
    """Entries that are not present may be cached."""
    SAGAW = Bits(12, 8)
    """Second-stage widths: bit 1 for 39, bit 2 for 48, bit 3 for 57."""
    MGAW = Bits(21, 16)
    """Width of the largest guest address, minus 1."""
    ZLR = Bit(22)
    """Reads of no bytes are allowed on pages that are write-only."""
    ISOCH = Ignored(23, 23)
    FRO = Bits(33, 24)
    """Offset of the fault records, in units of 16 bytes."""
    SSLPS = Bits(37, 34, values={0: "4K", 1: "4K, 2M", 3: "4K, 2M, 1G"})
    """Large pages of the second stage: bit 0 for 2 MiB, bit 1 for 1 GiB."""
    PSI = Bit(39)
    """The IOTLB can be invalidated by pages."""
    NFR = Bits(47, 40)
    """Number of fault records, minus 1."""
    MAMV = Bits(53, 48)
    """Largest address mask of a page-selective invalidation of the second stage."""
    DWD = Bit(54)
    """An IOTLB invalidation can drain writes."""
    DRD = Bit(55)
    """An IOTLB invalidation can drain reads."""
    FS1GP = Bit(56)
    """The first stage has pages of 1 GiB."""
    PI = Bit(59)
    """Interrupts can be posted."""
    FS5LP = Bit(60)
    """The first stage can have 5 levels."""
    ECMDS = Bit(61)
    """There are enhanced commands."""
    ESIRTPS = Bit(62)
    """GCMD.SIRTP empties the interrupt entry cache by itself."""
    ESRTPS = Bit(63)
    """GCMD.SRTP empties the translation caches by itself."""


class ECAP(Layout, bits=64, name="vtd.ecap"):
    """Extended capability register, offset 010: VT-d 4.1 section 11.4.3."""

    C = Bit(0)
    """Walks of legacy mode's tables are coherent with processor caches."""
    QI = Bit(1)
    """There is an invalidation queue."""
    DT = Bit(2)
    """Devices may have TLBs of their own (ATS)."""
    IR = Bit(3)
    """Interrupts can be remapped."""
    EIM = Bit(4)
    """Interrupt destinations can have 32 bits (x2APIC)."""
    PT = Bit(6)
    """Requests can pass through untranslated."""
    SC = Bit(7)
    """Tables can force snooping: SNP in a second stage, PGSNP in a PASID entry."""
    IRO = Bits(17, 8)
    """Offset of the IOTLB registers, in units of 16 bytes."""
    MHMV = Bits(23, 20)
    """Largest index mask of an invalidation of interrupt entries."""
    ECS = Ignored(24, 24)
    MTS = Bit(25)
    """Tables can say memory types."""
    NEST = Bit(26)
    """A first stage can be nested on a second stage."""
    DIS = Ignored(27, 27)
    OLD_PASID = Ignored(28, 28)
    PRS = Bit(29)
    """Devices can ask for pages."""
    ERS = Bit(30)
    """Execute requests, up to revision 3."""
    SRS = Bit(31)
    """Supervisor requests: SRE of a PASID entry."""
    POT = Ignored(32, 32)
    NWFS = Bit(33)
    """Translation requests can say that nothing will be written."""
    EAFS = Bit(34)
    """First-stage entries have an extended accessed flag, EA."""
    PSS = Bits(39, 35)
    """Width of a PASID, minus 1."""
    PASID = Bit(40)
    """Requests can have a PASID."""
    DIT = Bit(41)
    """Device-TLB invalidations can be throttled: PFSID counts."""
    PDS = Bit(42)
    """An invalidation wait can drain page requests."""
    SMTS = Bit(43)
    """There is scalable mode, with descriptors of 256 bits."""
    VCS = Bit(44)
    """There are virtual command registers."""
    SSADS = Bit(45)
    """The second stage has accessed and dirty bits."""
    SSTS = Bit(46)
    """Scalable mode has the second stage."""
    FSTS = Bit(47)
    """Scalable mode has the first stage."""
    SMPWCS = Bit(48)
    """Walks of scalable mode's tables can be coherent with processor caches (PWSNP)."""
    RPS = Bit(49)
    """RID_PASID of a context entry selects the PASID entry of requests without PASID; otherwise 0 does."""
    TDXIO = Bit(50)
    """TDX for devices."""
    PMS = Bit(51)
    """There are performance counters."""
    ADMS = Bit(52)
    """There is the abort-DMA mode."""
    RPRIVS = Bit(53)
    """RID_PRIV of a context entry counts."""
    HPTS = Bit(55)
    """Not described in public."""
    PTRS = Bit(56)
    """Not described in public."""
    PBDS = Bit(57)
    """Not described in public."""
    SMS = Bit(58)
    """There are stop markers."""


class GCMD(Layout, bits=32, name="vtd.gcmd"):
    """Global command register, offset 018, write-only: VT-d 4.1 section 11.4.4."""

    CFI = Bit(23)
    """Allow interrupts in compatibility format."""
    SIRTP = Bit(24)
    """Take IRTA into use."""
    IRE = Bit(25)
    """Remap interrupts."""
    QIE = Bit(26)
    """Use the invalidation queue."""
    WBF = Bit(27)
    """Flush the write buffer."""
    EAFL = Bit(28)
    """Use the advanced fault log."""
    SFL = Bit(29)
    """Take AFLOG into use."""
    SRTP = Bit(30)
    """Take RTADDR into use."""
    TE = Bit(31)
    """Translate."""


class GSTS(Layout, bits=32, name="vtd.gsts"):
    """Global status register, offset 01c: VT-d 4.1 section 11.4.4. Its bits answer those of GCMD."""

    CFIS = Bit(23)
    """Interrupts in compatibility format are allowed."""
    IRTPS = Bit(24)
    """IRTA has been taken into use."""
    IRES = Bit(25)
    """Interrupts are remapped."""
    QIES = Bit(26)
    """The invalidation queue is used."""
    WBFS = Bit(27)
    """The write buffer is being flushed."""
    AFLS = Bit(28)
    """The advanced fault log is used."""
    FLS = Bit(29)
    """AFLOG has been taken into use."""
    RTPS = Bit(30)
    """RTADDR has been taken into use."""
    TES = Bit(31)
    """Requests are translated."""


class RTADDR(Layout, bits=64, name="vtd.rtaddr"):
    """Root table address register, offset 020: VT-d 4.1 section 11.4.5."""

    TTM = Bits(11, 10, values={0: "legacy mode", 1: "scalable mode", 3: "abort DMA"})
    RTA = Address(63, 12)
    """Address of the root table."""

    checks = (named(TTM),)


class FSTS(Layout, bits=32, name="vtd.fsts"):
    """Fault status register, offset 034: VT-d 4.1 section 11.4.7."""

    PFO = Bit(0)
    """Faults were lost: the next record was in use."""
    PPF = Bit(1)
    """A fault record is in use."""
    AFO = Bit(2)
    """The advanced fault log overflowed."""
    APF = Bit(3)
    """The advanced fault log holds a fault."""
    IQE = Bit(4)
    """The invalidation queue stopped; IQERCD.IQEI tells why."""
    ICE = Bit(5)
    """A completion of an invalidation was in error; IQERCD.ICESID tells whose."""
    ITE = Bit(6)
    """A device-TLB invalidation timed out; IQERCD.ITESID tells whose."""
    PRO = Bit(7)
    """The page request queue overflowed; PRS.PRO tells it now."""
    FRI = Bits(15, 8)
    """The fault record that was pending first."""


class FECTL(Layout, bits=32, name="vtd.fectl"):
    """Fault event control register, offset 038: VT-d 4.1 section 11.4.7."""

    IP = Bit(30)
    """A fault event is pending."""
    IM = Bit(31)
    """Fault events are masked."""


class PMEN(Layout, bits=32, name="vtd.pmen"):
    """Protected memory enable register, offset 064: VT-d 4.1 section 11.4."""

    PRS = Bit(0)
    """Memory is protected now."""
    EPM = Bit(31)
    """Protect it."""


class IQH(Layout, bits=64, name="vtd.iqh"):
    """Invalidation queue head register, offset 080: VT-d 4.1 section 11.4.9."""

    QH = Address(18, 4)
    """Where the next descriptor is fetched."""


class IQT(Layout, bits=64, name="vtd.iqt"):
    """Invalidation queue tail register, offset 088: VT-d 4.1 section 11.4.9."""

    QT = Address(18, 4)
    """Where software will put the next descriptor."""


class IQA(Layout, bits=64, name="vtd.iqa"):
    """Invalidation queue address register, offset 090: VT-d 4.1 section 11.4.9.3."""

    QS = Bits(2, 0)
    """The queue has 4096 << QS bytes."""
    DW = Bit(11, values={0: "descriptors of 128 bits", 1: "descriptors of 256 bits"})
    IQA = Address(63, 12)
    """Address of the queue."""


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
    """Whose completion of an invalidation was in error, while FSTS.ICE is set."""

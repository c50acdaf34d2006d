# SPDX-License-Identifier: Apache-2.0
"""The registers by which software switches a unit on, gives it its stream table, and learns of errors.

Registers that say what the unit can do are in `id_registers`, those of the queues in `queue_registers`.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Layout
from iommuctl.formats.checks import named

LINEAR, TWO_LEVEL = 0, 1
"""Values of STRTAB_BASE_CFG.FMT; others behave as LINEAR."""
_CACHE = {0: "non-cacheable", 1: "write-back", 2: "write-through"}
_SHAREABILITY = {0: "non-shareable", 2: "outer shareable", 3: "inner shareable"}


class CR0(Layout, bits=32, name="smmuv3.cr0"):
    """Control register 0, offset 0020: IHI0070 G.b section 6.3. CR0ACK, offset 0024, shows what is in effect."""

    SMMUEN = Bit(0)
    """Translate; otherwise GBPA says what becomes of transactions."""
    PRIQEN = Bit(1)
    """Use the PRI queue."""
    EVENTQEN = Bit(2)
    """Use the event queue."""
    CMDQEN = Bit(3)
    """Use the command queue."""
    ATSCHK = Bit(4)
    """Check translated transactions, too."""
    VMW = Bits(8, 6)
    """Invalidations ignore this many lower bits of a VMID, up to 4."""
    DPT_WALK_EN = Bit(10)
    """Use the device permission table."""


class CR1(Layout, bits=32, name="smmuv3.cr1"):
    """Control register 1, offset 0028: IHI0070 G.b section 6.3. Its codes of caches are not those of an STE."""

    QUEUE_IC = Bits(1, 0, values=_CACHE)
    """Inner cacheability of accesses to queues."""
    QUEUE_OC = Bits(3, 2, values=_CACHE)
    """Outer cacheability of accesses to queues."""
    QUEUE_SH = Bits(5, 4, values=_SHAREABILITY)
    """Shareability of accesses to queues."""
    TABLE_IC = Bits(7, 6, values=_CACHE)
    """Inner cacheability of accesses to the stream table."""
    TABLE_OC = Bits(9, 8, values=_CACHE)
    """Outer cacheability of accesses to the stream table."""
    TABLE_SH = Bits(11, 10, values=_SHAREABILITY)
    """Shareability of accesses to the stream table."""

    checks = tuple(named(field) for field in (QUEUE_IC, QUEUE_OC, QUEUE_SH, TABLE_IC, TABLE_OC, TABLE_SH))


class CR2(Layout, bits=32, name="smmuv3.cr2"):
    """Control register 2, offset 002c: IHI0070 G.b section 6.3."""

    E2H = Bit(0)
    """The StreamWorld of EL2 has ASIDs and two tables."""
    RECINVSID = Bit(1)
    """Record C_BAD_STREAMID."""
    PTM = Bit(2)
    """Ignore TLB maintenance that processors broadcast."""
    REC_CFG_ATS = Bit(3)
    """Record configuration errors of ATS, too."""


class Statusr(Layout, bits=32, name="smmuv3.statusr"):
    """Status register, offset 0040: IHI0070 G.b section 6.3."""

    DORMANT = Bit(0)
    """The unit uses and holds nothing at the moment."""


class Gbpa(Layout, bits=32, name="smmuv3.gbpa"):
    """Global bypass attribute register, offset 0044: IHI0070 G.b section 6.3. It counts while SMMUEN is 0."""

    MemAttr = Bits(3, 0)
    """The memory type that MTCFG puts in, in the encoding of stage 2."""
    MTCFG = Bit(4)
    """The incoming memory type is replaced."""
    ALLOCCFG = Bits(11, 8)
    """With bit 3, bits 2:0 replace the hints read-allocate, write-allocate and transient."""
    SHCFG = Bits(13, 12, values={
        0: "non-shareable", 1: "incoming", 2: "outer shareable", 3: "inner shareable",
    })  # fmt: skip
    PRIVCFG = Bits(17, 16, values={0: "incoming", 1: "incoming", 2: "unprivileged", 3: "privileged"})
    INSTCFG = Bits(19, 18, values={0: "incoming", 1: "incoming", 2: "data", 3: "instruction"})
    ABORT = Bit(20)
    """Transactions are aborted."""
    Update = Bit(31)
    """Take the value into use; reads 1 until that is done."""


class IrqCtrl(Layout, bits=32, name="smmuv3.irq-ctrl"):
    """Interrupt control register, offset 0050: IHI0070 G.b section 6.3. IRQ_CTRLACK, offset 0054, answers it."""

    GERROR = Bit(0)
    """Interrupt when GERROR changes."""
    PRIQ = Bit(1)
    """Interrupt when the PRI queue gets entries."""
    EVENTQ = Bit(2)
    """Interrupt when the event queue gets records."""


class Gerror(Layout, bits=32, name="smmuv3.gerror"):
    """Global error register, offset 0060: IHI0070 G.b section 6.3.

    An error is active where a bit differs from that of GERRORN, offset 0064, in which software acknowledges.
    """

    CMDQ_ERR = Bit(0)
    """The command queue stopped; CMDQ_CONS.ERR tells why."""
    EVENTQ_ABT_ERR = Bit(2)
    """A write to the event queue was aborted."""
    PRIQ_ABT_ERR = Bit(3)
    """A write to the PRI queue was aborted."""
    MSI_CMDQ_ABT = Bit(4)
    """The interrupt of a CMD_SYNC was aborted."""
    MSI_EVENTQ_ABT = Bit(5)
    """The interrupt of the event queue was aborted."""
    MSI_PRIQ_ABT = Bit(6)
    """The interrupt of the PRI queue was aborted."""
    MSI_GERROR_ABT = Bit(7)
    """The interrupt of GERROR was aborted."""
    SFM_ERR = Bit(8)
    """The unit is in service failure mode."""
    CMDQP_ERR = Bit(9)
    """An enhanced command queue stopped."""
    DPT_ERR = Bit(10)
    """The device permission table could not be used."""


class StrtabBase(Layout, bits=64, name="smmuv3.strtab-base"):
    """Stream table base register, offset 0080: IHI0070 G.b section 6.3."""

    ADDR = Address(55, 6)
    """The stream table. Its alignment is its size: lower bits are taken to be zero."""
    RA = Bit(62)
    """Reads allocate in caches."""


class StrtabBaseCfg(Layout, bits=32, name="smmuv3.strtab-base-cfg"):
    """Stream table base configuration register, offset 0088: IHI0070 G.b section 6.3."""

    LOG2SIZE = Bits(5, 0)
    """There are 2**LOG2SIZE streams."""
    SPLIT = Bits(10, 6, values={6: "64 STEs to a table", 8: "256 STEs to a table", 10: "1024 STEs to a table"})
    """Lower bits of a StreamID, which the second level looks up; other values than those with a name behave as 6."""
    FMT = Bits(17, 16, values={LINEAR: "linear", TWO_LEVEL: "two levels"})

    checks = (named(SPLIT, FMT=TWO_LEVEL), named(FMT))

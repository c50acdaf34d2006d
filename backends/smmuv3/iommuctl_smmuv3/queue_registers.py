# SPDX-License-Identifier: Apache-2.0
"""The registers of the queues: where they are, who has come how far, and which interrupts they send.

A position is an index of LOG2SIZE bits with a wrap bit above it. A queue is empty where both positions are equal, and
full where they differ in the wrap bit alone.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Layout

COMMAND_ERRORS = {
    0: "none",
    1: "CERROR_ILL: the command is not legal",
    2: "CERROR_ABT: the command could not be read",
    3: "CERROR_ATC_INV_SYNC: a device did not answer an invalidation",
}
"""Why the command queue stopped: CMDQ_CONS.ERR."""
_SHAREABILITY = {0: "non-shareable", 2: "outer shareable", 3: "inner shareable"}


class CmdqBase(Layout, bits=64, name="smmuv3.cmdq-base"):
    """Command queue base register, offset 0090: IHI0070 G.b section 6.3."""

    LOG2SIZE = Bits(4, 0)
    """The queue has 2**LOG2SIZE commands of 16 bytes; more than IDR1.CMDQS acts as that."""
    ADDR = Address(55, 5)
    """The queue. Its alignment is its size: lower bits are taken to be zero."""
    RA = Bit(62)
    """Reads allocate in caches."""


class CmdqProd(Layout, bits=32, name="smmuv3.cmdq-prod"):
    """Command queue producer index, offset 0098: IHI0070 G.b section 6.3. Software moves it."""

    WR = Bits(19, 0)
    """Where the next command will be put."""


class CmdqCons(Layout, bits=32, name="smmuv3.cmdq-cons"):
    """Command queue consumer index, offset 009c: IHI0070 G.b section 6.3. The unit moves it."""

    RD = Bits(19, 0)
    """The next command that will be read; the one in error while GERROR.CMDQ_ERR is active."""
    ERR = Bits(30, 24, values=COMMAND_ERRORS)


class EventqBase(Layout, bits=64, name="smmuv3.eventq-base"):
    """Event queue base register, offset 00a0: IHI0070 G.b section 6.3."""

    LOG2SIZE = Bits(4, 0)
    """The queue has 2**LOG2SIZE records of 32 bytes; more than IDR1.EVENTQS acts as that."""
    ADDR = Address(55, 5)
    """The queue. Its alignment is its size: lower bits are taken to be zero."""
    WA = Bit(62)
    """Writes allocate in caches."""


class EventqProd(Layout, bits=32, name="smmuv3.eventq-prod"):
    """Event queue producer index, offset 100a8: IHI0070 G.b section 6.3. The unit moves it."""

    WR = Bits(19, 0)
    """Where the next record will be put."""
    OVFLG = Bit(31)
    """The queue overflowed, where it differs from OVACKFLG: records were lost."""


class EventqCons(Layout, bits=32, name="smmuv3.eventq-cons"):
    """Event queue consumer index, offset 100ac: IHI0070 G.b section 6.3. Software moves it."""

    RD = Bits(19, 0)
    """The next record that will be read."""
    OVACKFLG = Bit(31)
    """Acknowledges the overflow."""


class PriqBase(Layout, bits=64, name="smmuv3.priq-base"):
    """PRI queue base register, offset 00c0: IHI0070 G.b section 6.3."""

    LOG2SIZE = Bits(4, 0)
    """The queue has 2**LOG2SIZE requests of 16 bytes; more than IDR1.PRIQS acts as that."""
    ADDR = Address(55, 5)
    """The queue. Its alignment is its size: lower bits are taken to be zero."""
    WA = Bit(62)
    """Writes allocate in caches."""


class PriqProd(Layout, bits=32, name="smmuv3.priq-prod"):
    """PRI queue producer index, offset 100c8: IHI0070 G.b section 6.3. The unit moves it."""

    WR = Bits(19, 0)
    """Where the next request will be put."""
    OVFLG = Bit(31)
    """The queue overflowed, where it differs from OVACKFLG: nothing is put there until it is acknowledged."""


class PriqCons(Layout, bits=32, name="smmuv3.priq-cons"):
    """PRI queue consumer index, offset 100cc: IHI0070 G.b section 6.3. Software moves it."""

    RD = Bits(19, 0)
    """The next request that will be read."""
    OVACKFLG = Bit(31)
    """Acknowledges the overflow."""


class IrqCfg0(Layout, bits=64, name="smmuv3.irq-cfg0"):
    """Interrupt configuration register 0: IHI0070 G.b section 6.3.

    GERROR_IRQ_CFG0, EVENTQ_IRQ_CFG0 and PRIQ_IRQ_CFG0, offsets 0068, 00b0 and 00d0.
    """

    ADDR = Address(55, 2)
    """Where the interrupt is written; 0 is no write."""


class IrqCfg1(Layout, bits=32, name="smmuv3.irq-cfg1"):
    """Interrupt configuration register 1: IHI0070 G.b section 6.3.

    GERROR_IRQ_CFG1, EVENTQ_IRQ_CFG1 and PRIQ_IRQ_CFG1, offsets 0070, 00b8 and 00d8.
    """

    DATA = Bits(31, 0)
    """What is written."""


class IrqCfg2(Layout, bits=32, name="smmuv3.irq-cfg2"):
    """Interrupt configuration register 2: IHI0070 G.b section 6.3.

    GERROR_IRQ_CFG2 and EVENTQ_IRQ_CFG2, offsets 0074 and 00bc.
    """

    MemAttr = Bits(3, 0)
    """Memory type of the write, in the encoding of stage 2."""
    SH = Bits(5, 4, values=_SHAREABILITY)


class PriqIrqCfg2(Layout, bits=32, name="smmuv3.priq-irq-cfg2"):
    """PRI queue interrupt configuration register 2, offset 00dc: IHI0070 G.b section 6.3."""

    MemAttr = Bits(3, 0)
    """Memory type of the write, in the encoding of stage 2."""
    SH = Bits(5, 4, values=_SHAREABILITY)
    LO = Bit(31)
    """Interrupt only when the last request of a group arrives."""

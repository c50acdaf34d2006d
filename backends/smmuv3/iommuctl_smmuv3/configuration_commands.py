# SPDX-License-Identifier: Apache-2.0
"""Commands about cached structures: prefetches, and invalidations of STEs and CDs.

CFGI_ALL is a CFGI_STE_RANGE whose Range is 31.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Fixed, Ignored, Layout
from iommuctl.formats.checks import only

EVERY_STREAM = 31
"""The Range with which CFGI_STE_RANGE is CFGI_ALL."""


class PrefetchConfig(Layout, bits=128, name="smmuv3.prefetch-config"):
    """CMD_PREFETCH_CONFIG: IHI0070 G.b section 4.2. A hint: the structures of a stream will be used."""

    Opcode = Fixed(7, 0, 0x01)
    SSec = Fixed(10, 10, 0)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """Whose CD is meant."""
    StreamID = Bits(63, 32)
    """Whose STE is meant."""

    checks = (only(SubstreamID, SSV=1),)


class PrefetchAddr(Layout, bits=128, name="smmuv3.prefetch-addr"):
    """CMD_PREFETCH_ADDR: IHI0070 G.b section 4.2. A hint: translations of a stream will be used."""

    Opcode = Fixed(7, 0, 0x02)
    SSec = Fixed(10, 10, 0)
    SSV = Bit(11)
    """SubstreamID counts."""
    SubstreamID = Bits(31, 12)
    """Whose addresses are meant."""
    StreamID = Bits(63, 32)
    """Whose addresses are meant."""
    Size = Bits(68, 64)
    """The span is of 2**Size pages of 4 KB."""
    STRIDE_AND_NS = Ignored(75, 69)
    Addr = Address(127, 76)
    """The first page."""

    checks = (only(SubstreamID, SSV=1),)


class CfgiSte(Layout, bits=128, name="smmuv3.cfgi-ste"):
    """CMD_CFGI_STE: IHI0070 G.b section 4.3. Forget an STE, and all CDs of its stream."""

    Opcode = Fixed(7, 0, 0x03)
    SSec = Fixed(10, 10, 0)
    StreamID = Bits(63, 32)
    """Whose STE is meant."""
    Leaf = Bit(64)
    """The STE alone, and not the descriptor of level 1 that led to it."""


class CfgiSteRange(Layout, bits=128, name="smmuv3.cfgi-ste-range"):
    """CMD_CFGI_STE_RANGE: IHI0070 G.b section 4.3. Forget the STEs of a block of streams; CMD_CFGI_ALL is one."""

    Opcode = Fixed(7, 0, 0x04)
    SSec = Fixed(10, 10, 0)
    StreamID = Bits(63, 32)
    """Any stream of the block: its lower Range + 1 bits are ignored."""
    Range = Bits(68, 64, values={EVERY_STREAM: "every stream"})
    """An aligned block of 2**(Range + 1) streams is meant."""


class CfgiCd(Layout, bits=128, name="smmuv3.cfgi-cd"):
    """CMD_CFGI_CD: IHI0070 G.b section 4.3. Forget a CD."""

    Opcode = Fixed(7, 0, 0x05)
    SSec = Fixed(10, 10, 0)
    SubstreamID = Bits(31, 12)
    """Whose CD is meant: the index in the table, so that 0 is also the CD of a stream without substreams."""
    StreamID = Bits(63, 32)
    """Whose CD is meant."""
    Leaf = Bit(64)
    """The CD alone, and not the descriptor of level 1 that led to it."""


class CfgiCdAll(Layout, bits=128, name="smmuv3.cfgi-cd-all"):
    """CMD_CFGI_CD_ALL: IHI0070 G.b section 4.3. Forget all CDs of a stream."""

    Opcode = Fixed(7, 0, 0x06)
    SSec = Fixed(10, 10, 0)
    StreamID = Bits(63, 32)
    """Whose CDs are meant."""


class CfgiVmsPidm(Layout, bits=128, name="smmuv3.cfgi-vms-pidm"):
    """CMD_CFGI_VMS_PIDM: IHI0070 G.b section 4.3. Forget the map of partitions of a virtual machine.

    That VMID stands where CMD_TLBI_* have it is inferred.
    """

    Opcode = Fixed(7, 0, 0x07)
    SSec = Fixed(10, 10, 0)
    VMID = Bits(47, 32)
    """Whose map is meant."""

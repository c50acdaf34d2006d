# SPDX-License-Identifier: Apache-2.0
"""Interrupt remapping, to look at: the entries of its table and the register that points to it.

IM tells the two kinds of entries apart. SID, SQ and SVT say alike in both who may send the interrupt.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Fixed, Ignored, Layout
from iommuctl.formats.checks import named, only
from iommuctl_vtd.invalidation import FUNCTION_MASKS

_SVT = {0: "not checked", 1: "as SQ says", 2: "its bus is in the range that SID holds"}


class RemappedIrte(Layout, bits=128, name="vtd.irte", present="P"):
    """Interrupt remapping table entry of a remapped interrupt, IM = 0: VT-d 4.1 section 9.10."""

    P = Bit(0)
    """The entry is present."""
    FPD = Bit(1)
    """Faults of the interrupt are not recorded."""
    DM = Bit(2, values={0: "physical", 1: "logical"})
    """What DST holds."""
    RH = Bit(3)
    """The interrupt may go to one of several processors."""
    TM = Bit(4, values={0: "edge", 1: "level"})
    DLM = Bits(7, 5, values={0: "fixed", 1: "lowest priority", 2: "SMI", 4: "NMI", 5: "INIT", 7: "ExtINT"})
    SOFTWARE = Ignored(11, 8)
    IM = Fixed(15, 15, 0, values={0: "remapped"})
    V = Bits(23, 16)
    """The vector."""
    DST = Bits(63, 32)
    """The APIC; without IRTA.EIME its number is in bits 47:40."""

    SID = Bits(79, 64)
    """Who may send the interrupt."""
    SQ = Bits(81, 80, values=FUNCTION_MASKS)
    SVT = Bits(83, 82, values=_SVT)

    checks = (named(DLM), named(SVT), only(SQ, SVT=1))


class PostedIrte(Layout, bits=128, name="vtd.irte-posted", present="P"):
    """Interrupt remapping table entry of a posted interrupt, IM = 1: VT-d 4.1 section 9.11."""

    P = Bit(0)
    """The entry is present."""
    FPD = Bit(1)
    """Faults of the interrupt are not recorded."""
    SOFTWARE = Ignored(11, 8)
    URG = Bit(14)
    """The interrupt is urgent."""
    IM = Fixed(15, 15, 1, values={1: "posted"})
    VV = Bits(23, 16)
    """The vector in the virtual machine."""
    PDAL = Bits(63, 38)
    """Bits 31:6 of the address of the posted-interrupt descriptor."""

    SID = Bits(79, 64)
    """Who may send the interrupt."""
    SQ = Bits(81, 80, values=FUNCTION_MASKS)
    SVT = Bits(83, 82, values=_SVT)
    PDAH = Bits(127, 96)
    """Bits 63:32 of that address."""

    checks = (named(SVT), only(SQ, SVT=1))


class IRTA(Layout, bits=64, name="vtd.irta"):
    """Interrupt remapping table address register, offset 0b8: VT-d 4.1 section 11.4."""

    S = Bits(3, 0)
    """The table has 2**(S + 1) entries."""
    EIME = Bit(11)
    """DST has 32 bits."""
    IRTA = Address(63, 12)
    """Address of the table."""

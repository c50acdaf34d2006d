# SPDX-License-Identifier: Apache-2.0
"""Registers of invalidation beside the queue: one command each, for legacy mode, and how waits make themselves known.

Hardware clears ICC and IVT when it has done what was written; CAIG and IAIG then tell what it did.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Layout
from iommuctl.formats.checks import named
from iommuctl_vtd.invalidation import FUNCTION_MASKS

_CONTEXT = {1: "global", 2: "domain", 3: "device"}
_IOTLB = {1: "global", 2: "domain", 3: "pages in domain"}


class CCMD(Layout, bits=64, name="vtd.ccmd"):
    """Context command register, offset 028: VT-d 4.1 section 11.4."""

    DID = Bits(15, 0)
    """The domain id that is meant."""
    SID = Bits(31, 16)
    """The requester that is meant."""
    FM = Bits(33, 32, values=FUNCTION_MASKS)
    CAIG = Bits(60, 59, values=_CONTEXT)
    """What was invalidated."""
    CIRG = Bits(62, 61, values=_CONTEXT)
    """What to invalidate."""
    ICC = Bit(63)
    """Do it."""

    checks = (named(CIRG, ICC=1),)


class IVA(Layout, bits=64, name="vtd.iva"):
    """Invalidate address register, offset 16 * ECAP.IRO, write-only: VT-d 4.1 section 11.4."""

    AM = Bits(5, 0)
    """2**AM pages are meant."""
    IH = Bit(6)
    """Only leaf entries changed."""
    ADDR = Address(63, 12)
    """The first page."""


class IOTLBREG(Layout, bits=64, name="vtd.iotlb-register"):
    """IOTLB invalidate register, offset 16 * ECAP.IRO + 8: VT-d 4.1 section 11.4."""

    DID = Bits(47, 32)
    """The domain id that is meant."""
    DW = Bit(48)
    """Drain writes."""
    DR = Bit(49)
    """Drain reads."""
    IAIG = Bits(58, 57, values=_IOTLB)
    """What was invalidated."""
    IIRG = Bits(61, 60, values=_IOTLB)
    """What to invalidate."""
    IVT = Bit(63)
    """Do it."""

    checks = (named(IIRG, IVT=1),)


class ICS(Layout, bits=32, name="vtd.ics"):
    """Invalidation completion status register, offset 09c: VT-d 4.1 section 11.4.9."""

    IWC = Bit(0)
    """A wait with IF set completed; writing 1 clears it."""


class IECTL(Layout, bits=32, name="vtd.iectl"):
    """Invalidation event control register, offset 0a0: VT-d 4.1 section 11.4.9."""

    IP = Bit(30)
    """An invalidation event is pending."""
    IM = Bit(31)
    """Invalidation events are masked."""

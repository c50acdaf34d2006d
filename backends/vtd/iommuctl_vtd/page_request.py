# SPDX-License-Identifier: Apache-2.0
"""Page requests: what devices with PRI ask for, and the registers of the queue in memory where the unit puts it.

Software answers with a page group response, see `invalidation`. Queue positions are byte offsets.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Fixed, Layout
from iommuctl.formats.checks import only


class PageRequest(Layout, bits=256, name="vtd.page-request", revision=4):
    """Page request descriptor: VT-d 4.1 section 7.4.1.1.

    LPIG without R and W is a stop marker, which is not answered.
    """

    TYPE = Fixed(7, 0, 1)
    PP = Bit(8)
    """The request has a PASID."""
    RID = Bits(31, 16)
    """Who asks: bus, device and function."""
    PASID = Bits(51, 32)
    """The PASID of the request."""
    EXE = Bit(52)
    """Execute permission is asked for."""
    PMR = Bit(53)
    """The request is privileged."""
    R = Bit(64)
    """Reads are asked for."""
    W = Bit(65)
    """Writes are asked for."""
    LPIG = Bit(66)
    """It is the last of its group: the group is answered now."""
    PRGI = Bits(75, 67)
    """Index of the group."""
    ADDR = Address(127, 76)
    """The page that is asked for."""

    checks = (only(PASID, PP=1),)


class PageRequestRev3(PageRequest, revision=3):
    """Page request descriptor of revision 3, with fields that VT-d 4.1 section 7.4.1.1 reserves."""

    PDP = Bit(9)
    """There is private data, which the answer has to echo."""
    PRIVATE_DATA = Bits(255, 128)
    """What the answer has to echo."""


class PQH(Layout, bits=64, name="vtd.pqh"):
    """Page request queue head register, offset 0c0: VT-d 4.1 section 11.4.11. Software moves it."""

    PQH = Address(18, 5)
    """The next request that software will read."""


class PQT(Layout, bits=64, name="vtd.pqt"):
    """Page request queue tail register, offset 0c8: VT-d 4.1 section 11.4.11. Hardware moves it."""

    PQT = Address(18, 5)
    """Where the unit will put the next request."""


class PQA(Layout, bits=64, name="vtd.pqa"):
    """Page request queue address register, offset 0d0: VT-d 4.1 section 11.4.11.3."""

    PQS = Bits(2, 0)
    """The queue has 4096 << PQS bytes."""
    PQA = Address(63, 12)
    """Address of the queue."""


class PRS(Layout, bits=32, name="vtd.prs"):
    """Page request status register, offset 0dc: VT-d 4.1 section 11.4.11. Writing 1 clears a bit."""

    PPR = Bit(0)
    """Requests are pending."""
    PRO = Bit(1)
    """The queue overflowed."""


class PECTL(Layout, bits=32, name="vtd.pectl"):
    """Page request event control register, offset 0e0: VT-d 4.1 section 11.4.11."""

    IP = Bit(30)
    """A page request event is pending."""
    IM = Bit(31)
    """Page request events are masked."""

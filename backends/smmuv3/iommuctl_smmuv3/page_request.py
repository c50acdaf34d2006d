# SPDX-License-Identifier: Apache-2.0
"""What devices with PRI ask for, as it stands in the PRI queue. Software answers with CMD_PRI_RESP."""

from iommuctl.formats.bits import Address, Bit, Bits, Layout


class PageRequest(Layout, bits=128, name="smmuv3.page-request"):
    """PRI queue entry: IHI0070 G.b section 8.

    Last without Read and Write, of a SubstreamID, is a stop marker, which is not answered.
    """

    StreamID = Bits(31, 0)
    """Who asks."""
    SubstreamID = Bits(51, 32)
    """The PASID of the request; unknown where SSV is 0."""
    Priv = Bit(58)
    """The request is privileged."""
    Exec = Bit(59)
    """Execute permission is asked for."""
    Read = Bit(60)
    """Reads are asked for."""
    Write = Bit(61)
    """Writes are asked for."""
    Last = Bit(62)
    """It is the last of its group: the group is answered now."""
    SSV = Bit(63)
    """The request has a PASID."""
    PRGIndex = Bits(72, 64)
    """Index of the group."""
    Addr = Address(127, 76)
    """The page that is asked for."""

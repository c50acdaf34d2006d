# SPDX-License-Identifier: Apache-2.0
"""The scalable-mode context table: one entry for each device and function, two tables of 128 entries for a bus."""

from iommuctl.formats.bits import Address, Bit, Bits, Layout


class ScalableContextEntry(Layout, bits=256, name="vtd.scalable-context-entry"):
    """Scalable-mode context entry: VT-d 4.1 section 9.4."""

    P = Bit(0)
    FPD = Bit(1)
    """Faults that are qualified by it are not recorded; hardware looks at it even when P is 0."""
    DTE = Bit(2, needs="DT")
    """Translation requests and translated requests are allowed."""
    PASIDE = Bit(3)
    """Requests with a PASID are allowed."""
    PRE = Bit(4, needs="PRS")
    """Page requests are allowed."""
    PDTS = Bits(11, 9)
    """The PASID directory has 2**(PDTS + 7) entries, so that PASIDs are below 2**(PDTS + 13)."""
    PASIDDIRPTR = Address(63, 12)

    RID_PASID = Bits(83, 64, needs="RPS")
    """The PASID of requests that carry none."""
    RID_PRIV = Bit(84, needs="RPRIVS")
    """Requests without a PASID count as privileged."""

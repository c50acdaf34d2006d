# SPDX-License-Identifier: Apache-2.0
"""The context table: one entry for each device and function of a bus.

256 entries of 128 bits in legacy mode; two tables of 128 entries of 256 bits in scalable mode.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Ignored, Layout
from iommuctl.formats.checks import Check, named

TRANSLATE, TRANSLATE_WITH_ATS, PASSES_THROUGH = 0, 1, 2
"""Values of TT in legacy mode."""


class ContextEntry(Layout, bits=128, name="vtd.context-entry", present="P"):
    """Context entry of legacy mode: VT-d 4.1 section 9.3. The second stage translates, or nothing does."""

    P = Bit(0)
    """The device has translations."""
    FPD = Bit(1)
    """Faults that are qualified by it are not recorded; hardware looks at it even when P is 0."""
    TT = Bits(3, 2, values={
        TRANSLATE: "second stage",
        TRANSLATE_WITH_ATS: "second stage, also for translation and translated requests",
        PASSES_THROUGH: "pass-through",
    })  # fmt: skip
    SSPTPTR = Address(63, 12)
    """The top table of the second stage; not used in pass-through."""

    AW = Bits(66, 64, values={1: "39 bits", 2: "48 bits", 3: "57 bits"})
    SOFTWARE = Ignored(70, 67)
    DID = Bits(87, 72)
    """Domain id, by which caches tag what they keep."""

    checks = (named(TT), named(AW))


class ScalableContextEntry(Layout, bits=256, name="vtd.scalable-context-entry", present="P"):
    """Scalable-mode context entry: VT-d 4.1 section 9.4."""

    P = Bit(0)
    """The device has a PASID directory."""
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
    """The PASID directory."""

    RID_PASID = Bits(83, 64, needs="RPS")
    """The PASID of requests that carry none."""
    RID_PRIV = Bit(84, needs="RPRIVS")
    """Requests without a PASID count as privileged."""

    checks = (Check(RID_PASID, "must be below 2**(PDTS + 13)", lambda entry: not entry.RID_PASID >> entry.PDTS + 13),)

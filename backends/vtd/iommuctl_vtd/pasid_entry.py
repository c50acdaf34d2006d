# SPDX-License-Identifier: Apache-2.0
"""From a PASID to page tables: the PASID directory, and the PASID tables that its entries point to."""

from iommuctl.formats.bits import Address, Bit, Bits, Field, Ignored, Layout
from iommuctl.formats.checks import named

FIRST_STAGE, SECOND_STAGE, NESTED, PASS_THROUGH = 1, 2, 3, 4
"""Values of PGTT; all others are invalid."""


class PasidDirectoryEntry(Layout, bits=64, name="vtd.pasid-directory-entry", present="P"):
    """PASID directory entry: VT-d 4.1 section 9.5. Bits 19:6 of a PASID select it."""

    P = Bit(0)
    """There is a PASID table."""
    FPD = Bit(1)
    """Faults that are qualified by it are not recorded; hardware looks at it even when P is 0."""
    SMPTBLPTR = Address(63, 12)
    """A PASID table: 64 entries, one page."""


class PasidEntry(Layout, bits=512, name="vtd.pasid-entry", revision=4, present="P"):
    """PASID table entry: VT-d 4.1 section 9.6. Bits 5:0 of a PASID select it.

    The first two words describe the second stage, the third describes the first stage. FSPTPTR is a physical
    address for the first stage alone and a guest physical address when nested.
    """

    P = Bit(0)
    """The PASID has translations."""
    FPD = Bit(1)
    """Faults that are qualified by it are not recorded; hardware looks at it even when P is 0."""
    AW = Bits(4, 2, values={1: "39 bits", 2: "48 bits", 3: "57 bits"})
    PGTT = Bits(8, 6, values={
        FIRST_STAGE: "first stage", SECOND_STAGE: "second stage", NESTED: "nested", PASS_THROUGH: "pass-through",
    })  # fmt: skip
    SSADE = Bit(9, needs="SSADS")
    """The second stage has accessed and dirty bits."""
    SSPTPTR = Address(63, 12)
    """The top table of the second stage."""

    DID = Bits(79, 64)
    """Domain id, by which caches tag what they keep."""
    PWSNP = Bit(87, needs="SMPWCS")
    """Page walks snoop the processor's caches."""
    PGSNP = Bit(88, needs="SC")
    """So does the access to the page itself."""
    CD = Bit(89, needs="MTS")
    """Caches are not used."""
    EMTE = Bit(90, needs="MTS")
    """EMT of second-stage entries counts."""
    PAT = Bits(127, 96, needs="MTS")
    """Eight memory types of 4 bits, for the first stage."""

    SRE = Bit(128, needs="SRS")
    """Privileged requests are allowed."""
    FSPM = Bits(131, 130, values={0: "4 levels", 1: "5 levels"})
    WPE = Bit(132)
    """Privileged writes respect read-only pages of the first stage."""
    NXE: Field = Ignored(133, 133)
    SMEP: Field = Ignored(134, 134)
    EAFE = Bit(135, needs="EAFS")
    """First-stage entries have an extended accessed bit."""
    FSPTPTR = Address(191, 140)
    """The top table of the first stage."""

    checks = (
        named(PGTT),
        named(AW, PGTT=(SECOND_STAGE, NESTED)),
        named(FSPM, PGTT=(FIRST_STAGE, NESTED)),
    )


class PasidEntryRev3(PasidEntry, revision=3):
    """PASID table entry of revision 3, with fields that VT-d 4.1 section 9.6 reserves or ignores."""

    SLEE = Bit(5)
    """The second stage has execute permissions."""
    EMT = Bits(93, 91)
    """Memory type of pass-through."""
    PWT = Bit(94)
    """Write-through for the top table of the first stage."""
    PCD = Bit(95)
    """No caching of the top table of the first stage."""
    ERE = Bit(129)
    """Execute requests are allowed."""
    NXE = Bit(133)
    """XD of first-stage entries counts."""
    SMEP = Bit(134)
    """Privileged requests may not execute pages of users."""

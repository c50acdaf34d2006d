# SPDX-License-Identifier: Apache-2.0
"""From a PASID to page tables: the PASID directory, and the PASID tables that its entries point to."""

from iommuctl.formats.bits import Address, Bit, Bits, Field, Ignored, Layout

FIRST_STAGE, SECOND_STAGE, NESTED, PASS_THROUGH = 1, 2, 3, 4
"""Values of PGTT; all others are invalid."""


class PasidDirectoryEntry(Layout, bits=64, name="vtd.pasid-directory-entry"):
    """PASID directory entry: VT-d 4.1 section 9.5. Bits 19:6 of a PASID select it."""

    P = Bit(0)
    FPD = Bit(1)
    SMPTBLPTR = Address(63, 12)
    """A PASID table: 64 entries, one page."""


class PasidEntry(Layout, bits=512, name="vtd.pasid-entry", revision=4, present="P"):
    """PASID table entry: VT-d 4.1 section 9.6. Bits 5:0 of a PASID select it.

    The first two words describe the second stage, the third describes the first stage. FSPTPTR is a physical
    address for the first stage alone and a guest physical address when nested.
    """

    P = Bit(0)
    FPD = Bit(1)
    AW = Bits(4, 2, values={1: "39 bits", 2: "48 bits", 3: "57 bits"})
    PGTT = Bits(8, 6, values={
        FIRST_STAGE: "first stage", SECOND_STAGE: "second stage", NESTED: "nested", PASS_THROUGH: "pass-through",
    })  # fmt: skip
    SSADE = Bit(9, needs="SSADS")
    """The second stage has accessed and dirty bits."""
    SSPTPTR = Address(63, 12)

    DID = Bits(79, 64)
    PWSNP = Bit(87, needs="SMPWCS")
    """Page walks snoop the processor's caches."""
    PGSNP = Bit(88, needs="SC")
    """So does the access to the page itself."""
    CD = Bit(89, needs="MTS")
    EMTE = Bit(90, needs="MTS")
    PAT = Bits(127, 96, needs="MTS")

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


class PasidEntryRev3(PasidEntry, revision=3):
    """PASID table entry of revision 3, with fields that VT-d 4.1 section 9.6 reserves or ignores."""

    SLEE = Bit(5)
    """The second stage has execute permissions."""
    EMT = Bits(93, 91)
    PWT = Bit(94)
    PCD = Bit(95)
    ERE = Bit(129)
    """Execute requests are allowed."""
    NXE = Bit(133)
    """XD of first-stage entries counts."""
    SMEP = Bit(134)

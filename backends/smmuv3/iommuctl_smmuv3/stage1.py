# SPDX-License-Identifier: Apache-2.0
"""Stage 1 page tables: virtual addresses, to physical addresses or, nested, to intermediate ones."""

from iommuctl.formats.bits import Address, Bit, Bits, Ignored, Layout
from iommuctl_smmuv3.vmsa import AF, INNER_SHAREABLE, VmsaFormat


class Stage1Descriptor(Layout, bits=64, name="smmuv3.stage-1-descriptor", present="Valid"):
    """VMSAv8-64 stage 1 descriptor with 48 bits of output address: DDI0487 M.a.a section D8.3, of all levels.

    Of a table descriptor, only OA and what is named Table counts, and AF where tables have one; of a page or block, all
    but what is named so. The bits of OA below the page's size, or below the granule, are ignored, but bit 16 of a block
    is nT where the unit has BBML.
    """

    Valid = Bit(0)
    """Hardware looks at the rest."""
    Type = Bit(1, values={0: "block", 1: "table or page"})
    """What the descriptor is: a page on level 3, a table above."""
    AttrIndx = Bits(4, 2)
    """The byte of MAIR that has the memory type."""
    NS = Bit(5)
    """Non-secure output, of Secure streams."""
    AP = Bits(
        7,
        6,
        values={
            0: "privileged: read and write",
            1: "all: read and write",
            2: "privileged: read",
            3: "all: read",
        },
    )
    """AP[2:1], the access permissions."""
    SH = Bits(9, 8, values={0: "non-shareable", 2: "outer shareable", 3: "inner shareable"})
    """Shareability."""
    AF = Bit(10, by_hardware=True)
    """Accessed: a translation used the page. A fault without it, where hardware does not set it."""
    nG = Bit(11)  # noqa: N815
    """Not global: the translation is one of the ASID."""
    OA = Address(47, 12)
    """The page, or the table of the next level."""
    RES0 = Ignored(49, 48)
    GP = Ignored(50, 50)
    DBM = Bit(51)
    """Dirty state by hardware: a write clears AP[2] instead of faulting."""
    Contiguous = Bit(52)
    """The descriptor is one of a run, which caches may hold as one page."""
    PXN = Bit(53)
    """Privileged requests do not execute; also where all may write."""
    UXN = Bit(54)
    """Other requests do not execute. In StreamWorlds of EL2 and EL3, none does."""
    SOFTWARE = Ignored(58, 55)
    PXNTable = Bit(59)
    """As PXN, for all below the table."""
    UXNTable = Bit(60)
    """As UXN, for all below the table."""
    APTable = Bits(62, 61)
    """Bit 62: nothing below the table can be written; bit 61: only privileged requests are allowed there."""
    NSTable = Bit(63)
    """As NS, for all below the table."""

    @classmethod
    def told(cls, raw: int) -> int:
        return super().told(raw) & ~(_READ_ONLY if raw & _DBM else 0)


class Stage1Descriptor64K(Stage1Descriptor, variant="smmuv3.stage-1-descriptor-64k"):
    """VMSAv8-64 stage 1 descriptor of 64 KB granules with 52 bits of output address: DDI0487 M.a.a section D8.3."""

    OA_51_48 = Bits(15, 12)
    """OA[51:48]."""
    OA = Address(47, 16)
    """The page, or the table of the next level, without the bits from 48 on."""


class Stage1DescriptorDs(Stage1Descriptor, variant="smmuv3.stage-1-descriptor-ds"):
    """VMSAv8-64 stage 1 descriptor with CD.DS, of 4 and 16 KB granules: DDI0487 M.a.a section D8.3.

    The shareability is CD.SH0 or SH1.
    """

    OA_51_50 = Bits(9, 8)
    """OA[51:50]."""
    OA = Address(49, 12)
    """The page, or the table of the next level, without the bits from 50 on."""


_NG, _DBM, _PXN, _UXN, _PXN_TABLE, _UXN_TABLE = (
    Stage1Descriptor.field(name).mask for name in ("nG", "DBM", "PXN", "UXN", "PXNTable", "UXNTable")
)
_ALL, _READ_ONLY = 1 << 6, 1 << 7
_ALL_TABLE, _READ_ONLY_TABLE = 1 << 61, 1 << 62
_WRITE_BACK = Stage1Descriptor.AttrIndx.put(1)


class Stage1Format(VmsaFormat):
    """Stage 1 tables of a granule in bytes, for `width` = 64 - TnSZ bits: DDI0487 M.a.a sections D8.2 and D8.3.

    One format serves both halves of an address space: it looks at the lower `width` bits of an address, and who uses
    the tables of TTB1 has checked that the bits above are ones. For the other parameters see VmsaFormat; `had` is
    CD.HADn, with which tables take no permissions away.

    All that is valid can be read. We write pages that are not global, inner shareable, of memory type 1 and accessed.
    What no letters say is told as what is allowed to all, or with p to privileged requests:

    * x of a page that all may write is for requests that are not privileged, since hardware keeps the others from
      executing there; of one that all may read, it is for all; of a privileged one, for privileged requests.
    * x of a table is there if it takes execution from nobody.
    * A page with DBM that was not written yet is one that cannot be written.
    """

    layouts = (Stage1Descriptor, Stage1Descriptor64K, Stage1DescriptorDs)

    def __init__(
        self,
        granule: int = 4096,
        width: int = 48,
        *,
        output: int = 48,
        oas: int | None = None,
        ds: bool = False,
        had: bool = False,
    ) -> None:
        bits = granule.bit_length() - 1
        levels = 1 + (width - 1 - bits) // (bits - 3)
        super().__init__(granule, width, levels, output=output, oas=oas, ds=ds)
        self.name = f"smmuv3.stage-1-{granule >> 10}k-{width}{'-ds' if self.layout is Stage1DescriptorDs else ''}"
        self._shareable = 0 if self.layout is Stage1DescriptorDs else INNER_SHAREABLE
        self._had = had

    def attributes(self, prot: str) -> int:
        flags = AF | _NG | _WRITE_BACK | self._shareable | (0 if "w" in prot else _READ_ONLY)
        if "p" in prot:
            return flags | _UXN | (0 if "x" in prot else _PXN)
        return flags | _ALL | (0 if "x" in prot else _UXN | _PXN)

    def leaf_prot(self, raw: int) -> str:
        writable, for_all = not raw & _READ_ONLY, raw & _ALL
        never = (_UXN if writable else _UXN | _PXN) if for_all else _PXN
        return f"r{'w' * writable}{'' if raw & never else 'x'}{'' if for_all else 'p'}"

    def table_prot(self, raw: int) -> str:
        if self._had:
            return "rwx"
        writable, executable = not raw & _READ_ONLY_TABLE, not raw & (_PXN_TABLE | _UXN_TABLE)
        return f"r{'w' * writable}{'x' * executable}{'p' if raw & _ALL_TABLE else ''}"

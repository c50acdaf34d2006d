# SPDX-License-Identifier: Apache-2.0
"""Stage 2 page tables: intermediate physical addresses to physical addresses."""

from iommuctl.formats.bits import Address, Bit, Bits, Ignored, Layout
from iommuctl_smmuv3.vmsa import AF, INNER_SHAREABLE, VmsaFormat


class Stage2Descriptor(Layout, bits=64, name="smmuv3.stage-2-descriptor", present="Valid"):
    """VMSAv8-64 stage 2 descriptor with 48 bits of output address: DDI0487 M.a.a section D8.3, of all levels.

    Of a table descriptor, only OA counts, and AF where tables have one. The bits of OA below the page's size, or below
    the granule, are ignored, but bit 16 of a block is nT where the unit has BBML.
    """

    Valid = Bit(0)
    """Hardware looks at the rest."""
    Type = Bit(1, values={0: "block", 1: "table or page"})
    """What the descriptor is: a page on level 3, a table above."""
    MemAttr = Bits(5, 2)
    """Memory type; its meaning depends on STE.S2FWB."""
    S2AP = Bits(7, 6, values={0: "none", 1: "read", 2: "write", 3: "read and write"})
    """Access permissions."""
    SH = Bits(9, 8, values={0: "non-shareable", 2: "outer shareable", 3: "inner shareable"})
    """Shareability."""
    AF = Bit(10, by_hardware=True)
    """Accessed: a translation used the page. A fault without it, where hardware does not set it."""
    RES0_LOW = Ignored(11, 11)
    OA = Address(47, 12)
    """The page, or the table of the next level."""
    RES0 = Ignored(50, 48)
    DBM = Bit(51)
    """Dirty state by hardware: a write sets S2AP[1] instead of faulting."""
    Contiguous = Bit(52)
    """The descriptor is one of a run, which caches may hold as one page."""
    XN = Bits(54, 53)
    """Execute never: 0 keeps nobody from it, 1 privileged requests, 2 all, 3 all others. Without IDR3.XNX, bit 54 keeps
    all from it."""
    SOFTWARE = Ignored(58, 55)
    PBHA = Ignored(62, 59)
    RES0_HIGH = Ignored(63, 63)

    @classmethod
    def told(cls, raw: int) -> int:
        return super().told(raw) & ~(_WRITE if raw & _DBM else 0)


class Stage2Descriptor64K(Stage2Descriptor, variant="smmuv3.stage-2-descriptor-64k"):
    """VMSAv8-64 stage 2 descriptor of 64 KB granules with 52 bits of output address: DDI0487 M.a.a section D8.3."""

    OA_51_48 = Bits(15, 12)
    """OA[51:48]."""
    OA = Address(47, 16)
    """The page, or the table of the next level, without the bits from 48 on."""


class Stage2DescriptorDs(Stage2Descriptor, variant="smmuv3.stage-2-descriptor-ds"):
    """VMSAv8-64 stage 2 descriptor with STE.S2DS, of 4 and 16 KB granules: DDI0487 M.a.a section D8.3.

    The shareability is STE.S2SH0.
    """

    OA_51_50 = Bits(9, 8)
    """OA[51:50]."""
    OA = Address(49, 12)
    """The page, or the table of the next level, without the bits from 50 on."""
    RES0 = Ignored(50, 50)


_DBM = Stage2Descriptor.DBM.mask
_READ, _WRITE = 1 << 6, 1 << 7
_XN_NONE = Stage2Descriptor.XN.put(2)
_WRITE_BACK, _FORCED_WRITE_BACK = (Stage2Descriptor.MemAttr.put(value) for value in (0b1111, 0b0110))


class Stage2Format(VmsaFormat):
    """Stage 2 tables of a granule in bytes, for `width` = 64 - S2T0SZ bits: DDI0487 M.a.a sections D8.2 and D8.3.

    `start_level` is that of the architecture, -1 to 3; the tables of that level lie side by side where one does not
    have enough entries. None is Linux's choice (io-pgtable-arm.c): one start table, but side by side where the
    architecture wants a later level for that size of output addresses.

    `xnx` is IDR3.XNX, `fwb` STE.S2FWB; for the other parameters see VmsaFormat. We write pages that are inner
    shareable, write-back and accessed. x is there if all may execute: what is for some only is told as for nobody.
    """

    layouts = (Stage2Descriptor, Stage2Descriptor64K, Stage2DescriptorDs)

    def __init__(
        self,
        granule: int = 4096,
        width: int = 48,
        *,
        output: int = 48,
        oas: int | None = None,
        start_level: int | None = None,
        ds: bool = False,
        xnx: bool = True,
        fwb: bool = False,
    ) -> None:
        if start_level is None:
            start_level = usual_start_level(granule, width, output)
        super().__init__(granule, width, 4 - start_level, output=output, oas=oas, ds=ds)
        self.name = f"smmuv3.stage-2-{granule >> 10}k-{width}{'-ds' if self.layout is Stage2DescriptorDs else ''}"
        shareable = 0 if self.layout is Stage2DescriptorDs else INNER_SHAREABLE
        self._flags = AF | shareable | (_FORCED_WRITE_BACK if fwb else _WRITE_BACK)
        self._never = Stage2Descriptor.XN.mask if xnx else _XN_NONE

    def attributes(self, prot: str) -> int:
        access = (_READ if "r" in prot else 0) | (_WRITE if "w" in prot else 0)
        return self._flags | access | (0 if "x" in prot else _XN_NONE)

    def leaf_prot(self, raw: int) -> str:
        return f"{'r' if raw & _READ else ''}{'w' if raw & _WRITE else ''}{'' if raw & self._never else 'x'}"


def usual_start_level(granule: int, width: int, output: int) -> int:
    """The level at which Linux begins, by the sizes of input and output addresses in bits: io-pgtable-arm.c.

    R_DXBSH and R_SRKBC of DDI0487 want the later level in these cases. The entries of one table of the earlier level
    are as many tables of the later one, 16 at most.
    """
    bits = granule.bit_length() - 1
    later_levels = (width - 1 - bits) // (bits - 3)
    level = 3 - later_levels
    unwanted = (granule == 1 << 12 and level == 0 and output in (40, 42)) or (
        granule == 1 << 14 and ((level == 0 and 48 in (width, output)) or (level == 1 and output == 40))
    )
    return level + (unwanted and width - bits - later_levels * (bits - 3) <= 4)

# SPDX-License-Identifier: Apache-2.0
"""What the page tables of both stages share: granules, levels, blocks, and where a descriptor has its output address.

VMSAv8-64: DDI0487 M.a.a chapter D8. A level here is 4 less the architecture's: level 1 is its level 3.
"""

from abc import abstractmethod
from typing import ClassVar, Literal

from iommuctl.errors import BadStructure
from iommuctl.formats.bits import Layout
from iommuctl.formats.format import Entry, Format

LEVEL_3 = 1
"""The level of pages, whose descriptors have another type than those of blocks."""

VALID = 1 << 0
BLOCK = VALID
PAGE = TABLE = VALID | 1 << 1
AF = 1 << 10
CONTIGUOUS = 1 << 52
INNER_SHAREABLE = 3 << 8

_RUNS = {
    1 << 12: {1: 16, 2: 16, 3: 16},
    1 << 14: {1: 128, 2: 32},
    1 << 16: {1: 32, 2: 32},
}
"""By granule and level, how many descriptors are a contiguous run."""
_EMPTY = Entry("empty")
_NO_TYPE = Entry("reserved")


class VmsaFormat(Format):
    """Tables of a granule, for `width` bits of input addresses and `output` bits of output addresses, from a level on.

    `output` is the effective size, IPS or S2PS capped by the unit's; addresses beyond it are reserved, even where the
    descriptor has bits for them. `oas` is the unit's own: with 52, descriptors of 64 KB have such bits, whatever the
    effective size, and blocks of 4 TB. `ds` are the 52-bit formats of 4 and 16 KB. Without either there are 48 bits.
    """

    layouts: ClassVar[tuple[type[Layout], type[Layout], type[Layout]]]
    """The layouts of 48 bits, of 52 bits with 64 KB, and of 52 bits with DS."""
    hint = CONTIGUOUS

    def __init__(self, granule: int, width: int, levels: int, *, output: int, oas: int | None, ds: bool) -> None:
        self.levels = levels
        self.width = width
        self._granule_bits = granule.bit_length() - 1
        self._runs = _RUNS[granule]
        largest_block = max(self._runs)
        self._in_place, self._high, self._high_shift = (1 << 48) - granule, 0, 0
        if granule == 1 << 16 and (oas or output) >= 52:
            self.layout, self.linear = self.layouts[1], 48
            self._high, self._high_shift = 0xF << 12, 36
            largest_block += 1
        elif granule != 1 << 16 and ds:
            self.layout, self.linear = self.layouts[2], 50
            self._in_place, self._high, self._high_shift = (1 << 50) - granule, 3 << 8, 42
            largest_block += 1
        else:
            self.layout = self.layouts[0]
        self._output = (1 << min(output, 52 if self._high else 48)) - 1
        levels_of_pages = range(1, min(levels, largest_block) + 1)
        sizes = {1 << self.shift(level) for level in levels_of_pages}
        sizes |= {self.contiguous(level) << self.shift(level) for level in levels_of_pages}
        self.page_sizes = tuple(sorted(size for size in sizes if size <= 1 << width))
        self._beyond_table = self._place(~self._output & -granule)
        self._leaves = [(0, 0, 0), *(self._leaf_of(level, largest_block) for level in range(1, levels + 1))]

    def _leaf_of(self, level: int, largest_block: int) -> tuple[int, int, int]:
        """For a level: the type of its leaves, the address bits in their places, those beyond the output size."""
        if level > largest_block:
            return 0, 0, 0
        address = -1 << self.shift(level)
        return PAGE if level == LEVEL_3 else BLOCK, self._in_place & address, self._place(~self._output & address)

    def _place(self, address: int) -> int:
        """The bits of a descriptor that have these of an address."""
        return address & self._in_place | address >> self._high_shift & self._high

    def shift(self, level: int) -> int:
        return self._granule_bits + (self._granule_bits - 3) * (level - 1)

    def entries(self, level: int) -> int:
        return 1 << (self.width - self.shift(level) if level == self.levels else self._granule_bits - 3)

    def contiguous(self, level: int) -> int:
        return self._runs.get(level, 1)

    def numbered(self, level: int) -> int:
        return 4 - level

    @abstractmethod
    def attributes(self, prot: str) -> int:
        """What a leaf has besides type and address."""

    @abstractmethod
    def leaf_prot(self, raw: int) -> str:
        """What a leaf allows."""

    def table_prot(self, raw: int) -> str:  # noqa: ARG002
        """What a table descriptor allows below."""
        return "rwx"

    def leaf(self, level: int, pa: int, prot: str) -> int:
        kind = self._leaves[level][0]
        if not kind or pa & ~(self._output & -1 << self.shift(level)):
            raise BadStructure(f"{self.name} cannot map a page of {1 << self.shift(level):#x} bytes at {pa:#x}")
        return kind | self.attributes(prot) | self._place(pa)

    def table(self, level: int, pa: int) -> int:  # noqa: ARG002
        if pa & ~(self._output & -1 << self._granule_bits):
            raise BadStructure(f"{self.name} cannot point to a table at {pa:#x}")
        return TABLE | self._place(pa)

    def decode(self, level: int, raw: int) -> Entry:
        if not raw & VALID:
            return _EMPTY
        kind: Literal["leaf", "table"]
        leaf_type, address, beyond = self._leaves[level]
        if raw & TABLE == leaf_type:
            kind, prot = "leaf", self.leaf_prot(raw)
        elif raw & TABLE == TABLE:
            kind, prot, address, beyond = "table", self.table_prot(raw), self._in_place, self._beyond_table
        else:
            return _NO_TYPE
        if bad := raw & beyond:
            return Entry("reserved", reserved=bad)
        return Entry(kind, raw & address | (raw & self._high) << self._high_shift, prot)

# SPDX-License-Identifier: Apache-2.0
"""First-stage page tables: virtual addresses, to physical addresses or, nested, to guest physical addresses."""

from iommuctl.errors import BadStructure
from iommuctl.formats.bits import Address, Bit, Field, Ignored, Layout
from iommuctl.formats.format import Entry, Format


class FirstStageEntry(Layout, bits=64, name="vtd.first-stage-entry", revision=4, present="P"):
    """First-stage paging entry: VT-d 4.1 section 9.7, of all levels.

    An entry that points to a table ignores D and G. PS is reserved above the entries that map 1 GiB; in those that
    map 4 KiB the bit is PAT, which larger pages have as bit 12. The other bits of ADDR below the page's size are
    reserved.
    """

    P = Bit(0)
    """The entry is present, and reads are allowed."""
    RW = Bit(1)
    """Writes are allowed."""
    US = Bit(2)
    """Requests that are not privileged are allowed."""
    PWT = Bit(3)
    """Page-level write-through; selects the memory type."""
    PCD = Bit(4)
    """Page-level cache disable; selects the memory type."""
    A = Bit(5, by_hardware=True)
    """Accessed: a translation used the entry."""
    D = Bit(6, by_hardware=True)
    """Dirty: something was written to the page."""
    PS = Bit(7)
    """The entry maps a page of 2 MiB or 1 GiB."""
    G = Bit(8)
    """Global page, to processors."""
    SOFTWARE_LOW = Ignored(9, 9)
    EA = Bit(10, by_hardware=True)
    """Accessed, where the PASID entry has EAFE set; ignored elsewhere."""
    SOFTWARE_MIDDLE = Ignored(11, 11)
    ADDR = Address(51, 12)
    """The page, or the table of the next level."""
    SOFTWARE = Ignored(62, 52)
    XD: Field = Ignored(63, 63)


class FirstStageEntryRev3(FirstStageEntry, revision=3):
    """First-stage paging entry of revision 3, with a field that VT-d 4.1 section 9.7 ignores."""

    XD = Bit(63)
    """Execute requests are not allowed, where the PASID entry has NXE set; ignored elsewhere."""


_P, _RW, _US, _A, _D, _PS = (FirstStageEntry.field(name).mask for name in ("P", "RW", "US", "A", "D", "PS"))
_ADDR = FirstStageEntry.ADDR.mask
_LARGE_PAT = 1 << 12
_PROT = ("rp", "rwp", "r", "rw")
"""By the values of US and RW."""
_EMPTY = Entry("empty")


class FirstStageFormat(Format):
    """First-stage tables of 4 or 5 levels: VT-d 4.1 sections 3.6 and 9.7.

    A present entry can be read, and hardware cannot be kept from setting A and D: tables and pages come with A set,
    writable pages with D. The unit's facts: `haw` is its host address width, `one_gib_pages` is CAP.FS1GP.
    """

    layout: type[Layout] = FirstStageEntry
    canonical = True

    def __init__(self, levels: int = 4, *, haw: int = 52, one_gib_pages: bool = True) -> None:
        self.name = f"vtd.first-stage-{levels}"
        self.levels = levels
        self.width = {4: 48, 5: 57}[levels]
        self.page_sizes = (1 << 12, 1 << 21, 1 << 30) if one_gib_pages else (1 << 12, 1 << 21)
        self._address = _ADDR & (1 << haw) - 1
        self._masks = ((0, 0, 0, 0), *map(self._masks_of, range(1, levels + 1)))

    def _masks_of(self, level: int) -> tuple[int, int, int, int]:
        """For a level: the bit that marks a page, a page's reserved and address bits, a table's reserved bits."""
        size = 1 << self.shift(level)
        reserved = FirstStageEntry.reserved | _ADDR & ~self._address
        in_table = reserved | _PS
        if level == 1:
            return _P, reserved, self._address, in_table
        if size not in self.page_sizes:
            return 0, in_table, 0, in_table
        return _PS, reserved | _ADDR & size - 1 & ~_LARGE_PAT, self._address & -size, in_table

    def shift(self, level: int) -> int:
        return 3 + 9 * level

    def entries(self, level: int) -> int:  # noqa: ARG002
        return 512

    def leaf(self, level: int, pa: int, prot: str) -> int:
        address = self._masks[level][2]
        flags = _P | _A | (0 if "p" in prot else _US) | (_RW | _D if "w" in prot else 0) | (_PS if level > 1 else 0)
        if pa & ~address or not address:
            raise BadStructure(f"{self.name} cannot map a page of {1 << self.shift(level):#x} bytes at {pa:#x}")
        return flags | pa

    def table(self, level: int, pa: int) -> int:  # noqa: ARG002
        if pa & ~self._address:
            raise BadStructure(f"{self.name} cannot point to a table at {pa:#x}")
        return _P | _RW | _US | _A | pa

    def decode(self, level: int, raw: int) -> Entry:
        if not raw & _P:
            return _EMPTY
        is_page, in_page, address, in_table = self._masks[level]
        if raw & is_page:
            if bad := raw & in_page:
                return Entry("reserved", reserved=bad)
            return Entry("leaf", raw & address, _PROT[raw >> 1 & 3])
        if bad := raw & in_table:
            return Entry("reserved", reserved=bad)
        return Entry("table", raw & self._address, _PROT[raw >> 1 & 3])

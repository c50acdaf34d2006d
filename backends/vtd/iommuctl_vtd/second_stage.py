# SPDX-License-Identifier: Apache-2.0
"""Second-stage page tables: 39, 48 or 57 bits of IOVA or guest physical address to physical addresses."""

from iommuctl.errors import BadStructure
from iommuctl.formats.bits import Address, Bit, Bits, Field, Ignored, Layout
from iommuctl.formats.format import Entry, Format


class SecondStageEntry(Layout, bits=64, name="vtd.second-stage-entry", revision=4):
    """Second-stage paging entry: VT-d 4.1 section 9.8, of all levels.

    An entry that points to a table ignores EMT, IPAT and D, and its SNP is reserved. PS is reserved above the
    entries that map 1 GiB, and ignored in those that map 4 KiB. Of ADDR, the bits below the page's size are reserved.
    """

    R = Bit(0)
    """Reads are allowed."""
    W = Bit(1)
    """Writes are allowed."""
    X: Field = Ignored(2, 2)
    EMT = Bits(5, 3)
    """Memory type of the page, where the unit has memory types."""
    IPAT = Bit(6)
    """The PAT of the first stage does not count for the page."""
    PS = Bit(7)
    """The entry maps a page of 2 MiB or 1 GiB."""
    A = Bit(8, by_hardware=True)
    """Accessed: a translation used the entry, where the PASID entry has SSADE set; ignored elsewhere."""
    D = Bit(9, by_hardware=True)
    """Dirty: something was written to the page, where the PASID entry has SSADE set; ignored elsewhere."""
    SOFTWARE_LOW = Ignored(10, 10)
    SNP = Bit(11, needs="SC")
    """Accesses to the page snoop the processor's caches."""
    ADDR = Address(51, 12)
    """The page, or the table of the next level."""
    SOFTWARE = Ignored(61, 52)
    SOFTWARE_HIGH = Ignored(63, 63)

    @classmethod
    def checked(cls, raw: int) -> int:
        # There is no Present: an entry that allows nothing is not present.
        return (1 << cls.bits) - 1 if cls.R.get(raw) or cls.W.get(raw) else 0


class SecondStageEntryRev3(SecondStageEntry, revision=3):
    """Second-stage paging entry of revision 3, with fields that VT-d 4.1 section 9.8 reserves or ignores."""

    X = Bit(2)
    """Execute requests are allowed, where the PASID entry has SLEE set; ignored elsewhere."""
    TM = Bit(62)
    """The mapping is transient, for a device TLB's use; in pages only, and reserved again since revision 3.2."""


_R, _W, _PS, _SNP = (SecondStageEntry.field(name).mask for name in ("R", "W", "PS", "SNP"))
_ADDR = SecondStageEntry.ADDR.mask
_PRESENT = _R | _W
_PROT = ("", "r", "w", "rw")
_EMPTY = Entry("empty")


class SecondStageFormat(Format):
    """Second-stage tables of 39, 48 or 57 bits: VT-d 4.1 sections 3.7 and 9.8. An entry is present if R or W is set.

    The unit's facts: `haw` is its host address width, `page_sizes` are what CAP.SSLPS lists, and `snoop_control`,
    ECAP.SC, makes SNP a bit that exists. We set it on all pages then.
    """

    layout: type[Layout] = SecondStageEntry

    def __init__(
        self,
        width: int = 48,
        *,
        haw: int = 52,
        page_sizes: tuple[int, ...] = (1 << 12, 1 << 21, 1 << 30),
        snoop_control: bool = True,
    ) -> None:
        self.name = f"vtd.second-stage-{width}"
        self.levels = {39: 3, 48: 4, 57: 5}[width]
        self.width = width
        self.page_sizes = page_sizes
        self._snp = _SNP if snoop_control else 0
        self._address = _ADDR & (1 << haw) - 1
        self._masks = ((0, 0, 0, 0), *map(self._masks_of, range(1, self.levels + 1)))

    def _masks_of(self, level: int) -> tuple[int, int, int, int]:
        """For a level: bits of which one marks a page, a page's reserved and address bits, a table's reserved bits."""
        size = 1 << self.shift(level)
        reserved = SecondStageEntry.reserved | _ADDR & ~self._address
        in_table = reserved | _SNP | _PS
        if size not in self.page_sizes:
            return 0, in_table, 0, in_table
        in_page = reserved | _SNP & ~self._snp | _ADDR & size - 1
        return _PRESENT if level == 1 else _PS, in_page, self._address & -size, in_table

    def shift(self, level: int) -> int:
        return 3 + 9 * level

    def entries(self, level: int) -> int:  # noqa: ARG002
        return 512

    def leaf(self, level: int, pa: int, prot: str) -> int:
        address = self._masks[level][2]
        flags = self._snp | (_R if "r" in prot else 0) | (_W if "w" in prot else 0) | (_PS if level > 1 else 0)
        if pa & ~address or not address:
            raise BadStructure(f"{self.name} cannot map a page of {1 << self.shift(level):#x} bytes at {pa:#x}")
        return flags | pa

    def table(self, level: int, pa: int) -> int:  # noqa: ARG002
        if pa & ~self._address:
            raise BadStructure(f"{self.name} cannot point to a table at {pa:#x}")
        return _R | _W | pa

    def decode(self, level: int, raw: int) -> Entry:
        if not raw & _PRESENT:
            return _EMPTY
        is_page, in_page, address, in_table = self._masks[level]
        if raw & is_page:
            if bad := raw & in_page:
                return Entry("reserved", reserved=bad)
            return Entry("leaf", raw & address, _PROT[raw & _PRESENT])
        if bad := raw & in_table:
            return Entry("reserved", reserved=bad)
        return Entry("table", raw & self._address, _PROT[raw & _PRESENT])

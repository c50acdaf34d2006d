# SPDX-License-Identifier: Apache-2.0
"""What a page-table format tells the engine, and what the engine's parts share.

A new format is one class derived from Format, and passes the suite of formats with it.
"""

import struct
from collections.abc import Iterator
from itertools import compress, count
from typing import Literal, NamedTuple, Protocol

from iommuctl.formats.bits import Layout, bit_names
from iommuctl.formats.memory import Memory

WORD = 8
"""Bytes of an entry."""


class Entry(NamedTuple):
    """What a format makes of one raw entry.

    `address` is that of the next table or of the page. `prot` has letters of "rwxp" in that order, what this entry
    alone allows: read, write, execute, and p where only privileged requests may. `reserved` has the reserved bits
    that are set, for kind "reserved".
    """

    kind: Literal["empty", "table", "leaf", "reserved"]
    address: int = 0
    prot: str = ""
    reserved: int = 0

    def fault(self) -> str:
        """What is wrong with an entry of kind "reserved"."""
        return f"reserved {bit_names(self.reserved)} set" if self.reserved else "not a valid one"


class Format(Protocol):
    """A page-table format. Objects are immutable; one object stands for one geometry.

    Levels count from the leaves: an entry of level 1 maps the smallest page; the root table is of level `levels`.
    Entries are little-endian words of 64 bits, and a word of zero is an empty one.

    What has a body or a value here is optional: most formats are content with it.
    """

    name: str
    """As `pgtable create --format` spells it."""
    layout: type[Layout]
    """The declared layout of an entry, for traces and dumps."""
    levels: int
    width: int
    """Input address bits. The entries of the root table cover 2**width bytes together."""
    canonical: bool = False
    """Bits above `width` copy the highest bit of an address: the upper half of the tables is the end of the space."""
    page_sizes: tuple[int, ...]
    """Ascending; the first is the granule, which is also the size of every table but the root. Contiguous runs count
    as pages."""
    linear: int = 64
    """Within an aligned part of 2**linear bytes of output addresses, entries are linear in the address."""
    hint: int = 0
    """The bit of a leaf entry that makes it one of a contiguous run; 0 for a format without."""

    def shift(self, level: int) -> int:
        """log2 of what one entry of that level covers."""

    def entries(self, level: int) -> int:
        """How many entries a table of that level has."""

    def contiguous(self, level: int) -> int:  # noqa: ARG002
        """How many leaf entries of that level are a contiguous run, when all have the hint; 1 where it says nothing.

        A run begins at a multiple of its size, of input and of output addresses, and its entries map adjacent pages in
        the same way. Caches may hold it as one page.
        """
        return 1

    def numbered(self, level: int) -> int:
        """The specification's number of that level, for people."""
        return level

    def leaf(self, level: int, pa: int, prot: str) -> int:
        """A valid entry that maps the page at `pa`, without the hint. `prot` as in Entry.

        It is that of the beginning of the address's linear part, plus the distance. Raises BadStructure for an address
        that does not fit.
        """

    def table(self, level: int, pa: int) -> int:
        """A valid entry of that level that points to the table at `pa`, linear like those of pages.

        Raises BadStructure for an address that does not fit.
        """

    def decode(self, level: int, raw: int) -> Entry:
        """What hardware makes of an entry that it found at that level. Never raises."""


class Visit(NamedTuple):
    """An entry that was read: where it lies, its raw value, what it means.

    The entry translates `size` bytes of input addresses from `iova` on.
    """

    level: int
    address: int
    raw: int
    entry: Entry
    iova: int
    size: int

    def called(self, fmt: Format) -> str:
        """The entry in words."""
        level = fmt.numbered(self.level)
        return f"the entry of level {level} at {self.address:#x} for IOVA {self.iova:#x}, {self.raw:#x},"

    def complaint(self, fmt: Format) -> str:
        """What is wrong with an entry of kind "reserved"."""
        return f"{self.called(fmt)} {'has' if self.entry.reserved else 'is'} {self.entry.fault()}"


def index(fmt: Format, level: int, iova: int) -> int:
    """Which entry of its table of that level translates `iova`."""
    return (iova >> fmt.shift(level)) % fmt.entries(level)


def visit(fmt: Format, level: int, table: int, iova: int, raw: int) -> Visit:
    """The entry for `iova` of the table at address `table`, which is `raw`."""
    shift = fmt.shift(level)
    address = table + WORD * index(fmt, level, iova)
    return Visit(level, address, raw, fmt.decode(level, raw), iova >> shift << shift, 1 << shift)


def present(data: bytes) -> Iterator[tuple[int, int]]:
    """Numbers and values of the words that are not zero. Most tables of most trees are nearly empty."""
    words = struct.unpack(f"<{len(data) // WORD}Q", data)
    return zip(compress(count(), words), filter(None, words), strict=True)


def read_table(fmt: Format, memory: Memory, level: int, table: int) -> bytes:
    """All entries of the table of that level at address `table`. Raises OutsideMemory."""
    return memory.read(table, WORD * fmt.entries(level))

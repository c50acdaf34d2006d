# SPDX-License-Identifier: Apache-2.0
"""One page-table engine for every radix format.

A format (class Format) says how an entry of a level looks; everything else, from finding the largest page that
fits to bounded iteration over hostile memory, is here. `walk` is the page walk of the hardware side and uses
nothing of a format but its geometry and `decode`.

Levels count from the leaves: an entry of level 1 maps the smallest page; the root table is of level `levels`.
"""

from typing import Literal, NamedTuple, Protocol

from iommuctl.formats.bits import Layout


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


class Format(Protocol):
    """A page-table format. Objects are immutable; one object stands for one geometry."""

    @property
    def name(self) -> str:
        """As `pgtable create --format` spells it."""

    @property
    def layout(self) -> type[Layout]:
        """The declared layout of an entry, for traces and dumps."""

    @property
    def levels(self) -> int: ...

    @property
    def width(self) -> int:
        """Input address bits."""

    @property
    def page_sizes(self) -> tuple[int, ...]:
        """Ascending; the first is the granule, which is also the size of every table but the root."""

    def shift(self, level: int) -> int:
        """log2 of what one entry of that level covers."""

    def entries(self, level: int) -> int:
        """How many entries a table of that level has."""

    def leaf(self, level: int, pa: int, prot: str) -> int:
        """A valid entry that maps the page at `pa`; linear in `pa`. `prot` as in Entry."""

    def table(self, level: int, pa: int) -> int:
        """A valid entry of that level that points to the table at `pa`; linear in `pa`."""

    def decode(self, level: int, raw: int) -> Entry:
        """What hardware makes of an entry that it found at that level. Never raises."""

# SPDX-License-Identifier: Apache-2.0
"""The TLB: pages and descriptors of tables, by stream world, VMID, ASID and address. IHI0070 G.b sections 3.17 and 4.4.

It never evicts, so that what it still holds depends on the commands alone; and a command takes away no more than what
the architecture promises: one with a granule entries of that granule, one with a level entries of that level. So there
may be several entries for one address, where software changed tables otherwise than section 3.21.1 allows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from iommuctl.hookspecs import Rows
from iommuctl.model import MAX_ADDRESS, Step

PAGES = "smmuv3.tlb"
TABLES = "smmuv3.walk-cache"
SIZES = "smmuv3.tlb-sizes"
"""By world and VMID, where an address can be found: pairs of whether entries are global and log2 of their size."""

VA, IPA, EL2, EL2_E2H = 0, 1, 2, 3
"""Worlds: virtual and intermediate physical addresses of NS-EL1, virtual ones of EL2 without and with ASIDs."""
GLOBAL = -1
"""The ASID of what belongs to all of them, or of a world without."""


class Tag(NamedTuple):
    """What a translation is found by besides its address."""

    world: int
    vmid: int
    asid: int
    aset: int = 0
    """CD.ASET, which keeps global entries apart, but from no command."""

    @property
    def space(self) -> str:
        """The beginning of the keys of all entries of its VMID."""
        return f"{self.world}.{self.vmid:04x}."

    @property
    def owner(self) -> str:
        """The beginning of the keys of its entries. Global ones come before all others."""
        return f"{self.space}{f'---{self.aset}' if self.asid == GLOBAL else f'{self.asid:04x}'}."

    def for_all(self, aset: int) -> "Tag":
        """That of what is global in the same world."""
        return self._replace(asid=GLOBAL, aset=aset)


class Page(NamedTuple):
    """A translation: `pa` is where the page begins; the rights are those of permissions.Rights, by stage.

    `level`, `granule` and `reach` (both log2) are those of the descriptor that commands are about: the last of stage 1,
    where there is one, which may cover more than this page. `dirty` says that a write needs no more updates, `device`
    that the memory of stage 2 is of a device. `run` is the order of the contiguous run that it belongs to, or its own.
    """

    pa: int
    order: int
    run: int
    stage1: int
    stage2: int
    level: int
    granule: int
    reach: int
    dirty: bool
    device: bool
    made_of: list[tuple[str, int, int, int]]
    """Structure, address, contents, stage."""
    nt: bool = False
    """It is of a block with nT, where that keeps it out of the TLB: BBML 1."""


class Table(NamedTuple):
    """A descriptor that points to a table: its address as the tables have it, what it was, its physical address.

    `target` is the table; None where that is the guest's.
    """

    address: int
    raw: int
    place: int
    level: int
    granule: int
    order: int
    target: int | None


class Block(NamedTuple):
    """The addresses of a command, first to last, and whether entries of the last level alone are meant.

    `granule` (log2) and `level` are None where any is meant.
    """

    first: int
    last: int
    leaf: bool
    granule: int | None = None
    level: int | None = None

    def means(self, iova: int, entry: Page | Table) -> bool:
        """Any address of a block is one of all that was made of the block."""
        order = entry.reach if isinstance(entry, Page) else entry.order
        first = iova >> order << order
        return (
            first <= self.last
            and self.first < first + (1 << order)
            and self.granule in (None, entry.granule)
            and (self.level in (None, entry.level) or (isinstance(entry, Table) and entry.level < (self.level or 0)))
        )


class Tlb:
    """The caches of one unit, in rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, tag: Tag, iova: int) -> list[Page]:
        """The pages of an address: of the ASID, the smallest first, then those that are global."""
        found = []
        for shared, order in self._rows.get(SIZES, tag.space) or ():
            owner = tag.for_all(tag.aset).owner if shared else tag.owner
            if page := self._rows.get(PAGES, _key(owner, iova >> order << order, order)):
                found.append(Page(*page))
        return found

    def fill(self, tag: Tag, iova: int, page: Page) -> None:
        sizes, own = self._rows.get(SIZES, tag.space) or [], [tag.asid == GLOBAL, page.order]
        if own not in sizes:
            self._rows.put(SIZES, tag.space, sorted([*sizes, own]))
        self._rows.put(PAGES, _key(tag.owner, iova >> page.order << page.order, page.order), page)

    def find_table(self, tag: Tag, level: int, iova: int) -> Table | None:
        """The descriptor of a level for the addresses from `iova` on."""
        found: Any = self._rows.get(TABLES, f"{tag.owner}{iova:016x}.{level}")
        return Table(*found) if found else None

    def fill_table(self, tag: Tag, iova: int, table: Table) -> None:
        self._rows.put(TABLES, f"{tag.owner}{iova:016x}.{table.level}", table)

    def drop_world(self, world: int) -> None:
        self._drop(f"{world}.", f"{world}.~")
        for key, _ in self._rows.scan(SIZES, f"{world}.", f"{world}.~"):
            self._rows.delete(SIZES, key)

    def drop_vmid(self, world: int, vmid: int) -> None:
        space = Tag(world, vmid, GLOBAL).space
        self._drop(space, f"{space}~")
        self._rows.delete(SIZES, space)

    def drop_asid(self, tag: Tag) -> None:
        """What is not global, of an ASID."""
        self._drop(tag.owner, f"{tag.owner}~")

    def drop_block(self, tag: Tag, block: Block) -> None:
        """Addresses of an ASID, with what is global there; of all ASIDs where the tag's is GLOBAL."""
        if tag.asid == GLOBAL:
            self._drop(tag.space, f"{tag.space}~", block)
        else:
            for owner in (tag.owner, tag.for_all(0).owner, tag.for_all(1).owner):
                self._drop(owner, f"{owner}~", block)

    def sizes(self) -> dict[str, int]:
        return {"tlb": self._rows.count(PAGES), "walk": self._rows.count(TABLES)}

    def tables(self) -> Iterator[int]:
        """Where the tables are that descriptors which are kept point to, but for those of guests."""
        for _, value in self._rows.scan(TABLES):
            if (target := Table(*value).target) is not None:
                yield target

    def _drop(self, first: str, last: str, block: Block | None = None) -> None:
        kinds: Iterable[tuple[str, Callable[[Any], Page | Table]]] = (
            (PAGES, lambda value: Page(*value)),
            (TABLES, lambda value: Table(*value)),
        )
        for kind, entry_of in kinds:
            if block and block.leaf and kind == TABLES:
                continue
            for key, value in self._rows.scan(kind, first, last):
                if block is None or block.means(int(key.split(".")[3], 16), entry_of(value)):
                    self._rows.delete(kind, key)


def steps_of(page: Page, layouts: dict[str, Any]) -> Iterator[Step]:
    """The structures that a page was made of, as it was then."""
    for name, address, raw, stage in page.made_of:
        layout = layouts[name]
        yield Step(name, address, layout.to_words(raw), layout.values(raw), stage)


def _key(owner: str, address: int, order: int) -> str:
    return f"{owner}{address & MAX_ADDRESS:016x}.{order:02d}"

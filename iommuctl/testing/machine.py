# SPDX-License-Identifier: Apache-2.0
"""A random walk through the generic operations, against a model of plain dicts.

The model says of each operation whether it is refused, and why; and of each request where it goes. The caller in it is
a correct one: it invalidates after it took something out of a page table that is bound, and then sees nothing stale.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from iommuctl.errors import IommuError
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.probes import IOVA, RAM

POOLS = 0x700_0000
"""Where the pools of page tables lie in each parent."""
POOL_SIZE = 0x4_0000

Place = tuple[str, int | None]
"""A slot: the RID, and the PASID where it has one."""
SEVERAL = 3
ALL = range(12)
"""The numbers of all pages that the walk maps."""


class DomainModel:
    """`pages` has (offset in RAM, protection) by page number, `ranges` the length of each mapping by its first page."""

    def __init__(self, *, parent: bool) -> None:
        self.parent = parent
        self.pages: dict[int, tuple[int, str]] = {}
        self.ranges: dict[int, int] = {}


class TableModel:
    """`pages` has (page number in the parent, protection) by page number."""

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.pages: dict[int, tuple[int, str]] = {}


def all_slots(suite: type[BackendSuite]) -> list[Place]:
    """The slots of the walk: RIDs, and two PASIDs of each where there are any."""
    pasids = [None, 1, 2] if suite.declared().pasid_bits > 1 else [None]
    return [(rid, pasid) for rid in suite.rids for pasid in pasids]


class Held(NamedTuple):
    """What a slot holds: a domain, and perhaps a page table nested on it."""

    domain: str
    table: str | None = None
    implicit: bool = False


class Model:
    """The rules of the generic layer, and one real state folder that is to follow them."""

    def __init__(self, suite: type[BackendSuite], probes: int = 12) -> None:
        self._files = contextlib.ExitStack()
        folder = self._files.enter_context(tempfile.TemporaryDirectory(prefix="iommuctl-"))
        self.iommu = self._files.enter_context(suite.open(Path(folder) / "state"))
        suite.furnish(self.iommu)
        declared = suite.declared()
        self.page = declared.page_sizes[0]
        self.nests = declared.nesting
        self.simulates = declared.simulates
        self.ats = suite.ats
        self._probes = probes
        self.operations = self.requests = 0
        self.all_slots = all_slots(suite)
        self._ram = self.iommu.memory(RAM).pa
        self.slots: dict[Place, Held] = {}
        self.domains: dict[str, DomainModel] = {}
        self.tables: dict[str, TableModel] = {}
        self.in_guest = declared.context_tables_in_guest
        self.pools: dict[str, str] = {}
        """By RID, the page table in whose pool the table lies that leads to its page tables."""

    def close(self) -> None:
        self._files.close()

    @contextlib.contextmanager
    def expect(self, *refusals: tuple[bool, str]) -> Iterator[list[bool]]:
        """The operation of the block is refused with the first id whose condition holds; else it succeeds.

        Gives a list that is not empty, after the block, when it succeeded.
        """
        wanted = next((error for refused, error in refusals if refused), None)
        done: list[bool] = []
        raised = None
        try:
            yield done
        except IommuError as error:
            raised = error
        assert (raised.id if raised else None) == wanted, raised
        if raised is None:
            self.operations += 1
            assert self.iommu.last.warnings == ()
            done.append(True)

    # Domains

    def create(self, name: str) -> None:
        parent = name.startswith("p")
        with self.expect((name in self.domains, "name-taken")) as done:
            self.iommu.domain_create(name, nest_parent=parent)
        if done:
            self.domains[name] = DomainModel(parent=parent)
            if parent:
                offset = (8 if name == "p0" else 12) << 20
                self.iommu.map(name, iova=POOLS, size=1 << 20, memory=RAM, offset=offset)

    def destroy(self, name: str, *, force: bool) -> None:
        users = [slot for slot, held in self.slots.items() if held.domain == name]
        tables = [table for table, model in self.tables.items() if model.parent == name]
        busy = bool(users or tables) and not force
        with self.expect((name not in self.domains, "no-such-domain"), (busy, "in-use")) as done:
            self.iommu.domain_destroy(name, force=force)
        if done:
            del self.domains[name]
            for slot in users:
                del self.slots[slot]
            self._forget_pools()
            for table in tables:
                del self.tables[table]

    def map(self, name: str, first: int, count: int, offset: int, prot: str) -> None:
        domain = self.domains.get(name)
        pages = range(first, first + count)
        clash = domain is not None and any(page in domain.pages for page in pages)
        with self.expect((domain is None, "no-such-domain"), (clash, "overlap")) as done:
            size, at = count * self.page, offset * self.page
            self.iommu.map(name, iova=self.iova(first), size=size, memory=RAM, offset=at, prot=prot)
        if done and domain:
            domain.ranges[first] = count
            domain.pages |= {page: (offset + index, prot) for index, page in enumerate(pages)}

    def unmap(self, name: str, first: int, count: int) -> None:
        domain = self.domains.get(name)
        met = [
            (start, length)
            for start, length in (domain.ranges.items() if domain else ())
            if start < first + count and first < start + length
        ]
        whole = met and all(first <= start and start + length <= first + count for start, length in met)
        with self.expect((domain is None, "no-such-domain"), (not whole, "partial-unmap")) as done:
            self.iommu.unmap(name, iova=self.iova(first), size=count * self.page)
        if done and domain:
            for start, length in met:
                del domain.ranges[start]
                for page in range(start, start + length):
                    del domain.pages[page]

    # Slots

    def attach(self, name: str, slot: Place, *, replace: bool) -> None:
        held = self.slots.get(slot)
        with self.expect(
            (name not in self.domains, "no-such-domain"),
            (held is not None and held.table is not None, "slot-bound"),
            (held is not None and not replace, "slot-occupied"),
            *self._one_stage_2(name, slot),
        ) as done:
            self.iommu.attach(name, slot[0], pasid=slot[1], replace=replace)
        if done:
            self.slots[slot] = Held(name)

    def detach(self, name: str, slot: Place, *, force: bool) -> None:
        held = self.slots.get(slot)
        with self.expect(
            (name not in self.domains, "no-such-domain"),
            (held is None or held.domain != name, "slot-empty"),
            (held is not None and held.table is not None and not force, "slot-bound"),
            (bool(self._nested_below(slot)) and not force, "in-use"),
        ) as done:
            self.iommu.detach(name, slot[0], pasid=slot[1], force=force)
        if done:
            for gone in (slot, *self._nested_below(slot)):
                del self.slots[gone]
            self._forget_pools()

    def bind(self, table: str, slot: Place) -> None:
        model, held = self.tables.get(table), self.slots.get(slot)
        if model is None:
            return
        parent = model.parent
        with self.expect(
            (held is not None and held.table is not None, "slot-occupied"),
            (slot[1] is None and (held is None or held.domain != parent), "parent-not-attached"),
            (held is not None and held.domain != parent, "slot-occupied"),
            *self._one_stage_2_below(parent, slot),
        ) as done:
            self.iommu.bind_pgtable(parent, slot[0], pgtable=table, pasid=slot[1])
        if done:
            self.slots[slot] = Held(parent, table, implicit=held is None)
            if self.in_guest:
                self.pools.setdefault(slot[0], table)

    def unbind(self, name: str, slot: Place) -> None:
        held = self.slots.get(slot)
        with self.expect(
            (name not in self.domains, "no-such-domain"),
            (held is None or held.domain != name, "slot-empty"),
            (held is not None and held.table is None, "nothing-bound"),
        ) as done:
            self.iommu.unbind_pgtable(name, slot[0], pasid=slot[1])
        if done and held:
            self._unbind(slot)

    def _forget_pools(self) -> None:
        bound = {place[0] for place, held in self.slots.items() if held.table}
        self.pools = {rid: table for rid, table in self.pools.items() if rid in bound}

    def _unbind(self, slot: Place) -> None:
        held = self.slots.pop(slot)
        if not held.implicit:
            self.slots[slot] = Held(held.domain)
        self._forget_pools()

    # Where all nested slots of a device share its stage 2

    def _nested_below(self, slot: Place) -> list[Place]:
        """The PASIDs that are nested on what the slot of a RID holds."""
        if self.nests != "device" or slot[1] is not None:
            return []
        return [place for place, held in self.slots.items() if place[0] == slot[0] and place[1] and held.table]

    def _one_stage_2(self, name: str, slot: Place) -> Iterator[tuple[bool, str]]:
        """Why a domain cannot be attached there."""
        if self.nests != "device" or name not in self.domains:
            return
        held, own, parent = self.slots.get(slot), self.slots.get((slot[0], None)), self.domains[name].parent
        if slot[1] is None:
            yield held is not None and held.domain != name and bool(self._nested_below(slot)), "in-use"
            plain = any(p[0] == slot[0] and p[1] and not h.table for p, h in self.slots.items())
            yield parent and plain, "cannot-nest"
        else:
            yield parent, "unsupported"
            yield own is not None and self.domains[own.domain].parent, "cannot-nest"

    def _one_stage_2_below(self, parent: str, slot: Place) -> Iterator[tuple[bool, str]]:
        """Why a page table cannot be bound there."""
        if self.nests == "device" and slot[1] is not None:
            own = self.slots.get((slot[0], None))
            yield own is None, "parent-not-attached"
            yield own is not None and own.domain != parent, "cannot-nest"

    # Page tables

    def create_table(self, table: str, parent: str) -> None:
        pool = POOLS + int(table[1:]) * POOL_SIZE
        domain = self.domains.get(parent)
        with self.expect(
            (domain is None, "no-such-domain"),
            (domain is not None and not domain.parent, "not-nest-parent"),
            (table in self.tables, "overlap" if self._parent_of(table) == parent else "name-taken"),
        ) as done:
            self.iommu.pgtable_create(table, parent=parent, pool=pool, pool_size=POOL_SIZE)
        if done:
            self.tables[table] = TableModel(parent)

    def _parent_of(self, table: str) -> str | None:
        return self.tables[table].parent if table in self.tables else None

    def destroy_table(self, table: str, *, force: bool) -> None:
        in_its_pool = [rid for rid, owner in self.pools.items() if owner == table]
        users = [
            place
            for place, held in self.slots.items()
            if held.table == table or (held.table and place[0] in in_its_pool)
        ]
        missing, busy = table not in self.tables, bool(users) and not force
        with self.expect((missing, "no-such-pgtable"), (busy, "in-use")) as done:
            self.iommu.pgtable_destroy(table, force=force)
        if done:
            del self.tables[table]
            for slot in users:
                self._unbind(slot)

    def map_table(self, table: str, first: int, count: int, guest: int, prot: str) -> None:
        model = self.tables.get(table)
        pages = range(first, first + count)
        clash = model is not None and any(page in model.pages for page in pages)
        with self.expect((model is None, "no-such-pgtable"), (clash, "overlap")) as done:
            size, gpa = count * self.page, self.iova(guest)
            self.iommu.pgtable_map(table, iova=self.iova(first), size=size, gpa=gpa, prot=prot)
        if done and model:
            model.pages |= {page: (guest + index, prot) for index, page in enumerate(pages)}

    def unmap_table(self, table: str, first: int, count: int) -> None:
        """As a correct caller does: with an invalidation when the table is bound somewhere."""
        model = self.tables.get(table)
        gone = [page for page in range(first, first + count) if model and page in model.pages]
        with self.expect((model is None, "no-such-pgtable"), (not gone, "partial-unmap")) as done:
            self.iommu.pgtable_unmap(table, iova=self.iova(first), size=count * self.page)
        if done and model:
            for page in gone:
                del model.pages[page]
            if any(held.table == table for held in self.slots.values()):
                self.iommu.invalidate(model.parent, iova=self.iova(first), size=count * self.page)

    # Requests

    def request(self, slot: Place, page: int, *, write: bool = False) -> None:
        """A device asks. On a simulator the request goes through what the caches hold by now."""
        target = self._target(slot, page, "w" if write else "r")
        wanted = None if target is None else self._ram + target * self.page + 8
        assert self._lands(slot, self.iova(page) + 8, write=write) == wanted, slot

    @contextlib.contextmanager
    def watch(
        self, *, domain: str | None = None, table: str | None = None, slot: Place | None = None, pages: range = ALL
    ) -> Iterator[None]:
        """Have the caches filled with what the operation of the block is about, and look again after it.

        Slots that hold this domain or table, or this slot; pages of the table, or else those of the domain.
        """
        concerned = [
            (place, page)
            for place, held in self.slots.items()
            if slot in (None, place) and domain in (None, held.domain) and table in (None, held.table)
            for page in ALL
            if self._target(place, page, "r") is not None
            and (self.tables[held.table].pages[page][0] if held.table and not table else page) in pages
        ][: self._probes]
        for place, page in concerned:
            self.request(place, page)
        yield
        for place, page in concerned:
            self.request(place, page)

    def _lands(self, slot: Place, iova: int, *, write: bool) -> int | None:
        rid, pasid = slot
        if not self.simulates:
            return self.iommu.translate(rid, iova, pasid=pasid, access="w" if write else "r").pa
        size, data = (None, b"\xa5") if write else (1, None)
        # The unit translates, and then the device does; where few are asked, now one and then the other.
        kinds = (False, True) if self._probes > SEVERAL else (self.requests % 2 == 1,)
        ends = []
        for translated in kinds if self.ats else (False,):
            done = self.iommu.dma(rid, iova, size=size, data=data, pasid=pasid, translated=translated)
            assert not done.stale, (done.changed, done.missing)
            self.requests += 1
            ends.append(done.pieces[0].pa if done.pieces else None)
        assert len(set(ends)) == 1, ends
        return ends[0]

    def _target(self, slot: Place, page: int, access: str) -> int | None:
        held = self.slots.get(slot)
        if held is None:
            return None
        if held.table is not None:
            page, prot = self.tables[held.table].pages.get(page, (-1, ""))
            if access not in prot:
                return None
        offset, prot = self.domains[held.domain].pages.get(page, (-1, ""))
        return offset if access in prot else None

    def compare(self) -> None:
        """The rows say the same as the model."""
        rows: dict[Place, Any] = {
            (str(row.slot.rid), row.slot.pasid): Held(
                row.domain.name, getattr(row, "pgtable", None), getattr(row, "implicit", False)
            )
            for row in self.iommu.slots()
        }
        assert rows == self.slots
        assert {domain.name for domain in self.iommu.domains()} == set(self.domains)
        assert {table.name: table.parent.name for table in self.iommu.pgtables()} == {
            name: model.parent for name, model in self.tables.items()
        }

    def iova(self, page: int) -> int:
        return IOVA + page * self.page

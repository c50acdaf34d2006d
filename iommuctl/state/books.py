# SPDX-License-Identifier: Apache-2.0
"""The core's rows as values of the model: who is attached to what.

The kernel has no call that lists this, so these rows are the truth about it. A selector is a name or `id:N`.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from iommuctl.errors import IommuError, NameTaken, NoSuchDomain, NoSuchMemory, NoSuchPgtable
from iommuctl.model import Attachment, Binding, Domain, Mapping, Memory, Occupant, PageTable, Rid, Slot

_SLOT = """
    SELECT s.rid, s.pasid, s.label, s.root, s.format, p.name, s.implicit, s.attachment_label,
           iif(c.pgtable = s.pgtable, NULL, c.start), c.size,
           d.id, d.name, d.label, d.nest_parent, d.width, d.page_sizes
    FROM slot s JOIN domain d ON d.id = s.domain LEFT JOIN pgtable p ON p.id = s.pgtable
    LEFT JOIN cd_pool c ON c.rid = s.rid"""
_PGTABLE = """
    SELECT p.id, p.name, p.label, p.format, p.pool, p.pool_size, p.root,
           d.id, d.name, d.label, d.nest_parent, d.width, d.page_sizes
    FROM pgtable p JOIN domain d ON d.id = p.parent"""
_CD_POOL = """
    SELECT c.rid, c.pgtable, c.start, c.size, d.id, d.name, d.label, d.nest_parent, d.width, d.page_sizes
    FROM cd_pool c JOIN domain d ON d.id = c.domain"""
_MAPPING = """
    SELECT m.iova, m.size, m.pa, n.name, m.offset, m.prot
    FROM mapping m LEFT JOIN memory n ON n.id = m.memory WHERE m.domain = ?"""


class CdPool(NamedTuple):
    """The guest memory that a RID's CD table lies in; `start` is a GPA of `domain`, its parent.

    `pgtable` is the id of the page table whose pool it is; None for one that is for the CD table alone.
    """

    rid: Rid
    domain: Domain
    pgtable: int | None
    start: int
    size: int

    @property
    def name(self) -> str:
        """What the pool is called among all pools."""
        return f"cd-{self.rid}" if self.pgtable is None else f"pgtable-{self.pgtable}"


class Books:
    """Typed access to the rows of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    # Domains

    def domains(self) -> list[Domain]:
        return [_domain(row) for row in self._execute("SELECT * FROM domain ORDER BY id")]

    def domain(self, selector: str) -> Domain:
        """Raises NoSuchDomain."""
        return _domain(self._select("domain", selector, NoSuchDomain))

    def add_domain(
        self, name: str, label: str | None, *, nest_parent: bool, width: int, page_sizes: Sequence[int]
    ) -> Domain:
        """Raises NameTaken."""
        self._claim("domain", name)
        sizes = json.dumps(page_sizes)
        cursor = self._execute(
            "INSERT INTO domain (name, label, nest_parent, width, page_sizes) VALUES (?, ?, ?, ?, ?)",
            (name, label, nest_parent, width, sizes),
        )
        return Domain(_id(cursor), name, label, nest_parent, width, tuple(page_sizes))

    def relabel_domain(self, domain: Domain, label: str | None) -> None:
        self._execute("UPDATE domain SET label = ? WHERE id = ?", (label, domain.id))

    def remove_domain(self, domain: Domain) -> None:
        for table in ("mapping", "fault_handler"):
            self._execute(f"DELETE FROM {table} WHERE domain = ?", (domain.id,))
        self._execute("DELETE FROM domain WHERE id = ?", (domain.id,))

    # Mappings

    def mappings(self, domain: Domain) -> list[Mapping]:
        return [Mapping(*row) for row in self._execute(_MAPPING + " ORDER BY m.iova", (domain.id,))]

    def mappings_in(self, domain: Domain, first: int, last: int) -> list[Mapping]:
        """The mappings that hold any address of first..last."""
        before = self._execute(_MAPPING + " AND m.iova < ? ORDER BY m.iova DESC LIMIT 1", (domain.id, first))
        inside = self._execute(
            _MAPPING + " AND m.iova BETWEEN ? AND ? ORDER BY m.iova", (domain.id, first, last)
        ).fetchall()
        reaching = [row for row in before if row[0] + row[1] > first]
        return [Mapping(*row) for row in (*reaching, *inside)]

    def maps_writable(self, domain: Domain, start: int, size: int) -> bool:
        """Whether the domain maps all of a range read-write."""
        end = start + size
        for mapping in self.mappings_in(domain, start, end - 1):
            if mapping.iova > start or not {"r", "w"} <= set(mapping.prot):
                return False
            start = mapping.iova + mapping.size
        return start >= end

    def add_mapping(self, domain: Domain, mapping: Mapping, memory: Memory | None) -> None:
        self._execute(
            "INSERT INTO mapping VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                domain.id,
                mapping.iova,
                mapping.size,
                mapping.pa,
                memory.id if memory else None,
                mapping.offset,
                mapping.prot,
            ),
        )

    def remove_mappings(self, domain: Domain, first: int, last: int) -> None:
        """Remove the mappings that begin in first..last."""
        self._execute("DELETE FROM mapping WHERE domain = ? AND iova BETWEEN ? AND ?", (domain.id, first, last))

    # Named memory

    def memories(self) -> list[Memory]:
        return [Memory(*row) for row in self._execute("SELECT * FROM memory ORDER BY id")]

    def memory(self, selector: str) -> Memory:
        """Raises NoSuchMemory."""
        return Memory(*self._select("memory", selector, NoSuchMemory))

    def add_memory(self, name: str, pa: int, size: int) -> Memory:
        """Raises NameTaken."""
        self._claim("memory", name)
        cursor = self._execute("INSERT INTO memory (name, pa, size) VALUES (?, ?, ?)", (name, pa, size))
        return Memory(_id(cursor), name, pa, size)

    def remove_memory(self, memory: Memory) -> None:
        self._execute("DELETE FROM memory WHERE id = ?", (memory.id,))

    def memory_users(self, memory: Memory) -> list[tuple[Domain, Mapping]]:
        """The mappings that show the memory."""
        rows = self._execute(
            "SELECT d.*, m.iova FROM mapping m JOIN domain d ON d.id = m.domain WHERE m.memory = ?", (memory.id,)
        ).fetchall()
        return [(_domain(row[:6]), self.mappings_in(_domain(row[:6]), row[6], row[6])[0]) for row in rows]

    # Page tables

    def pgtables(self, parent: Domain | None = None) -> list[PageTable]:
        if parent is None:
            return [_pgtable(row) for row in self._execute(_PGTABLE + " ORDER BY p.id")]
        return [_pgtable(row) for row in self._execute(_PGTABLE + " WHERE p.parent = ? ORDER BY p.id", (parent.id,))]

    def pgtable(self, selector: str) -> PageTable:
        """Raises NoSuchPgtable."""
        key = self._select("pgtable", selector, NoSuchPgtable)[0]
        return _pgtable(self._execute(_PGTABLE + " WHERE p.id = ?", (key,)).fetchone())

    def add_pgtable(
        self, name: str, label: str | None, *, parent: Domain, format_name: str, pool: int, pool_size: int
    ) -> PageTable:
        """Raises NameTaken. The root is not known yet: see `set_root`."""
        self._claim("pgtable", name)
        cursor = self._execute(
            "INSERT INTO pgtable (name, label, parent, format, pool, pool_size, root) VALUES (?, ?, ?, ?, ?, ?, 0)",
            (name, label, parent.id, format_name, pool, pool_size),
        )
        return PageTable(_id(cursor), name, label, parent, format_name, pool, pool_size, 0)

    def set_root(self, pgtable: PageTable, root: int) -> PageTable:
        self._execute("UPDATE pgtable SET root = ? WHERE id = ?", (root, pgtable.id))
        return pgtable._replace(root=root)

    def relabel_pgtable(self, pgtable: PageTable, label: str | None) -> None:
        self._execute("UPDATE pgtable SET label = ? WHERE id = ?", (label, pgtable.id))

    def remove_pgtable(self, pgtable: PageTable) -> None:
        self._execute("DELETE FROM pgtable WHERE id = ?", (pgtable.id,))

    # Slots

    def slots(
        self, *, domain: Domain | None = None, rid: Rid | None = None, pgtable: PageTable | None = None
    ) -> list[Occupant]:
        """What slots hold, ordered by RID, the slot of the RID itself before those of its PASIDs."""
        conditions, values = ["1"], []
        for column, value in (
            ("domain", domain and domain.id),
            ("rid", None if rid is None else _rid_key(rid)),
            ("pgtable", pgtable and pgtable.id),
        ):
            if value is not None:
                conditions.append(f"s.{column} = ?")
                values.append(value)
        query = f"{_SLOT} WHERE {' AND '.join(conditions)} ORDER BY s.rid, s.pasid"
        return [_occupant(row) for row in self._execute(query, values)]

    def slot(self, slot: Slot) -> Occupant | None:
        """What one slot holds."""
        row = self._execute(_SLOT + " WHERE s.rid = ? AND s.pasid = ?", _slot_key(slot)).fetchone()
        return _occupant(row) if row else None

    def pasids(self, rid: Rid) -> Iterator[int]:
        """The PASIDs of a device that hold something, ascending."""
        query = "SELECT pasid FROM slot WHERE rid = ? AND pasid > 0 ORDER BY pasid"
        return (row[0] for row in self._execute(query, (_rid_key(rid),)))

    def highest_pasid(self, rid: Rid) -> int:
        """The highest PASID that holds something, or 0."""
        query = "SELECT pasid FROM slot WHERE rid = ? ORDER BY pasid DESC LIMIT 1"
        row = self._execute(query, (_rid_key(rid),)).fetchone()
        return max(row[0], 0) if row else 0

    def put_slot(self, slot: Slot, occupant: Occupant | None) -> None:
        """Make the row say what the slot holds now."""
        key = _slot_key(slot)
        if occupant is None:
            self._execute("DELETE FROM slot WHERE rid = ? AND pasid = ?", key)
            return
        values: tuple[Any, ...] = (occupant.domain.id, occupant.label)
        if isinstance(occupant, Binding):
            pgtable = None if occupant.pgtable is None else self.pgtable(occupant.pgtable).id
            values += (f"{occupant.root:x}", occupant.format, pgtable, occupant.implicit, occupant.attachment_label)
        else:
            values += (None, None, None, False, None)
        self._execute("INSERT OR REPLACE INTO slot VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", key + values)

    def bindings(self, rid: Rid) -> list[Binding]:
        """The page tables of a device, its own before those of its PASIDs."""
        query = f"{_SLOT} WHERE s.rid = ? AND s.root IS NOT NULL ORDER BY s.pasid"
        found = (_occupant(row) for row in self._execute(query, (_rid_key(rid),)))
        return [held for held in found if isinstance(held, Binding)]

    # Guest memory for CD tables

    def cd_pool(self, rid: Rid) -> CdPool | None:
        """The pool of a device that has one."""
        row = self._execute(f"{_CD_POOL} WHERE c.rid = ?", (_rid_key(rid),)).fetchone()
        return _cd_pool(row) if row else None

    def cd_pools(self, parent: Domain) -> list[CdPool]:
        """The pools in the memory of a parent, ordered by RID."""
        rows = self._execute(f"{_CD_POOL} WHERE c.domain = ? ORDER BY c.rid", (parent.id,))
        return [_cd_pool(row) for row in rows]

    def add_cd_pool(self, rid: Rid, parent: Domain, pgtable: int | None, start: int, size: int) -> CdPool:
        key = _rid_key(rid)
        self._execute("INSERT INTO cd_pool VALUES (?, ?, ?, ?, ?)", (key, parent.id, pgtable, start, size))
        return CdPool(rid, parent, pgtable, start, size)

    def remove_cd_pool(self, pool: CdPool) -> None:
        self._execute("DELETE FROM cd_pool WHERE rid = ?", (_rid_key(pool.rid),))

    # Names

    def _select(self, table: str, selector: str, missing: type[IommuError]) -> tuple[Any, ...]:
        kind = {"pgtable": "page table"}.get(table, table)
        by_id = selector.startswith("id:") and selector[3:].isdecimal() and len(selector) < 20
        column, value = ("id", int(selector[3:])) if by_id else ("name", selector)
        # Names are ASCII, and SQLite takes no text that is not Unicode, as an argument of a command may be.
        query = f"SELECT * FROM {table} WHERE {column} = ?"
        found = self._execute(query, (value,)).fetchone() if selector.isascii() else None
        if found is None:
            is_rid = ":" in selector and not selector.startswith("id:")
            hint = f"a RID stands where the {kind} should: see --help" if is_rid else ""
            raise missing(f"no {kind} {selector!r}", hint=hint or f"`iommuctl {table} list` names them all")
        row: tuple[Any, ...] = found
        return row

    def _claim(self, table: str, name: str) -> None:
        if self._execute(f"SELECT 1 FROM {table} WHERE name = ?", (name,)).fetchone():
            kind = {"pgtable": "page table"}.get(table, table)
            raise NameTaken(f"there is a {kind} {name!r} already", hint="choose another name, or destroy that one")


def _id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _rid_key(rid: Rid) -> int:
    return rid.segment << 16 | rid.source_id


def _slot_key(slot: Slot) -> tuple[int, int]:
    return _rid_key(slot.rid), -1 if slot.pasid is None else slot.pasid


def _domain(row: Sequence[Any]) -> Domain:
    key, name, label, nest_parent, width, page_sizes = row
    return Domain(key, name, label, bool(nest_parent), width, tuple(json.loads(page_sizes)))


def _pgtable(row: Sequence[Any]) -> PageTable:
    key, name, label, format_name, pool, pool_size, root = row[:7]
    return PageTable(key, name, label, _domain(row[7:]), format_name, pool, pool_size, root)


def _cd_pool(row: Sequence[Any]) -> CdPool:
    rid, pgtable, start, size = row[:4]
    return CdPool(Rid.of(rid), _domain(row[4:]), pgtable, start, size)


def _occupant(row: Sequence[Any]) -> Occupant:
    rid, pasid, label, root, format_name, pgtable, implicit, attachment_label, start, size = row[:10]
    slot, domain = Slot(Rid.of(rid), None if pasid < 0 else pasid), _domain(row[10:])
    if root is None:
        return Attachment(slot, domain, label)
    pool = None if start is None else (start, size)
    return Binding(slot, domain, int(root, 16), format_name, pgtable, label, bool(implicit), attachment_label, pool)

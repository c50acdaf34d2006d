# SPDX-License-Identifier: Apache-2.0
"""Guest memory for CD tables: where the table that leads from a RID's PASIDs to page tables lies in guest memory.

A backend declares that (`context_tables_in_guest`), and then writes the table through SlotChange.guest. Its pages come
from one pool for each RID: the one that was named with the RID's first binding, or else that of the page table which
was bound first. It is the RID's until the last of its bindings goes.
"""

from typing import TYPE_CHECKING

from iommuctl.errors import InUse, Overlap, Usage
from iommuctl.guest import GuestMemory
from iommuctl.model import Binding, Rid
from iommuctl.pools import check_pool
from iommuctl.requests import SlotChange
from iommuctl.session import Operation
from iommuctl.state.books import CdPool

if TYPE_CHECKING:
    from iommuctl.formats.memory import TableMemory


def with_guest(operation: Operation, change: SlotChange) -> SlotChange:
    """The change with the guest memory that it needs. The first binding of a RID chooses the pool.

    Raises Usage where nothing says which pool; InUse for another one than the RID has; what check_pool raises.
    """
    rid, new = change.slot.rid, change.new
    if isinstance(new, Binding) and new.format in operation.capabilities.context_formats:
        if new.cd_pool:
            raise Usage(
                f"the CD table of {rid} needs no pool",
                because="it is the guest's own, and lies where --addr says",
                hint="leave --cd-pool away",
            )
        return change
    if isinstance(new, Binding):
        pool = operation.books.cd_pool(rid) or _choose(operation, new)
        given = new.cd_pool
        if given and given != (pool.start, pool.size):
            raise InUse(
                f"the CD table of {rid} cannot lie in {_words(*given)}",
                because=f"it is in {_words(pool.start, pool.size)}, until the last page table of {rid} is unbound",
                hint="leave --cd-pool away",
            )
        _check_root(operation, new)
        own = new.pgtable is not None and operation.books.pgtable(new.pgtable).id == pool.pgtable
        return change._replace(
            new=new._replace(cd_pool=None if own else (pool.start, pool.size)), guest=guest_memory(operation, pool)
        )
    held = operation.books.cd_pool(rid) if isinstance(change.old, Binding) else None
    return change._replace(guest=guest_memory(operation, held)) if held else change


def release_unused(operation: Operation, rid: Rid) -> None:
    """Forget the pool of a RID without bindings: the memory belongs to the guest again."""
    pool = operation.books.cd_pool(rid)
    if pool and not operation.books.bindings(rid):
        operation.books.remove_cd_pool(pool)
        if pool.pgtable is None:
            operation.transaction.drop_pool(pool.name)


def guests(operation: Operation) -> "dict[Rid, TableMemory]":
    """That memory of each device which has bindings."""
    books = operation.books
    pools = [pool for domain in books.domains() for pool in books.cd_pools(domain)]
    return {pool.rid: guest_memory(operation, pool) for pool in pools}


def guest_memory(operation: Operation, pool: CdPool) -> "TableMemory":
    """The memory of the parent, by GPA, with pages from the pool."""
    transaction = operation.transaction
    return GuestMemory(
        operation.books,
        transaction.overlay,
        pool.domain,
        (pool.start, pool.size),
        transaction.pool(pool.name),
        holder=f"the CD table of {pool.rid}",
        new_pool=transaction.keeps_until_commit(pool.name),
    )


def _choose(operation: Operation, new: Binding) -> CdPool:
    """The pool of a RID that has none: the named one, or that of the page table."""
    books, rid, parent = operation.books, new.slot.rid, new.domain
    if new.cd_pool is None and new.pgtable is None:
        raise Usage(
            f"the page table at {new.root:#x} needs guest memory for a CD table",
            because=f"the table that leads from {rid} and its PASIDs to page tables lies in guest memory, in pages that"
            " nothing else uses",
            hint=f"add --cd-pool A+S, with GPAs that {parent.name} maps read-write",
        )
    if new.cd_pool is None:
        assert new.pgtable is not None
        table = books.pgtable(new.pgtable)
        return books.add_cd_pool(rid, parent, table.id, table.pool, table.pool_size)
    start, size = new.cd_pool
    for table in books.pgtables(parent):
        if (table.pool, table.pool_size) == new.cd_pool:
            return books.add_cd_pool(rid, parent, table.id, start, size)
    check_pool(operation, parent, start, size)
    pool = books.add_cd_pool(rid, parent, None, start, size)
    operation.transaction.create_pool(pool.name, start, size)
    for held in books.slots(domain=parent):
        if isinstance(held, Binding):
            _check_root(operation, held)
    return pool


def _check_root(operation: Operation, new: Binding) -> None:
    """A page table that its owner builds is not where CD tables are."""
    for pool in operation.books.cd_pools(new.domain) if new.pgtable is None else ():
        if pool.pgtable is None and pool.start <= new.root < pool.start + pool.size:
            raise Overlap(
                f"the CD table of {pool.rid} and the page table at {new.root:#x} overlap",
                because=f"{_words(pool.start, pool.size)} is for the CD table alone",
            )


def _words(start: int, size: int) -> str:
    return f"GPA {start:#x}+{size:#x}"

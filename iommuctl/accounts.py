# SPDX-License-Identifier: Apache-2.0
"""Checks across all tables: that every page that tables can be in is used once or free, and guest tables are sound."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from iommuctl.cd_pools import guest_memory
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run
from iommuctl.guest import GuestTable
from iommuctl.session import Operation

if TYPE_CHECKING:
    from iommuctl.architecture import GuestTables


def check_pages(operation: Operation) -> Iterator[str]:
    """Sentences about pages of table memory that are lost, or held twice."""
    transaction = operation.transaction
    plan = transaction.memory_plan()
    if plan is None:
        return
    memory, driver = transaction.memory, operation.driver
    holders = [(run, "the unit's structures") for run in driver.used()]
    for domain in operation.books.domains():
        runs = radix.table_runs(driver.domain_format(domain), memory, driver.domain_root(domain))
        holders += [(run, f"the tables of {domain.name}") for run in runs]
    holders += [(run, "the allocator, as free") for run in transaction.pool("tables").free_runs()]
    yield from _account("table memory", plan.tables, holders)


def check_guest_tables(operation: Operation) -> Iterator[str]:
    """Sentences about what is wrong with the page tables that we built in guest memory."""
    for table in operation.books.pgtables():
        for finding in GuestTable(operation, table).check():
            yield f"page table {table.name}: {finding}"


def check_guest_pools(operation: Operation) -> Iterator[str]:
    """Sentences about pages of the pools in guest memory that are lost, or held twice."""
    books, transaction = operation.books, operation.transaction
    for domain in books.domains():
        holders: dict[str, list[tuple[Run, str]]] = {}
        spans: dict[str, tuple[str, tuple[int, int]]] = {}
        for table in books.pgtables(domain):
            name, words = f"pgtable-{table.id}", f"page table {table.name}"
            spans[name] = f"the pool of {words}", (table.pool, table.pool_size)
            holders[name] = [(run, words) for run in GuestTable(operation, table).runs()]
        for pool in books.cd_pools(domain):
            words = f"the CD table of {pool.rid}"
            spans.setdefault(pool.name, (f"the pool of {words}", (pool.start, pool.size)))
            formats = cast("GuestTables", operation.formats)
            runs = formats.used_in_guest(pool.rid, guest_memory(operation, pool))
            holders.setdefault(pool.name, []).extend((run, words) for run in runs)
        for name, (words, span) in spans.items():
            free = [(run, "the allocator, as free") for run in transaction.pool(name).free_runs()]
            yield from _account(words, span, [*holders[name], *free])


def _account(what: str, span: tuple[int, int], holders: list[tuple[Run, str]]) -> Iterator[str]:
    """Sentences about the pages of a span, (address, size), that nothing holds, or more than one."""
    at, end, before = span[0], sum(span), "the start"
    for run, holder in sorted(holders):
        if not span[0] <= run.address < end:
            yield f"the page at {run.address:#x}, which is not in {what}, is held by {holder}"
            continue
        if run.address > at:
            yield f"{(run.address - at) // PAGE} pages of {what} at {at:#x} are lost: nothing holds them"
        elif run.address < at:
            yield f"the page at {run.address:#x} is held by {before} and by {holder}"
        at, before = max(at, run.address + run.pages * PAGE), holder
    if at < end:
        yield f"{(end - at) // PAGE} pages of {what} at {at:#x} are lost: nothing holds them"

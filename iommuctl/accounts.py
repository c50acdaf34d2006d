# SPDX-License-Identifier: Apache-2.0
"""Checks across all tables: that every page of table memory is used once or free, and that guest tables are sound."""

from collections.abc import Iterator

from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE
from iommuctl.guest import GuestTable
from iommuctl.session import Operation


def check_pages(operation: Operation) -> Iterator[str]:
    """Sentences about pages of table memory that are lost, or held twice."""
    transaction, driver = operation.transaction, operation.driver
    plan = transaction.memory_plan()
    if plan is None:
        return
    memory = transaction.memory
    holders = [(run, "the unit's structures") for run in driver.used()]
    for domain in operation.books.domains():
        runs = radix.table_runs(driver.domain_format(domain), memory, driver.domain_root(domain))
        holders += [(run, f"the tables of {domain.name}") for run in runs]
    holders += [(run, "the allocator, as free") for run in transaction.pool("tables").free_runs()]
    low, end = plan.tables[0], sum(plan.tables)
    at, before = low, "the start"
    for run, holder in sorted(holders):
        if not low <= run.address < end:
            yield f"the page at {run.address:#x}, which is not in table memory, is held by {holder}"
            continue
        if run.address > at:
            yield f"{(run.address - at) // PAGE} pages of table memory at {at:#x} are lost: nothing holds them"
        elif run.address < at:
            yield f"the page at {run.address:#x} is held by {before} and by {holder}"
        at, before = max(at, run.address + run.pages * PAGE), holder
    if at < sum(plan.tables):
        yield f"{(sum(plan.tables) - at) // PAGE} pages of table memory at {at:#x} are lost: nothing holds them"


def check_guest_tables(operation: Operation) -> Iterator[str]:
    """Sentences about what is wrong with the page tables that we built in guest memory."""
    for table in operation.books.pgtables():
        for finding in GuestTable(operation, table).check():
            yield f"page table {table.name}: {finding}"

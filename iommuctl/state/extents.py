# SPDX-License-Identifier: Apache-2.0
"""The page allocator: free extents as rows, so that an allocation is undone with the transaction that made it."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from iommuctl.errors import DamagedTable, NoRoom
from iommuctl.formats.memory import PAGE, Run


class Freed(NamedTuple):
    """Pages that were given back to a pool; None says that the pool is gone, with all that was given back before."""

    pool: str
    run: Run | None


class Extents:
    """The free pages of one pool ("tables", "ram", "pgtable-3").

    Pages that are freed are only noted in `freed`, so that this transaction cannot hand them out again: until it has
    committed, memory still holds what reaches them. `settle` makes them available.
    """

    def __init__(self, connection: sqlite3.Connection, pool: str, freed: "list[Freed]") -> None:
        self._execute = connection.execute
        self._pool = pool
        self.freed = freed

    def allocate(self, pages: int) -> list[Run]:
        """The smallest extent that is large enough, or several, the largest first. Raises NoRoom."""
        runs: list[Run] = []
        missing = pages
        while missing:
            extent = self._best_fit(missing) or self._largest()
            if extent is None:
                raise self._no_room(pages)
            take = min(missing, extent.pages)
            self._shrink(extent, Run(extent.address, take))
            runs.append(Run(extent.address, take))
            missing -= take
        return runs

    def allocate_run(self, pages: int) -> int:
        """The address of contiguous pages. Raises NoRoom."""
        extent = self._best_fit(pages)
        if extent is None:
            raise self._no_room(pages)
        self._shrink(extent, Run(extent.address, pages))
        return extent.address

    def allocate_top(self, pages: int, alignment: int) -> int:
        """The address of contiguous pages as high in their extent as `alignment` lets them be. Raises NoRoom.

        Where no extent has room for that, they are aligned to a page.
        """
        slack = alignment // PAGE - 1
        extent = self._best_fit(pages + slack)
        if extent is None:
            extent, alignment = self._best_fit(pages), PAGE
        if extent is None:
            raise self._no_room(pages)
        address = extent.address + (extent.pages - pages) * PAGE & -alignment
        self._shrink(extent, Run(address, pages))
        return address

    def free(self, run: Run) -> None:
        """Give pages back."""
        self.freed.append(Freed(self._pool, run))

    def drop(self) -> None:
        """Forget the pool."""
        self._execute("DELETE FROM extent WHERE pool = ?", (self._pool,))
        self.freed.append(Freed(self._pool, None))

    def free_runs(self) -> list[Run]:
        """All free extents, ascending; what was freed since stands beside them."""
        query = "SELECT address, pages FROM extent WHERE pool = ?"
        rows = [Run(*row) for row in self._execute(query, (self._pool,))]
        return sorted([*rows, *(run for pool, run in self.freed if pool == self._pool and run)])

    def give_back(self, run: Run) -> None:
        """Make pages available. Raises DamagedTable for pages that are free."""
        start, pages = run
        end = start + pages * PAGE
        before = self._fetch("address <= ? ORDER BY address DESC", start)
        after = self._fetch("address > ? ORDER BY address", start)
        if (before and before.address + before.pages * PAGE > start) or (after and after.address < end):
            raise DamagedTable(
                f"the page at {start:#x} is free already",
                because="a table that was written by somebody else points to it",
                hint="`iommuctl check` looks for more; `sim reset` begins anew",
            )
        if before and before.address + before.pages * PAGE == start:
            self._remove(before)
            start, pages = before.address, pages + before.pages
        if after and after.address == end:
            self._remove(after)
            pages += after.pages
        self._insert(Run(start, pages))

    def _best_fit(self, pages: int) -> Run | None:
        return self._fetch("pages >= ? ORDER BY pages, address", pages)

    def _largest(self) -> Run | None:
        return self._fetch("pages >= ? ORDER BY pages DESC", 1)

    def _fetch(self, condition: str, value: int) -> Run | None:
        query = f"SELECT address, pages FROM extent WHERE pool = ? AND {condition} LIMIT 1"
        row = self._execute(query, (self._pool, value)).fetchone()
        return Run(*row) if row else None

    def _shrink(self, extent: Run, taken: Run) -> None:
        self._remove(extent)
        below = (taken.address - extent.address) // PAGE
        above = extent.pages - below - taken.pages
        if below:
            self._insert(Run(extent.address, below))
        if above:
            self._insert(Run(taken.address + taken.pages * PAGE, above))

    def _insert(self, run: Run) -> None:
        self._execute("INSERT INTO extent VALUES (?, ?, ?)", (self._pool, run.address, run.pages))

    def _remove(self, run: Run) -> None:
        self._execute("DELETE FROM extent WHERE pool = ? AND address = ?", (self._pool, run.address))

    def _no_room(self, pages: int) -> NoRoom:
        purpose, hint = {
            "tables": ("tables", "destroy what is not needed; `sim init --tables` makes more room"),
            "ram": ("named memory", "destroy what is not needed; `sim init --ram` makes a larger machine"),
            "cd": ("the CD table, in its pool", "unbind what is not needed, or all, and name a larger --cd-pool"),
        }.get(
            self._pool.split("-")[0],
            ("tables, in the page table's pool", "unmap what is not needed, or make a table with a larger pool"),
        )
        return NoRoom(
            f"no room for {pages * PAGE:#x} bytes of {purpose}",
            because="so much is not free" + (", or not in one piece" if pages > 1 else ""),
            hint=hint,
        )


def settle(connection: sqlite3.Connection, freed: Sequence[Freed]) -> None:
    """Make what was freed available to later transactions. Raises DamagedTable for pages that are free."""
    gone = {pool: index for index, (pool, run) in enumerate(freed) if run is None}
    for index, (pool, run) in enumerate(freed):
        if run and index > gone.get(pool, -1):
            Extents(connection, pool, []).give_back(run)


def create_pool(connection: sqlite3.Connection, pool: str, address: int, size: int) -> None:
    """Make a pool of the whole pages in `size` bytes at `address`."""
    connection.execute("INSERT INTO extent VALUES (?, ?, ?)", (pool, address, size // PAGE))

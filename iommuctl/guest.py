# SPDX-License-Identifier: Apache-2.0
"""Guest memory: what lies behind the GPAs of a domain, and the stage-1 tables that are built in pools of it."""

from collections.abc import Iterator

from iommuctl.errors import DamagedTable, OutsideMemory
from iommuctl.formats import radix
from iommuctl.formats.format import WORD
from iommuctl.formats.memory import PAGE, Run
from iommuctl.formats.radix import Format
from iommuctl.model import Domain, Mapping, PageTable
from iommuctl.session import Operation
from iommuctl.state.books import Books
from iommuctl.state.extents import Extents
from iommuctl.state.overlay import Overlay


class GuestReader:
    """The memory behind the GPAs of a domain, by the domain's rows, to be read."""

    def __init__(self, books: Books, overlay: Overlay, domain: Domain) -> None:
        self._books = books
        self._overlay = overlay
        self._domain = domain
        self._last: Mapping | None = None

    def read(self, address: int, size: int) -> bytes:
        return b"".join(self._overlay.read(pa, length) for pa, length, _ in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        pieces = list(self._pieces(address, len(data)))
        for pa, length, offset in pieces:
            self._overlay.write(pa, data[offset : offset + length])

    def _pieces(self, address: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Where a range lies: (physical address, length, offset in the range)."""
        offset = 0
        while offset < size:
            mapping = self._mapping(address + offset)
            inside = address + offset - mapping.iova
            length = min(mapping.size - inside, size - offset)
            yield mapping.pa + inside, length, offset
            offset += length

    def _mapping(self, address: int) -> Mapping:
        last = self._last
        if last and last.iova <= address < last.iova + last.size:
            return last
        found = self._books.mappings_in(self._domain, address, address) if address < 1 << 63 else []
        if not found:
            raise OutsideMemory(
                f"GPA {address:#x} is not in the memory of {self._domain.name}",
                because="the domain maps nothing there",
                hint=f"`iommuctl domain show {self._domain.name}` lists its mappings",
            )
        self._last = found[0]
        return found[0]


class GuestMemory(GuestReader):
    """A TableMemory over the GPAs of a domain; pages come from one pool, (GPA, size).

    `holder` is whose tables they are for. The pages of a `new_pool` are the guest's until the commit.
    """

    def __init__(
        self,
        books: Books,
        overlay: Overlay,
        domain: Domain,
        span: tuple[int, int],
        pool: Extents,
        *,
        holder: str,
        new_pool: bool = False,
    ) -> None:
        super().__init__(books, overlay, domain)
        self._first, self._size = span
        self._pool = pool
        self._holder = holder
        self._new_pool = new_pool

    def allocate(self, pages: int) -> list[Run]:
        return [self._fresh(run) for run in self._pool.allocate(pages)]

    def allocate_run(self, pages: int) -> int:
        return self._fresh(Run(self._pool.allocate_run(pages), pages)).address

    def free(self, run: Run) -> None:
        """Give pages back. The guest can write its tables: only pages of the pool are taken. Raises DamagedTable."""
        if not self.owns(run):
            raise DamagedTable(
                f"{self._holder} has a table at GPA {run.address:#x}",
                because="that is outside its pool: the entry that points to it was not written by iommuctl",
            )
        self._pool.free(run)

    def owns(self, run: Run) -> bool:
        """Whether pages lie in the pool."""
        return self._first <= run.address and run.address + run.pages * PAGE <= self._first + self._size

    def _fresh(self, run: Run) -> Run:
        for pa, length, _ in () if self._new_pool else self._pieces(run.address, run.pages * PAGE):
            self._overlay.mark_fresh(Run(pa, length // PAGE))
        return run


class GuestTable:
    """One of our stage-1 tables, with its format and the guest memory that it lies in."""

    def __init__(self, operation: Operation, table: PageTable) -> None:
        transaction = operation.transaction
        self.format: Format = operation.formats.stage1_format(table.format)
        name = f"pgtable-{table.id}"
        pool, new = transaction.pool(name), transaction.keeps_until_commit(name)
        self._span = (table.pool, table.pool_size)
        self._pool = pool
        self._memory = GuestMemory(
            operation.books,
            transaction.overlay,
            table.parent,
            self._span,
            pool,
            holder=f"page table {table.name}",
            new_pool=new,
        )
        self._root = table.root

    def new_root(self) -> int:
        """GPA of a new empty root table. Raises NoRoom."""
        return radix.new_root(self.format, self._memory)

    def give_back_if_empty(self) -> bool:
        """Where the root table has no entry, all other tables go back to the pool. Returns whether there were some."""
        size = WORD * self.format.entries(self.format.levels)
        if any(self._memory.read(self._root, size)):
            return False
        at, lost = self._span[0], False
        root = Run(self._root, -(-size // PAGE))
        for run in sorted([*self._pool.free_runs(), root, Run(sum(self._span), 0)]):
            if run.address > at:
                self._pool.free(Run(at, (run.address - at) // PAGE))
                lost = True
            at = run.address + run.pages * PAGE
        return lost

    def map(self, iova: int, size: int, gpa: int, prot: str) -> None:
        """As radix.map_range, with all page sizes of the format but contiguous runs: parts of these cannot go alone."""
        fmt = self.format
        sizes = {1 << fmt.shift(level) for level in range(1, fmt.levels + 1)} & set(fmt.page_sizes)
        radix.map_range(fmt, self._memory, self._root, iova, size, gpa, prot, sizes)

    def unmap(self, iova: int, size: int) -> int:
        """As radix.unmap_range; tables that became empty go back to the pool. Returns how many pages these had."""
        freed = radix.unmap_range(self.format, self._memory, self._root, iova, size).freed
        for run in freed:
            self._memory.free(run)
        return sum(run.pages for run in freed)

    def prot(self, iova: int) -> str | None:
        """What the table allows at an address, None where nothing is mapped. Raises DamagedTable."""
        prot = "rwx"
        for step in radix.walk(self.format, self._memory, self._root, iova):
            if step.entry.kind == "empty":
                return None
            if step.entry.kind == "reserved":
                raise DamagedTable(step.complaint(self.format))
            prot = radix.combine(prot, step.entry.prot)
        return prot

    def leaves(self) -> Iterator[radix.Leaf]:
        return radix.leaves(self.format, self._memory, self._root)

    def entries(self) -> Iterator[radix.Visit]:
        return radix.entries(self.format, self._memory, self._root)

    def runs(self) -> list[Run]:
        """The pages of the pool that its tables are in."""
        runs = radix.table_runs(self.format, self._memory, self._root)
        return [run for run in runs if self._memory.owns(run)]

    def check(self) -> list[str]:
        """Sentences about what is wrong with the table, and about tables of it that lie outside the pool."""
        strangers = [
            f"a table at GPA {run.address:#x}, {run.pages} pages long, is not in the pool"
            for run in radix.table_runs(self.format, self._memory, self._root)
            if not self._memory.owns(run)
        ]
        return [*radix.check(self.format, self._memory, self._root), *strangers]

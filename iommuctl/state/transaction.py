# SPDX-License-Identifier: Apache-2.0
"""One open transaction: the Context of hookspecs, with memory, rows and the command log."""

import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from iommuctl.errors import DiskFailed, IommuError, Lost, StateDamaged, Usage
from iommuctl.formats.memory import FileMemory, TableMemory
from iommuctl.model import Call, Command, MemoryWrite
from iommuctl.requests import MemoryPlan
from iommuctl.state.redo import RedoLog

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture
    from iommuctl.state.extents import Extents, Freed
    from iommuctl.state.intents import IntentLog
    from iommuctl.state.overlay import Backing, Overlay
    from iommuctl.state.rows import SqlRows

_T = TypeVar("_T")


class Services(Protocol):
    """What a transaction asks of those who know the backend."""

    def backing(self, transaction: "Transaction") -> "Backing":
        """The memory of a folder whose machine is real, by the addresses that rows give it."""

    def repair(self, transaction: "Transaction", backend: str, intents: list[Any]) -> None:
        """Bring what the intents name to what the rows say."""


class Files(Protocol):
    """What stays open between the transactions of one store."""

    folder: Path
    lock: int
    services: Services
    kept: dict[Callable[[Path], Any], Any]

    @property
    def intents(self) -> "IntentLog": ...

    def open_memory(self, path: Path) -> int: ...


class Transaction:
    """What an operation works on. `connection` is for the core's own rows (iommuctl.state.books)."""

    def __init__(self, connection: sqlite3.Connection, files: Files, *, dry_run: bool = False) -> None:
        self.connection = connection
        self.commands: list[Command] = []
        self.calls: list[Call] = []
        self.warnings: list[str] = []
        self.writes: tuple[MemoryWrite, ...] = ()
        self.dry_run = dry_run
        self._files = files
        self._folder = files.folder
        self._intents: list[Any] = []
        self._unrepaired = False
        self._after: list[Callable[[], None]] = []
        self._overlay: Overlay | None = None
        self._freed: list[Freed] = []
        self._made_pools: set[str] = set()
        self._dropped_pools = False
        self._meta: dict[str, Any] | None = None
        self._new_memory: Path | None = None
        self._redo = RedoLog(connection, files.lock)

    # What a backend sees. A command that reads the core's rows imports nothing of it.

    @cached_property
    def rows(self) -> "SqlRows":
        from iommuctl.state.rows import SqlRows

        return SqlRows(self.connection)

    @property
    def memory(self) -> TableMemory:
        """RAM. Raises StateDamaged when the memory file is missing or short."""
        return self.overlay

    def architecture(self, name: str) -> "Architecture":
        from iommuctl.plugins import architecture

        return architecture(name)

    def log(self, command: Command) -> None:
        self.commands.append(command)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    # What a backend of real hardware sees besides.

    @property
    def folder(self) -> Path:
        return self._folder

    def log_call(self, call: Call) -> None:
        self.calls.append(call)

    def intend(self, intent: Any) -> None:
        self._files.intents.add(self.meta("backend"), intent)
        self._intents.append(intent)

    def write_out(self) -> bool:
        return self._overlay is None or self._overlay.write_out()

    def after_commit(self, action: Callable[[], None]) -> None:
        self._after.append(action)

    def kept(self, factory: Callable[[Path], _T]) -> _T:
        if factory not in self._files.kept:
            self._files.kept[factory] = factory(self._folder)
        return cast("_T", self._files.kept[factory])

    # What the core sees.

    @property
    def overlay(self) -> "Overlay":
        if self._overlay is None:
            from iommuctl.state.overlay import Overlay

            plan = self.memory_plan()
            backing = self._memory_file(plan) if plan else self._files.services.backing(self)
            self._overlay = Overlay(backing, self.pool("tables"), plan.tables if plan else (0, 0))
        return self._overlay

    def used_writes(self) -> list[tuple[int, bytes, bytes]]:
        """The step's writes so far to memory that was in use: address, the old bytes, the new ones."""
        return self._overlay.used if self._overlay else []

    def new_pages(self) -> Set[int]:
        """The pages that nothing used before the step and that it has written."""
        return self._overlay.new_pages() if self._overlay else frozenset()

    @contextlib.contextmanager
    def step(self, *, undone: bool = False) -> Iterator[None]:
        """A part of the transaction that takes effect whole, or not at all when the block raises.

        With `undone` it is taken back at its end, too. `commands`, `warnings` and `writes` are the step's. Raises
        DiskFailed when SQLite has given up the transaction.
        """
        self._check_open()
        self.connection.execute("SAVEPOINT step")
        memory, freed = self._new_memory, len(self._freed)
        overlay = self._overlay
        after, intents = len(self._after), len(self._intents)
        self.commands, self.calls, self.warnings, self.writes = [], [], [], ()
        if overlay:
            overlay.begin_step()
        try:
            yield
        except BaseException:
            undone = True
            raise
        finally:
            # After some errors SQLite has rolled all back by itself: then no step can follow (_check_open).
            if undone and self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO step")
                del self._freed[freed:]
                self._meta = None
                self.rows.forget_read()
                if overlay and self._overlay is overlay:
                    overlay.undo_step()
                else:
                    # Another machine's, whose file is not open any more, or one that the step has brought in.
                    self._overlay = None
                if self._new_memory and self._new_memory != memory:
                    self._new_memory.unlink(missing_ok=True)
                    self._new_memory = memory
                del self._after[after:]
                if done := self._intents[intents:]:
                    self._repair(done)
            if self.connection.in_transaction:
                self.connection.execute("RELEASE step")

    def _repair(self, intents: list[Any]) -> None:
        """Undo in the kernel what a step did. What fails here is tried again by the next command, by all intents."""
        try:
            self._files.services.repair(self, self.meta("backend"), intents)
        except IommuError:
            self._unrepaired = True

    def pool(self, name: str) -> "Extents":
        """The allocator of a pool. What is freed stays aside for the whole transaction."""
        from iommuctl.state.extents import Extents

        return Extents(self.connection, name, self._freed)

    def create_pool(self, name: str, address: int, size: int) -> None:
        """A new pool of whole pages."""
        from iommuctl.state.extents import create_pool

        self._made_pools.add(name)
        create_pool(self.connection, name, address, size)

    def drop_pool(self, name: str) -> None:
        """Forget a pool: its pages are the guest's."""
        self.pool(name).drop()
        self._dropped_pools = True

    def keeps_until_commit(self, name: str) -> bool:
        """Whether the pages of a pool stay as they are until the commit: it is new, and they were something else.

        On a real machine a device is led to new pages before the commit. There only what may have been tables of ours
        is kept; what else the guest had in a pool it has given away.
        """
        return name in self._made_pools and (self.memory_plan() is not None or self._dropped_pools)

    def meta(self, key: str) -> Any:
        """A fact about the whole folder, or None."""
        if self._meta is None:
            rows = self.connection.execute("SELECT * FROM meta").fetchall()
            try:
                self._meta = {key: json.loads(text) for key, text in rows}
            except ValueError:
                raise StateDamaged(
                    f"{self._folder / 'state.db'} is damaged", because="its facts about the folder are not JSON"
                ) from None
        return self._meta.get(key)

    def set_meta(self, key: str, value: Any) -> None:
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
        self._meta = None

    def memory_plan(self) -> MemoryPlan | None:
        """Where RAM and tables are; None on real hardware and before the first use."""
        plan = self.meta("memory")
        return MemoryPlan(tuple(plan[0]), tuple(plan[1])) if plan else None

    def memory_path(self) -> Path:
        """The memory file: RAM byte for byte."""
        return self._folder / f"memory-{self.meta('generation')}"

    def clear(self) -> None:
        """Forget every row. The memory file of the old machine goes when this has been committed.

        Raises Usage within a transaction that has changed that machine.
        """
        if self._freed or (self._overlay and self._overlay.changed):
            raise Usage(
                "the machine cannot be made new here",
                because="steps before this one belong to the same transaction and have changed it",
                hint="make it new first",
            )
        self._overlay = None
        generation = self.meta("generation") or 0
        for (table,) in self.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            self.connection.execute(f"DELETE FROM {table}")
        self._meta = None
        self.rows.forget_read()
        self.set_meta("generation", generation)

    def create_memory(self, plan: MemoryPlan) -> None:
        """Make a memory file, all zero and sparse, and the pools of its free pages."""
        self.set_meta("generation", (self.meta("generation") or 0) + 1)
        path = self.memory_path()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._new_memory = path
        try:
            os.ftruncate(descriptor, plan.ram[1])
        except OSError as error:
            if error.errno == errno.EFBIG:
                because = "no file can be that long here"
                raise Usage(f"RAM cannot have {plan.ram[1]:#x} bytes", because=because) from None
            raise
        finally:
            os.close(descriptor)
        from iommuctl.state.extents import create_pool

        self.set_meta("memory", plan)
        create_pool(self.connection, "tables", *plan.tables)
        for start, size in around(plan):
            create_pool(self.connection, "ram", start, size)

    def _memory_file(self, plan: MemoryPlan) -> FileMemory:
        path = self.memory_path()
        base, size = plan.ram
        try:
            descriptor = self._files.open_memory(path)
        except FileNotFoundError:
            raise StateDamaged(
                f"the memory file {path} is missing", hint="restore it, or begin anew with `iommuctl sim reset`"
            ) from None
        actual = os.fstat(descriptor).st_size
        if actual < size:
            raise StateDamaged(
                f"the memory file {path} is too short",
                because=f"it has {actual:#x} bytes and the machine's RAM {size:#x}",
                hint="restore it, or begin anew with `iommuctl sim reset`",
            )
        return FileMemory(descriptor, base, size)

    # What the store does at the ends.

    def has_redo(self) -> bool:
        return self._redo.is_pending()

    def finish_redo(self) -> None:
        """Do the writes that the last committed transaction did not get to. They may be done twice."""
        rows = self._redo.take()
        if rows:
            plan = self.memory_plan()
            # What real hardware's memory was is gone with who kept it: there is nothing to write to then.
            with contextlib.nullcontext() if plan else contextlib.suppress(Lost):
                memory = self._memory_file(plan) if plan else self._files.services.backing(self)
                for address, data in rows:
                    memory.write(address, data)

    def collect_writes(self) -> None:
        """Keep what the step would have written, for a dry run."""
        if self._overlay:
            self.writes = tuple(self._overlay.writes())

    def prepare(self) -> None:
        """Everything that must be done before the commit. Raises DiskFailed when SQLite has given it up."""
        from iommuctl.state.extents import settle

        self._check_open()
        settle(self.connection, self._freed)
        if self._overlay:
            self._overlay.write_fresh()
            self._overlay.reserve_live()
            self._redo.put([(address, new) for address, _, new in self._overlay.live])

    def _check_open(self) -> None:
        # What is written outside of a transaction would be there at once, and for good.
        if not self.connection.in_transaction:
            raise DiskFailed(
                "the transaction was given up: nothing was changed",
                because="a step before this one could not write to the disk",
                hint="end the transaction, and begin again",
            )

    @property
    def has_intents(self) -> bool:
        """Whether it has called the kernel, so that its rollback needs a repair."""
        return bool(self._intents)

    def abandon(self) -> None:
        """After a rollback: what rows cannot undo.

        A signal may have come when the commit was done already: the rows tell whose the new memory file is.
        """
        self._meta = None
        if self._new_memory and not self._is_committed(self._new_memory):
            self._new_memory.unlink(missing_ok=True)

    def _is_committed(self, memory: Path) -> bool:
        try:
            return self.memory_path() == memory
        except sqlite3.OperationalError:
            # There is no table yet: the first command in the folder did not get so far.
            return False

    def complete(self) -> None:
        """After the commit: the writes to live memory. What fails here is finished by the next command."""
        if self._new_memory:
            for path in self._folder.glob("memory-*"):
                if path != self._new_memory:
                    path.unlink()
        if self._overlay and self._overlay.live:
            self._overlay.write_live()
            self._redo.mark_done()
        for action in self._after:
            action()
        if self._intents and not self._unrepaired:
            self._files.intents.clear()


def around(plan: MemoryPlan) -> list[tuple[int, int]]:
    """RAM below and above the tables, as (start, size)."""
    (base, size), (low, extent) = plan
    parts = [(base, low - base), (low + extent, base + size - low - extent)]
    return [(start, length) for start, length in parts if length > 0]

# SPDX-License-Identifier: Apache-2.0
"""The state folder and its transaction: old or new state, whatever kills the command in between.

Order of a change: lock, finish what an earlier commit left (redo), work on an overlay, write the fresh pages,
COMMIT rows and redo together, write the live words, mark the redo rows as done. It covers the death of the process and
failing writes; loss of power it does not.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iommuctl.errors import DiskFailed, IommuError, NoRoom, PermissionRefused, StateDamaged, SystemFailed
from iommuctl.state import schema
from iommuctl.state.transaction import Services, Transaction

if TYPE_CHECKING:
    from iommuctl.state.intents import IntentLog

BUSY_SECONDS = 60


class Store:
    """A state folder. Nothing is created before the first change."""

    def __init__(self, folder: Path, services: Services) -> None:
        self.folder = folder
        self.services = services
        self.kept: dict[Callable[[Path], Any], Any] = {}
        """What a backend keeps open from one transaction to the next, by what made it."""
        self.lock = -1
        self._connection: sqlite3.Connection | None = None
        self._ready = False
        self._memory = -1
        self._memory_path: Path | None = None

    @cached_property
    def intents(self) -> "IntentLog":
        """What changes are about to do to the kernel."""
        from iommuctl.state.intents import IntentLog

        return IntentLog(self.folder)

    def close(self) -> None:
        """Close all files."""
        if self._connection:
            self._connection.close()
            self._connection = None
            self._ready = False
        for descriptor in (self.lock, self._memory):
            if descriptor >= 0:
                os.close(descriptor)
        for each in self.kept.values():
            each.close()
        self.kept.clear()
        if "intents" in vars(self):
            self.intents.close()
        self.lock = self._memory = -1
        self._memory_path = None

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that must not change anything. A folder that does not exist is empty."""
        with self._failures():
            if self.folder.exists() and not self.folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.folder))
            exists = (self.folder / "state.db").exists() or self._was_used()
        if not exists:
            with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
                schema.create(empty)
                yield self._transaction(empty)
            return
        with self._failures():
            with self._locked(fcntl.LOCK_SH) as connection:
                connection.execute("BEGIN")
                try:
                    transaction = self._transaction(connection)
                    ready = self._has_tables(connection) and not transaction.has_redo() and not self._is_unfinished()
                    if ready:
                        yield transaction
                finally:
                    connection.execute("ROLLBACK")
            if not ready:
                # A command was killed before it was done: finish its work as a change would, then look again.
                with self.change():
                    pass
                with self.read() as transaction:
                    yield transaction

    @contextlib.contextmanager
    def change(self, *, dry_run: bool = False, anew: bool = False) -> Iterator[Transaction]:
        """A transaction that takes effect whole when its block ends, and not at all when the block raises.

        One that makes everything `anew` does not need what an earlier one left in memory to be finished.
        """
        with self._failures():
            if self.lock < 0:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked(fcntl.LOCK_EX) as connection:
                if self._is_unfinished():
                    self._repair(connection)
                connection.execute("BEGIN IMMEDIATE")
                transaction = self._transaction(connection, dry_run=dry_run)
                try:
                    if not self._has_tables(connection):
                        schema.create(connection)
                    if not anew:
                        transaction.finish_redo()
                    yield transaction
                    if not dry_run:
                        transaction.prepare()
                        connection.execute("COMMIT")
                except BaseException:
                    self._abandon(transaction)
                    if transaction.has_intents:
                        # What fails here is tried again by the next command.
                        with contextlib.suppress(IommuError, sqlite3.Error, OSError):
                            self._repair(connection)
                    raise
                if dry_run:
                    self._abandon(transaction)
                else:
                    # The change has taken effect. What fails from here on is finished by the next command (redo).
                    try:
                        transaction.complete()
                        self._mark_used()
                    except (IommuError, sqlite3.Error, OSError) as error:
                        what = error.what if isinstance(error, IommuError) else error
                        transaction.warn(
                            f"this has taken effect, and is not finished: {what}; the next command goes on"
                        )

    def _is_unfinished(self) -> bool:
        """Whether a change was killed that had begun to call the kernel; few folders ever have such a file."""
        return os.path.exists(self.folder / "intents") and self.intents.pending()

    def _repair(self, connection: sqlite3.Connection) -> None:
        """Have the kernel's objects agree with the rows again, after a change that did not come to its end."""
        connection.execute("BEGIN IMMEDIATE")
        transaction = self._transaction(connection)
        try:
            if not self._has_tables(connection):
                schema.create(connection)
            # What the last change wrote comes before caches are told of it.
            transaction.finish_redo()
            self.services.repair(transaction, *self.intents.read())
            connection.execute("COMMIT")
        except BaseException:
            self._abandon(transaction)
            raise
        transaction.complete()
        self.intents.clear()

    def _has_tables(self, connection: sqlite3.Connection) -> bool:
        """Whether a command has come as far as making all tables; once there they stay. Raises StateDamaged."""
        if not self._ready:
            self._ready = schema.recognise(connection, str(self.folder / "state.db"))
        if not self._ready and schema.marks(connection) == (0, 0) and self._was_used():
            raise StateDamaged(
                f"{self.folder / 'state.db'} is empty or was missing",
                because="the folder was in use, and the rest of it is still there",
                hint="restore the file, or remove the folder to begin anew",
            )
        return self._ready

    def _was_used(self) -> bool:
        """Whether a change was ever committed here: the lock file then has a byte."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "lock").stat().st_size > 0
        return False

    def _mark_used(self) -> None:
        if not os.fstat(self.lock).st_size:
            os.pwrite(self.lock, b"\n", 0)

    def _abandon(self, transaction: Transaction) -> None:
        """Roll back, and undo what a rollback does not."""
        if transaction.connection.in_transaction:
            transaction.connection.execute("ROLLBACK")
        transaction.abandon()

    def _transaction(self, connection: sqlite3.Connection, *, dry_run: bool = False) -> Transaction:
        return Transaction(connection, self, dry_run=dry_run)

    @contextlib.contextmanager
    def _locked(self, operation: int) -> Iterator[sqlite3.Connection]:
        if self.lock < 0:
            self.lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, operation)
        try:
            yield self._connect()
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            path = self.folder / "state.db"
            # SQLite would make it for everybody to read; its journal has the same mode.
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                # First of all, for nothing may be written to a file of somebody else's.
                self._ready = schema.recognise(connection, str(path))
                # A rollback journal, not a log with shared memory: that would be a mapping of a file.
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("PRAGMA journal_mode = TRUNCATE")
                connection.execute("PRAGMA temp_store = MEMORY")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def open_memory(self, path: Path) -> int:
        # A file that was given up, and whose name another one has now, is linked nowhere.
        if self._memory_path != path or not os.fstat(self._memory).st_nlink:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            if self._memory >= 0:
                os.close(self._memory)
            self._memory, self._memory_path = descriptor, path
        return self._memory

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what the file system and SQLite raise into errors with ids."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._database_error(error) from error
        except OSError as error:
            raise self._file_error(error) from error

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            with self.failures():
                yield
        except IommuError as error:
            if isinstance(error.__cause__, sqlite3.DatabaseError):
                # SQLite opens read-only what it could not open for writing, and would keep it so.
                self.close()
            raise

    def _database_error(self, error: sqlite3.DatabaseError) -> IommuError:
        reason = getattr(error, "sqlite_errorname", "")
        if reason == "SQLITE_FULL" or (reason.startswith("SQLITE_IOERR") and self._disk_is_full()):
            return self._no_space()
        if reason.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
            return self._refused(str(error))
        if reason.startswith(("SQLITE_IOERR", "SQLITE_BUSY")):
            return self._disk_failed(str(error))
        return StateDamaged(
            f"{self.folder / 'state.db'} is damaged",
            because=str(error),
            hint="restore the file, or remove the folder to begin anew",
        )

    def _file_error(self, error: OSError) -> IommuError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._no_space()
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return self._refused(error.strerror or str(error))
        if error.errno == errno.EIO:
            return self._disk_failed(str(error))
        if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
            return SystemFailed(
                f"{self.folder} cannot be a state folder",
                because=f"{error.strerror}".lower(),
                hint="name another with --state or $IOMMUCTL_STATE",
            )
        return StateDamaged(
            f"the state folder {self.folder} cannot be used",
            because=f"{error.strerror}" + (f": {error.filename}" if error.filename else ""),
            hint="name another folder with --state, or repair this one",
        )

    def _disk_failed(self, because: str) -> IommuError:
        return DiskFailed(
            f"the files in {self.folder} cannot be read or written",
            because=because,
            hint="look for errors of the disk in the kernel log, then type the command again",
        )

    def _disk_is_full(self) -> bool:
        room = os.statvfs(self.folder)
        return room.f_bavail == 0

    def _no_space(self) -> IommuError:
        return NoRoom(
            "the state was not changed", because=f"the disk of {self.folder} is full", hint="make room, then try again"
        )

    def _refused(self, because: str) -> IommuError:
        return PermissionRefused(
            f"the state folder {self.folder} cannot be opened",
            because=because,
            hint="run as the user it belongs to, or name another folder with --state or $IOMMUCTL_STATE",
        )

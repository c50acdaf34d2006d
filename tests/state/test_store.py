# SPDX-License-Identifier: Apache-2.0
"""The state folder: what is in it may be truncated, foreign, newer, missing or somebody else's.

That it survives the death of a command at any point is the business of tests/crash.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl.errors import DiskFailed, IommuError, NoRoom, PermissionRefused, StateDamaged, StateNewer, SystemFailed
from iommuctl.formats.memory import PAGE
from iommuctl.iommu import Iommu
from iommuctl.requests import MemoryPlan
from iommuctl.state import schema
from iommuctl.state.folder import default_folder
from iommuctl.state.store import Store
from iommuctl.state.transaction import around
from tests.state.conftest import Repairs

PLAN = MemoryPlan((0x1000, 16 * PAGE), (0x1000 + 8 * PAGE, 8 * PAGE))
RID = "0000:00:01.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    made = Store(folder, Repairs())
    yield made
    made.close()


@pytest.fixture
def ready(store: Store) -> Store:
    """A store with memory and a row."""
    with store.change() as transaction:
        transaction.create_memory(PLAN)
        transaction.rows.put("kind", "key", "old")
    return store


def files(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold, but for the journal, which tells nothing when it is empty."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "state.db-journal"}


def value(store: Store) -> object:
    with store.read() as transaction:
        return transaction.rows.get("kind", "key")


def test_reading_creates_nothing(store: Store, folder: Path) -> None:
    assert value(store) is None
    with store.read() as transaction:
        assert (transaction.meta("backend"), transaction.memory_plan()) == (None, None)
    assert not folder.parent.exists()


def test_a_folder_is_private(ready: Store, folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


def test_what_an_error_leaves(ready: Store, folder: Path) -> None:
    before = files(folder)

    def fail() -> None:
        with ready.change() as transaction:
            transaction.rows.put("kind", "key", "new")
            transaction.memory.write(transaction.memory.allocate_run(2), b"x" * 2 * PAGE)
            transaction.memory.write(0x1000, b"live")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert files(folder) == before
    assert value(ready) == "old"


def test_what_a_dry_run_leaves(ready: Store, folder: Path) -> None:
    before = files(folder)
    with ready.change(dry_run=True) as transaction:
        transaction.rows.put("kind", "key", "new")
        address = transaction.memory.allocate_run(1)
        transaction.memory.write(address, b"\1" * PAGE)
        transaction.memory.write(0x1000, b"\2" * 8)
        assert transaction.rows.get("kind", "key") == "new"
        transaction.collect_writes()
    assert len(transaction.writes) == PAGE // 8 + 1
    assert transaction.writes[-1].address == 0x1000
    assert files(folder) == before


def test_a_dry_run_or_an_error_of_the_first_use(store: Store, folder: Path) -> None:
    with store.change(dry_run=True) as transaction:
        transaction.create_memory(PLAN)

    def fail() -> None:
        with store.change() as transaction:
            transaction.create_memory(PLAN)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(folder.glob("memory-*"))
    assert value(store) is None


def test_a_new_machine_replaces_the_old_memory(ready: Store, folder: Path) -> None:
    with ready.change() as transaction:
        transaction.memory.write(0x1000, b"old machine")
    before = files(folder)
    for dry_run in (True, False):
        with ready.change(dry_run=dry_run) as transaction:
            transaction.clear()
            transaction.create_memory(PLAN)
            transaction.memory.write(0x1008, b"new machine")
        if dry_run:
            assert files(folder) == before
    assert [path.name for path in folder.glob("memory-*")] == ["memory-2"]
    with ready.read() as transaction:
        assert transaction.memory.read(0x1000, 19) == bytes(8) + b"new machine"
        assert transaction.rows.get("kind", "key") is None


def test_another_process_sees_what_was_written(ready: Store, folder: Path) -> None:
    other = Store(folder, Repairs())
    assert value(other) == "old"
    with ready.change() as transaction:
        transaction.rows.put("kind", "key", "new")
        transaction.clear()
        transaction.rows.put("kind", "key", "newer")
        transaction.create_memory(PLAN)
        transaction.memory.write(0x1000, b"here")
    assert value(other) == "newer"
    with other.read() as seen:
        assert seen.memory.read(0x1000, 4) == b"here"
    other.close()


def test_a_store_opens_again_after_close(ready: Store) -> None:
    ready.close()
    ready.close()
    assert value(ready) == "old"


def test_a_step_that_fails_takes_its_new_machine_along(ready: Store, folder: Path) -> None:
    """The name of its memory file is used again, by a file that is another one."""
    with ready.change() as transaction:
        for text in (b"failed", b"worked"):
            with contextlib.suppress(ZeroDivisionError), transaction.step():
                transaction.clear()
                transaction.create_memory(PLAN)
                assert transaction.memory.read(0x1000, 6) == bytes(6)
                transaction.memory.write(0x1000, text)
                if text == b"failed":
                    raise ZeroDivisionError
    assert [path.name for path in folder.glob("memory-*")] == ["memory-2"]
    with ready.read() as transaction:
        assert transaction.memory.read(0x1000, 6) == b"worked"


def test_freed_pages_come_back_with_the_next_transaction(ready: Store) -> None:
    with ready.change() as transaction:
        (run,) = transaction.memory.allocate(8)
        transaction.memory.free(run)
        with pytest.raises(NoRoom):
            transaction.memory.allocate(1)
        assert run in transaction.pool("tables").free_runs()
    with ready.change() as transaction:
        assert transaction.memory.allocate(8) == [run]


def test_ram_around_the_tables() -> None:
    assert around(PLAN) == [(0x1000, 8 * PAGE)]
    assert around(MemoryPlan((0, 10), (0, 4))) == [(4, 6)]
    assert around(MemoryPlan((0, 10), (3, 4))) == [(0, 3), (7, 3)]


# What a killed command left


def leave_redo(folder: Path, *writes: tuple[int, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as connection, connection:
        connection.executemany("INSERT INTO redo (address, data) VALUES (?, ?)", writes)


@pytest.mark.parametrize("how", ["read", "change", "dry run"])
def test_writes_that_a_killed_command_left_are_done(ready: Store, folder: Path, how: str) -> None:
    leave_redo(folder, (0x1000, b"one"), (0x1002, b"TWO"), (0x1000 + 8 * PAGE, b"three"))
    opened = ready.read() if how == "read" else ready.change(dry_run=how == "dry run")
    with opened as transaction:
        assert transaction.memory.read(0x1000, 6) == b"onTWO\0"
        assert transaction.memory.read(0x1000 + 8 * PAGE, 5) == b"three"
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as connection:
        left = connection.execute("SELECT count(*) FROM redo").fetchone()[0]
    # A dry run takes even this back, and the next command does it again.
    assert left == (3 if how == "dry run" else 0)
    assert ready.folder.joinpath("memory-1").read_bytes()[:5] == b"onTWO"


def test_writes_that_cannot_be_done_are_kept(ready: Store, folder: Path) -> None:
    leave_redo(folder, (0x1000, b"one"))
    ready.close()
    memory = folder / "memory-1"
    memory.rename(folder / "aside")
    with pytest.raises(StateDamaged):
        value(ready)
    (folder / "aside").rename(memory)
    assert value(ready) == "old"
    assert memory.read_bytes()[:3] == b"one"


# Files that cannot be trusted


def refuse_both(folder: Path, error: type[IommuError], because: str = "") -> IommuError:
    """Both a read and a change of the folder must be refused, and leave its files as they are."""
    before = files(folder) if error is not PermissionRefused else {}
    for change in (False, True):
        store = Store(folder, Repairs())
        with pytest.raises(error) as caught, store.change() if change else store.read() as transaction:
            transaction.memory.read(0x1000, 8)
        store.close()
        assert because in str(caught.value)
        assert str(folder) in str(caught.value)
    if before:
        assert {**files(folder), "lock": b""} == {**before, "lock": b""}
    return caught.value


@pytest.mark.parametrize("keep", [15, 100, 2000, 5000])
def test_a_truncated_database(ready: Store, folder: Path, keep: int) -> None:
    ready.close()
    database = folder / "state.db"
    database.write_bytes(database.read_bytes()[:keep])
    refuse_both(folder, StateDamaged)


def test_a_database_with_garbage_in_it(ready: Store, folder: Path) -> None:
    ready.close()
    database = folder / "state.db"
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    refuse_both(folder, StateDamaged)


def test_a_file_that_is_no_database(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "state.db").write_text("This was a text of somebody's.\n" * 40)
    refuse_both(folder, StateDamaged, "not a database")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_another_program(folder: Path, journal: str) -> None:
    folder.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()
    error = refuse_both(folder, StateDamaged, "another program")
    assert error.hint


def test_a_database_of_a_newer_version(ready: Store, folder: Path) -> None:
    ready.close()
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    error = refuse_both(folder, StateNewer, f"version {schema.VERSION + 1}")
    assert "upgrade" in error.hint


ADDED = {1: ["cd_pool"], 2: ["fault", "fault_source"]}
"""The tables that came after a version."""


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("version", ADDED)
def test_a_database_of_an_earlier_version_gets_what_is_new(
    ready: Store, folder: Path, version: int, change: bool
) -> None:
    new = [table for after, tables in ADDED.items() if after >= version for table in tables]
    ready.close()
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as connection:
        before = list(connection.execute("SELECT name FROM sqlite_schema ORDER BY name"))
        for table in new:
            connection.execute(f"DROP TABLE {table}")
        connection.execute(f"PRAGMA user_version = {version}")
    with contextlib.closing(Store(folder, Repairs())) as store:
        kept = value(store)
        with store.change() if change else store.read() as transaction:
            for table in new:
                assert transaction.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        assert value(store) == kept is not None
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert list(connection.execute("SELECT name FROM sqlite_schema ORDER BY name")) == before


def test_an_empty_database_is_a_new_one(folder: Path) -> None:
    """A command was killed when it had just made the file."""
    folder.mkdir(parents=True)
    (folder / "state.db").touch()
    store = Store(folder, Repairs())
    assert value(store) is None
    store.close()


def test_a_memory_file_that_is_missing(ready: Store, folder: Path) -> None:
    ready.close()
    (folder / "memory-1").unlink()
    error = refuse_both(folder, StateDamaged, "missing")
    assert "sim reset" in error.hint


def test_a_memory_file_that_is_too_short(ready: Store, folder: Path) -> None:
    ready.close()
    os.truncate(folder / "memory-1", 16 * PAGE - 1)
    refuse_both(folder, StateDamaged, "0xffff bytes")


def test_rows_can_be_read_without_memory(ready: Store, folder: Path) -> None:
    ready.close()
    (folder / "memory-1").unlink()
    assert value(ready) == "old"


def test_a_reset_makes_memory_again(tmp_path: Path) -> None:
    with Iommu(tmp_path, backend="sim") as iommu:
        iommu.device_add(RID)
    (tmp_path / "memory-1").unlink()
    with Iommu(tmp_path) as iommu:
        with pytest.raises(StateDamaged):
            iommu.check()
        iommu.reset()
        assert (iommu.devices(), iommu.check()) == ([], [])


# Folders that cannot be used


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """As a user to whom the permissions of files apply."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_without_permission(ready: Store, folder: Path) -> None:
    ready.close()
    folder.chmod(0)
    try:
        with nobody():
            error = refuse_both(folder, PermissionRefused)
        assert (error.id, error.exit) == ("permission", 5)
    finally:
        folder.chmod(0o700)


def test_files_without_permission(ready: Store, folder: Path) -> None:
    ready.close()
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0)
    with nobody():
        refuse_both(folder, PermissionRefused)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        store = Store(folder, Repairs())
        with pytest.raises(SystemFailed), store.change():
            pass
        store.close()


@pytest.mark.parametrize(
    ("number", "error"), [(5, DiskFailed), (28, NoRoom), (122, NoRoom), (30, PermissionRefused), (24, StateDamaged)]
)
def test_errors_of_the_file_system(ready: Store, number: int, error: type[IommuError]) -> None:
    with pytest.raises(error) as caught, ready.change():
        raise OSError(number, os.strerror(number))
    assert caught.value.because


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IOMMUCTL_STATE", str(tmp_path / "named"))
    assert Path(default_folder()) == tmp_path / "named"
    monkeypatch.delenv("IOMMUCTL_STATE")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == "/var/lib/iommuctl"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert Path(default_folder()) == tmp_path / "xdg/iommuctl"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(default_folder()) == tmp_path / ".local/state/iommuctl"

# SPDX-License-Identifier: Apache-2.0
"""The harness keeps its word: it counts from the mark, kills where it says, and makes the calls fail that it says.

What the last tests run is a small model of the transaction that iommuctl makes: rows in SQLite, words in a file.
"""

import errno
import fcntl
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.ptrace import Fail, Kill, Mark, Tear, Tracer, TracerError, why_not


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    if reason := why_not():
        pytest.skip(reason)
    with Tracer() as tracer:
        yield tracer


# ---- What is run in the driver ----


def write_chunks(path: str, lock: bool = True) -> str:
    """Four writes of four bytes at the end of a file, the first three under a lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if lock:
        fcntl.flock(file, fcntl.LOCK_SH)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for chunk in (b"aaaa", b"bbbb", b"cccc"):
        os.write(file, chunk)
    fcntl.flock(file, fcntl.LOCK_UN)
    os.write(file, b"dddd")
    return "done"


def write_at(path: str) -> list[str]:
    """What a program does that goes on after failures: it says which calls failed, and how."""
    failures = []
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    for offset in (0, 4, 8):
        try:
            os.pwrite(file, b"XXXX", offset)
        except OSError as error:
            failures.append(f"pwrite at {offset}: {errno.errorcode[error.errno or 0]}")
    try:
        os.ftruncate(file, 2)
    except OSError as error:
        failures.append(f"ftruncate: {errno.errorcode[error.errno or 0]}")
    os.close(file)
    return failures


def create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def lock_twice(path: str) -> None:
    """A lock that another holds: the attempt that failed must not be the mark."""
    with open(path, "w") as mine, open(path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(other, fcntl.LOCK_UN)
            fcntl.flock(mine, fcntl.LOCK_EX)


def fail_by_itself() -> None:
    raise KeyError("nothing here")


def leave() -> None:
    os._exit(3)


def never_end() -> None:
    while True:
        time.monotonic()


def deposit(folder: str) -> None:
    """The model: account a's 8 bytes in the file follow the row, by way of a redo row, as DESIGN's transaction does."""
    lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT, 0o600)
    file = os.open(f"{folder}/words", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with closing(sqlite3.connect(f"{folder}/rows", isolation_level=None)) as rows:
            rows.execute("PRAGMA synchronous = OFF")  # the processes of these tests die, the machine does not
            redo(rows, file)
            rows.execute("BEGIN IMMEDIATE")
            try:
                rows.execute("UPDATE account SET value = value + 1")
                rows.execute("INSERT INTO redo SELECT 0, value FROM account")
                os.pwrite(file, b"fresh" * 2000, 4096)
                rows.execute("COMMIT")
            except Exception:
                if rows.in_transaction:
                    rows.execute("ROLLBACK")
                raise
            redo(rows, file)
    finally:
        os.close(file)
        os.close(lock)


def redo(rows: sqlite3.Connection, file: int) -> None:
    pending = rows.execute("SELECT offset, value FROM redo").fetchall()
    for offset, value in pending:
        os.pwrite(file, value.to_bytes(8, "little"), offset)
    if pending:
        rows.execute("DELETE FROM redo")


# ---- Counting and ends ----


def test_calls_are_counted_from_the_return_of_the_first_exclusive_lock(tracer: Tracer, tmp_path: Path) -> None:
    outcome = tracer.run(write_chunks, str(tmp_path / "file"))
    assert outcome.calls == ("write", "write", "write", "flock", "write")
    assert outcome.writes == ("write",) * 4
    assert (outcome.ended, outcome.value, outcome.raised) == ("returned", "done", None)


def test_calls_are_counted_from_the_start_on_demand(tracer: Tracer, tmp_path: Path) -> None:
    outcome = tracer.run(write_chunks, str(tmp_path / "file"), mark="start")
    assert outcome.calls == ("openat", "flock", "flock", "write", "write", "write", "flock", "write")
    assert outcome.writes == ("openat", *("write",) * 4)  # the file is made: that needs room


def test_a_lock_that_was_not_got_is_not_the_mark(tracer: Tracer, tmp_path: Path) -> None:
    outcome = tracer.run(lock_twice, str(tmp_path / "file"))
    assert outcome.calls.count("flock") == 3  # those after the first, which was got


def test_a_function_that_takes_no_lock_makes_no_calls_after_it(tracer: Tracer, tmp_path: Path) -> None:
    assert tracer.run(write_chunks, str(tmp_path / "file"), False, plan=Kill(1)).calls == ()


def test_an_exception_is_told_with_its_bases_and_its_traceback(tracer: Tracer) -> None:
    outcome = tracer.run(fail_by_itself)
    assert outcome.ended == "raised"
    assert outcome.raised is not None
    assert outcome.raised.kinds[:2] == ("KeyError", "LookupError")
    assert outcome.raised.text == "'nothing here'"
    assert "in fail_by_itself" in outcome.raised.traceback


def test_a_function_runs_in_the_driver_and_then_in_its_children(tracer: Tracer) -> None:
    driver = tracer.call(os_identity)
    assert driver != os.getpid()
    assert tracer.run(os_identity).value not in {driver, os.getpid()}


def os_identity() -> int:
    return os.getpid()


def test_a_run_that_does_not_end_is_stopped() -> None:
    if reason := why_not():
        pytest.skip(reason)
    with Tracer(timeout=0.3) as tracer:
        with pytest.raises(TracerError, match="it took too long"):
            tracer.run(never_end)
        assert tracer.run(os_identity).ended == "returned"  # the driver has survived it


def test_a_child_that_ends_without_the_function_is_an_error(tracer: Tracer) -> None:
    with pytest.raises(TracerError, match="ended before the function did"):
        tracer.run(leave)


def test_a_function_that_the_driver_cannot_find_is_refused(tracer: Tracer) -> None:
    def inner() -> None: ...

    with pytest.raises(TypeError, match="not at the top of its file"):
        tracer.run(inner)


def start_another() -> None:
    with Tracer():
        pass


def test_a_driver_starts_no_driver(tracer: Tracer) -> None:
    with pytest.raises(TracerError, match="in each driver, forever"):
        tracer.call(start_another)


def test_runs_are_alike(tracer: Tracer, tmp_path: Path) -> None:
    """The number of a call means the same call in each run, or killing at every number would not be complete."""
    seen = {tracer.run(deposit, str(ledger(tmp_path / str(index)))).calls for index in range(6)}
    assert len(seen) == 1, seen


# ---- Killing ----


@pytest.mark.parametrize("mark", ["lock", "start"])
def test_killed_at_each_call_it_has_done_what_precedes(tracer: Tracer, tmp_path: Path, mark: Mark) -> None:
    path = tmp_path / "file"
    calls = tracer.run(write_chunks, str(path), mark=mark).calls
    for at in range(1, len(calls) + 1):
        path.unlink()
        outcome = tracer.run(write_chunks, str(path), mark=mark, plan=Kill(at))
        assert outcome.ended == "killed"
        assert outcome.calls == calls[:at]
        writes = outcome.calls[:-1].count("write")
        assert path.exists() == (at > 1 or mark == "lock")
        if path.exists():
            assert path.read_bytes() == b"aaaabbbbccccdddd"[: writes * 4]
        else:
            path.touch()
    assert tracer.run(write_chunks, str(path), mark=mark, plan=Kill(len(calls) + 1)).ended == "returned"


def test_a_torn_write_is_half_written(tracer: Tracer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    found = []
    for at in range(1, 5):
        path.unlink(missing_ok=True)
        outcome = tracer.run(write_chunks, str(path), plan=Tear(at))
        assert outcome.ended == "killed"
        assert len(outcome.writes) == at
        found.append(path.read_bytes())
    assert found == [b"aa", b"aaaabb", b"aaaabbbbcc", b"aaaabbbbccccdd"]


def test_a_killed_process_has_released_its_lock(tracer: Tracer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    tracer.run(write_chunks, str(path), plan=Kill(1))
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail("the lock outlived its process")


# ---- Failing ----


@pytest.mark.parametrize(
    ("plan", "left", "failed"),
    [
        (Fail(1, errno.ENOSPC), b"..", ["pwrite at 0"]),
        (Fail(2, errno.EIO), b"XX", ["pwrite at 4"]),
        (Fail(4, errno.ENOSPC), b"XXXXXXXXXXXX", ["ftruncate"]),
        (Fail(2, errno.ENOSPC, lasting=True), b"XXXX........", ["pwrite at 4", "pwrite at 8", "ftruncate"]),
        (Fail(5, errno.EIO, lasting=True), b"XX", []),
    ],
)
def test_a_write_fails_and_is_not_made(
    tracer: Tracer, tmp_path: Path, plan: Fail, left: bytes, failed: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"." * 12)
    outcome = tracer.run(write_at, str(path), plan=plan)
    assert outcome.value == [f"{call}: {errno.errorcode[plan.errno]}" for call in failed]
    assert path.read_bytes() == left
    assert outcome.writes == ("pwrite64", "pwrite64", "pwrite64", "ftruncate")


def test_an_error_that_leaves_the_function_has_its_number(tracer: Tracer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    outcome = tracer.run(create, str(path), mark="start", plan=Fail(1, errno.ENOSPC))
    assert outcome.raised is not None
    assert outcome.raised.errno == errno.ENOSPC
    assert not path.exists()


# ---- The model of a transaction ----


def ledger(folder: Path) -> Path:
    folder.mkdir()
    (folder / "words").write_bytes(bytes(4096))
    with closing(sqlite3.connect(folder / "rows", isolation_level=None)) as rows:
        rows.execute("CREATE TABLE account (value INTEGER)")
        rows.execute("CREATE TABLE redo (offset INTEGER, value INTEGER)")
        rows.execute("INSERT INTO account VALUES (0)")
    return folder


def balance(folder: Path) -> int:
    """What the account holds once a next command has come by; the file must agree with the row."""
    file = os.open(folder / "words", os.O_RDWR)
    with closing(sqlite3.connect(folder / "rows", isolation_level=None)) as rows:
        redo(rows, file)
        [(value,)] = rows.execute("SELECT value FROM account")
        assert isinstance(value, int)
        assert int.from_bytes(os.pread(file, 8, 0), "little") == value
        assert rows.execute("SELECT * FROM redo").fetchall() == []
    os.close(file)
    return value


@pytest.fixture(scope="module")
def bank(tracer: Tracer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    tracer.call(deposit, str(ledger(folder / "warm")))
    return ledger(folder / "template")


def test_the_model_is_killed_at_every_call(tracer: Tracer, bank: Path, tmp_path: Path) -> None:
    calls = tracer.run(deposit, str(shutil.copytree(bank, tmp_path / "whole"))).calls
    found: Counter[int] = Counter()
    for at in range(1, len(calls) + 1):
        folder = shutil.copytree(bank, tmp_path / str(at))
        outcome = tracer.run(deposit, str(folder), plan=Kill(at))
        assert (outcome.ended, outcome.calls) == ("killed", calls[:at])
        value = balance(folder)
        found[value] += 1
        deposit(str(folder))
        assert balance(folder) == value + 1
    assert set(found) == {0, 1}
    assert found.total() == len(calls)


@pytest.mark.parametrize("plan", [Tear(1), Fail(1, errno.ENOSPC), Fail(1, errno.EIO), Fail(1, errno.EIO, lasting=True)])
def test_every_write_of_the_model_is_hit(tracer: Tracer, bank: Path, tmp_path: Path, plan: Tear | Fail) -> None:
    writes = tracer.run(deposit, str(shutil.copytree(bank, tmp_path / "whole"))).writes
    for at in range(1, len(writes) + 1):
        folder = shutil.copytree(bank, tmp_path / str(at))
        outcome = tracer.run(deposit, str(folder), plan=plan._replace(at=at))
        if isinstance(plan, Fail):
            assert outcome.ended == "returned" or (outcome.raised and outcome.raised.kinds[-2] == "BaseException")
        else:
            assert outcome.ended == "killed"
        value = balance(folder)
        assert value in {0, 1}
        assert outcome.ended != "returned" or value == 1

# SPDX-License-Identifier: Apache-2.0
"""The redo rows, and the mark in the lock file by which they are known to be done."""

import os
import sqlite3
from pathlib import Path

import pytest

from iommuctl.state.redo import RedoLog

WRITES = [(0x1000, b"one"), (0x2000, b"two")]


@pytest.fixture
def lock(tmp_path: Path) -> int:
    return os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)


@pytest.fixture
def log(connection: sqlite3.Connection, lock: int) -> RedoLog:
    return RedoLog(connection, lock)


def test_writes_are_pending_until_they_are_marked(log: RedoLog) -> None:
    assert not log.is_pending()
    log.put(WRITES)
    assert log.is_pending()
    log.mark_done()
    assert not log.is_pending()


def test_the_next_transaction_takes_what_is_pending_and_drops_what_is_done(
    log: RedoLog, connection: sqlite3.Connection
) -> None:
    log.put(WRITES)
    assert log.take() == WRITES
    assert log.take() == []
    log.put(WRITES)
    log.mark_done()
    assert log.take() == []
    assert connection.execute("SELECT count(*) FROM redo").fetchone() == (0,)


def test_a_mark_stands_for_one_transaction_alone(log: RedoLog) -> None:
    log.put(WRITES)
    log.mark_done()
    for count in (1, 2, 3):
        log.take()
        log.put(WRITES[:1] * count)
        assert log.is_pending(), "the mark is that of the writes before"
        log.take()


@pytest.mark.parametrize("mark", [b"", b"\n", b"0000", b"rubbish", b"8" * 19 + b"\n"])
def test_a_mark_that_is_lost_has_the_writes_done_again(log: RedoLog, lock: int, mark: bytes) -> None:
    log.put(WRITES)
    log.mark_done()
    os.ftruncate(lock, 0)
    os.pwrite(lock, mark, 0)
    assert log.take() == WRITES

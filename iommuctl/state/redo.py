# SPDX-License-Identifier: Apache-2.0
"""The writes to live memory that a committed transaction still has to do, and the mark that says that it has.

They are rows, so that they are committed with the rows that they belong to. That they are done is written to the
lock file and not to the database, as a second commit would cost as much as the first: the mark is the number of the
last row. The rows themselves go with the next transaction. A mark that is lost means that the writes are done twice.
"""

import os
import sqlite3
from collections.abc import Sequence

_MARK = 20
"""Bytes of the mark: digits and a line end."""


class RedoLog:
    """The rows of the table `redo`, within an open transaction. `lock` is the lock file, where the mark is."""

    def __init__(self, connection: sqlite3.Connection, lock: int) -> None:
        self._connection = connection
        self._lock = lock

    def is_pending(self) -> bool:
        """Whether writes are to be done before anybody looks at memory."""
        last = self._last()
        return last > 0 and last != self._mark()

    def take(self) -> list[tuple[int, bytes]]:
        """The writes to be done, as (address, data) in their order. The transaction forgets them."""
        last = self._last()
        if not last:
            return []
        rows = self._connection.execute("SELECT address, data FROM redo ORDER BY seq").fetchall()
        self._connection.execute("DELETE FROM redo")
        return [] if last == self._mark() else rows

    def put(self, writes: Sequence[tuple[int, bytes]]) -> None:
        """Have the transaction's own writes committed with it."""
        # No number comes twice, or the mark of other writes would stand for these.
        first = self._mark() + 1
        self._connection.executemany(
            "INSERT INTO redo VALUES (?, ?, ?)",
            ((number, address, data) for number, (address, data) in enumerate(writes, first)),
        )

    def mark_done(self) -> None:
        """After the commit: say that all its writes have been done."""
        os.pwrite(self._lock, b"%0*d\n" % (_MARK - 1, self._last()), 0)

    def _last(self) -> int:
        last: int | None = self._connection.execute("SELECT max(seq) FROM redo").fetchone()[0]
        return last or 0

    def _mark(self) -> int:
        digits = os.pread(self._lock, _MARK - 1, 0)
        return int(digits) if digits.isdigit() else 0

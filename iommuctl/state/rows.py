# SPDX-License-Identifier: Apache-2.0
"""The rows of a backend (hookspecs.Rows), kept as JSON in one table."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any


class SqlRows:
    """Rows in the `backend_row` table of an open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._read: dict[tuple[str, str], str | None] = {}
        """Rows that were asked for, as they are stored: each value that is handed out is the caller's own."""

    def get(self, kind: str, key: str) -> Any:
        place = (kind, key)
        if place not in self._read:
            row = self._execute("SELECT value FROM backend_row WHERE kind = ? AND key = ?", place).fetchone()
            self._read[place] = row[0] if row else None
        text = self._read[place]
        return None if text is None else json.loads(text)

    def forget_read(self) -> None:
        """Read every row anew: some were taken back."""
        self._read.clear()

    def put(self, kind: str, key: str, value: Any) -> None:
        text = json.dumps(value, separators=(",", ":"))
        self._read[kind, key] = text
        self._execute("INSERT OR REPLACE INTO backend_row VALUES (?, ?, ?)", (kind, key, text))

    def delete(self, kind: str, key: str) -> None:
        self._read.pop((kind, key), None)
        self._execute("DELETE FROM backend_row WHERE kind = ? AND key = ?", (kind, key))

    def scan(
        self, kind: str, first: str = "", last: str | None = None, *, limit: int = -1
    ) -> Iterator[tuple[str, Any]]:
        query = "SELECT key, value FROM backend_row WHERE kind = ? AND key >= ?"
        found = (
            self._execute(query + " ORDER BY key LIMIT ?", (kind, first, limit))
            if last is None
            else self._execute(query + " AND key <= ? ORDER BY key LIMIT ?", (kind, first, last, limit))
        )
        return iter([(key, json.loads(text)) for key, text in found])

    def count(self, kind: str) -> int:
        number: int = self._execute("SELECT count(*) FROM backend_row WHERE kind = ?", (kind,)).fetchone()[0]
        return number

# SPDX-License-Identifier: Apache-2.0
"""Rows of fault handlers."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from iommuctl.handlers import Handler, Pages
from iommuctl.model import Domain, Rid, Slot


class HandlerRows:
    """The rows of one transaction. A row is of a slot, or of a domain."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def get(self, owner: Slot | Domain) -> Handler | None:
        """The handler that was set for it."""
        row = self._execute(
            "SELECT kind, what FROM fault_handler WHERE (domain, rid, pasid) = (?, ?, ?)", _key(owner)
        ).fetchone()
        return _handler(row) if row else None

    def put(self, owner: Slot | Domain, handler: Handler | None) -> None:
        """Set it, or take it away."""
        self._execute("DELETE FROM fault_handler WHERE (domain, rid, pasid) = (?, ?, ?)", _key(owner))
        if handler:
            what = json.dumps([handler.program, handler.pages])
            self._execute("INSERT INTO fault_handler VALUES (?, ?, ?, ?, ?)", (*_key(owner), handler.kind, what))

    def all(self) -> list[tuple[int | Slot, Handler]]:
        """Those of domains, by their ids, then those of slots."""
        rows = self._execute("SELECT * FROM fault_handler ORDER BY rid, pasid, domain")
        return [(_slot(rid, pasid) if rid else domain, _handler(row)) for domain, rid, pasid, *row in rows]

    def drop_device(self, rid: Rid) -> None:
        """The device is gone, and its slots with it."""
        self._execute("DELETE FROM fault_handler WHERE rid = ?", (str(rid),))


def _key(owner: Slot | Domain) -> tuple[int, str, int]:
    if isinstance(owner, Domain):
        return owner.id, "", -1
    return 0, str(owner.rid), -1 if owner.pasid is None else owner.pasid


def _slot(rid: str, pasid: int) -> Slot:
    return Slot(Rid.parse(rid), None if pasid < 0 else pasid)


def _handler(row: Sequence[Any]) -> Handler:
    kind, what = row
    program, pages = json.loads(what)
    return Handler(kind, tuple(program), pages and Pages(*pages))

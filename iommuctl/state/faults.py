# SPDX-License-Identifier: Apache-2.0
"""Rows of the faults that were read from queues, and how what was read outlives the transaction.

Reading takes an event out of the kernel's queue, and a rollback does not put it back. So what was read is first noted
with the intents (iommuctl.state.intents), and stored with the rows of the same transaction; where that does not come to
its end, the repair stores what was noted. What the rows count as stored already, it leaves alone.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from iommuctl.model import Rid
from iommuctl.recorded import Events, FaultList, Incomplete, KnownFault, RecordedFault
from iommuctl.requests import FaultsRequest
from iommuctl.state.page_groups import NEXT_ID
from iommuctl.state.transaction import Transaction

KEPT = 1000
"""Faults that are kept: a flood of them does not fill the disk."""
PAGE_BITS = 12
_COLUMNS = "id, source, code, name, reason, rid, pasid, iova, access, structure, raw, count, first, last"
_NOTE = "recorded faults"
_STORED = "events stored"
"""How many times events were stored, a fact about the whole folder."""


def store(transaction: Transaction, request: FaultsRequest, events: Sequence[Events], *, note: bool) -> None:
    """Add what queues held, in answer to the request; with `note` it outlives the transaction if that fails."""
    before = request.positions
    if any(each.faults or each.lost or each.position != before.get(each.source) for each in events):
        number = (transaction.meta(_STORED) or 0) + 1
        if note:
            transaction.intend({_NOTE: [number, events]})
        _store(transaction, number, events)


def store_noted(transaction: Transaction, intents: Iterable[Any]) -> list[Any]:
    """Add what was noted of a transaction that did not come to its end; returns the intents that are others'."""
    others = []
    for intent in intents:
        if _NOTE not in intent:
            others.append(intent)
            continue
        number, events = intent[_NOTE]
        if number > (transaction.meta(_STORED) or 0):
            _store(transaction, number, [_events(each) for each in events])
    return others


def _store(transaction: Transaction, number: int, events: Iterable[Events]) -> None:
    rows = FaultRows(transaction.connection)
    for each in events:
        rows.add(each, int(time.time()))
    transaction.set_meta(_STORED, number)


def _events(noted: Any) -> Events:
    events = Events(*noted)
    return events._replace(faults=[_fault(each) for each in events.faults])


def _fault(noted: Any) -> RecordedFault:
    fault = RecordedFault(*noted)
    return fault._replace(rid=Rid(*fault.rid), raw=tuple(fault.raw))


class FaultRows:
    """The rows of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def add(self, events: Events, now: int) -> None:
        """Add what a queue held, read at `now`, in seconds; of all faults the KEPT that came last stay."""
        for fault in events.faults:
            self._add(fault, _key(events.source, fault), now)
        self._execute(
            """INSERT INTO fault_source VALUES (?, ?, ?, ?, 0) ON CONFLICT (name) DO UPDATE SET
                position = excluded.position, lost = lost + excluded.lost, exact = exact & excluded.exact""",
            (events.source, json.dumps(events.position), events.lost, events.exact),
        )
        self._make_room()

    def positions(self) -> dict[str, Any]:
        """How far each source was read, in its backend's terms."""
        rows = self._execute("SELECT name, position FROM fault_source")
        return {name: json.loads(position) for name, position in rows}

    def all(self) -> FaultList:
        """Every fault, and the sources of which something is missing."""
        missing = self._execute(
            "SELECT name, lost, exact, dropped FROM fault_source WHERE lost OR dropped ORDER BY name"
        )
        return FaultList(
            self.since(0),
            [Incomplete(source, lost, bool(exact), dropped) for source, lost, exact, dropped in missing],
        )

    def mark(self) -> int:
        """How many times faults have been read so far."""
        (seen,) = self._execute("SELECT ifnull(max(seen), 0) FROM fault").fetchone()
        return int(seen)

    def since(self, mark: int) -> list[KnownFault]:
        """Those that came since that mark, for the first time or again, the one that came last at the end."""
        rows = self._execute(f"SELECT {_COLUMNS} FROM fault WHERE seen > ? ORDER BY seen", (mark,))
        return [_known(row) for row in rows]

    def has(self, key: int) -> bool:
        """Whether a fault of that id is kept."""
        return self._execute("SELECT 1 FROM fault WHERE id = ?", (key,)).fetchone() is not None

    def _make_room(self) -> None:
        surplus = "id IN (SELECT id FROM fault ORDER BY seen DESC LIMIT -1 OFFSET ?)"
        self._execute(
            f"""UPDATE fault_source SET dropped = dropped +
                (SELECT count(*) FROM fault WHERE source = fault_source.name AND {surplus})""",
            (KEPT,),
        )
        self._execute(f"DELETE FROM fault WHERE {surplus}", (KEPT,))

    def _add(self, fault: RecordedFault, key: tuple[str | int, ...], now: int) -> None:
        seen = self._execute("SELECT ifnull(max(seen), 0) + 1 FROM fault").fetchone()[0]
        record = (fault.name, fault.reason, *_record(fault), now, seen)
        # Not one statement for both: that would use up an id each time.
        again = self._execute(
            """UPDATE fault SET name = ?, reason = ?, iova = ?, structure = ?, raw = ?, last = ?, seen = ?,
                count = count + 1
            WHERE (source, rid, pasid, code, access, page) = (?, ?, ?, ?, ?, ?)""",
            (*record, *key),
        )
        if not again.rowcount:
            self._execute(
                f"""INSERT INTO fault (id, name, reason, iova, structure, raw, last, seen, source, rid, pasid, code,
                    access, page, first, count)
                VALUES ({NEXT_ID}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)""",
                (*record, *key, now),
            )


def _key(source: str, fault: RecordedFault) -> tuple[str, str, int, int, str, int]:
    pasid = -1 if fault.pasid is None else fault.pasid
    page = -1 if fault.iova is None else fault.iova >> PAGE_BITS
    return source, str(fault.rid), pasid, fault.code, fault.access or "", page


def _record(fault: RecordedFault) -> tuple[str, str, str]:
    # SQLite has no numbers of 64 bits without a sign.
    iova = "" if fault.iova is None else f"{fault.iova:x}"
    return iova, fault.structure, json.dumps(fault.raw)


def _known(row: Sequence[Any]) -> KnownFault:
    key, source, code, name, reason, rid, pasid, iova, access, structure, raw, *counted = row
    where = Rid.parse(rid), None if pasid < 0 else pasid, int(iova, 16) if iova else None
    fault = RecordedFault(code, name, reason, *where, access or None, structure, tuple(json.loads(raw)))
    return KnownFault(key, source, fault, *counted)

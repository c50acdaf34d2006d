# SPDX-License-Identifier: Apache-2.0
"""Rows of page request groups, and how what was read and answered outlives the transaction on real hardware.

There a rollback does not put a request back into its queue, nor take an answer back. So both are noted with the intents
first (iommuctl.state.intents); where the transaction does not come to its end, the repair stores what was noted.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from iommuctl.architecture import PageRequest, PageResponse
from iommuctl.model import Rid, Slot
from iommuctl.page_requests import ENDED, Asked, AskedPages, PageGroup
from iommuctl.state.transaction import Transaction

KEPT = 1000
"""Ids back to which answered groups are kept."""
MOST_REQUESTS = 512
"""Requests of a group that are kept: a device asks again for what it did not get."""
NEXT_ID = "(SELECT ifnull(max(seq), 0) + 1 FROM sqlite_sequence WHERE name IN ('fault', 'page_group'))"
"""An id that neither a fault nor a group has had."""
_READ, _ANSWERED = "page requests read", "page group answered"
_STORED = "page requests stored"
"""How many times requests were stored, a fact about the whole folder."""
_OPEN = ("begun", "waiting")
_COLUMNS = "id, state, rid, pasid, token, requests, since, by, answered"


def store(transaction: Transaction, pages: AskedPages, *, note: bool) -> None:
    """Add what queues held; with `note` it outlives the transaction if that fails."""
    if not pages.asked and not pages.overflow:
        return
    number = (transaction.meta(_STORED) or 0) + 1
    if note:
        transaction.intend({_READ: [number, pages]})
    _store(transaction, number, pages)


def note_answer(transaction: Transaction, group: PageGroup, response: PageResponse, by: str) -> None:
    """Note an answer that is about to be given, and that nothing takes back."""
    transaction.intend({_ANSWERED: [group.slot, group.token, response, by]})


def store_noted(transaction: Transaction, intents: Iterable[Any]) -> list[Any]:
    """Store what was noted of a transaction that did not come to its end; returns the intents that are others'."""
    others, rows = [], PageGroupRows(transaction.connection)
    for intent in intents:
        if _READ in intent:
            number, pages = intent[_READ]
            if number > (transaction.meta(_STORED) or 0):
                _store(transaction, number, AskedPages([_asked(each) for each in pages[0]], pages[1]))
        elif _ANSWERED in intent:
            (rid, pasid), token, response, by = intent[_ANSWERED]
            for group in rows.waiting(Slot(Rid(*rid), pasid)):
                if group.token == token:
                    rows.answer(group, response, by, int(time.time()))
        else:
            others.append(intent)
    return others


def ended(intents: Iterable[Any]) -> list[Slot]:
    """The slots whose groups the kernel may have answered in a transaction that did not come to its end."""
    found = [intent[ENDED] for intent in intents if ENDED in intent]
    return [*dict.fromkeys(Slot(Rid(*rid), pasid) for rid, pasid in found)]


def _store(transaction: Transaction, number: int, pages: AskedPages) -> None:
    rows = PageGroupRows(transaction.connection)
    if pages.overflow:
        rows.forget_begun()
    for each in pages.asked:
        rows.add(each, int(time.time()))
    transaction.set_meta(_STORED, number)


def _asked(noted: Any) -> Asked:
    request, token = noted
    (rid, pasid), *others = request
    return Asked(PageRequest(Slot(Rid(*rid), pasid), *others), token)


class PageGroupRows:
    """The rows of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def add(self, asked: Asked, now: int) -> None:
        """Add a request to its group, which waits from its last one on. Stop markers ask for nothing."""
        request = asked.request
        if request.stops:
            return
        where = (*_columns(request.slot), json.dumps(asked.token))
        begun = self._execute(
            "SELECT id, requests, since FROM page_group WHERE (state, rid, pasid, token) = ('begun', ?, ?, ?)", where
        ).fetchone()
        before: list[Any] = []
        if begun:
            before, now = json.loads(begun[1]), begun[2]
        requests = json.dumps([*before, _stored(request)][:MOST_REQUESTS])
        if begun and not request.last:
            self._execute("UPDATE page_group SET requests = ? WHERE id = ?", (requests, begun[0]))
            return
        if begun:
            # It gets an id of when it ends: so ids tell in which order groups began to wait.
            self._execute("DELETE FROM page_group WHERE id = ?", begun[:1])
        self._execute(
            f"""INSERT INTO page_group (id, state, rid, pasid, token, requests, since, by, answered)
            VALUES ({NEXT_ID}, ?, ?, ?, ?, ?, ?, '', 0)""",
            ("waiting" if request.last else "begun", *where, requests, now),
        )

    def waiting(self, slot: Slot | None = None) -> list[PageGroup]:
        """The groups that wait, or those of a slot, in the order in which they began to."""
        chosen, values = ("", ()) if slot is None else ("AND (rid, pasid) = (?, ?)", _columns(slot))
        rows = self._execute(f"SELECT {_COLUMNS} FROM page_group WHERE state = 'waiting' {chosen} ORDER BY id", values)
        return [_group(row) for row in rows]

    def begun(self) -> list[PageGroup]:
        """The groups whose last request was not read yet."""
        rows = self._execute(f"SELECT {_COLUMNS} FROM page_group WHERE state = 'begun' ORDER BY id")
        return [_group(row) for row in rows]

    def states(self) -> dict[int, str]:
        """What is known of each group that waits or was answered: "waiting", or the answer."""
        return dict(self._execute("SELECT id, state FROM page_group WHERE state <> 'begun'"))

    def find(self, key: int) -> PageGroup | None:
        """The group of that id, answered or not."""
        row = self._execute(f"SELECT {_COLUMNS} FROM page_group WHERE id = ? AND state <> 'begun'", (key,)).fetchone()
        return _group(row) if row else None

    def answer(self, group: PageGroup, response: PageResponse, by: str, now: int) -> None:
        """It is answered. Answers that are old are forgotten."""
        self._execute(
            "UPDATE page_group SET state = ?, by = ?, answered = ? WHERE id = ?", (response, by, now, group.id)
        )
        self._execute("DELETE FROM page_group WHERE id <= ? AND state NOT IN ('begun', 'waiting')", (group.id - KEPT,))

    def forget_begun(self, slot: Slot | None = None) -> None:
        """Groups, or those of a slot, whose last request was not read and will not be."""
        chosen, values = ("", ()) if slot is None else ("AND (rid, pasid) = (?, ?)", _columns(slot))
        self._execute(f"DELETE FROM page_group WHERE state = 'begun' {chosen}", values)

    def had(self, key: int) -> bool:
        """Whether a group had that id once, or a fault."""
        (following,) = self._execute(f"SELECT {NEXT_ID}").fetchone()
        return 0 < key < int(following)


def _columns(slot: Slot) -> tuple[str, int]:
    return str(slot.rid), -1 if slot.pasid is None else slot.pasid


def _stored(request: PageRequest) -> list[Any]:
    """A request in a row, which knows its slot."""
    return [*request[1:]]


def _group(row: Sequence[Any]) -> PageGroup:
    key, state, rid, pasid, token, requests, since, by, answered = row
    slot = Slot(Rid.parse(rid), None if pasid < 0 else pasid)
    found = tuple(PageRequest(slot, *each) for each in json.loads(requests))
    return PageGroup(key, slot, json.loads(token), found, since, None if state in _OPEN else state, by, answered)

# SPDX-License-Identifier: Apache-2.0
"""Rows of page request groups: which wait, that each is answered once, and that none is lost that was read."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.architecture import PageRequest
from iommuctl.errors import Overlap
from iommuctl.model import Rid, Slot
from iommuctl.page_requests import Asked, AskedPages
from iommuctl.recorded import Events, RecordedFault
from iommuctl.state import page_groups, schema
from iommuctl.state.faults import FaultRows
from iommuctl.state.page_groups import PageGroupRows, note_answer, store, store_noted
from iommuctl.state.store import Store
from iommuctl.state.transaction import Transaction
from tests.state.conftest import Repairs

ONE, TWO = Slot(Rid(0, 0, 1, 0)), Slot(Rid(0xFFFF, 0xFF, 0x1F, 7), 5)


@pytest.fixture
def rows(connection: sqlite3.Connection) -> PageGroupRows:
    return PageGroupRows(connection)


def asked(page: int, *, slot: Slot = ONE, token: Any = 0, last: bool = True, write: bool = False) -> Asked:
    return Asked(PageRequest(slot, page << 12, not write, write, 0, last), token)


def waiting(rows: PageGroupRows, slot: Slot | None = None) -> list[tuple[int, list[int]]]:
    """The id and the pages of each group that waits."""
    return [(group.id, [each.iova >> 12 for each in group.requests]) for group in rows.waiting(slot)]


# Groups


def test_a_group_waits_from_its_last_request_on(rows: PageGroupRows) -> None:
    rows.add(asked(1, token="a", last=False), 10)
    rows.add(asked(2, token="a", last=False), 11)
    rows.add(asked(7, token="b"), 11)
    assert waiting(rows) == [(2, [7])]
    assert rows.find(1) is None
    rows.add(asked(3, token="a"), 12)
    assert waiting(rows) == [(2, [7]), (3, [1, 2, 3])]
    group = rows.find(3)
    assert group
    assert (group.slot, group.token, group.since, group.answer) == (ONE, "a", 10, None)


@pytest.mark.parametrize("other", [{"slot": TWO}, {"slot": Slot(ONE.rid, 0)}, {"token": 1}, {"token": [0]}], ids=str)
def test_what_is_another_group(rows: PageGroupRows, other: dict[str, Any]) -> None:
    rows.add(asked(1, last=False), 10)
    rows.add(asked(2, **other), 10)
    rows.add(asked(3), 10)
    assert waiting(rows) == [(2, [2]), (3, [1, 3])]


def test_a_token_can_be_that_of_the_next_group(rows: PageGroupRows) -> None:
    rows.add(asked(1), 10)
    (first,) = rows.waiting()
    rows.answer(first, "success", "me", 11)
    rows.add(asked(2), 12)
    assert waiting(rows) == [(2, [2])]
    assert rows.find(1) == first._replace(answer="success", by="me", answered=11)


def test_a_stop_marker_is_of_no_group(rows: PageGroupRows) -> None:
    rows.add(Asked(PageRequest(TWO, 0, read=False, write=False, group=0, last=True), 0), 10)
    assert waiting(rows) == []
    rows.add(asked(1, slot=TWO, last=False), 10)
    rows.add(Asked(PageRequest(TWO, 0, read=False, write=False, group=0, last=True), 0), 10)
    assert waiting(rows) == []


def test_those_of_a_slot(rows: PageGroupRows) -> None:
    for page, slot in enumerate((ONE, TWO, ONE, Slot(ONE.rid, 5))):
        rows.add(asked(page, slot=slot, token=page), 10)
    assert waiting(rows, ONE) == [(1, [0]), (3, [2])]
    assert waiting(rows, TWO) == [(2, [1])]


def test_begun_groups_are_forgotten(rows: PageGroupRows) -> None:
    for slot in (ONE, TWO):
        rows.add(asked(1, slot=slot, last=False), 10)
        rows.add(asked(2, slot=slot, token=1), 10)
    rows.forget_begun(ONE)
    for slot in (ONE, TWO):
        rows.add(asked(3, slot=slot), 10)
    assert waiting(rows) == [(2, [2]), (4, [2]), (5, [3]), (6, [1, 3])]
    rows.add(asked(4, last=False, token=2), 10)
    rows.forget_begun()
    rows.add(asked(5, token=2), 10)
    assert waiting(rows)[-1] == (8, [5])


def test_a_group_without_end_takes_no_room(rows: PageGroupRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_groups, "MOST_REQUESTS", 3)
    for page in range(9):
        rows.add(asked(page, last=page == 8), 10)
    assert waiting(rows) == [(2, [0, 1, 2])]


def test_old_answers_are_forgotten_and_what_waits_is_not(rows: PageGroupRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_groups, "KEPT", 3)
    for page in range(9):
        rows.add(asked(page, token=page), 10)
    for group in rows.waiting()[1:]:
        rows.answer(group, "invalid", "me", 11)
    assert waiting(rows) == [(1, [0])]
    assert [key for key in range(1, 10) if rows.find(key)] == [1, 7, 8, 9]
    assert [key for key in range(-1, 12) if rows.had(key)] == [*range(1, 10)]


def test_ids_are_those_of_no_fault(connection: sqlite3.Connection, rows: PageGroupRows) -> None:
    faults = FaultRows(connection)
    for page in range(3):
        rows.add(asked(page, token=page), 10)
        faults.add(Events("a", [RecordedFault(1, "F", "so", ONE.rid, None, page << 12, "r", "", (1,))]), 10)
    assert [group.id for group in rows.waiting()] == [1, 3, 5]
    assert [known.id for known in faults.all().faults] == [2, 4, 6]
    assert [key for key in range(1, 8) if faults.has(key)] == [2, 4, 6]


REQUESTS = st.builds(
    PageRequest,
    st.builds(Slot, st.builds(Rid.of, st.integers(0, 2**32 - 1)), st.none() | st.integers(0, 2**20 - 1)),
    st.integers(0, 2**64 - 1), st.just(True), st.booleans(), st.integers(0, 511), st.just(True), st.booleans(),
    st.booleans(),
)  # fmt: skip
TOKENS = st.recursive(st.integers() | st.text(), st.lists, max_leaves=4)


@settings(deadline=None, max_examples=60)
@given(REQUESTS, TOKENS)
def test_every_request_comes_back_as_it_was(request: PageRequest, token: Any) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        schema.create(connection)
        rows = PageGroupRows(connection)
        rows.add(Asked(request, token), 1)
        (group,) = rows.waiting(request.slot)
        assert (group.slot, group.token, group.requests) == (request.slot, token, (request,))
    finally:
        connection.close()


# Nothing is lost that was read or answered


class Keeps(Repairs):
    """Services that store what was noted, as the core's do."""

    def repair(self, transaction: Transaction, backend: str, intents: list[Any]) -> None:
        super().repair(transaction, backend, store_noted(transaction, intents))


@pytest.fixture
def keeps() -> Keeps:
    return Keeps()


@pytest.fixture
def folder(tmp_path: Path, keeps: Keeps) -> Iterator[Store]:
    made = Store(tmp_path / "state", keeps)
    with made.change() as transaction:
        transaction.set_meta("backend", "mine")
    yield made
    made.close()


def read(transaction: Transaction, *pages: int, overflow: bool = False) -> None:
    """A queue held these pages, each a group by itself; the last one is of a group that has only begun."""
    found = [asked(page, token=page, last=page != pages[-1]) for page in pages]
    store(transaction, AskedPages(found, overflow), note=True)


def answer(transaction: Transaction, page: int) -> None:
    """The group of that page is answered, by what cannot be taken back."""
    rows = PageGroupRows(transaction.connection)
    (group,) = [each for each in rows.waiting() if each.token == page]
    note_answer(transaction, group, "success", "me")
    rows.answer(group, "success", "me", 1)


def kept(folder: Store) -> list[tuple[int, list[int]]]:
    with folder.read() as transaction:
        return waiting(PageGroupRows(transaction.connection))


@pytest.mark.parametrize("after_the_commit", [False, True])
def test_a_command_that_is_killed(folder: Store, keeps: Keeps, after_the_commit: bool) -> None:
    with folder.change() as transaction:
        read(transaction, 1, 2, 3)
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        with folder.change() as transaction:
            answer(transaction, 2)
            transaction.intend({"other": 1})
            read(transaction, 4, 3, 5)
            if after_the_commit:
                transaction.after_commit(lambda: os._exit(0))
            else:
                os._exit(0)
        os._exit(9)
    # The queue that page 3 came from last had another last one: it was a request of its group that had begun.
    assert [pages for _, pages in kept(folder)] == [[1], [4], [3, 3]]
    with folder.read() as transaction:
        group = PageGroupRows(transaction.connection).find(2)
        assert group
        assert (group.answer, group.by) == ("success", "me")
    assert [intents for _, intents in keeps.asked] == [[{"other": 1}]]


def test_a_command_that_fails(folder: Store) -> None:
    with contextlib.suppress(Overlap), folder.change() as transaction:
        read(transaction, 1, 2)
        answer(transaction, 1)
        read(transaction, 6, 7)
        raise Overlap("no")
    assert [pages for _, pages in kept(folder)] == [[6]]


def test_an_overflow_that_was_noted(folder: Store) -> None:
    with folder.change() as transaction:
        read(transaction, 1, 2)
    with contextlib.suppress(Overlap), folder.change() as transaction:
        read(transaction, 8, 9, overflow=True)
        raise Overlap("no")
    with folder.change() as transaction:
        read(transaction, 2, 3)
    assert [pages for _, pages in kept(folder)] == [[1], [8], [2]]

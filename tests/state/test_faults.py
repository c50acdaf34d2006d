# SPDX-License-Identifier: Apache-2.0
"""Rows of faults: what counts as the same one, what is kept of many, and that none is lost that was read."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.errors import Overlap
from iommuctl.model import Rid
from iommuctl.recorded import Events, FaultList, Incomplete, RecordedFault
from iommuctl.requests import FaultsRequest
from iommuctl.state import faults, schema
from iommuctl.state.faults import FaultRows, store, store_noted
from iommuctl.state.store import Store
from iommuctl.state.transaction import Transaction
from tests.state.conftest import Repairs

ONE, TWO = Rid(0, 0, 1, 0), Rid(0xFFFF, 0xFF, 0x1F, 7)
PLAIN = RecordedFault(0x10, "F_ONE", "it is so", ONE, None, 0x5123, "r", "mine.record", (0x10, 0x5123))
NOTHING = FaultsRequest({})


@pytest.fixture
def rows(connection: sqlite3.Connection) -> FaultRows:
    return FaultRows(connection)


def fault(page: int) -> RecordedFault:
    return PLAIN._replace(iova=page << 12)


def pages(found: FaultList) -> list[int]:
    return [(known.fault.iova or 0) >> 12 for known in found.faults]


# What is the same


def test_the_same_fault_again_is_counted_and_its_last_record_kept(rows: FaultRows) -> None:
    again = PLAIN._replace(iova=0x5FFF, reason="it is otherwise", raw=(0x10, 0x5FFF))
    rows.add(Events("a", [PLAIN]), 100)
    rows.add(Events("a", [PLAIN, again]), 160)
    (known,) = rows.all().faults
    assert known == (1, "a", again, 3, 100, 160)


@pytest.mark.parametrize(
    "other",
    [
        {"iova": 0x6000},
        {"iova": 0x4FFF},
        {"iova": None},
        {"iova": 0},
        {"rid": TWO},
        {"pasid": 0},
        {"pasid": 1},
        {"code": 0x11},
        {"access": "w"},
        {"access": None},
    ],
    ids=str,
)
def test_what_is_another_fault(rows: FaultRows, other: dict[str, Any]) -> None:
    rows.add(Events("a", [PLAIN, PLAIN._replace(**other), PLAIN]), 100)
    assert [(known.id, known.fault, known.times) for known in rows.all().faults] == [
        (2, PLAIN._replace(**other), 1),
        (1, PLAIN, 2),
    ]


def test_two_sources_have_faults_of_their_own(rows: FaultRows) -> None:
    rows.add(Events("a", [PLAIN]), 100)
    rows.add(Events("b", [PLAIN]), 100)
    assert [(known.source, known.times) for known in rows.all().faults] == [("a", 1), ("b", 1)]


def test_the_one_that_came_last_is_at_the_end_and_keeps_its_id(rows: FaultRows) -> None:
    rows.add(Events("a", [fault(1), fault(2), fault(3)]), 100)
    # A clock that goes backwards changes nothing of it.
    rows.add(Events("a", [fault(2), fault(4)]), 50)
    assert [(known.id, known.first, known.last) for known in rows.all().faults] == [
        (1, 100, 100),
        (3, 100, 100),
        (2, 100, 50),
        (4, 50, 50),
    ]
    assert pages(rows.all()) == [1, 3, 2, 4]


RECORDED = st.builds(
    RecordedFault,
    st.integers(0, 255), st.text(), st.text(),
    st.builds(Rid.of, st.integers(0, 2**32 - 1)), st.none() | st.integers(0, 2**20 - 1),
    st.none() | st.integers(0, 2**64 - 1), st.sampled_from(["r", "w", "x", None]), st.text(),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4).map(tuple),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(RECORDED)
def test_every_fault_comes_back_as_it_was(recorded: RecordedFault) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        schema.create(connection)
        rows = FaultRows(connection)
        rows.add(Events("a", [recorded]), 1)
        assert [known.fault for known in rows.all().faults] == [recorded]
    finally:
        connection.close()


# What is kept, and what is missing


def test_a_flood_leaves_the_faults_that_came_last(rows: FaultRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "KEPT", 4)
    rows.add(Events("a", [fault(page) for page in (1, 2, 3)]), 1)
    rows.add(Events("b", [fault(page) for page in (4, 5)]), 1)
    assert (pages(rows.all()), rows.all().incomplete) == ([2, 3, 4, 5], [Incomplete("a", 0, True, 1)])
    rows.add(Events("b", [fault(4), *(fault(page) for page in range(10, 13))]), 1)
    assert pages(rows.all()) == [4, 10, 11, 12]
    assert rows.all().incomplete == [Incomplete("a", 0, True, 3), Incomplete("b", 0, True, 1)]


def test_a_flood_of_a_million_takes_no_more_room_than_what_is_kept(rows: FaultRows) -> None:
    rows.add(Events("a", [fault(page) for page in range(3 * faults.KEPT)]), 1)
    found = rows.all()
    assert pages(found) == list(range(2 * faults.KEPT, 3 * faults.KEPT))
    assert found.incomplete == [Incomplete("a", 0, True, 2 * faults.KEPT)]


def test_lost_events_add_up(rows: FaultRows) -> None:
    assert rows.all().incomplete == []
    rows.add(Events("a", [PLAIN], lost=3), 1)
    rows.add(Events("b", [], lost=0), 1)
    rows.add(Events("a", [PLAIN], lost=4), 2)
    assert rows.all().incomplete == [Incomplete("a", 7, True, 0)]
    rows.add(Events("a", [], lost=1, exact=False), 3)
    rows.add(Events("a", [], lost=1), 4)
    assert rows.all().incomplete == [Incomplete("a", 9, False, 0)]


def test_positions_come_back(rows: FaultRows) -> None:
    rows.add(Events("a", [PLAIN], position=["token", 5]), 1)
    rows.add(Events("b", [PLAIN]), 1)
    rows.add(Events("a", [], position=["token", 6]), 1)
    assert rows.positions() == {"a": ["token", 6], "b": None}


# Nothing is lost that was read


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


def told(folder: Store) -> list[tuple[int, int]]:
    """The page and the count of each fault."""
    with folder.read() as transaction:
        found = FaultRows(transaction.connection).all()
    return [(page, known.times) for page, known in zip(pages(found), found.faults, strict=True)]


def read(transaction: Transaction, *numbers: int) -> None:
    """A queue held the faults of these pages."""
    store(transaction, NOTHING, [Events("a", [fault(page) for page in numbers], position=numbers[-1])], note=True)


@pytest.mark.parametrize("after_the_commit", [False, True])
def test_a_reader_that_is_killed(folder: Store, after_the_commit: bool) -> None:
    with folder.change() as transaction:
        read(transaction, 1)
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        with folder.change() as transaction:
            if after_the_commit:
                transaction.after_commit(lambda: os._exit(0))
            read(transaction, 1, 2)
            os._exit(0) if not after_the_commit else None
    assert told(folder) == [(1, 2), (2, 1)]
    assert not folder.intents.pending()
    with folder.read() as transaction:
        assert FaultRows(transaction.connection).positions() == {"a": 2}


def read_and_fail(transaction: Transaction, *numbers: int) -> None:
    read(transaction, *numbers)
    raise Overlap("no")


def test_an_operation_that_fails(folder: Store, keeps: Keeps) -> None:
    def operation(transaction: Transaction) -> None:
        transaction.intend({"map": 1})
        read_and_fail(transaction, 1)

    with pytest.raises(Overlap), folder.change() as transaction:
        operation(transaction)
    assert told(folder) == [(1, 1)]
    assert keeps.asked == [("mine", [{"map": 1}])]


def steps(transaction: Transaction) -> None:
    """One of them fails, and the others do not."""
    with transaction.step():
        read(transaction, 1)
    with pytest.raises(Overlap), transaction.step():
        read_and_fail(transaction, 2)
    with transaction.step():
        read(transaction, 2, 3)


@pytest.mark.parametrize("fails", [False, True])
def test_steps_of_a_transaction(folder: Store, fails: bool) -> None:
    def operation(transaction: Transaction) -> None:
        steps(transaction)
        if fails:
            raise Overlap("no")

    with contextlib.suppress(Overlap), folder.change() as transaction:
        operation(transaction)
    assert told(folder) == [(1, 1), (2, 2), (3, 1)]
    assert not folder.intents.pending()


def test_nothing_is_noted_of_an_empty_queue(folder: Store) -> None:
    with folder.change() as transaction:
        before = FaultsRequest({"a": 7})
        store(transaction, before, [Events("a", [], position=7), Events("b", [])], note=True)
        assert not folder.intents.pending()
        assert FaultRows(transaction.connection).positions() == {}
        store(transaction, before, [Events("a", [], position=8)], note=True)
        assert folder.intents.pending()
        assert FaultRows(transaction.connection).positions() == {"a": 8}

# SPDX-License-Identifier: Apache-2.0
"""The rows of a backend: JSON by kind and key, in the order of the keys."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.state import schema
from iommuctl.state.rows import SqlRows
from iommuctl.state.store import Store
from iommuctl.state.transaction import Transaction
from tests.state.conftest import Repairs

KEYS = st.text("ab01.~", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
STEPS = st.lists(st.tuples(st.sampled_from("pd"), st.sampled_from(["k", "l"]), KEYS, VALUES))


@pytest.fixture
def rows(connection: sqlite3.Connection) -> SqlRows:
    return SqlRows(connection)


@settings(deadline=None, max_examples=60)
@given(STEPS, KEYS, KEYS, st.integers(-1, 4))
def test_against_a_dict(steps: list[tuple[str, str, str, object]], first: str, last: str, limit: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection)
    rows = SqlRows(connection)
    model: dict[tuple[str, str], object] = {}
    for step, kind, key, value in steps:
        if step == "p":
            rows.put(kind, key, value)
            model[kind, key] = value
        else:
            rows.delete(kind, key)
            model.pop((kind, key), None)
        assert rows.get(kind, key) == model.get((kind, key))
    for kind in ("k", "l"):
        wanted = sorted((key, value) for (k, key), value in model.items() if k == kind and key >= first)
        assert rows.count(kind) == sum(k == kind for k, _ in model)
        assert list(rows.scan(kind)) == sorted((key, value) for (k, key), value in model.items() if k == kind)
        assert list(rows.scan(kind, first)) == wanted
        assert list(rows.scan(kind, first, last)) == [row for row in wanted if row[0] <= last]
        assert list(rows.scan(kind, first, limit=limit)) == (wanted if limit < 0 else wanted[:limit])
    connection.close()


@pytest.mark.parametrize("read", [False, True])
def test_a_step_that_is_undone_takes_what_was_read_with_it(connection: sqlite3.Connection, read: bool) -> None:
    transaction = Transaction(connection, Store(Path("/nowhere"), Repairs()))
    connection.execute("BEGIN")
    rows = transaction.rows
    rows.put("kind", "kept", "old")
    if read:
        assert (rows.get("kind", "kept"), rows.get("kind", "new")) == ("old", None)
    with transaction.step(undone=True):
        rows.put("kind", "kept", "new")
        rows.put("kind", "new", "new")
        assert rows.get("kind", "kept") == rows.get("kind", "new") == "new"
    assert (rows.get("kind", "kept"), rows.get("kind", "new")) == ("old", None)


def test_what_is_handed_out_is_the_callers_own(rows: SqlRows) -> None:
    rows.put("kind", "key", [1])
    rows.get("kind", "key").append(2)
    assert rows.get("kind", "key") == [1]


def test_rows_may_be_changed_while_they_are_scanned(rows: SqlRows) -> None:
    for key in "abc":
        rows.put("kind", key, key)
    for key, _ in rows.scan("kind"):
        rows.delete("kind", "c")
        rows.put("kind", key + "x", None)
    assert [key for key, _ in rows.scan("kind")] == ["a", "ax", "b", "bx", "cx"]


def test_numbers_of_any_size(rows: SqlRows) -> None:
    """Registers and fault records are wider than what a column of a database holds."""
    rows.put("kind", "key", [1 << 255, -1])
    assert rows.get("kind", "key") == [1 << 255, -1]

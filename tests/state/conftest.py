# SPDX-License-Identifier: Apache-2.0
"""Databases for the tests of the state, in memory and on disk."""

import sqlite3
from collections.abc import Iterator

import pytest

from iommuctl.state import schema


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A database with our tables, in memory."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(made)
    yield made
    made.close()

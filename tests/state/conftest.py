# SPDX-License-Identifier: Apache-2.0
"""Databases for the tests of the state, in memory and on disk."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iommuctl.state import schema
from iommuctl.state.overlay import Backing
from iommuctl.state.transaction import Transaction


class Repairs:
    """Services of a backend that notes what it is asked to repair. `how` is then done, with the transaction."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Any]]] = []
        self.how: Callable[[Transaction], None] = lambda _: None

    def backing(self, transaction: Transaction) -> Backing:
        raise AssertionError(f"the machine of {transaction.folder} has a memory file")

    def repair(self, transaction: Transaction, backend: str, intents: list[Any]) -> None:
        self.asked.append((backend, intents))
        self.how(transaction)


@pytest.fixture
def repairs() -> Repairs:
    return Repairs()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A database with our tables, in memory."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(made)
    yield made
    made.close()

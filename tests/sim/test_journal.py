# SPDX-License-Identifier: Apache-2.0
"""Which operation changed an entry last."""

import pytest

from iommuctl.hookspecs import Settled
from iommuctl.model import Step
from iommuctl_sim.journal import KIND, Journal
from iommuctl_vtd.structures import STRUCTURES
from tests.machine import DictRows

TABLE = 0x5000
SECOND, PASID = "vtd.second-stage-entry", "vtd.pasid-entry"


def word(value: int) -> bytes:
    return value.to_bytes(8, "little")


@pytest.fixture
def rows() -> DictRows:
    return DictRows()


@pytest.fixture
def journal(rows: DictRows) -> Journal:
    """It follows a page of second-stage entries, and one of PASID entries."""
    journal = Journal(rows, STRUCTURES)
    journal.follow([Step(SECOND, TABLE + 8, (3,), {}, 2), Step(PASID, TABLE + 0x1040, (9,) * 8, {}, 0)])
    return journal


def test_the_last_one_counts(journal: Journal) -> None:
    journal.note(Settled("first", [(TABLE + 8, word(0x7003), word(0x8003))]))
    journal.note(Settled("second", [(TABLE + 8, word(0x8003), word(0)), (TABLE + 16, word(0x9003), word(0))]))
    assert [journal.operation(TABLE + at, 8) for at in (0, 8, 16, 24)] == [None, "second", "second", None]


def test_what_was_not_there_is_in_no_cache(journal: Journal) -> None:
    journal.note(Settled("taken away", [(TABLE + 8, word(0x7003), word(0))]))
    journal.note(Settled("put there", [(TABLE + 8, word(0), word(0x8003))]))
    assert journal.operation(TABLE + 8, 8) == "taken away"


def test_bits_that_hardware_sets(journal: Journal) -> None:
    """A and D, and those that hardware ignores, are no change."""
    journal.note(Settled("sim dma", [(TABLE + 8, word(0x7003), word(0x7303))]))
    journal.note(Settled("software's bits", [(TABLE + 8, word(0x7003), word(0x7003 | 1 << 52))]))
    assert journal.operation(TABLE + 8, 8) is None


def test_a_part_of_a_structure(journal: Journal) -> None:
    journal.note(Settled("attach", [(TABLE + 0x1048, word(1), word(2))]))
    assert journal.operation(TABLE + 0x1040, 64) == "attach"
    assert journal.operation(TABLE + 0x1000, 64) is None
    assert journal.operation(TABLE + 0x1080, 64) is None


def test_a_long_write(journal: Journal) -> None:
    old = word(0x7003) * 4
    journal.note(Settled("unmap", [(TABLE + 0x100, old, word(0x7003) + bytes(16) + word(0x7003))]))
    assert [journal.operation(TABLE + 0x100 + at, 8) for at in (0, 8, 16, 24)] == [None, "unmap", "unmap", None]


def test_the_ends_of_a_page(journal: Journal) -> None:
    for at in (0, 0xFF8):
        journal.note(Settled(f"at {at}", [(TABLE + at, word(0x7003), word(0))]))
        assert journal.operation(TABLE + at, 8) == f"at {at}"


def test_pages_that_nobody_follows(journal: Journal, rows: DictRows) -> None:
    journal.note(Settled("elsewhere", [(0x9000, word(1), word(0))]))
    assert rows.count(KIND) == 2
    Journal(DictRows(), STRUCTURES).note(Settled("nothing is followed", [(0x9000, word(1), word(0))]))


def test_following_again_forgets_nothing(journal: Journal, rows: DictRows) -> None:
    journal.note(Settled("unmap", [(TABLE + 8, word(0x7003), word(0))]))
    Journal(rows, STRUCTURES).follow([Step(SECOND, TABLE + 8, (3,), {}, 2)])
    assert journal.operation(TABLE + 8, 8) == "unmap"


def test_a_page_that_is_used_anew(journal: Journal) -> None:
    journal.note(Settled("map", [], {TABLE, 0x9000}))
    assert [journal.operation(address, 8) for address in (TABLE + 0x800, TABLE + 0x1040, 0x9000)] == ["map", None, None]


def test_it_is_bounded(journal: Journal, rows: DictRows) -> None:
    for number in range(200):
        journal.note(Settled(f"unmap {number}", [(TABLE + 8 * number, word(0x7003), word(0))]))
    assert len(rows.get(KIND, f"{TABLE:016x}")[1]) == 32
    assert journal.operation(TABLE, 8) is None
    assert journal.operation(TABLE + 8 * 199, 8) == "unmap 199"

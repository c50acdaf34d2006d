# SPDX-License-Identifier: Apache-2.0
"""The allocator of pages: against a set of page numbers, and the promises that a set cannot express."""

import sqlite3
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.errors import DamagedTable, NoRoom
from iommuctl.formats.memory import PAGE, Run
from iommuctl.state import schema
from iommuctl.state.extents import Extents, create_pool, settle

BASE = 0x10_0000


def pages_of(run: Run) -> set[int]:
    return set(range(run.address // PAGE, run.address // PAGE + run.pages))


def pool(connection: sqlite3.Connection, pages: int, name: str = "tables") -> Extents:
    create_pool(connection, name, BASE, pages * PAGE)
    return Extents(connection, name, [])


def end(connection: sqlite3.Connection, extents: Extents) -> None:
    """What the end of a transaction does."""
    settle(connection, extents.freed)
    extents.freed.clear()


def checkered(connection: sqlite3.Connection) -> Extents:
    """Free runs of 1, 2, 3 and 4 pages, with a page taken between them."""
    extents = pool(connection, 13)
    extents.allocate_run(13)
    page = 0
    for pages in (1, 2, 3, 4):
        extents.free(Run(BASE + page * PAGE, pages))
        page += pages + 1
    end(connection, extents)
    return extents


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pages", "run", "top", "free", "free", "free part", "settle"]),
        st.integers(1, 20),
        st.integers(0, 1 << 16),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(size=st.integers(1, 64), steps=STEPS)
def test_against_a_set(size: int, steps: list[tuple[str, int, int]]) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection)
    extents = pool(connection, size)
    free = pages_of(Run(BASE, size))
    freed: set[int] = set()
    taken: list[Run] = []
    for kind, count, number in steps:
        match kind:
            case "pages":
                if count > len(free):
                    # The caller rolls back, so what it took before it failed does not matter.
                    connection.execute("BEGIN")
                    with pytest.raises(NoRoom):
                        extents.allocate(count)
                    connection.execute("ROLLBACK")
                    continue
                runs = extents.allocate(count)
                assert sum(run.pages for run in runs) == count
                taken += runs
            case "run" | "top":
                fits = any(pages_of(Run(page * PAGE, count)) <= free for page in free)
                try:
                    address = extents.allocate_run(count) if kind == "run" else extents.allocate_top(count, 4 * PAGE)
                except NoRoom:
                    assert not fits
                    continue
                assert fits
                runs = [Run(address, count)]
                taken += runs
            case "free" | "free part":
                if taken:
                    run = taken.pop(number % len(taken))
                    if kind == "free part" and run.pages > 1:
                        keep = 1 + number % (run.pages - 1)
                        taken.append(Run(run.address, keep))
                        run = Run(run.address + keep * PAGE, run.pages - keep)
                    extents.free(run)
                    freed |= pages_of(run)
                runs = []
            case _:
                end(connection, extents)
                free |= freed
                freed = set()
                runs = []
        for run in runs:
            assert pages_of(run) <= free, "a page was handed out that was not free"
            free -= pages_of(run)
        assert set().union(*map(pages_of, extents.free_runs())) == free | freed
    end(connection, extents)
    ends = [(run.address, run.address + run.pages * PAGE) for run in extents.free_runs()]
    assert all(a[1] < b[0] for a, b in pairwise(ends)), "free runs that touch were not joined"
    connection.close()


def test_what_is_freed_is_kept_aside_until_the_end(connection: sqlite3.Connection) -> None:
    """Memory holds what reaches these pages until the transaction has committed."""
    extents = pool(connection, 4)
    (run,) = extents.allocate(4)
    extents.free(run)
    with pytest.raises(NoRoom):
        extents.allocate(1)
    end(connection, extents)
    assert extents.allocate(4) == [run]


def test_the_smallest_run_that_is_large_enough(connection: sqlite3.Connection) -> None:
    extents = checkered(connection)
    sizes = [run.pages for run in extents.free_runs()]
    assert sizes == [1, 2, 3, 4]
    extents.allocate_run(2)
    assert [run.pages for run in extents.free_runs()] == [1, 3, 4]
    assert [run.pages for run in extents.allocate(3)] == [3]


def test_several_runs_the_largest_first(connection: sqlite3.Connection) -> None:
    extents = checkered(connection)
    assert [run.pages for run in extents.allocate(8)] == [4, 3, 1]
    assert [run.pages for run in extents.free_runs()] == [2]


def test_contiguous_pages_are_not_pieced_together(connection: sqlite3.Connection) -> None:
    extents = checkered(connection)
    with pytest.raises(NoRoom) as caught:
        extents.allocate_run(5)
    assert "tables" in caught.value.what
    assert caught.value.because
    assert caught.value.hint


@pytest.mark.parametrize(
    ("pages", "alignment", "offset"), [(1, 1, 99), (3, 4, 96), (8, 16, 80), (99, 64, 1), (36, 64, 64), (40, 64, 60)]
)
def test_from_the_top_and_aligned(connection: sqlite3.Connection, pages: int, alignment: int, offset: int) -> None:
    """As high as the alignment of the address allows, and only of a page where there is no room for more."""
    extents = pool(connection, 100)
    address = extents.allocate_top(pages, alignment * PAGE)
    assert (address - BASE) // PAGE == offset


@pytest.mark.parametrize(
    "run", [Run(BASE, 1), Run(BASE - PAGE, 2), Run(BASE + PAGE, 2), Run(BASE + 3 * PAGE, 1), Run(BASE - PAGE, 99)]
)
def test_what_is_free_cannot_be_given_back(connection: sqlite3.Connection, run: Run) -> None:
    """Tables that somebody else wrote may point to anything."""
    extents = pool(connection, 4)
    extents.free(run)
    with pytest.raises(DamagedTable):
        end(connection, extents)


def test_pools_do_not_mix(connection: sqlite3.Connection) -> None:
    tables, ram = pool(connection, 2), pool(connection, 3, "ram")
    tables.allocate(2)
    with pytest.raises(NoRoom):
        tables.allocate(1)
    assert ram.free_runs() == [Run(BASE, 3)]
    ram.drop()
    assert ram.free_runs() == []


def test_what_a_dropped_pool_got_back_is_forgotten(connection: sqlite3.Connection) -> None:
    extents = pool(connection, 4)
    (run,) = extents.allocate(2)
    extents.free(run)
    extents.drop()
    end(connection, extents)
    assert extents.free_runs() == []


def test_a_pool_has_whole_pages_only(connection: sqlite3.Connection) -> None:
    create_pool(connection, "tables", BASE, 3 * PAGE + PAGE - 1)
    assert Extents(connection, "tables", []).free_runs() == [Run(BASE, 3)]

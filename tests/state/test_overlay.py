# SPDX-License-Identifier: Apache-2.0
"""Memory as one transaction sees it: against plain bytes, and the order in which it reaches the file."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iommuctl.errors import DamagedTable, OutsideMemory
from iommuctl.formats.memory import PAGE, FileMemory, Run
from iommuctl.model import MemoryWrite
from iommuctl.state.extents import Extents, create_pool
from iommuctl.state.overlay import Overlay

BASE, PAGES = 0x4000_0000, 8
SIZE = PAGES * PAGE
TABLES = (BASE + 4 * PAGE, 4 * PAGE)
LIVE, TABLE = BASE, BASE + 4 * PAGE


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(opened, bytes(range(256)) * (SIZE // 256), 0)
    yield opened
    os.close(opened)


@pytest.fixture
def overlay(connection: sqlite3.Connection, descriptor: int) -> Overlay:
    create_pool(connection, "tables", *TABLES)
    return Overlay(FileMemory(descriptor, BASE, SIZE), Extents(connection, "tables", []), TABLES)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, SIZE, 0)


def finish(overlay: Overlay, descriptor: int) -> None:
    """What a transaction does with it."""
    overlay.write_fresh()
    overlay.reserve_live()
    for address, _, new in overlay.live:
        os.pwrite(descriptor, new, address - BASE)


PLACES = st.tuples(st.integers(0, SIZE), st.integers(0, 3 * PAGE)).map(
    lambda place: (place[0], min(place[1], SIZE - place[0]))
)
WHOLE = st.sampled_from([(2 * PAGE, PAGE), (5 * PAGE, 2 * PAGE)])
WRITES = st.lists(st.tuples(st.one_of(PLACES, WHOLE), st.integers(0, 255)))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=WRITES, reads=st.lists(PLACES, min_size=1), fresh=st.sets(st.integers(0, PAGES - 1)))
def test_against_plain_bytes(
    connection: sqlite3.Connection,
    descriptor: int,
    writes: list[tuple[tuple[int, int], int]],
    reads: list[tuple[int, int]],
    fresh: set[int],
) -> None:
    before = bytes(range(256)) * (SIZE // 256)
    os.pwrite(descriptor, before, 0)
    overlay = Overlay(FileMemory(descriptor, BASE, SIZE), Extents(connection, "none", []), TABLES)
    for page in fresh:
        overlay.mark_fresh(Run(BASE + page * PAGE, 1))
    model = bytearray(before)
    for (offset, size), value in writes:
        data = bytes((value + index) % 251 for index in range(size))
        overlay.write(BASE + offset, data)
        model[offset : offset + size] = data
    for offset, size in reads:
        assert overlay.read(BASE + offset, size) == model[offset : offset + size]
    assert content(descriptor) == before, "the file was written before the end"
    # What a dry run shows, written word by word, leads to the same memory.
    shown = bytearray(before)
    for address, _, new, *_ in overlay.writes():
        shown[address - BASE : address - BASE + 8] = new.to_bytes(8, "little")
    assert shown == model
    finish(overlay, descriptor)
    assert content(descriptor) == model


STEPS = st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, PAGES - 1), max_size=2), WRITES))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_steps_against_plain_bytes(
    connection: sqlite3.Connection,
    descriptor: int,
    steps: list[tuple[bool, set[int], list[tuple[tuple[int, int], int]]]],
) -> None:
    before = bytes(range(256)) * (SIZE // 256)
    os.pwrite(descriptor, before, 0)
    overlay = Overlay(FileMemory(descriptor, BASE, SIZE), Extents(connection, "none", []), TABLES)
    model = bytearray(before)
    allocated: set[int] = set()
    for undone, fresh, writes in steps:
        overlay.begin_step()
        kept = bytes(model)
        for page in fresh:
            overlay.mark_fresh(Run(BASE + page * PAGE, 1))
        for (offset, size), value in writes:
            data = bytes((value + index) % 251 for index in range(size))
            overlay.write(BASE + offset, data)
            model[offset : offset + size] = data
        used = bytearray(kept)
        for address, old, new in overlay.used:
            place = slice(address - BASE, address - BASE + len(new))
            assert used[place] == old
            used[place] = new
        for page in range(0, SIZE, PAGE):
            if BASE + page not in overlay.new_pages():
                assert used[page : page + PAGE] == model[page : page + PAGE]
        if undone:
            overlay.undo_step()
            model = bytearray(kept)
        else:
            allocated |= fresh
        assert overlay.read(BASE, SIZE) == model
    assert content(descriptor) == before
    overlay.write_fresh()
    for page in {*range(PAGES)} - allocated:
        place = slice(page * PAGE, (page + 1) * PAGE)
        assert content(descriptor)[place] == before[place], "a page in use was written before the commit"
    finish(overlay, descriptor)
    assert content(descriptor) == model


def test_live_writes_are_kept_in_their_order(overlay: Overlay) -> None:
    overlay.write(LIVE + 8, b"\1" * 8)
    overlay.write(LIVE, b"\2" * 8)
    overlay.write(LIVE + 8, b"\3" * 8)
    old = int.from_bytes(bytes(range(8, 16)), "little")
    one, three = (int.from_bytes(bytes([n] * 8), "little") for n in (1, 3))
    shown = list(overlay.writes())
    assert [write.address for write in shown] == [LIVE + 8, LIVE, LIVE + 8]
    assert (shown[0].old, shown[0].new, shown[2].old, shown[2].new) == (old, one, one, three)


def test_fresh_pages_come_first_and_live_words_after_them(overlay: Overlay, descriptor: int) -> None:
    """Nothing may reach a table before it is there."""
    overlay.write(LIVE, b"\1" * 8)
    (run,) = overlay.allocate(1)
    overlay.write(run.address, b"\2" * PAGE)
    before = content(descriptor)
    assert [write.address for write in overlay.writes()][-1] == LIVE
    overlay.write_fresh()
    after = content(descriptor)
    assert after[4 * PAGE : 5 * PAGE] == b"\2" * PAGE
    assert after[: 4 * PAGE] == before[: 4 * PAGE]
    assert [address for address, _, _ in overlay.live] == [LIVE]


def test_a_page_of_somebody_else_is_live_even_in_table_memory(overlay: Overlay) -> None:
    overlay.write(TABLE, b"\1" * 8)
    assert [address for address, _, _ in overlay.live] == [TABLE]


def test_words_that_do_not_change_are_not_shown(overlay: Overlay) -> None:
    overlay.write(LIVE, bytes(range(16)))
    assert list(overlay.writes()) == []
    overlay.write(LIVE + 3, b"\xff")
    word = int.from_bytes(bytes(range(8)), "little")
    assert list(overlay.writes()) == [MemoryWrite(LIVE, word, word & ~(0xFF << 24) | 0xFF << 24)]


def test_a_fresh_page_that_is_written_in_parts(overlay: Overlay, descriptor: int) -> None:
    address = overlay.allocate_run(2)
    overlay.write(address, b"\1" * 2 * PAGE)
    overlay.write(address + PAGE - 4, b"\2" * 8)
    overlay.write_fresh()
    wanted = b"\1" * (PAGE - 4) + b"\2" * 8 + b"\1" * (PAGE - 4)
    assert os.pread(descriptor, 2 * PAGE, address - BASE) == wanted
    assert overlay.live == []


def test_what_is_outside_is_refused_and_nothing_written(overlay: Overlay) -> None:
    for address, data in ((BASE - 1, b"xx"), (BASE + SIZE - 1, b"xx"), (0, b"x"), (BASE + SIZE, b"x")):
        with pytest.raises(OutsideMemory):
            overlay.write(address, data)
        with pytest.raises(OutsideMemory):
            overlay.read(address, len(data))
    assert list(overlay.writes()) == []
    with pytest.raises(OutsideMemory):
        overlay.read(BASE, -1)


def test_only_pages_of_tables_are_given_back(overlay: Overlay) -> None:
    for run in (Run(LIVE, 1), Run(TABLE - PAGE, 2), Run(TABLE, 5), Run(BASE + SIZE, 1)):
        with pytest.raises(DamagedTable):
            overlay.free(run)
    overlay.free(overlay.allocate(4)[0])


def test_holes_of_the_file_are_filled_before_the_commit(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """After it there must be no write that can find the disk full."""
    path = tmp_path / "sparse"
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(opened, SIZE)
    overlay = Overlay(FileMemory(opened, BASE, SIZE), Extents(connection, "tables", []), TABLES)
    overlay.write(LIVE + PAGE, b"\1" * 8)
    assert path.stat().st_blocks == 0
    overlay.reserve_live()
    assert path.stat().st_blocks * 512 >= PAGE
    assert content(opened) == bytes(SIZE)
    os.close(opened)


def test_new_pages_that_are_written_out_are_in_use_from_then_on(overlay: Overlay, descriptor: int) -> None:
    """What follows is a live write: it comes after the commit, and a step that is undone takes it back."""
    (run,) = overlay.allocate(1)
    place = slice(run.address - BASE, run.address - BASE + PAGE)
    overlay.write(run.address, b"\1" * PAGE)
    overlay.write_out()
    assert content(descriptor)[place] == b"\1" * PAGE
    overlay.begin_step()
    overlay.write(run.address + 8, b"\2" * 8)
    assert [(address, new) for address, _, new in overlay.live] == [(run.address + 8, b"\2" * 8)]
    overlay.undo_step()
    assert overlay.live == []
    overlay.write(run.address + 16, b"\3" * 8)
    assert content(descriptor)[place] == b"\1" * PAGE, "a page in use was written before the commit"
    finish(overlay, descriptor)
    assert content(descriptor)[place] == b"\1" * 16 + b"\3" * 8 + b"\1" * (PAGE - 24)
    assert overlay.read(run.address, PAGE) == content(descriptor)[place]

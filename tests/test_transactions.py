# SPDX-License-Identifier: Apache-2.0
"""Several calls of class Iommu in one transaction."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iommuctl import Iommu
from iommuctl.errors import DiskFailed, IommuError, NameTaken, NoRoom, OtherBackend, SlotOccupied, Usage
from iommuctl.testing.probes import snapshot

RIDS = ("0000:00:01.0", "0000:00:02.0")
POOL = 0x10_0000
BUFFER = 0x40_0000
IOVA = 0x7F00_0000_0000


@pytest.fixture
def iommu(tmp_path: Path) -> Iterator[Iommu]:
    with Iommu(tmp_path / "state", backend="sim") as opened:
        yield opened


def build(iommu: Iommu) -> None:
    iommu.memory_create("ram", 8 << 20)
    iommu.domain_create("vm", nest_parent=True)
    iommu.map("vm", iova=0, size=8 << 20, memory="ram")
    for rid in RIDS:
        iommu.device_add(rid, ats=True, pasid_bits=8)
        iommu.attach("vm", rid)
    iommu.pgtable_create("process", parent="vm", pool=POOL, pool_size=0x1_0000)
    iommu.pgtable_map("process", iova=IOVA, size=0x4000, gpa=BUFFER)
    iommu.bind_pgtable("vm", RIDS[0], pgtable="process", pasid=1)


def test_all_of_it_takes_effect(iommu: Iommu) -> None:
    with iommu.transaction():
        build(iommu)
        assert iommu.dma(RIDS[0], IOVA, data=b"inside", pasid=1).fault is None
        assert iommu.dma(RIDS[1], BUFFER, size=6).data == b"inside"
        assert iommu.check() == []
        assert len(iommu.slots()) == 3
    assert iommu.check() == []
    assert iommu.dma(RIDS[0], IOVA, size=6, pasid=1).data == b"inside"


def test_other_processes_see_all_or_nothing(iommu: Iommu) -> None:
    """A reader would wait for the end, so the files are looked at."""
    before = snapshot(iommu)
    with iommu.transaction():
        build(iommu)
        rows = snapshot(iommu).rows
    assert rows == before.rows
    assert snapshot(iommu).rows["slot"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_leaves_the_state_as_it_was(iommu: Iommu, error: type[BaseException]) -> None:
    build(iommu)
    before = snapshot(iommu)

    def fail() -> None:
        with iommu.transaction():
            iommu.unbind_pgtable("vm", RIDS[0], pasid=1)
            iommu.pgtable_destroy("process")
            iommu.detach("vm", RIDS[1])
            iommu.device_remove(RIDS[1])
            iommu.dma(RIDS[0], BUFFER, data=b"lost")
            raise error

    with pytest.raises(error):
        fail()
    assert snapshot(iommu) == before
    assert iommu.check() == []


def test_a_dry_run_leaves_the_state_as_it_was(iommu: Iommu) -> None:
    with iommu.transaction(dry_run=True):
        build(iommu)
        assert iommu.domains()
    assert not iommu.domains()
    assert iommu.backend_name is None


def test_a_machine_that_was_only_tried_is_not_written_to_later(iommu: Iommu) -> None:
    """The file of the one that is made then has the name of the one that is gone."""
    with iommu.transaction(dry_run=True):
        build(iommu)
    build(iommu)
    assert iommu.dma(RIDS[0], IOVA, data=b"inside", pasid=1).fault is None
    with Iommu(iommu.state) as other:
        assert other.check() == []
        assert other.dma(RIDS[0], IOVA, size=6, pasid=1).data == b"inside"


def test_a_call_that_fails_is_undone_by_itself(iommu: Iommu) -> None:
    build(iommu)
    with iommu.transaction():
        iommu.domain_create("other")
        with pytest.raises(NameTaken):
            iommu.domain_create("other")
        with pytest.raises(SlotOccupied):
            iommu.attach("other", RIDS[0])
        iommu.attach("other", RIDS[1], replace=True)
    assert [domain.name for domain in iommu.domains()] == ["vm", "other"]
    assert iommu.check() == []


def test_a_call_may_be_a_dry_run(iommu: Iommu) -> None:
    build(iommu)
    with iommu.transaction():
        iommu.dry_run = True
        iommu.attach("vm", RIDS[1], pasid=2)
        writes = iommu.last.writes
        iommu.dry_run = False
        assert len(iommu.slots()) == 3
    assert writes
    assert len(iommu.slots()) == 3


def test_what_a_call_gave_back_is_in_use_again_when_it_is_undone(iommu: Iommu) -> None:
    build(iommu)
    iommu.domain_create("host")
    iommu.map("host", iova=0, size=4096, memory="ram")
    with iommu.transaction():
        iommu.dry_run = True
        iommu.unmap("host", iova=0, size=4096)
        iommu.domain_destroy("host")
        iommu.pgtable_unmap("process", iova=IOVA, size=0x4000)
        iommu.dry_run = False
        assert iommu.check() == []
    assert iommu.check() == []
    iommu.domain_destroy("host")
    assert iommu.check() == []


def test_in_a_dry_run_calls_show_their_writes_and_see_each_other(iommu: Iommu) -> None:
    build(iommu)
    before = snapshot(iommu)
    with iommu.transaction(dry_run=True):
        iommu.dry_run = True
        iommu.domain_create("new")
        iommu.attach("new", RIDS[0], pasid=2)
        assert iommu.last.writes
        iommu.dry_run = False
    assert snapshot(iommu) == before


def test_each_call_reports_its_own_commands(iommu: Iommu) -> None:
    build(iommu)
    iommu.domain_create("other")

    def change() -> tuple[int, int]:
        iommu.attach("other", RIDS[1], pasid=1)
        first = len(iommu.last.commands)
        iommu.detach("other", RIDS[1], pasid=1)
        return first, len(iommu.last.commands)

    alone = change()
    with iommu.transaction():
        assert change() == alone


def test_one_at_a_time(iommu: Iommu) -> None:
    with iommu.transaction(), pytest.raises(Usage), iommu.transaction():
        pass
    build(iommu)
    with iommu.reading(), pytest.raises(Usage), iommu.transaction():
        pass


def test_the_machine_is_made_new_before_it_is_used_or_not_at_all(iommu: Iommu) -> None:
    build(iommu)
    with iommu.transaction():
        iommu.reset()
        build(iommu)
    assert len(iommu.slots()) == 3
    with iommu.transaction():
        iommu.detach("vm", RIDS[1])
        with pytest.raises(Usage, match="cannot be made new here"):
            iommu.reset()
    assert len(iommu.slots()) == 2
    assert iommu.check() == []


def test_a_backend_that_the_folder_does_not_have_is_refused_and_not_remembered(iommu: Iommu) -> None:
    iommu.domain_create("d")
    with Iommu(iommu.state) as other:
        for within in (nullcontext, other.transaction):
            with within(), pytest.raises(OtherBackend):
                other.require_backend("vtd")
            assert other.domains()


def test_the_machine_may_be_looked_at_before_it_is_made_new(iommu: Iommu) -> None:
    build(iommu)
    with iommu.transaction():
        assert iommu.pgtable_mappings("process")
        iommu.reset()
        build(iommu)
        assert iommu.pgtable_mappings("process")
    assert iommu.check() == []
    assert iommu.dma(RIDS[0], IOVA, data=b"inside", pasid=1).fault is None


def test_a_reset_that_is_only_tried_leaves_what_was_looked_at(iommu: Iommu) -> None:
    build(iommu)
    before = snapshot(iommu)
    with iommu.transaction():
        pages = iommu.pgtable_mappings("process")
        iommu.dry_run = True
        iommu.reset()
        iommu.dry_run = False
        assert iommu.pgtable_mappings("process") == pages
    assert snapshot(iommu) == before


def test_memory_that_was_given_back_is_not_given_to_a_new_machine(iommu: Iommu) -> None:
    iommu.memory_create("ram", 8 << 20)
    with iommu.transaction():
        iommu.memory_destroy("ram")
        with pytest.raises(Usage, match="cannot be made new here"):
            iommu.reset()
    assert iommu.memories() == []


def test_a_stale_answer_names_the_step(iommu: Iommu) -> None:
    """What an earlier step of the transaction allocated is in use, as caches go."""
    with iommu.transaction():
        build(iommu)
        assert iommu.dma(RIDS[0], IOVA, size=4, pasid=1).fault is None
        iommu.pgtable_unmap("process", iova=IOVA, size=0x1000)
        result = iommu.dma(RIDS[0], IOVA, size=4, pasid=1)
    assert result.stale
    assert {each.operation for each in result.changed} == {f"pgtable unmap process --iova {IOVA:#x} --size 0x1000"}


@pytest.mark.parametrize("caught", ["and the block ends", "and another call follows"])
def test_what_sqlite_gives_up_is_given_up_for_good(iommu: Iommu, caught: str) -> None:
    """On a full disk SQLite rolls back all that was done, so that a call after it would take effect by itself."""
    build(iommu)
    before = snapshot(iommu)
    assert iommu._store._connection
    limit = iommu._store._connection.execute

    def fill() -> None:
        for number in range(10_000):
            iommu.domain_create(f"d{number}", label="long" * 10)

    def change() -> None:
        with iommu.transaction():
            iommu.detach("vm", RIDS[1])
            limit(f"PRAGMA max_page_count = {limit('PRAGMA page_count').fetchone()[0]}")
            with pytest.raises(NoRoom):
                fill()
            limit("PRAGMA max_page_count = 1000000")
            if "follows" in caught:
                iommu.domain_create("after")

    with pytest.raises(DiskFailed, match="given up"):
        change()
    assert snapshot(iommu) == before
    assert iommu.check() == []


def test_a_new_pool_is_the_guests_until_the_commit(iommu: Iommu, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last thing before it that can fail is making room for writes to memory that is in use."""
    build(iommu)
    pool = 0x20_0000
    iommu.dma(RIDS[1], pool, data=b"the guest's own")
    before = snapshot(iommu)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    def change() -> None:
        with iommu.transaction():
            iommu.pgtable_create("new", parent="vm", pool=pool, pool_size=0x4000)
            iommu.dma(RIDS[1], BUFFER, data=b"elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(NoRoom):
            change()
    assert snapshot(iommu) == before
    change()
    assert iommu.check() == []


@pytest.mark.parametrize("block", [Iommu.transaction, Iommu.reading])
def test_an_error_of_the_callers_own_comes_out_as_it_is(iommu: Iommu, block: Callable[[Iommu], Any]) -> None:
    """It is no error of the state folder, whatever its type."""
    build(iommu)
    for error in (FileNotFoundError(2, "no list of devices"), sqlite3.OperationalError("another database")):
        with pytest.raises(type(error)) as raised, block(iommu):
            raise error
        assert raised.value is error
    assert iommu.check() == []


# Any calls, in transactions or each by itself

_NAMES = ("a", "b")
CALLS: dict[str, Callable[[Iommu, int], Any]] = {
    "create": lambda iommu, n: iommu.domain_create(_NAMES[n % 2], nest_parent=n % 3 == 0),
    "destroy": lambda iommu, n: iommu.domain_destroy(_NAMES[n % 2], force=n % 3 == 0),
    "map": lambda iommu, n: iommu.map(_NAMES[n % 2], iova=(n % 4) * 0x20_0000, size=0x20_0000, memory="ram"),
    "map small": lambda iommu, n: iommu.map(_NAMES[n % 2], iova=(n % 9) << 12, size=0x1000, memory="ram"),
    "unmap": lambda iommu, n: iommu.unmap(_NAMES[n % 2], iova=(n % 4) * 0x20_0000, size=0x20_0000),
    "attach": lambda iommu, n: iommu.attach(_NAMES[n % 2], RIDS[n % 2], pasid=n % 3 or None, replace=n % 5 == 0),
    "detach": lambda iommu, n: iommu.detach(_NAMES[n % 2], RIDS[n % 2], pasid=n % 3 or None, force=n % 5 == 0),
    "pgtable": lambda iommu, n: iommu.pgtable_create("t", parent=_NAMES[n % 2], pool=0, pool_size=0x8000),
    "pgtable map": lambda iommu, n: iommu.pgtable_map("t", iova=(n % 3) << 30, size=0x2000, gpa=0x1_0000),
    "pgtable unmap": lambda iommu, n: iommu.pgtable_unmap("t", iova=(n % 3) << 30, size=0x2000),
    "pgtable destroy": lambda iommu, n: iommu.pgtable_destroy("t", force=n % 2 == 0),
    "bind": lambda iommu, n: iommu.bind_pgtable(_NAMES[n % 2], RIDS[n % 2], pgtable="t", pasid=n % 3 or None),
    "unbind": lambda iommu, n: iommu.unbind_pgtable(_NAMES[n % 2], RIDS[n % 2], pasid=n % 3 or None),
    "dma": lambda iommu, n: iommu.dma(RIDS[n % 2], n << 12, data=bytes([n + 1]) * 8, pasid=n % 3 or None),
}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.tuples(st.booleans(), st.lists(st.tuples(st.sampled_from(sorted(CALLS)), st.integers(0, 29)), max_size=12)),
        min_size=1,
        max_size=4,
    )
)
def test_together_or_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bool, list[tuple[str, int]]]]
) -> None:
    """A transaction ends as its calls would by themselves; one that is thrown away leaves nothing."""
    folder = tmp_path_factory.mktemp("states")
    with Iommu(folder / "together", backend="sim") as together, Iommu(folder / "alone", backend="sim") as alone:
        for iommu in (together, alone):
            iommu.memory_create("ram", 8 << 20)
            for rid in RIDS:
                iommu.device_add(rid, pasid_bits=4)
        for dropped, calls in parts:
            before = snapshot(together) if dropped else None
            with together.transaction(dry_run=dropped):
                answers = [_answer(together, *call) for call in calls]
                assert together.check() == []
            if before:
                assert snapshot(together) == before
            else:
                assert [_answer(alone, *call) for call in calls] == answers
        assert _content(together) == _content(alone)
        assert together.check() == alone.check() == []


def _answer(iommu: Iommu, name: str, number: int) -> str:
    try:
        answer = CALLS[name](iommu, number)
    except IommuError as error:
        return f"{error.id}: {error.what}"
    return f"{answer.fault}, {answer.pieces}" if name == "dma" else "done"


def _content(iommu: Iommu) -> list[Any]:
    tables = [iommu.pgtable_mappings(table.name) for table in iommu.pgtables()]
    names = [domain.name for domain in iommu.domains()]
    return [
        names,
        [iommu.mappings(name) for name in names],
        [(str(s.slot), s.domain.name, type(s).__name__) for s in iommu.slots()],
        tables,
        iommu.read_memory(iommu.memory("ram").pa, 8 << 20),
    ]

# SPDX-License-Identifier: Apache-2.0
"""What a change was about to do to the kernel is repaired by the next one, wherever it was killed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl.errors import KernelRefused, Overlap, StateDamaged
from iommuctl.requests import MemoryPlan
from iommuctl.state.overlay import Overlay
from iommuctl.state.store import Store
from iommuctl.state.transaction import Transaction
from tests.state.conftest import Repairs


@pytest.fixture
def store(tmp_path: Path, repairs: Repairs) -> Iterator[Store]:
    made = Store(tmp_path / "state", repairs)
    with made.change() as transaction:
        transaction.set_meta("backend", "mine")
    yield made
    made.close()


def killed(store: Store, *, after_the_commit: bool) -> None:
    """A process that notes an intent, changes a row, and dies."""
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        return
    with store.change() as transaction:
        transaction.intend({"map": 1})
        transaction.rows.put("kind", "key", "new")
        if after_the_commit:
            transaction.after_commit(lambda: os._exit(0))
        else:
            os._exit(0)


def refused(transaction: Transaction, intent: dict[str, str]) -> None:
    """A change that calls the kernel, and fails."""
    transaction.set_meta("backend", "mine")
    transaction.rows.put("kind", "key", "new")
    transaction.intend(intent)
    transaction.after_commit(lambda: transaction.rows.put("kind", "done", True))
    raise Overlap("no")


def test_a_change_that_comes_to_its_end_needs_no_repair(store: Store, repairs: Repairs) -> None:
    done: list[str] = []
    with store.change() as transaction:
        transaction.intend({"map": 1})
        transaction.after_commit(lambda: done.append(transaction.meta("backend")))
        assert store.intents.read() == ("mine", [{"map": 1}])
        assert not done
    assert done == ["mine"]
    assert not store.intents.pending()
    with store.change():
        pass
    assert repairs.asked == []


@pytest.mark.parametrize("after_the_commit", [False, True])
@pytest.mark.parametrize("by", ["a change", "a look"])
def test_the_next_command_repairs_what_a_killed_one_left(
    store: Store, repairs: Repairs, after_the_commit: bool, by: str
) -> None:
    killed(store, after_the_commit=after_the_commit)
    seen: list[object] = []
    repairs.how = lambda transaction: seen.append(transaction.rows.get("kind", "key"))
    with store.change() if by == "a change" else store.read() as transaction:
        assert transaction.rows.get("kind", "key") == ("new" if after_the_commit else None)
    assert repairs.asked == [("mine", [{"map": 1}])]
    assert seen == ["new" if after_the_commit else None]
    with store.read():
        pass
    assert len(repairs.asked) == 1


def test_an_error_is_repaired_at_once_with_the_old_rows(store: Store, repairs: Repairs) -> None:
    seen: list[object] = []
    repairs.how = lambda transaction: seen.append(transaction.rows.get("kind", "key"))
    with pytest.raises(Overlap), store.change() as transaction:
        refused(transaction, {"do": "attach"})
    assert (repairs.asked, seen) == ([("mine", [{"do": "attach"}])], [None])
    assert not store.intents.pending()


def test_a_step_is_repaired_alone(store: Store, repairs: Repairs) -> None:
    done: list[str] = []
    with store.change() as transaction:
        with transaction.step():
            transaction.intend({"do": "first"})
            transaction.after_commit(lambda: done.append("first"))
        with pytest.raises(Overlap), transaction.step():
            refused(transaction, {"do": "second"})
        assert repairs.asked == [("mine", [{"do": "second"}])]
        assert transaction.rows.get("kind", "key") is None
    assert done == ["first"]
    assert not store.intents.pending()


def test_a_repair_that_fails_is_tried_again_and_its_rows_are_as_before(store: Store, repairs: Repairs) -> None:
    def fail(transaction: Transaction) -> None:
        transaction.rows.put("kind", "key", "half")
        raise KernelRefused("busy")

    killed(store, after_the_commit=False)
    repairs.how = fail
    for _ in range(2):
        with pytest.raises(KernelRefused), store.change():
            pass
    repairs.how = lambda _: None
    with store.change() as transaction:
        assert transaction.rows.get("kind", "key") is None
    assert len(repairs.asked) == 3


def test_what_is_done_after_the_commit_may_fail_and_leaves_the_change(store: Store, repairs: Repairs) -> None:
    def fail() -> None:
        raise KernelRefused("busy")

    with store.change() as transaction:
        transaction.intend({"do": "destroy"})
        transaction.rows.put("kind", "key", "new")
        transaction.after_commit(fail)
    with store.read() as transaction:
        assert transaction.rows.get("kind", "key") == "new"
    assert repairs.asked == [("mine", [{"do": "destroy"}])]


def test_the_first_command_of_a_folder_is_repaired_though_no_row_names_its_backend(
    tmp_path: Path, repairs: Repairs
) -> None:
    store = Store(tmp_path / "state", repairs)
    with pytest.raises(Overlap), store.change() as transaction:
        refused(transaction, {"do": "bind"})
    assert repairs.asked == [("mine", [{"do": "bind"}])]
    store.close()


def test_a_line_that_was_not_finished_is_of_a_call_that_was_not_made(store: Store, repairs: Repairs) -> None:
    (store.folder / "intents").write_text(json.dumps("mine") + "\n" + json.dumps({"do": "first"}) + '\n{"sec')
    with store.change():
        pass
    assert repairs.asked == [("mine", [{"do": "first"}])]


def test_a_file_of_something_else_is_damage(store: Store) -> None:
    for text in ("what is this\n", "1\n", '"mine"\n1\n'):
        (store.folder / "intents").write_text(text)
        with pytest.raises(StateDamaged, match="intents"), store.change():
            pass


def test_what_is_kept_is_made_once_and_closed_with_the_store(store: Store) -> None:
    class Thing:
        closed = 0

        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def close(self) -> None:
            Thing.closed += 1

    with store.change() as transaction:
        first = transaction.kept(Thing)
    with store.read() as transaction:
        assert transaction.kept(Thing) is first
        assert first.folder == store.folder
    store.close()
    assert Thing.closed == 1


def test_a_repair_finds_memory_as_the_commit_has_it(
    store: Store, repairs: Repairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the commit and its writes: what the repair tells caches is about what memory holds."""
    address = 0x4000_0000
    with store.change() as transaction:
        transaction.create_memory(MemoryPlan((address, 1 << 20), (address + (1 << 16), 1 << 16)))
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        monkeypatch.setattr(Overlay, "write_live", lambda _: os._exit(0))
        with store.change() as transaction:
            transaction.intend({"stale": 1})
            transaction.memory.write(address, b"new")
    seen: list[bytes] = []
    repairs.how = lambda transaction: seen.append(transaction.memory.read(address, 3))
    with store.read() as transaction:
        assert transaction.memory.read(address, 3) == b"new"
    assert seen == [b"new"]

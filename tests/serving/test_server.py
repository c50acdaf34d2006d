# SPDX-License-Identifier: Apache-2.0
"""The server: who is answered when, by whom, and how many at a time."""

import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.errors import DiskFailed, InUse
from iommuctl.handlers import Handler, Pages
from iommuctl.model import Slot
from iommuctl.recorded import Mark
from iommuctl.serving import server as module
from iommuctl.serving.server import Served, Server
from iommuctl.session import Outcome
from tests.serving.asking import A, B, ask, told

SUCCESS = 'echo \'{"response": "success"}\''
SLOTS = (Slot(A, 5), Slot(A, 6), Slot(B, 5), Slot(B, 6))


def serve(iommu: Iommu, jobs: int = 4) -> list[tuple[Slot, int, str, str]]:
    """What is answered, in this order: slot, token, response, kind."""
    answered: list[Served] = []
    Server(iommu, answered=answered.append, warn=pytest.fail, jobs=jobs).serve_once(lambda: False)
    return [(each.group.slot, each.group.token, each.response, each.kind) for each in answered]


def unexpected(served: Served) -> None:
    pytest.fail(str(served))


def shell(script: str) -> Handler:
    return Handler("exec", ("sh", "-c", script))


def test_each_kind(iommu: Iommu) -> None:
    iommu.handler_set("d", Handler("reject"))
    iommu.handler_set(str(A), Handler("queue"), pasid=6)
    iommu.handler_set(str(B), Handler("demand-map", pages=Pages("m", 0, 0x1000)), pasid=5)
    iommu.handler_set(str(B), shell(SUCCESS), pasid=6)
    for slot in SLOTS:
        ask(iommu, slot, 1)
    ask(iommu, SLOTS[2], 2, group=1)
    assert sorted(serve(iommu), key=str) == [
        (SLOTS[0], 0, "invalid", "reject"),
        (SLOTS[2], 0, "success", "demand-map"),
        (SLOTS[2], 1, "invalid", "demand-map"),
        (SLOTS[3], 0, "success", "exec"),
    ]
    assert told(iommu)[SLOTS[1], 0] is None
    (left,) = iommu.page_requests()
    assert (left.group.slot, left.handler) == (SLOTS[1], Handler("queue"))
    (gone,) = [each for each in iommu.fault_news(Mark()).groups if each.slot == SLOTS[0]]
    assert (gone.answer, gone.by) == ("invalid", "fault run, reject")


def test_groups_of_a_slot_one_after_the_other_and_slots_side_by_side(iommu: Iommu, tmp_path: Path) -> None:
    """A program of each slot waits until those of all slots run; in a slot, none begins before the one before ended."""
    log = tmp_path / "log"
    script = f"""
        read -r line; id=${{line#*'"id": '}}; id=${{id%%,*}}
        echo begin $id >>{log}; n=0
        while [ $(grep -c begin {log}) -lt 4 ] && [ $n -lt 500 ]; do n=$((n+1)); sleep 0.02; done
        echo end $id >>{log}; {SUCCESS}"""
    iommu.handler_set("d", shell(script))
    for slot in SLOTS:
        ask(iommu, slot, 1, group=3)
        ask(iommu, slot, 2, group=1)
    slots = {each.group.id: each.group.slot for each in iommu.page_requests()}
    answered = serve(iommu)
    assert all([token for where, token, *_ in answered if where == slot] == [3, 1] for slot in SLOTS)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [what for what, _ in lines[:4]] == ["begin"] * 4
    for slot in SLOTS:
        mine = [(what, int(key)) for what, key in lines if slots[int(key)] == slot]
        first, second = sorted(key for key, where in slots.items() if where == slot)
        assert mine == [("begin", first), ("end", first), ("begin", second), ("end", second)]


def test_not_more_programs_than_jobs(iommu: Iommu, tmp_path: Path) -> None:
    log = tmp_path / "log"
    iommu.handler_set("d", shell(f"echo 1 >>{log}; sleep 0.1; echo -1 >>{log}; {SUCCESS}"))
    for slot in SLOTS:
        ask(iommu, slot, 1)
    assert len(serve(iommu, jobs=2)) == len(SLOTS)
    steps = [int(line) for line in log.read_text().split()]
    running = [sum(steps[: end + 1]) for end in range(len(steps))]
    assert max(running) == 2
    assert running[-1] == 0


def test_many_are_answered_in_few_transactions(iommu: Iommu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 5)
    iommu.handler_set("d", Handler("demand-map", pages=Pages("m", 0, 8 << 12)))
    for group in range(8):
        ask(iommu, SLOTS[0], group, group=group)
    begun: list[int] = []
    transaction = Iommu.transaction

    def counted(self: Iommu) -> AbstractContextManager[list[Outcome]]:
        begun.append(1)
        return transaction(self)

    monkeypatch.setattr(Iommu, "transaction", counted)
    assert [token for _, token, *_ in serve(iommu)] == [*range(8)]
    assert len(begun) == 4
    assert [(each.iova, each.offset) for each in iommu.mappings("d")] == [(n << 12, n << 12) for n in range(8)]


def test_one_server_of_a_folder(iommu: Iommu) -> None:
    iommu.handler_set("d", Handler("reject"))
    ask(iommu, SLOTS[0], 1)
    refused: list[InUse] = []

    def second(_: Served) -> None:
        with Iommu(iommu.state) as other, pytest.raises(InUse) as error:
            Server(other, answered=unexpected, warn=pytest.fail).serve_once(lambda: False)
        refused.append(error.value)

    Server(iommu, answered=second, warn=pytest.fail).serve_once(lambda: False)
    assert "served already" in refused[0].what
    assert serve(iommu) == []


def test_an_answer_that_comes_too_late(iommu: Iommu) -> None:
    command = "sh", "-c", f"{sys.executable} -m iommuctl fault respond 1 invalid >&2; {SUCCESS}"
    iommu.handler_set("d", Handler("exec", command))
    ask(iommu, SLOTS[0], 1)
    warnings: list[str] = []
    Server(iommu, answered=unexpected, warn=warnings.append).serve_once(lambda: False)
    assert warnings == ["page request group 1 was answered invalid: by fault respond; a group is answered once"]
    assert told(iommu) == {(SLOTS[0], 0): "invalid"}


def test_a_look_that_fails_is_told_once_and_tried_again(iommu: Iommu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER_FAILURE", 0.001)
    iommu.handler_set("d", Handler("demand-map", pages=Pages("m", 0, 0x1000)))
    ask(iommu, SLOTS[0], 1)
    respond, tried = Iommu.respond, []

    def fails(*words: object, **more: object) -> object:
        tried.append(1)
        if len(tried) < 4:
            raise DiskFailed("the disk is full")
        return respond(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Iommu, "respond", fails)
    answered: list[Served] = []
    warnings: list[str] = []
    Server(iommu, answered=answered.append, warn=warnings.append).run(lambda: bool(answered))
    assert warnings == ["the disk is full; it is tried again"]
    assert [each.response for each in answered] == ["success"]
    assert len(iommu.mappings("d")) == 1


def test_what_runs_at_the_end_is_abandoned(iommu: Iommu, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    iommu.handler_set("d", shell(f"touch {place}; sleep 60"))
    ask(iommu, SLOTS[0], 1)
    Server(iommu, answered=unexpected, warn=pytest.fail).run(place.exists)
    assert told(iommu) == {(SLOTS[0], 0): None}
    iommu.handler_set("d", Handler("reject"))
    assert serve(iommu) == [(SLOTS[0], 0, "invalid", "reject")]


def test_groups_that_come_while_it_runs(iommu: Iommu) -> None:
    iommu.handler_set("d", shell(SUCCESS))
    answered: list[Served] = []
    server = Server(iommu, answered=answered.append, warn=pytest.fail)

    def devices() -> None:
        with Iommu(iommu.state) as other:
            for number in range(8):
                ask(other, SLOTS[number % 4], number, group=number)

    thread = threading.Thread(target=devices)
    thread.start()
    server.run(lambda: len(answered) == 8)
    thread.join()
    assert set(told(iommu).values()) == {"success"}
    assert sorted(each.group.token for each in answered) == [*range(8)]

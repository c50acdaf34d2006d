# SPDX-License-Identifier: Apache-2.0
"""Page requests of mock devices, from the kernel's fault queues to commands and back, one process for each command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu, plugins
from iommuctl.handlers import Handler
from tests.hardware.deaths import CALLS
from tests.hardware.held import held
from tests.hardware.mock.asking import Asking
from tests.hardware.shell import Shell

RID1, RID2 = "0000:00:01.0", "0000:00:02.0"
PAGE = 0x2000000
BUILD = f"""
memory create ram --size 1M
device bind {RID1}
device bind {RID2}
domain create d
domain create e
domain create p --nest-parent
domain map d --iova 32M --size 64K --memory ram
domain map p --iova 32M --size 1M --memory ram
attach d {RID1}
attach d {RID1} --pasid 5
attach p {RID2}
pgtable create t --parent p --pool 0x2080000+64K
bind-pgtable p {RID2} --pgtable t --pasid 7
"""


@pytest.fixture
def built(shell: Shell) -> Shell:
    """`d` in two slots, a page table nested on `p`, and nobody who is told of page requests."""
    shell("--backend", "mock", "domain", "create", "first")
    shell.batch(BUILD)
    return shell


@pytest.fixture
def iommu(built: Shell, state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iommu]:
    """The same folder, for calls of the test itself."""
    monkeypatch.setitem(plugins.BACKENDS, "mock", "tests.hardware.mock.backend:BACKEND")
    assert built.state == state
    with Iommu(state) as opened:
        yield opened


@pytest.fixture
def served(built: Shell, iommu: Iommu) -> Shell:
    """Page requests of all slots are queued but of that which holds a nest parent alone."""
    for name, slots in (("d", [(RID1, None), (RID1, 5)]), ("p", [(RID2, 7)])):
        changed = iommu.handler_set(name, Handler("queue"))
        assert [(str(held.slot.rid), held.slot.pasid) for held in changed] == slots
        iommu.close()
    return built


@pytest.fixture
def asking(served: Shell, state: Path) -> Asking:
    assert served.json("check")["ok"]
    return Asking(state)


def waiting(shell: Shell) -> list[tuple[str, int | None, list[str]]]:
    """Slots that wait, and the pages."""
    return [
        (group["rid"], group["pasid"], [each["iova"] for each in group["requests"]])
        for group in shell.json("fault", "list")["page_requests"]
    ]


def ids(shell: Shell) -> list[int]:
    return [group["id"] for group in shell.json("fault", "list")["page_requests"]]


def test_a_group_is_listed_and_answered_once(served: Shell, asking: Asking) -> None:
    for rid, pasid in ((RID1, 0), (RID1, 5), (RID2, 7)):
        asking.ask(rid, PAGE + pasid * 4096, group=3, pasid=pasid)
    assert asking.queued() == 3
    found = waiting(served)
    assert sorted(found, key=str) == sorted(
        [(RID1, None, ["0x2000000"]), (RID1, 5, ["0x2005000"]), (RID2, 7, ["0x2007000"])], key=str
    )
    assert asking.queued() == 0
    for number, key in enumerate(ids(served)):
        served("fault", "respond", key, ("success", "invalid")[number % 2])
        assert served.refused("fault", "respond", key, "success")["id"] == "not-waiting"
    assert waiting(served) == []
    assert asking.end() == 0
    assert served.json("check")["ok"]


@pytest.mark.parametrize(
    ("rid", "pasid", "words"),
    [
        (RID1, 5, ["detach", "d", RID1, "--pasid", "5"]),
        (RID1, 5, ["attach", "e", RID1, "--pasid", "5", "--replace"]),
        (RID1, 0, ["attach", "e", RID1, "--replace"]),
        (RID2, 7, ["unbind-pgtable", "p", RID2, "--pasid", "7"]),
        (RID2, 7, ["domain", "destroy", "p", "--force"]),
    ],
)
def test_what_waits_is_over_when_its_table_goes(
    served: Shell, asking: Asking, rid: str, pasid: int, words: list[str]
) -> None:
    """Of one group the kernel is told before, of the other by the change itself; a third is of another slot."""
    other = (RID2, 7) if rid == RID1 else (RID1, 5)
    asking.ask(other[0], PAGE, group=9, pasid=other[1])
    asking.ask(rid, PAGE, group=1, pasid=pasid)
    assert len(ids(served)) == 2
    asking.ask(rid, PAGE, group=2, pasid=pasid)
    before = asking.queues()
    served(*words)
    assert waiting(served) == [(*other, ["0x2000000"])]
    assert asking.end() == 1
    assert len(asking.queues()) == len(before) - 1
    assert served.json("check")["ok"]


def test_queues_go_when_nobody_is_told_any_more(served: Shell, asking: Asking, iommu: Iommu, state: Path) -> None:
    asking.ask(RID1, PAGE, pasid=5)
    assert len(ids(served)) == 1
    with held(state) as machine:
        before = machine.objects()
    iommu.handler_clear("d")
    assert [held_.slot.pasid for held_ in iommu.handler_clear("p")] == [7]
    iommu.close()
    assert asking.queues() == []
    assert waiting(served) == []
    assert served.json("check")["ok"]
    with held(state) as machine:
        # The queues of three slots, and the tables of two: the page table has one of its own as before.
        assert machine.objects() == before - 5


def test_what_a_reader_took_out_that_died_is_rejected(served: Shell, asking: Asking) -> None:
    """It is killed when it has read: the next command answers, and a device asks again."""
    for group in range(3):
        asking.ask(RID1, PAGE + group * 4096, group=group)
    assert len(ids(served)) == 3
    served("fault", "respond", ids(served)[1], "success")
    for group in range(3, 6):
        asking.ask(RID1, PAGE + group * 4096, group=group)
    assert any(served.killed(call, "after", "fault", "list") and not asking.queued() for call in range(1, CALLS))
    assert waiting(served) == [(RID1, None, ["0x2000000"]), (RID1, None, ["0x2002000"])]
    assert asking.end() == 2


@pytest.mark.parametrize("words", [["list"], ["respond", "success"]], ids=lambda words: words[0])
def test_killed_at_any_call(served: Shell, asking: Asking, words: list[str]) -> None:
    """What waits in the kernel is what rows say waits, neither more nor less."""
    deaths = 0
    for call in range(1, CALLS):
        for when in ("before", "after"):
            for rid, pasid in ((RID1, 0), (RID1, 5), (RID2, 7)):
                asking.ask(rid, PAGE, group=call, pasid=pasid)
            key = ids(served)[:1] if words[0] == "respond" else []
            died = served.killed(call, when, "fault", words[0], *key, *words[1:])
            deaths += died
            left = ids(served)
            assert died or not set(key) & set(left)
            assert asking.queued() == 0
            assert asking.end() == len(left), f"killed {when} call {call}"
            if left:
                served.batch("".join(f"fault respond {each} invalid\n" for each in left))
            if not died:
                assert deaths >= 2, "it made no calls"
                assert served.json("check")["ok"]
                return
    raise AssertionError(f"more than {CALLS} calls")


@pytest.mark.parametrize(
    "words",
    [["detach", "d", RID1, "--pasid", "5"], ["attach", "e", RID1, "--pasid", "5", "--replace"]],
    ids=lambda words: words[0],
)
def test_a_change_of_a_served_slot_is_killed_at_any_call(
    served: Shell, asking: Asking, state: Path, words: list[str]
) -> None:
    """The slot is as before or as after; nobody is left waiting by a group that rows do not tell of."""
    with held(state) as machine:
        objects = machine.objects()
    deaths = 0
    for call in range(1, CALLS):
        for when in ("before", "after"):
            asking.ask(RID1, PAGE, group=1, pasid=5)
            assert len(ids(served)) == 1
            asking.ask(RID1, PAGE, group=2, pasid=5)
            died = served.killed(call, when, *words)
            deaths += died
            left = ids(served)
            assert asking.end() == len(left), f"killed {when} call {call}"
            if left:
                served.batch("".join(f"fault respond {each} invalid\n" for each in left))
            assert served.json("check")["ok"]
            shown = served.json("device", "show", RID1)
            if [slot["domain"] for slot in shown["slots"] if slot["pasid"] == 5] == ["d"]:
                assert died
                with held(state) as machine:
                    assert machine.objects() == objects, f"killed {when} call {call}"
            else:
                served("attach", "d", RID1, "--pasid", "5", "--replace")
            if not died:
                assert deaths >= 2, "it made no calls"
                return
    raise AssertionError(f"more than {CALLS} calls")

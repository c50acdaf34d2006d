# SPDX-License-Identifier: Apache-2.0
"""Page requests of mock devices, from the kernel's fault queues to commands and back, one process for each command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu, plugins
from iommuctl.handlers import Handler
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
    for line in BUILD.strip().split("\n"):
        shell(*line.split())
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

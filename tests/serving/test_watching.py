# SPDX-License-Identifier: Apache-2.0
"""Watching: each thing is told once, whoever took it out of its queue."""

from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.errors import Unsupported
from iommuctl.handlers import Handler
from iommuctl.iommufd.kernel_log import Record
from iommuctl.model import Slot
from iommuctl.page_requests import PageGroup
from iommuctl.recorded import KnownFault
from iommuctl.serving.watching import Told, Watch
from tests.serving.asking import A, ask

SLOT = Slot(A, 5)


def words(told: list[Told]) -> list[tuple[object, ...]]:
    """What was told, in short."""
    short: list[tuple[object, ...]] = []
    for event, what in told:
        match what:
            case PageGroup():
                short.append((event, what.id, *([what.answer, what.by] if event == "answer" else [])))
            case KnownFault():
                short.append((event, what.id, what.times))
            case Record():
                short.append((event, what.text))
    return short


@pytest.fixture
def watch(iommu: Iommu, tmp_path: Path) -> Watch:
    return Watch(iommu, ("DMAR",), str(tmp_path / "kmsg"))


def test_each_thing_is_told_once(iommu: Iommu, watch: Watch) -> None:
    iommu.handler_set("d", Handler("queue"))
    ask(iommu, SLOT, 1)
    ask(iommu, SLOT, 2, group=1)
    iommu.dma(A, 0x5000, size=1, pasid=6)
    iommu.faults()
    assert words(watch.look()) == [("fault", 1, 1), ("page-request", 2), ("page-request", 3)]
    assert watch.look() == []
    iommu.dma(A, 0x5000, size=1, pasid=6)
    iommu.respond(3, "success")
    assert words(watch.look()) == [("fault", 1, 2), ("answer", 3, "success", "fault respond")]
    ask(iommu, SLOT, 3, group=1)
    iommu.dma(A, 0x6000, size=1, pasid=6)
    iommu.detach("d", A, pasid=5)
    assert words(watch.look()) == [
        ("fault", 5, 1),
        ("answer", 2, "invalid", "a change of the slot"),
        ("page-request", 4),
        ("answer", 4, "invalid", "a change of the slot"),
    ]
    assert watch.look() == []


def test_lines_of_the_log_that_are_of_iommus(watch: Watch, tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("3,41,1,-;DMAR: before\n")
    with watch:
        assert words(watch.look()) == [("log", "DMAR: before")]
        for line, told in (("DMAR: now", ["DMAR: now"]), ("usb: DMAR", []), ("DMARX", ["DMARX"])):
            with log.open("a") as more:
                more.write(f"3,42,1,-;{line}\n")
            assert [text for _, text in words(watch.look())] == told


def test_the_log_alone_where_the_backend_is_told_of_nothing(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise Unsupported("told of no faults")

    monkeypatch.setattr(Iommu, "fault_news", refused)
    with watch, pytest.raises(Unsupported):
        watch.look()
    (tmp_path / "kmsg").write_text("3,41,1,-;DMAR: before\n")
    with watch:
        assert words(watch.look()) == [("log", "DMAR: before")]


def test_following(iommu: Iommu, watch: Watch) -> None:
    iommu.handler_set("d", Handler("queue"))
    ask(iommu, SLOT, 1)
    told: list[Told] = []
    for each in watch.follow(lambda: len(told) == 4):
        told.append(each)
        if isinstance(each.what, PageGroup) and each.event == "page-request":
            iommu.respond(each.what.id, "success")
        elif len(told) == 2:
            ask(iommu, SLOT, 2)
    assert [each.event for each in told] == ["page-request", "answer"] * 2

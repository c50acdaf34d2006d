# SPDX-License-Identifier: Apache-2.0
"""`fault run` and `fault watch`: processes that answer and tell until they are told to end, or are killed."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.model import Slot
from iommuctl.recorded import Mark
from tests.cli.conftest import Run
from tests.serving.asking import A, ask, told
from tests.thorough import THOROUGH

SETUP = (
    "device add 00:01.0 --ats --pri --pasid-bits 8",
    "domain create d --page-sizes 4K",
    "memory create buffers --size 16M",
    *(f"attach d 00:01.0 --pasid {pasid}" for pasid in (5, 6)),
    "fault handler set d --demand-map --from buffers",
)
FIVE, SIX = Slot(A, 5), Slot(A, 6)
SECONDS = 60

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def machine(ok: Run) -> Run:
    for command in SETUP:
        ok(f"{command} --quiet")
    return ok


@pytest.fixture
def iommu(machine: Run, state: Path) -> Iterator[Iommu]:
    with Iommu(state) as opened:
        yield opened


@pytest.fixture
def start() -> Iterator[Start]:
    """Begin a command in a process of its own."""
    begun = []

    def call(words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "iommuctl", *words.split()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun.append(process)
        return process

    yield call
    for process in begun:
        process.kill()
        process.communicate()


def test_what_waits_now(machine: Run, run: Run, iommu: Iommu) -> None:
    assert run("fault run --once") == (0, "", "")
    ask(iommu, FIVE, 1)
    ask(iommu, SIX, 1 << 40)
    done = run("fault run --once")
    assert done.out.splitlines() == [
        "0000:00:01.0 PASID 5: page request group 1 was answered success, demand-map",
        "0000:00:01.0 PASID 6: page request group 2 was answered invalid, demand-map",
    ]
    assert done.err.startswith("warning: page request group 2 of 0000:00:01.0 PASID 6: 0x10000000000000..0x1000")
    ask(iommu, FIVE, 1, group=1)
    (line,) = machine("fault run --once -j").out.splitlines()
    document = json.loads(line)
    assert document.pop("since")
    assert document.pop("age") >= 0
    assert document == {
        "schema": 1, "id": 3, "rid": "0000:00:01.0", "pasid": 5, "response": "success", "by": "demand-map",
        "because": None, "requests": [{"iova": "0x1000", "access": "rw", "privileged": False}],
    }  # fmt: skip
    ask(iommu, FIVE, 2, group=1)
    assert machine("fault run --once --quiet").out == ""
    assert machine("fault handler show -j").json["handlers"][0]["from"]["used"] == 0x2000


def test_what_is_refused(machine: Run, run: Run, tmp_path: Path) -> None:
    assert run("fault run --once --dry-run").code == 2
    (tmp_path / "lines").write_text("fault run --once\n")
    assert run(f"batch {tmp_path / 'lines'}").code == 2
    (tmp_path / "lines").write_text("fault watch --follow\n")
    assert run(f"batch {tmp_path / 'lines'}").code == 2
    machine("fault handler clear d --quiet")
    machine("sim reset --quiet")
    machine("sim init --option mode=legacy --quiet")
    assert run("fault run --once").code == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_until_a_signal(start: Start, iommu: Iommu, number: int, code: int) -> None:
    process = start("fault run")
    for page in (1, 2):
        ask(iommu, FIVE, page, group=page)
        assert process.stdout
        assert process.stdout.readline().endswith(f"group {page} was answered success, demand-map\n")
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (code, "", "")


def test_one_for_a_folder(start: Start, run: Run, iommu: Iommu) -> None:
    process = start("fault run")
    ask(iommu, FIVE, 1)
    assert process.stdout
    assert process.stdout.readline()
    refused = run("fault run -j")
    assert (refused.code, refused.error["id"]) == (1, "in-use")
    process.kill()
    process.wait(SECONDS)
    assert run("fault run --once").code == 0


def test_killed_again_and_again_while_requests_come(start: Start, iommu: Iommu) -> None:
    """Each group has its one answer, each page was mapped once, and none of the handler's pages is lost."""
    chance = random.Random(5)
    groups, lives = (2000, 100) if THOROUGH else (60, 5)
    sent = answered = 0
    for life in range(1, lives + 1):
        process = start("fault run")
        while sent < groups * life // lives:
            slot = (FIVE, SIX)[sent % 2]
            if sent < 512 or told(iommu)[slot, sent % 512]:
                ask(iommu, slot, sent // 3, group=sent % 512)
                sent += 1
        if life % 2:
            assert process.stdout
            answered += bool(process.stdout.readline())
        time.sleep(chance.random() * 0.01)
        process.kill()
        process.wait(SECONDS)
    assert answered == (lives + 1) // 2
    final = start("fault run --once")
    _, err = final.communicate(timeout=SECONDS)
    assert (final.returncode, err) == (0, "")
    assert iommu.faults().waiting == ()
    assert set(told(iommu).values()) == {"success"}
    news = [group for group in iommu.fault_news(Mark()).groups if group.id > sent - 900]
    assert {group.answer for group in news} == {"success"}
    mappings = iommu.mappings("d")
    assert [each.iova >> 12 for each in mappings] == [*range((groups - 1) // 3 + 1)]
    assert sorted(each.offset for each in mappings) == [number << 12 for number in range(len(mappings))]
    pages = iommu.handlers()[0].handler.pages
    assert pages
    assert pages.used == len(mappings) << 12
    assert iommu.check() == []


def test_watching(machine: Run, iommu: Iommu, start: Start) -> None:
    machine("fault handler set d --queue --quiet")
    ask(iommu, FIVE, 1)
    watching = start("fault watch --follow -j")
    assert watching.stdout

    def following() -> dict[str, object]:
        assert watching.stdout
        while True:
            document: dict[str, object] = json.loads(watching.stdout.readline())
            if document["event"] != "log":
                return document

    first = following()
    assert (first["event"], first["id"], first["pasid"]) == ("page-request", 1, 5)
    assert first["requests"] == [{"iova": "0x1000", "access": "rw", "privileged": False}]
    machine("fault respond 1 invalid")
    second = following()
    assert [second[name] for name in ("event", "id", "response", "by")] == ["answer", 1, "invalid", "fault respond"]
    iommu.dma(A, 0x5000, size=1, pasid=6)
    third = following()
    assert [third[name] for name in ("event", "iova", "access", "count")] == ["fault", "0x5000", "r", 1]
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=SECONDS)
    assert (watching.returncode, err) == (130, "")
    lines = [line.split()[0] for line in machine("fault watch").out.splitlines() if not line.startswith("kernel")]
    assert lines == ["fault", "request", "answer"]

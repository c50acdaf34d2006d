# SPDX-License-Identifier: Apache-2.0
"""Programs that answer page requests: what they are told, and whatever they do instead of answering."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.handlers import Handler
from iommuctl.model import Slot
from iommuctl.serving import programs
from iommuctl.serving.server import Served, Server
from tests.serving.asking import A, ask, told

SLOT = Slot(A, 5)


def served(iommu: Iommu, *program: str, timeout: float = 20) -> Served:
    """What comes of a group that the program is asked about. The same is what the device was told."""
    iommu.handler_set(str(A), Handler("exec", program), pasid=5)
    ask(iommu, SLOT, 3, 4, access="w")
    answered: list[Served] = []
    server = Server(iommu, answered=answered.append, warn=pytest.fail, timeout=timeout)
    server.serve_once(lambda: False)
    (one,) = answered
    assert told(iommu) == {(SLOT, 0): one.response}
    return one


def test_what_a_program_is_told(iommu: Iommu, tmp_path: Path) -> None:
    place, environment = tmp_path / "document", tmp_path / "environment"
    look = f"cat >{place}; echo $IOMMUCTL_STATE $PWD $$ $(ps -o pgid= $$) >{environment}"
    script = f'{look}; echo \'{{"response": "success"}}\''
    assert served(iommu, "sh", "-c", script)[1:] == ("success", "exec", "")
    assert json.loads(place.read_text()) == {
        "schema": 1, "id": 2, "rid": str(A), "pasid": 5, "domain": "d", "pgtable": None, "pgtable_name": None,
        "kind": "attach", "requests": [
            {"iova": "0x3000", "access": "w", "privileged": False},
            {"iova": "0x4000", "access": "w", "privileged": False},
        ],
    }  # fmt: skip
    folder, here, process, group = environment.read_text().split()
    assert (folder, here) == (str(iommu.state), os.getcwd())
    assert process == group


@pytest.mark.parametrize("response", ["success", "invalid", "failure"])
def test_each_response(iommu: Iommu, response: str) -> None:
    assert served(iommu, "echo", f' {{"response": "{response}", "more": [1]}} ')[1:] == (response, "exec", "")


NOT_JSON = "what it printed is not one JSON document"
NO_RESPONSE = "what it printed has no response that is success, invalid or failure"


@pytest.mark.parametrize(
    ("script", "because"),
    [
        ("", "it printed nothing"),
        ("echo", "it printed nothing"),
        ("echo success", NOT_JSON),
        ("echo '{\"response\": \"success\"}{}'", NOT_JSON),
        ("printf '\\377\\376'", NOT_JSON),
        ("head -c 60000 /dev/zero | tr '\\0' '['", NOT_JSON),
        ("echo '[\"success\"]'", NO_RESPONSE),
        ("echo '{\"response\": [\"success\"]}'", NO_RESPONSE),
        ("echo '{\"response\": \"yes\"}'", NO_RESPONSE),
        ("echo '{\"response\": \"success\"}'; exit 3", "its exit code was 3"),
        ("echo '{\"response\": \"success\"}'; kill -9 $$", "it was killed by signal 9"),
        ("yes", "it printed more than 64 KiB"),
        ("head -c 65537 /dev/zero | tr '\\0' ' '", "it printed more than 64 KiB"),
    ],
)  # fmt: skip
def test_whatever_else_is_invalid(iommu: Iommu, script: str, because: str) -> None:
    assert served(iommu, "sh", "-c", script)[1:] == ("invalid", "exec", because)


def test_what_is_not_declared_is_invalid(iommu: Iommu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iommuctl.serving.programs._RESPONSES", {**programs._RESPONSES, "maybe": "maybe"})
    one = served(iommu, "echo", '{"response": "maybe"}')
    assert one.response == "invalid"
    assert one.because.startswith("a page request cannot be answered maybe here: this backend knows success ")


def test_one_that_cannot_be_run_any_more(iommu: Iommu, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("no program")
    program.chmod(0o700)
    assert served(iommu, str(program))[1:] == ("invalid", "exec", f"{program} cannot be run: exec format error")


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_one_that_hangs_is_killed_with_its_children(iommu: Iommu, tmp_path: Path) -> None:
    place = tmp_path / "pids"
    before = time.monotonic()
    script = f"trap '' TERM; sleep 60 & echo $! $$ >{place}; wait"
    assert served(iommu, "sh", "-c", script, timeout=0.3)[1:] == ("invalid", "exec", "it did not end within 0.3 s")
    assert time.monotonic() - before < 30
    left = [int(each) for each in place.read_text().split()]
    deadline = time.monotonic() + 10
    while any(map(is_alive, left)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, left))


def test_children_that_it_leaves_behind_hold_nothing_up(iommu: Iommu, tmp_path: Path) -> None:
    """They have its stdout, which so does not end."""
    place = tmp_path / "pid"
    script = f'sleep 60 & echo $! >{place}; echo \'{{"response": "success"}}\''
    assert served(iommu, "sh", "-c", script)[1:] == ("success", "exec", "")
    deadline = time.monotonic() + 10
    while is_alive(int(place.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(int(place.read_text()))


def test_it_can_type_commands_while_it_runs(iommu: Iommu) -> None:
    """The lock of the folder is not held."""
    script = (
        f"{sys.executable} -m iommuctl domain map d --iova 12K --size 8K --memory m >&2 && "
        'echo \'{"response": "success"}\''
    )
    assert served(iommu, "sh", "-c", script)[1:] == ("success", "exec", "")
    assert [(each.iova, each.size) for each in iommu.mappings("d")] == [(0x3000, 0x2000)]


def test_no_descriptor_is_left(iommu: Iommu) -> None:
    served(iommu, "true")
    before = sorted(os.listdir("/proc/self/fd"))
    served(iommu, "yes")
    served(iommu, "sleep", "60", timeout=0.05)
    assert sorted(os.listdir("/proc/self/fd")) == before

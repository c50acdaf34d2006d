# SPDX-License-Identifier: Apache-2.0
"""When the keeper is killed all kernel objects are gone: that is shown as such, and `recover` makes them again."""

import os
import select
import signal
from pathlib import Path

import pytest

from iommuctl.iommufd.keeper_client import Keeper
from tests.hardware.held import held
from tests.hardware.shell import Shell

EDU = "0000:00:10.0"
MIB = 1 << 20
SETUP = f"""
device bind {EDU}
memory create ram --size 1M
domain create domain1
domain map domain1 --iova 1M --size 1M --memory ram
attach domain1 {EDU}
"""


def kill_keeper(folder: Path) -> None:
    """End the process that holds the descriptors, and see it gone."""
    keeper = Keeper.connect(folder)
    assert keeper
    pid = keeper.pid
    keeper.close()
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([ended], [], [], 10)[0], "the keeper does not die"
    os.close(ended)


@pytest.fixture
def ready(shell: Shell) -> Shell:
    for line in SETUP.split("\n"):
        if line:
            shell(*line.split())
    return shell


def test_what_is_lost_is_shown_as_lost_and_not_changed(ready: Shell, state: Path) -> None:
    kill_keeper(state)
    shown = ready.json("topology")
    assert "keeper" in shown["lost"]
    assert [slot["rid"] for slot in shown["domains"][0]["slots"]] == [EDU]
    assert "lost" in ready("topology").splitlines()[0]
    for words in (
        ("domain", "map", "domain1", "--iova", "4M", "--size", "1M", "--memory", "ram"),
        ("attach", "domain1", EDU, "--replace"),
        ("domain", "create", "domain2"),
        ("memory", "create", "more", "--size", "4K"),
    ):
        error = ready.refused(*words)
        assert (error["id"], error["exit"], "iommuctl recover" in error["hint"]) == ("lost", 5, True), words
    done = ready.run("check")
    assert done.returncode == 1
    assert "gone" in done.stdout


def test_what_is_lost_can_be_taken_away(ready: Shell, state: Path) -> None:
    """What is gone need not be there, and drivers get their devices back."""
    kill_keeper(state)
    ready("domain", "unmap", "domain1", "--iova", "1M", "--size", "1M")
    ready("detach", "domain1", EDU)
    ready("domain", "destroy", "domain1")
    ready("memory", "destroy", "ram")
    ready("device", "unbind", EDU)
    shown = ready.json("topology")
    assert (shown["domains"], {each["bound"] for each in shown["devices"]}) == ([], {False})


def test_recover_brings_it_back(ready: Shell, state: Path) -> None:
    with held(state) as machine:
        machine.write(1, 0, b"before")
        objects = machine.objects()
    kill_keeper(state)
    done = ready.run("recover")
    assert done.returncode == 0, done.stderr
    assert "ram is empty" in done.stderr
    assert ready("check").startswith("ok")
    with held(state) as machine:
        assert machine.read(1, 0, 6) == bytes(6)
        assert machine.objects() == objects
        machine.write(1, 0, b"after")
        machine.edu(EDU).load(MIB, 5)
        machine.edu(EDU).store(MIB + 0x1000, 5)
        assert machine.read(1, 0x1000, 5) == b"after"
    assert ready.json("topology").get("lost") is None
    assert "nothing is lost" in ready("recover")
    ready("detach", "domain1", EDU)
    ready("domain", "destroy", "domain1")
    ready("device", "unbind", EDU)


def test_a_file_survives(shell: Shell, state: Path) -> None:
    path = Path("/dev/shm/iommuctl-ram")
    for line in SETUP.replace("--size 1M", f"--size 1M --path {path}", 1).split("\n"):
        if line:
            shell(*line.split())
    with held(state) as machine:
        machine.write(1, 0, b"kept")
    assert path.read_bytes()[:4] == b"kept"
    kill_keeper(state)
    done = shell.run("recover")
    assert (done.returncode, done.stderr) == (0, "")
    with held(state) as machine:
        assert machine.read(1, 0, 4) == b"kept"
        machine.edu(EDU).load(MIB, 4)
        machine.edu(EDU).store(MIB + 0x2000, 4)
    assert path.read_bytes()[0x2000:0x2004] == b"kept"
    path.unlink()


def test_forgetting_what_is_lost(ready: Shell, state: Path) -> None:
    kill_keeper(state)
    ready("recover", "--forget")
    shown = ready.json("topology")
    assert (shown["domains"], shown.get("lost")) == ([], None)
    assert not ready.json("device", "show", EDU)["bound"]
    assert ready.json("device", "show", EDU)["driver"] is None
    ready("device", "bind", EDU)
    ready("device", "unbind", EDU)


def test_a_killed_recover_can_be_tried_again(ready: Shell, state: Path) -> None:
    kill_keeper(state)
    call = 1
    while ready.killed(call, "after", "recover"):
        assert "lost" in ready("topology").splitlines()[0]
        call += 3
    assert call > 4
    assert ready("check").startswith("ok")
    with held(state) as machine:
        machine.write(1, 0, b"again")
        machine.edu(EDU).load(MIB, 5)
        machine.edu(EDU).store(MIB + 0x1000, 5)
        assert machine.read(1, 0x1000, 5) == b"again"

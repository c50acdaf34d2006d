# SPDX-License-Identifier: Apache-2.0
"""Who holds a device open: a terminal of our own, which nobody else has, stands for it."""

import os
from pathlib import Path

import pytest

from iommuctl.iommufd.holders import Holder, Holders, holders, node_numbers


def test_we_ourselves(terminal: int) -> None:
    command = Path("/proc/self/comm").read_text().strip()
    assert holders(os.fstat(terminal).st_rdev).found == (Holder(os.getpid(), command),)


def test_another_process(terminal: int) -> None:
    number = os.fstat(terminal).st_rdev
    actions = [(os.POSIX_SPAWN_DUP2, terminal, 0)]
    pid = os.posix_spawnp("sleep", ["sleep", "60"], {}, file_actions=actions)
    try:
        found = holders(number).found
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert sorted(holder.pid for holder in found) == sorted([pid, os.getpid()])
    assert [holder.pid for holder in holders(number).found] == [os.getpid()]


def test_nobody_and_no_device() -> None:
    assert holders() == Holders((), 0)
    assert holders(os.makedev(4095, 1)).found == ()
    assert node_numbers("/dev/full", "/no/such/node") == (os.stat("/dev/full").st_rdev,)


def process(proc: Path, pid: str, link: str, command: bytes = b"qemu\n") -> Path:
    (proc / pid / "fd").mkdir(parents=True)
    (proc / pid / "fd" / "3").symlink_to(link)
    (proc / pid / "comm").write_bytes(command)
    return proc / pid


def test_processes_that_end_or_have_odd_names(tmp_path: Path) -> None:
    """Files outside of /dev are not touched: one on a server that does not answer would hang us."""
    process(tmp_path, "7", "/dev/full", b"a\x1b[31m\n\xff")
    process(tmp_path, "12", "/dev/full")
    (tmp_path / "12/comm").unlink()
    process(tmp_path, "13", str(tmp_path / "full"))
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / "14").mkdir()
    (tmp_path / "meminfo").touch()
    process(tmp_path, "15", "/dev/full-of-nothing")
    found = holders(*node_numbers("/dev/full"), proc=str(tmp_path)).found
    assert found == (Holder(7, "a?[31m?\ufffd"), Holder(12, "?"))


def test_processes_that_do_not_let_us_look_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may look anywhere, so the refusal is made here."""
    process(tmp_path, "7", "/dev/full")
    process(tmp_path, "8", "/dev/full")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("/8/fd"):
            raise PermissionError
        return scandir(path)

    monkeypatch.setattr("iommuctl.iommufd.holders.os.scandir", refusing)
    found = holders(*node_numbers("/dev/full"), proc=str(tmp_path))
    assert str(found) == "process 7 (qemu), 1 processes do not show what they hold"
    assert str(found._replace(found=())) == "no process that can be seen, 1 processes do not show what they hold"

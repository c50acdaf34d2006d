# SPDX-License-Identifier: Apache-2.0
"""Writes by a process of their own, which ends or is given up. A FIFO that nobody reads stands for the kernel."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from iommuctl.iommufd.bounded import StillWriting, write_bounded


def test_a_write_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "attribute"
    file.touch()
    write_bounded(str(file), "0000:00:03.0")
    assert file.read_text() == "0000:00:03.0"


def test_no_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bounded(str(tmp_path / "attribute"), "text")
    assert not list(tmp_path.iterdir())


def test_the_error_is_the_kernels(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as refused:
        write_bounded(str(tmp_path), "text")
    assert (refused.value.errno, refused.value.filename) == (errno.EISDIR, str(tmp_path))


def test_a_write_that_blocks_is_given_up_and_does_not_happen_later(tmp_path: Path) -> None:
    fifo = tmp_path / "attribute"
    os.mkfifo(fifo)
    start = time.monotonic()
    with pytest.raises(StillWriting) as late:
        write_bounded(str(fifo), "text", 0.3)
    assert 0.3 <= time.monotonic() - start < 10
    assert os.waitstatus_to_exitcode(os.waitpid(late.value.pid, 0)[1]) < 0
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 10) == b""
    os.close(reader)


def test_the_process_that_writes_has_none_of_our_descriptors(tmp_path: Path) -> None:
    """Else it would keep a lock that we have given up, or hold the device that it waits for."""
    fifo = tmp_path / "attribute"
    os.mkfifo(fifo)
    with (tmp_path / "lock").open("w") as lock, (tmp_path / "lock").open("w") as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StillWriting):
            write_bounded(str(fifo), "text", 0.1)
        lock.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

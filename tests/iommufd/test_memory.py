# SPDX-License-Identifier: Apache-2.0
"""Where named memory comes from: memfds, files, other processes."""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl.errors import (
    IommuError,
    KernelRefused,
    NoRoom,
    OutsideMemory,
    PermissionRefused,
    SystemFailed,
    Unsupported,
)
from iommuctl.iommufd import memory

MIB = 1 << 20


@pytest.fixture
def shm() -> Iterator[Path]:
    """A folder whose files the kernel can map."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_memory_of_our_own_is_zero_and_as_long_as_asked() -> None:
    made = memory.new("buffers", MIB)
    assert os.pread(made, MIB + 1, 0) == bytes(MIB)
    assert fcntl.fcntl(made, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.readlink(f"/proc/self/fd/{made}").startswith("/memfd:iommuctl:buffers")
    os.close(made)


def test_more_than_there_is_room_for(shm: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NoRoom, match="0x4000000000000 bytes") as raised:
        memory.of_file(str(shm / "ram"), 1 << 50)
    assert "room for" in raised.value.because
    assert os.listdir("/proc/self/fd") == before


def test_huge_pages_are_there_or_the_error_says_how_to_get_some() -> None:
    pages = int(Path("/proc/sys/vm/nr_hugepages").read_text()) if Path("/proc/sys/vm/nr_hugepages").exists() else 0
    if pages:
        pytest.skip("this machine has huge pages")
    with pytest.raises((NoRoom, Unsupported)) as raised:
        memory.new("buffers", 2 * MIB, hugepages=True)
    assert "hugepages" in raised.value.hint


def test_a_new_file_is_made(shm: Path) -> None:
    opened = memory.of_file(str(shm / "ram"), MIB)
    os.pwrite(opened, b"x", MIB - 1)
    os.close(opened)
    assert (shm / "ram").stat().st_size == MIB
    again = memory.of_file(str(shm / "ram"), MIB)
    assert os.pread(again, 1, MIB - 1) == b"x"
    os.close(again)
    assert (shm / "ram").stat().st_mode & 0o777 == 0o600


def test_pages_are_not_there_before_somebody_needs_them(shm: Path) -> None:
    """Pages of fallocate would be cleared at the first look at them, with what a device has written."""
    os.close(memory.of_file(str(shm / "ram"), MIB))
    assert (shm / "ram").stat().st_blocks == 0


def test_a_longer_file_stays_as_it_is(shm: Path) -> None:
    (shm / "ram").write_bytes(bytes(MIB + 5))
    os.close(memory.of_file(str(shm / "ram"), MIB))
    assert (shm / "ram").stat().st_size == MIB + 5


def test_files_that_will_not_do(shm: Path, tmp_path: Path) -> None:
    (shm / "short").write_bytes(b"x")
    tests: list[tuple[str, type[IommuError], str]] = [
        (str(shm / "short"), OutsideMemory, "0x1"),
        (str(shm / "none" / "ram"), SystemFailed, "no such file"),
        (str(shm), SystemFailed, "directory"),
        ("/dev/null", Unsupported, "no regular file"),
    ]
    before = os.listdir("/proc/self/fd")
    for path, error, because in tests:
        with pytest.raises(error) as raised:
            memory.of_file(path, MIB)
        assert because in raised.value.because, path
    assert os.listdir("/proc/self/fd") == before


def test_a_file_of_another_kind_of_file_system(tmp_path: Path) -> None:
    """The kernel would refuse it only when a device is attached."""
    disk = Path("/proc/self/mounts").read_text()
    if f" {tmp_path.anchor} tmpfs " in disk or " /tmp tmpfs " in disk:
        pytest.skip("temporary files are in a tmpfs here")
    with pytest.raises(Unsupported, match="DMA") as raised:
        memory.of_file(str(tmp_path / "ram"), MIB)
    assert "/dev/shm" in raised.value.hint


HOLDER = """
import os, sys
made = os.memfd_create("guest"); os.ftruncate(made, 1 << 20); os.pwrite(made, b"guest", 0)
print(made, flush=True); sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[tuple[int, int]]:
    """A process with a memfd, as a VMM has: its PID and the descriptor."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield process.pid, int(process.stdout.readline())
    process.communicate()


def test_a_process_s_memory_outlives_it(holder: tuple[int, int]) -> None:
    copied = memory.of_process(*holder, MIB)
    assert os.pread(copied, 5, 0) == b"guest"
    os.close(copied)


def test_descriptors_of_processes_that_will_not_do(holder: tuple[int, int]) -> None:
    pid, descriptor = holder
    tests: list[tuple[int, int, int, type[IommuError], str]] = [
        (pid, 999, MIB, KernelRefused, "no such descriptor"),
        (pid, 0, MIB, Unsupported, "no regular file"),
        (pid, descriptor, 2 * MIB, OutsideMemory, "0x100000"),
        (2**22 + 5, 3, MIB, KernelRefused, "no such process"),
    ]
    before = os.listdir("/proc/self/fd")
    for process, number, size, error, because in tests:
        with pytest.raises(error) as raised:
            memory.of_process(process, number, size)
        assert because in raised.value.because
    assert os.listdir("/proc/self/fd") == before


def test_a_process_that_is_somebody_else_s() -> None:
    if os.geteuid() == 0:
        pytest.skip("root may copy every descriptor")
    with pytest.raises(PermissionRefused, match="process 1 "):
        memory.of_process(1, 0, MIB)

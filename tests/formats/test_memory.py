# SPDX-License-Identifier: Apache-2.0
"""Files that take no write(2), as those of hugetlbfs: here their refusal is put in the place of the kernel's."""

import errno
import os
from pathlib import Path

import pytest

from iommuctl.formats.memory import PAGE, FileMemory

BASE, SIZE = 1 << 30, 16 * PAGE


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileMemory:
    descriptor = os.open(tmp_path / "huge", os.O_RDWR | os.O_CREAT)
    os.truncate(descriptor, SIZE)

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "pwrite", refuse)
    monkeypatch.setattr(os, "pwritev", refuse)
    return FileMemory(descriptor, BASE, SIZE)


@pytest.mark.parametrize(("at", "size"), [(0, 8), (PAGE - 3, 6), (5 * PAGE, PAGE), (7, 3 * PAGE), (SIZE - 8, 8)])
def test_bytes_are_stored_and_no_others(memory: FileMemory, at: int, size: int) -> None:
    data = bytes(range(1, 252)) * (size // 251 + 1)
    memory.write(BASE + at, data[:size])
    assert memory.read(BASE, SIZE) == bytes(at) + data[:size] + bytes(SIZE - at - size)


def test_whole_pages(memory: FileMemory) -> None:
    memory.write_pages(BASE + 2 * PAGE, [bytearray(b"\x11" * PAGE), bytearray(b"\x22" * PAGE)])
    assert memory.read(BASE + 2 * PAGE, 2 * PAGE) == b"\x11" * PAGE + b"\x22" * PAGE


def test_other_refusals_are_told(memory: FileMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        memory.write(BASE, b"data")

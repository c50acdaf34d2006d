# SPDX-License-Identifier: Apache-2.0
"""A guest that commands have made: memory, a nest parent that has it, and an edu device that is attached to that.

The device reads and writes at addresses below 256 MiB, which is as far as it reaches unless QEMU is told otherwise.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hardware.conftest import lacking
from tests.hardware.held import Held, held
from tests.hardware.shell import Shell

RID, OTHER = "0000:00:10.0", "0000:00:11.0"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZE = 32 * MIB
"""Of the guest's memory."""
NEAR = 16 * MIB
"""The GPA of its first half."""
FAR = {96 * MIB: 16 * MIB, 512 * MIB + NEAR: 20 * MIB, GIB + NEAR: 24 * MIB}
"""GPAs of 4 MiB each in the midst of nothing, with their offsets in the memory."""
TABLES = 40 * MIB
"""The GPA of a memory of 2 MiB of its own."""
POOL, POOL_2 = (f"{gpa:#x}+512K" for gpa in (TABLES, TABLES + MIB // 2))
OWN = TABLES + MIB
"""Where a guest can put tables of its own."""
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
FORMATS = {size: f"smmuv3.stage-1-{size}-48" for size in ("4k", "16k", "64k")}
"""By granule."""


@contextmanager
def huge_pages() -> Iterator[None]:
    """Memory files have huge pages, as long as the kernel finds any.

    Of a table of 16 or 64 KiB, QEMU finds all entries in contiguous memory alone.
    """
    if not _HUGE_PAGES.exists():
        lacking("the kernel has no huge pages for memory files (CONFIG_TRANSPARENT_HUGEPAGE)")
    before = re.findall(r"\[(\w+)\]", _HUGE_PAGES.read_text("ascii"))[0]
    _HUGE_PAGES.write_text("force", "ascii")
    try:
        yield
    finally:
        _HUGE_PAGES.write_text(before, "ascii")


def make(shell: Shell) -> None:
    """A guest, with nothing bound yet."""
    lines = (
        f"device bind {RID}",
        f"memory create ram --size {SIZE}",
        "memory create tables --size 2M",
        "domain create vm --nest-parent",
        f"domain map vm --iova {NEAR:#x} --size 16M --memory ram",
        *(f"domain map vm --iova {gpa:#x} --size 4M --memory ram+{at:#x}" for gpa, at in FAR.items()),
        f"domain map vm --iova {TABLES:#x} --size 2M --memory tables",
        f"attach vm {RID}",
    )
    shell.batch("\n".join(lines))


def _place(gpa: int) -> tuple[int, int]:
    """The named memory in which a GPA is, by its id, and where in it."""
    if TABLES <= gpa < TABLES + 2 * MIB:
        return 2, gpa - TABLES
    if NEAR <= gpa < NEAR + 16 * MIB:
        return 1, gpa - NEAR
    return 1, next(at + gpa - first for first, at in FAR.items() if first <= gpa < first + 4 * MIB)


class Guest:
    """The guest's memory, and its device at work."""

    def __init__(self, machine: Held, rid: str) -> None:
        self._machine = machine
        self._edu = machine.edu(rid)

    def read(self, gpa: int, size: int) -> bytes:
        memory, offset = _place(gpa)
        return self._machine.read(memory, offset, size)

    def write(self, gpa: int, data: bytes) -> None:
        memory, offset = _place(gpa)
        self._machine.write(memory, offset, data)

    def copy(self, source: int, destination: int, size: int) -> None:
        """Have the device read at an address and write what it has read at another one. It tells of no fault."""
        self._edu.load(source, size)
        self._edu.store(destination, size)

    def load(self, iova: int, size: int, at: int = 0) -> None:
        """Have the device read into its buffer, from `at` on. Where it is refused, zeros come."""
        self._edu.load(iova, size, at)

    def store(self, iova: int, size: int) -> None:
        """Have the device write what is in its buffer."""
        self._edu.store(iova, size)


@contextmanager
def at_work(folder: Path, rid: str = RID) -> Iterator[Guest]:
    """The guest between two commands, with one of its devices."""
    with held(folder) as machine:
        yield Guest(machine, rid)

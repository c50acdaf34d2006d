# SPDX-License-Identifier: Apache-2.0
"""Views of memory: what a table walker reads from and what a driver writes to.

All views speak of addresses in one address space and raise OutsideMemory for what they do not hold.
"""

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from iommuctl.errors import OutsideMemory

PAGE = 4096


class Memory(Protocol):
    """Bytes at addresses."""

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`. Raises OutsideMemory."""

    def write(self, address: int, data: bytes) -> None:
        """Put `data` at `address`. Raises OutsideMemory, and then writes nothing."""


class Run(NamedTuple):
    """Contiguous pages: the address of the first, and how many."""

    address: int
    pages: int


class TableMemory(Memory, Protocol):
    """Memory that tables can be built in."""

    def allocate(self, pages: int) -> list[Run]:
        """Pages of 4 KiB, in as few runs as there is room for, `pages` in all.

        What they hold is undefined: the caller writes each of them whole. Raises NoRoom.
        """

    def allocate_run(self, pages: int) -> int:
        """The address of `pages` contiguous pages, aligned to a page. Raises NoRoom."""

    def free(self, run: Run) -> None:
        """Give pages back. They are handed out again by later transactions only."""


class FileMemory:
    """Memory in a file: offset 0 is address `base`.

    It reads and writes with pread and pwrite, not through a mapping, where a full disk would be a SIGBUS; but for files
    of hugetlbfs, which take no other writes.
    """

    def __init__(self, descriptor: int, base: int, size: int) -> None:
        self._descriptor = descriptor
        self.base = base
        self.size = size

    def read(self, address: int, size: int) -> bytes:
        check_inside(address, size, self.base, self.size)
        data = os.pread(self._descriptor, size, address - self.base)
        while len(data) < size:
            more = os.pread(self._descriptor, size - len(data), address - self.base + len(data))
            if not more:
                raise OutsideMemory(f"the memory file ends before address {address + size:#x}")
            data += more
        return data

    def write(self, address: int, data: bytes) -> None:
        check_inside(address, len(data), self.base, self.size)
        view = memoryview(data)
        while view:
            try:
                done = os.pwrite(self._descriptor, view, address - self.base)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                _write_mapped(self._descriptor, address - self.base, view)
                return
            view, address = view[done:], address + done

    def write_pages(self, address: int, pages: Sequence[bytearray | memoryview]) -> None:
        """Write contiguous pages in one call, so at most IOV_MAX of them. Raises OutsideMemory."""
        check_inside(address, PAGE * len(pages), self.base, self.size)
        try:
            done = os.pwritev(self._descriptor, pages, address - self.base)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            done = 0
        if done < PAGE * len(pages):
            self.write(address + done, b"".join(pages)[done:])

    def reserve(self, address: int, size: int) -> None:
        """Have the file system find room for a range, which may be a hole of a sparse file. Raises OSError."""
        os.posix_fallocate(self._descriptor, address - self.base, size)


def _write_mapped(descriptor: int, offset: int, data: memoryview) -> None:
    """Store into a file of hugetlbfs. Raises OSError where there are no huge pages left, before anything is stored.

    hugetlbfs has no write(2) (fs/hugetlbfs/inode.c of Linux 7.3): the kernel answers EINVAL.
    """
    import mmap

    # What it says of its blocks is the size of a huge page, in which a mapping begins and ends.
    page = os.fstat(descriptor).st_blksize
    first = offset // page * page
    size = -(-(offset + len(data)) // page) * page - first
    os.posix_fallocate(descriptor, first, size)
    with mmap.mmap(descriptor, size, offset=first) as mapped:
        mapped[offset - first : offset - first + len(data)] = data


def check_inside(address: int, size: int, base: int, extent: int) -> None:
    """Raise OutsideMemory unless all of `size` bytes at `address` lie in `extent` bytes at `base`."""
    if address < base or size < 0 or address + size > base + extent:
        raise OutsideMemory(
            f"{size} bytes at {address:#x} are not in memory",
            because=f"memory is {base:#x}..{base + extent - 1:#x}",
        )


def read_word(memory: Memory, address: int) -> int:
    """The little-endian 64-bit word at `address`."""
    return int.from_bytes(memory.read(address, 8), "little")


def write_word(memory: Memory, address: int, value: int) -> None:
    """Put a little-endian 64-bit word at `address`."""
    memory.write(address, value.to_bytes(8, "little"))

# SPDX-License-Identifier: Apache-2.0
"""How tests look at a backend: where a request goes, what was refused, and everything that a state folder holds.

`snapshot` goes around the backend and the core, to the files.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from iommuctl.errors import IommuError
from iommuctl.iommu import Iommu
from iommuctl.model import Mapping
from iommuctl.session import Outcome

RAM = "ram"
"""The name of the memory that tests map."""
RAM_SIZE = 16 << 20
IOVA = 0x200_0000
"""Where tests map it: above what platforms reserve at the bottom."""
PAGE = 4096

EXITS = {
    1: """overlap partial-unmap misaligned out-of-aperture reserved-range slot-occupied slot-empty slot-bound
          name-taken in-use parent-not-attached not-nest-parent nothing-bound state-damaged no-room outside-memory
          device-not-bound""",
    2: "usage bad-number bad-rid zero-size pasid-zero bad-document other-backend",
    3: "unsupported no-pasid-support pasid-too-wide cannot-nest no-ats backend-unavailable",
    4: """no-such-domain no-such-device no-such-pgtable no-such-memory no-such-fault no-such-structure
          no-such-unit""",
    5: "permission kernel-refused group-not-viable lost",
}
EXIT_OF = {error: code for code, errors in EXITS.items() for error in errors.split()}
"""The exit codes that scripts rely on, by error id."""


_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'redo'"


class Snapshot(NamedTuple):
    """All that a state folder holds: the rows of every table, and the hash of every page of memory with data."""

    rows: dict[str, list[tuple[Any, ...]]]
    memory: dict[str, dict[int, str]]


def snapshot(iommu: Iommu) -> Snapshot:
    """The state folder as it is on disk: rows of the core and of the backend, caches and allocators among them.

    All but the redo rows: what they say has been done to memory, and the next change drops them.
    """
    rows: dict[str, list[tuple[Any, ...]]] = {}
    database = iommu.state / "state.db"
    if database.exists():
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            for (table,) in connection.execute(_TABLES).fetchall():
                rows[table] = sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
    memory = {path.name: dict(_pages(os.fspath(path))) for path in sorted(iommu.state.glob("memory-*"))}
    return Snapshot(rows, memory)


@contextlib.contextmanager
def refused(iommu: Iommu, error: str) -> Iterator[pytest.ExceptionInfo[IommuError]]:
    """The block must raise the error with that id and its exit code, and change nothing at all."""
    before = snapshot(iommu)
    # What a question asks does not change it, so that it would tell of the change before.
    iommu.last = Outcome()
    with pytest.raises(IommuError) as caught:
        yield caught
    assert (caught.value.id, caught.value.exit) == (error, EXIT_OF[error])
    assert caught.value.what
    assert snapshot(iommu) == before
    assert iommu.last == Outcome()


def put(iommu: Iommu, domain: str, iova: int, size: int, offset: int = 0, *, prot: str = "rw") -> Mapping:
    """Map a part of the memory of the tests."""
    return iommu.map(domain, iova=iova, size=size, memory=RAM, offset=offset, prot=prot)


def lands(
    iommu: Iommu, rid: str, iova: int, *, pasid: int | None = None, write: bool = False, memory: str = RAM
) -> int | None:
    """Where a device's request ends up, as an offset in the named memory; None when it faults.

    A simulator's device does it, too: its DMA must go where the tables say, through whatever the caches hold.
    """
    told = iommu.translate(rid, iova, pasid=pasid, access="w" if write else "r")
    if iommu.capabilities().simulates:
        size, data = (None, b"\xa5") if write else (1, None)
        done = iommu.dma(rid, iova, size=size, data=data, pasid=pasid)
        assert not done.stale, f"a stale cache entry served {iova:#x}"
        assert done.fault == told.fault
        assert [piece.pa for piece in done.pieces] == ([] if told.pa is None else [told.pa])
        if write and told.pa is not None:
            assert iommu.read_memory(told.pa, 1) == data
    return None if told.pa is None else told.pa - iommu.memory(memory).pa


def _pages(path: str) -> Iterator[tuple[int, str]]:
    """Pages of a sparse file that hold anything but zeros."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = 0
        while True:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            for offset in range(start & -PAGE, end, PAGE):
                page = os.pread(descriptor, PAGE, offset)
                if page.strip(b"\0"):
                    yield offset, hashlib.blake2b(page, digest_size=8).hexdigest()
    finally:
        os.close(descriptor)


def sizes_to_try(sizes: tuple[int, ...], largest: int) -> list[int]:
    """Page sizes of which there is memory for two pages."""
    return [size for size in sizes if size <= largest]

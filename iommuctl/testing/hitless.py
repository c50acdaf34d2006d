# SPDX-License-Identifier: Apache-2.0
"""Hitless replacement: the hardware sees the old table or the new one at every moment, and never neither."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from iommuctl.iommu import Iommu
from iommuctl.model import Memory, MemoryWrite
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.probes import IOVA, lands, put
from iommuctl.testing.selection import needs


@needs("hitless_replace", "simulates")
class HitlessSuite(BackendSuite):
    """For simulators that declare it: the words that a dry run shows are written one by one, with a walk after each."""

    @pytest.mark.parametrize("pasid", [None, 5, 60])
    def test_a_request_meets_the_old_table_or_the_new_one(
        self, iommu: Iommu, rid1: str, ram: Memory, page: int, pasid: int | None
    ) -> None:
        if pasid is not None and not self.declared().pasid_bits:
            pasid = None
        for name, offset in (("d", 0), ("e", page)):
            # Different widths, so that more than an address changes.
            width = self.declared().widths[0 if name == "d" else -1]
            iommu.domain_create(name, width=width)
            put(iommu, name, IOVA, page, offset)
        iommu.attach("d", rid1, pasid=pasid)
        for neighbour in (None, 6) if self.declared().pasid_bits else ():
            if neighbour != pasid:
                iommu.attach("d", rid1, pasid=neighbour)
        iommu.dry_run = True
        iommu.attach("e", rid1, pasid=pasid, replace=True)
        writes = iommu.last.writes
        iommu.dry_run = False
        assert lands(iommu, rid1, IOVA, pasid=pasid) == 0
        seen = [0]
        with _memory(iommu) as memory:
            for count in range(1, len(writes) + 1):
                memory.apply(writes[count - 1])
                told = iommu.translate(rid1, IOVA, pasid=pasid)
                assert told.pa is not None, f"after {count} of {len(writes)} writes: {told.fault}"
                seen.append(told.pa - ram.pa)
                for neighbour in (None, 6) if self.declared().pasid_bits else ():
                    if neighbour != pasid:
                        assert iommu.translate(rid1, IOVA, pasid=neighbour).pa == ram.pa
        assert set(seen) == {0, page}
        assert seen == sorted(seen), "the old table came back after the new one"
        iommu.attach("e", rid1, pasid=pasid, replace=True)
        assert lands(iommu, rid1, IOVA, pasid=pasid) == page


class _RawMemory:
    """The memory file, written past everything that keeps count of it."""

    def __init__(self, descriptor: int, base: int) -> None:
        self._descriptor = descriptor
        self._base = base
        self._done: list[MemoryWrite] = []

    def apply(self, write: MemoryWrite) -> None:
        old = os.pread(self._descriptor, 8, write.address - self._base)
        assert int.from_bytes(old, "little") == write.old, f"the word at {write.address:#x} was another before"
        self._put(write.address, write.new)
        self._done.append(write)

    def undo(self) -> None:
        while self._done:
            write = self._done.pop()
            self._put(write.address, write.old)

    def _put(self, address: int, value: int) -> None:
        os.pwrite(self._descriptor, value.to_bytes(8, "little"), address - self._base)


@contextlib.contextmanager
def _memory(iommu: Iommu) -> Iterator[_RawMemory]:
    """Memory for a while: what was written is undone at the end."""
    told = iommu.describe()["memory"]
    descriptor = os.open(told["file"], os.O_RDWR | os.O_CLOEXEC)
    try:
        memory = _RawMemory(descriptor, told["base"])
        try:
            yield memory
        finally:
            memory.undo()
    finally:
        os.close(descriptor)

# SPDX-License-Identifier: Apache-2.0
"""`check` finds pages of pools in guest memory that are lost or held twice, and CD tables that lead elsewhere."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import plugins
from iommuctl.iommu import Iommu

RID1, RID2 = "0000:00:01.0", "0000:00:02.0"
POOL, CD_POOL = 1 << 20, 2 << 20


@pytest.fixture
def iommu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iommu]:
    """RID1 has its CD table in the pool of page table `t`, RID2 in one of its own."""
    monkeypatch.setitem(plugins.BACKENDS, "limited", "tests.conformance.limited")
    with Iommu(tmp_path / "state", backend="limited") as iommu:
        iommu.memory_create("ram", 8 << 20)
        iommu.domain_create("vm", nest_parent=True)
        iommu.map("vm", iova=0, size=8 << 20, memory="ram")
        table = iommu.pgtable_create("t", parent="vm", pool=POOL, pool_size=1 << 16)
        for rid in (RID1, RID2):
            iommu.attach("vm", rid)
        iommu.bind_pgtable("vm", RID1, pgtable="t", pasid=1)
        iommu.bind_pgtable("vm", RID2, addr=table.root, pasid=1, cd_pool=(CD_POOL, 1 << 16))
        assert iommu.check() == []
        yield iommu


def row(iommu: Iommu, statement: str) -> None:
    iommu.close()
    with contextlib.closing(sqlite3.connect(iommu.state / "state.db")) as connection:
        assert connection.execute(statement).rowcount == 1
        connection.commit()


@pytest.mark.parametrize(
    ("pool", "words", "address"),
    [("pgtable-1", "page table t", POOL + 0x2000), (f"cd-{RID2}", f"the CD table of {RID2}", CD_POOL + 0x1000)],
)
def test_pages_that_are_lost(iommu: Iommu, pool: str, words: str, address: int) -> None:
    row(iommu, f"DELETE FROM extent WHERE pool = '{pool}'")
    (told,) = iommu.check()
    assert told.endswith(f"pages of the pool of {words} at {address:#x} are lost: nothing holds them")


@pytest.mark.parametrize(("pool", "address"), [("pgtable-1", POOL + 0x1000), (f"cd-{RID2}", CD_POOL)])
def test_pages_that_are_held_twice(iommu: Iommu, pool: str, address: int) -> None:
    row(iommu, f"INSERT INTO extent VALUES ('{pool}', {address}, 1)")
    (told,) = iommu.check()
    assert f"the page at {address:#x} is held by" in told
    assert "the allocator, as free" in told
    assert "the CD table of" in told


def test_a_cd_table_in_the_wrong_place(iommu: Iommu) -> None:
    row(iommu, f"UPDATE backend_row SET value = '{POOL}' WHERE kind = 'limited.table' AND key = '{RID2}'")
    told = iommu.check()
    assert f"the table of {RID2} in guest memory does not lead to its page tables" in told
    assert any(f"{POOL:#x}, which is not in the pool of the CD table of {RID2}" in each for each in told)

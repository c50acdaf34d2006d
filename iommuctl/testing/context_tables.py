# SPDX-License-Identifier: Apache-2.0
"""Guest memory for the table that leads from a device's PASIDs to page tables: which it is, and for how long."""

from contextlib import suppress
from functools import partial

import pytest

from iommuctl.errors import NoRoom
from iommuctl.iommu import Iommu
from iommuctl.testing.nesting import BASE, GUEST, MORE, POOL, POOL_SIZE, NestingBase
from iommuctl.testing.probes import IOVA, RAM, lands, put, refused
from iommuctl.testing.refusals import check
from iommuctl.testing.selection import needs

CD_POOL = (BASE + 0x40_0000, 0x4_0000)
OTHER = (BASE + 0x50_0000, 0x4_0000)
AWAY = BASE + 0x60_0000
"""Where a page table is that its owner built, in the memory of a parent."""


@needs("pasid_bits", "context_tables_in_guest")
class ContextTableSuite(NestingBase):
    """The pool of a RID: chosen with its first binding, kept until the last one goes."""

    @pytest.fixture
    def two(self, iommu: Iommu, rid1: str, rid2: str, vm1: str) -> Iommu:
        """Page tables `t` and `u` of `vm1`, on which both devices are."""
        self.build(iommu, "t", vm1, 0x20_0000)
        self.build(iommu, "u", vm1, 0x21_0000)
        for rid in (rid1, rid2):
            iommu.attach(vm1, rid)
        return iommu

    def pool_of(self, iommu: Iommu, table: str) -> tuple[int, int]:
        return iommu.pgtable(table).pool, iommu.pgtable(table).pool_size

    def test_the_pool_of_the_page_table_that_is_bound_first(self, two: Iommu, rid1: str, rid2: str) -> None:
        first = two.bind_pgtable("vm1", rid1, pgtable="t", pasid=1)
        second = two.bind_pgtable("vm1", rid1, pgtable="u", pasid=2)
        assert (first.cd_pool, second.cd_pool) == (None, self.pool_of(two, "t"))
        assert two.slots(rid=rid1)[1:] == [first, second]
        assert two.bind_pgtable("vm1", rid2, pgtable="u", pasid=2).cd_pool is None
        # It stays when the page table leaves the slot, and goes with the last binding.
        two.unbind_pgtable("vm1", rid1, pasid=1)
        assert two.slots(rid=rid1)[1] == second
        assert lands(two, rid1, IOVA, pasid=2) == 0x21_0000
        two.unbind_pgtable("vm1", rid1, pasid=2)
        assert two.bind_pgtable("vm1", rid1, pgtable="u", pasid=1).cd_pool is None
        two.pgtable_destroy("t")

    def test_a_page_table_whose_pool_is_used(self, two: Iommu, rid1: str, rid2: str) -> None:
        parent = two.slots(rid=rid1)[0]
        two.bind_pgtable("vm1", rid1, pgtable="t")
        for pasid in (1, 2):
            two.bind_pgtable("vm1", rid1, pgtable="u", pasid=pasid)
        other = two.bind_pgtable("vm1", rid2, pgtable="u", pasid=1)
        two.unbind_pgtable("vm1", rid1)
        with refused(two, "in-use") as caught:
            two.pgtable_destroy("t")
        assert rid1 in caught.value.because
        assert rid2 not in caught.value.because
        two.pgtable_destroy("t", force=True)
        assert two.slots(rid=rid1) == [parent]
        assert two.slots(rid=rid2)[1:] == [other]
        assert [lands(two, rid, IOVA, pasid=1) for rid in (rid1, rid2)] == [None, 0x21_0000]

    def test_a_page_table_at_an_address_needs_one(self, two: Iommu, rid1: str) -> None:
        table = two.pgtable("t")
        at = partial(two.bind_pgtable, "vm1", rid1, addr=table.root, format=table.format)
        with refused(two, "usage") as caught:
            at(pasid=1)
        assert "--cd-pool" in caught.value.hint
        made = at(pasid=1, cd_pool=CD_POOL)
        assert made.cd_pool == CD_POOL
        assert [at(pasid=2).cd_pool, at(cd_pool=CD_POOL).cd_pool] == [CD_POOL] * 2
        assert two.bind_pgtable("vm1", rid1, pgtable="u", pasid=3).cd_pool == CD_POOL
        assert [lands(two, rid1, IOVA, pasid=pasid) for pasid in (None, 1, 2, 3)] == [0x20_0000] * 3 + [0x21_0000]
        with refused(two, "in-use") as caught:
            at(pasid=4, cd_pool=OTHER)
        assert f"{CD_POOL[0]:#x}" in caught.value.because
        for pasid in (1, 2, None, 3):
            two.unbind_pgtable("vm1", rid1, pasid=pasid)
        assert at(pasid=4, cd_pool=OTHER).cd_pool == OTHER
        two.detach("vm1", rid1, force=True)
        for name in ("t", "u"):
            two.pgtable_destroy(name)
        two.unmap("vm1", iova=BASE, size=GUEST)

    def test_the_pool_of_a_page_table_by_its_address(self, two: Iommu, rid1: str) -> None:
        pool = self.pool_of(two, "t")
        assert two.bind_pgtable("vm1", rid1, addr=AWAY, pasid=1, cd_pool=pool).cd_pool == pool
        assert two.bind_pgtable("vm1", rid1, pgtable="t", pasid=2, cd_pool=pool).cd_pool is None
        two.unbind_pgtable("vm1", rid1, pasid=2)
        with refused(two, "in-use"):
            two.pgtable_destroy("t")

    def test_what_cannot_be_a_pool(self, two: Iommu, rid1: str, rid2: str) -> None:
        put(two, "vm1", MORE, 0x8000, prot="r")
        two.bind_pgtable("vm1", rid2, addr=AWAY, cd_pool=CD_POOL)
        start, size = CD_POOL
        at = partial(two.bind_pgtable, "vm1", rid1, addr=AWAY + 0x1_0000)
        check(
            two,
            [
                ("overlap", partial(at, cd_pool=CD_POOL)),
                ("overlap", partial(at, cd_pool=(start + size - 0x1000, 0x2000))),
                ("overlap", partial(at, cd_pool=(POOL, 2 * POOL_SIZE))),
                ("overlap", partial(at, cd_pool=(AWAY, 0x1000))),
                ("overlap", partial(at, cd_pool=(AWAY + 0x1_0000, 0x1000))),
                ("overlap", partial(two.bind_pgtable, "vm1", rid2, addr=start, pasid=1)),
                ("overlap", partial(two.pgtable_create, "v", parent="vm1", pool=start, pool_size=size)),
                ("outside-memory", partial(at, cd_pool=(MORE, 0x8000))),
                ("outside-memory", partial(at, cd_pool=(BASE + GUEST - 0x1000, 0x2000))),
                ("outside-memory", partial(at, cd_pool=(BASE + 4 * GUEST, 0x2000))),
                ("out-of-aperture", partial(at, cd_pool=(1 << two.domain("vm1").width, 0x1000))),
                ("misaligned", partial(at, cd_pool=(BASE + 0x50_0008, 0x1000))),
                ("misaligned", partial(at, cd_pool=(BASE + 0x50_0000, 0x1008))),
                ("zero-size", partial(at, cd_pool=(BASE + 0x50_0000, 0))),
                ("bad-number", partial(at, cd_pool=(-0x1000, 0x1000))),
            ],
        )

    def test_a_pool_without_room(self, two: Iommu, rid1: str, vm1: str, page: int) -> None:
        two.pgtable_create("v", parent=vm1, pool=CD_POOL[0], pool_size=8 * page)
        with suppress(NoRoom):
            for number in range(9):
                two.pgtable_map("v", iova=IOVA + (number << 30), size=page, gpa=0)
        with suppress(NoRoom):
            for number in range(9):
                two.pgtable_map("v", iova=2 * IOVA + (number << 21), size=page, gpa=0)
        with refused(two, "no-room"):
            two.bind_pgtable(vm1, rid1, pgtable="v", pasid=1)

    def test_memory_with_a_pool(self, two: Iommu, rid1: str, vm1: str) -> None:
        two.memory_create("more", 0x4_0000)
        two.map(vm1, iova=MORE, size=0x4_0000, memory="more")
        two.bind_pgtable(vm1, rid1, pgtable="t", pasid=1, cd_pool=(MORE + 0x1_0000, 0x1_0000))
        for change in (partial(two.unmap, vm1, iova=MORE, size=0x4_0000), partial(two.memory_destroy, "more")):
            with refused(two, "in-use"):
                change()
        two.memory_destroy("more", force=True)
        assert len(two.slots(rid=rid1)) == 1
        assert [memory.name for memory in two.memories()] == [RAM]
        two.bind_pgtable(vm1, rid1, pgtable="t", pasid=1)
        assert lands(two, rid1, IOVA, pasid=1) == 0x20_0000

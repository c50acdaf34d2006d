# SPDX-License-Identifier: Apache-2.0
"""Nesting: page tables of the user's, bound in slots and nested on a parent domain."""

from collections.abc import Callable

import pytest

from iommuctl.errors import NoRoom
from iommuctl.iommu import Iommu
from iommuctl.model import Attachment, Binding, PageTable, Rid, Slot
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.probes import IOVA, lands, put, refused, snapshot
from iommuctl.testing.selection import lacks, needs

BASE, GUEST = 0x1000_0000, 0x80_0000
"""Guest memory of each parent of the tests: its GPA, above what platforms reserve at the bottom, and its size, half of
the memory of the tests."""
MORE = BASE + 2 * GUEST
"""Where tests map more, beyond it."""
POOL, POOL_SIZE = BASE + 0x10_0000, 0x4_0000
"""The pool of the first page table; the others follow."""


class NestingBase(BackendSuite):
    """Two nest parents with guest memory: `vm1` has the first half of the tests' memory, `vm2` the second."""

    @pytest.fixture
    def vm1(self, iommu: Iommu) -> str:
        iommu.domain_create("vm1", nest_parent=True)
        put(iommu, "vm1", BASE, GUEST)
        return "vm1"

    @pytest.fixture
    def vm2(self, iommu: Iommu) -> str:
        iommu.domain_create("vm2", nest_parent=True)
        put(iommu, "vm2", BASE, GUEST, GUEST)
        return "vm2"

    @staticmethod
    def build(
        iommu: Iommu,
        name: str,
        parent: str,
        at: int | None = None,
        *,
        format: str | None = None,
        size: int = 0x1_0000,
    ) -> PageTable:
        """A page table in a pool of its own, which maps `size` bytes at IOVA to guest memory, from `at` of it on."""
        pool = POOL + POOL_SIZE * len(iommu.pgtables())
        made = iommu.pgtable_create(name, parent=parent, pool=pool, pool_size=POOL_SIZE, format=format)
        if at is not None:
            iommu.pgtable_map(name, iova=IOVA, size=size, gpa=BASE + at)
        return made


@needs("nesting")
class NestingSuite(NestingBase):
    """The rules of `iommu_bind_pgtable` and `iommu_unbind_pgtable`, with and without PASID."""

    def test_a_page_table_of_every_format(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        iommu.attach(vm1, rid1)
        for index, name in enumerate(self.declared().pgtable_formats):
            made = self.build(iommu, f"t{index}", vm1, 0x20_0000 + index * 0x1_0000, format=name)
            assert (made.format, made.parent, made.pool_size) == (name, iommu.domain(vm1), POOL_SIZE)
            assert POOL <= made.root < POOL + POOL_SIZE * (index + 1)
            iommu.bind_pgtable(vm1, rid1, pgtable=made.name)
            assert lands(iommu, rid1, IOVA + 0x1234) == 0x20_1234 + index * 0x1_0000
            assert lands(iommu, rid1, IOVA + 0x1_0000) is None
            iommu.unbind_pgtable(vm1, rid1)

    def test_formats_that_are_not_declared_are_refused(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        iommu.attach(vm1, rid1)
        with refused(iommu, "unsupported"):
            iommu.pgtable_create("t", parent=vm1, pool=POOL, pool_size=POOL_SIZE, format="of-nobody")
        with refused(iommu, "unsupported"):
            iommu.bind_pgtable(vm1, rid1, addr=POOL, format="of-nobody")

    def test_the_slot_of_a_rid_goes_back_to_the_parent(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        table = self.build(iommu, "t", vm1, 0x20_0000)
        before = iommu.attach(vm1, rid1, label="host side")
        assert lands(iommu, rid1, BASE + 0x20_0000) == 0x20_0000
        made = iommu.bind_pgtable(vm1, rid1, pgtable="t", label="guest side")
        slot, parent = Slot(Rid.parse(rid1)), iommu.domain(vm1)
        assert made == Binding(slot, parent, table.root, table.format, "t", "guest side", False, "host side")
        assert iommu.slots() == [made]
        assert lands(iommu, rid1, IOVA) == 0x20_0000
        assert lands(iommu, rid1, BASE + 0x20_0000) is None
        assert iommu.unbind_pgtable(vm1, rid1) == before
        assert iommu.slots() == [before]
        assert lands(iommu, rid1, BASE + 0x20_0000) == 0x20_0000
        assert lands(iommu, rid1, IOVA) is None

    @needs("pasid_bits")
    def test_binding_a_pasid_attaches_it_implicitly(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        self.build(iommu, "t", vm1, 0x20_0000)
        iommu.attach(vm1, rid1)
        made = iommu.bind_pgtable(vm1, rid1, pgtable="t", pasid=7)
        assert (made.implicit, made.attachment_label) == (True, None)
        assert iommu.slots(rid=rid1)[1:] == [made]
        assert lands(iommu, rid1, IOVA, pasid=7) == 0x20_0000
        assert lands(iommu, rid1, IOVA, pasid=6) is None
        assert iommu.unbind_pgtable(vm1, rid1, pasid=7) is None
        assert len(iommu.slots()) == 1
        assert lands(iommu, rid1, IOVA, pasid=7) is None
        assert lands(iommu, rid1, BASE + 0x20_0000, pasid=7) is None

    @needs("pasid_bits", nesting="slot")
    def test_unbinding_a_pasid_keeps_the_attachment_that_was_made(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        self.build(iommu, "t", vm1, 0x20_0000)
        iommu.attach(vm1, rid1)
        before = iommu.attach(vm1, rid1, pasid=7, label="mine")
        made = iommu.bind_pgtable(vm1, rid1, pgtable="t", pasid=7)
        assert (made.implicit, made.attachment_label, made.label) == (False, "mine", None)
        assert lands(iommu, rid1, IOVA, pasid=7) == 0x20_0000
        assert iommu.unbind_pgtable(vm1, rid1, pasid=7) == before
        assert isinstance(iommu.slots()[1], Attachment)
        assert lands(iommu, rid1, BASE + 0x20_0000, pasid=7) == 0x20_0000

    def test_a_table_that_somebody_else_built(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        table = self.build(iommu, "t", vm1, 0x20_0000)
        iommu.attach(vm1, rid1)
        cd_pool = (BASE + 0x40_0000, 0x4_0000) if self.declared().context_tables_in_guest else None
        made = iommu.bind_pgtable(vm1, rid1, addr=table.root, format=table.format, cd_pool=cd_pool)
        assert (made.pgtable, made.root, made.format) == (None, table.root, table.format)
        assert lands(iommu, rid1, IOVA) == 0x20_0000
        iommu.unbind_pgtable(vm1, rid1)

    @lacks("context_tables_in_guest")
    def test_a_pool_for_a_table_that_is_not_in_guest_memory_is_refused(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        table = self.build(iommu, "t", vm1)
        iommu.attach(vm1, rid1)
        for which in ({"pgtable": "t"}, {"addr": table.root}):
            with refused(iommu, "unsupported"):
                iommu.bind_pgtable(vm1, rid1, cd_pool=(BASE + 0x40_0000, 0x4_0000), **which)

    def test_one_table_in_two_slots(self, iommu: Iommu, rid1: str, rid2: str, vm1: str) -> None:
        self.build(iommu, "t", vm1, 0x20_0000)
        for rid in (rid1, rid2):
            iommu.attach(vm1, rid)
            iommu.bind_pgtable(vm1, rid, pgtable="t")
        assert [lands(iommu, rid, IOVA) for rid in (rid1, rid2)] == [0x20_0000] * 2
        with refused(iommu, "in-use"):
            iommu.pgtable_destroy("t")
        iommu.unbind_pgtable(vm1, rid1)
        assert [lands(iommu, rid, IOVA) for rid in (rid1, rid2)] == [None, 0x20_0000]
        iommu.pgtable_destroy("t", force=True)
        assert iommu.pgtables() == []
        assert [lands(iommu, rid, IOVA) for rid in (rid1, rid2)] == [None, None]

    def test_both_stages_must_allow_it(self, iommu: Iommu, rid1: str, vm1: str, page: int) -> None:
        put(iommu, vm1, MORE, page, prot="r")
        put(iommu, vm1, MORE + page, page)
        self.build(iommu, "t", vm1)
        for index, (prot, gpa) in enumerate((("rw", 0), ("rw", page), ("r", page), ("rw", 2 * page))):
            iommu.pgtable_map("t", iova=IOVA + index * page, size=page, gpa=MORE + gpa, prot=prot)
        iommu.attach(vm1, rid1)
        iommu.bind_pgtable(vm1, rid1, pgtable="t")
        where = [IOVA + index * page for index in range(4)]
        assert [lands(iommu, rid1, iova) for iova in where] == [0, 0, 0, None]
        assert [lands(iommu, rid1, iova, write=True) for iova in where] == [None, 0, None, None]

    def test_a_mapping_of_the_parent_is_seen_through_its_tables(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        self.build(iommu, "t", vm1, 2 * GUEST)
        iommu.attach(vm1, rid1)
        iommu.bind_pgtable(vm1, rid1, pgtable="t")
        assert lands(iommu, rid1, IOVA) is None
        put(iommu, vm1, MORE, 0x1_0000, 0x40_0000)
        assert lands(iommu, rid1, IOVA + 0x5678) == 0x40_5678
        iommu.unmap(vm1, iova=MORE, size=0x1_0000)
        assert lands(iommu, rid1, IOVA + 0x5678) is None

    @needs("simulates")
    def test_large_pages_in_both_stages(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        memory = iommu.memory_create("large", 6 << 20)
        base = 64 << 20
        iommu.map(vm1, iova=base, size=4 << 20, memory="large", offset=-memory.pa % (2 << 20))
        self.build(iommu, "t", vm1)
        iommu.pgtable_map("t", iova=base, size=4 << 20, gpa=base)
        iommu.attach(vm1, rid1)
        iommu.bind_pgtable(vm1, rid1, pgtable="t")
        first = memory.pa + -memory.pa % (2 << 20)
        for offset in (0, 0x12_3456, (2 << 20) - 1, 2 << 20, (4 << 20) - 1):
            assert iommu.translate(rid1, base + offset).pa == first + offset
            assert lands(iommu, rid1, base + offset) is not None
        iommu.unmap(vm1, iova=base, size=4 << 20)
        for offset in (0, 0x12_3456, 0x12_4456, (2 << 20) - 1, 2 << 20, (4 << 20) - 1):
            assert lands(iommu, rid1, base + offset) is None

    def test_the_pool_belongs_to_the_table(self, iommu: Iommu, vm1: str, page: int) -> None:
        put(iommu, vm1, MORE, 64 * page, GUEST)
        iommu.pgtable_create("t", parent=vm1, pool=MORE, pool_size=32 * page)
        for unmap in (lambda: iommu.unmap(vm1, iova=MORE, size=64 * page), lambda: iommu.memory_destroy("ram")):
            with refused(iommu, "in-use"):
                unmap()
        with refused(iommu, "overlap"):
            iommu.pgtable_create("u", parent=vm1, pool=MORE + 31 * page, pool_size=8 * page)
        iommu.pgtable_destroy("t")
        iommu.pgtable_create("u", parent=vm1, pool=MORE + 31 * page, pool_size=8 * page)
        iommu.pgtable_destroy("u")
        iommu.unmap(vm1, iova=MORE, size=64 * page)

    def test_a_pool_is_mapped_read_write(self, iommu: Iommu, vm1: str, page: int) -> None:
        put(iommu, vm1, MORE, 8 * page, prot="r")
        for pool in (MORE, BASE + GUEST - 4 * page, BASE + 3 * GUEST):
            with refused(iommu, "outside-memory"):
                iommu.pgtable_create("t", parent=vm1, pool=pool, pool_size=8 * page)

    def test_a_full_pool(self, iommu: Iommu, vm1: str, page: int) -> None:
        iommu.pgtable_create("t", parent=vm1, pool=POOL, pool_size=8 * page)
        for fits in range(9):
            before, iova = snapshot(iommu), IOVA + (fits << 30)
            try:
                iommu.pgtable_map("t", iova=iova, size=page, gpa=BASE)
            except NoRoom:
                break
        assert 0 < fits < 8
        assert snapshot(iommu) == before
        assert [leaf.iova for leaf in iommu.pgtable_mappings("t")] == [IOVA + (n << 30) for n in range(fits)]

    def test_destroying_a_parent_takes_everything_off_in_order(
        self, iommu: Iommu, rid1: str, rid2: str, vm1: str, pasids: list[int | None]
    ) -> None:
        self.build(iommu, "t", vm1, 0x20_0000)
        iommu.attach(vm1, rid2)
        iommu.attach(vm1, rid1)
        for pasid in pasids:
            iommu.bind_pgtable(vm1, rid1, pgtable="t", pasid=pasid)
            assert lands(iommu, rid1, IOVA, pasid=pasid) == 0x20_0000
        with refused(iommu, "in-use") as caught:
            iommu.domain_destroy(vm1)
        users: Callable[[str], bool] = str(caught.value).__contains__
        assert all(users(f"{Slot(Rid.parse(rid1), pasid)} (binding)") for pasid in pasids)
        assert users(f"{rid2} (attachment)")
        assert users("page table t")
        iommu.domain_destroy(vm1, force=True)
        assert (iommu.domains(), iommu.slots(), iommu.pgtables()) == ([], [], [])
        for pasid in pasids:
            assert lands(iommu, rid1, IOVA, pasid=pasid) is None

    @needs("pasid_bits", nesting="slot")
    def test_each_slot_on_a_parent_of_its_own(self, iommu: Iommu, rid1: str, vm1: str, vm2: str) -> None:
        self.build(iommu, "t", vm1, 0x20_0000)
        self.build(iommu, "u", vm2, 0x20_0000)
        iommu.bind_pgtable(vm1, rid1, pgtable="t", pasid=1)
        iommu.bind_pgtable(vm2, rid1, pgtable="u", pasid=2)
        assert [lands(iommu, rid1, IOVA, pasid=pasid) for pasid in (1, 2)] == [0x20_0000, GUEST + 0x20_0000]

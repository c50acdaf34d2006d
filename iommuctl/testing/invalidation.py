# SPDX-License-Identifier: Apache-2.0
"""Invalidation: what a correct caller may rely on after it changed a page table, and what it must not.

Only a simulator's caches can be looked at; elsewhere the calls are made and their answers compared.
"""

import pytest

from iommuctl.iommu import Iommu
from iommuctl.testing.nesting import BASE, MORE, NestingBase
from iommuctl.testing.probes import IOVA, lands, put, refused
from iommuctl.testing.selection import needs

SIZE = 0x10_0000
"""Bytes that each page table of the tests maps at IOVA."""


@needs("nesting")
class InvalidationSuite(NestingBase):
    """The rules of `iommu_cache_invalidate`."""

    @pytest.fixture
    def bound(self, iommu: Iommu, rid1: str, rid2: str, vm1: str) -> str:
        """Page table `t`, bound in the slots of both RIDs."""
        self.build(iommu, "t", vm1, 0x20_0000, size=SIZE)
        for rid in (rid1, rid2):
            iommu.attach(vm1, rid)
            iommu.bind_pgtable(vm1, rid, pgtable="t")
        return "t"

    def serves(self, iommu: Iommu, rid: str, iova: int = IOVA, pasid: int | None = None) -> bool:
        """Whether a stale cache entry serves the device."""
        done = iommu.dma(rid, iova, size=8, pasid=pasid)
        assert done.stale == (done.fault is None)
        return done.stale

    @needs("simulates")
    def test_a_stale_entry_serves_until_it_is_invalidated(
        self, iommu: Iommu, rid1: str, rid2: str, bound: str, page: int
    ) -> None:
        last = IOVA + SIZE - page
        for rid in (rid1, rid2):
            assert [lands(iommu, rid, iova) for iova in (IOVA, last)] == [0x20_0000, 0x20_0000 + SIZE - page]
        iommu.pgtable_unmap(bound, iova=IOVA, size=SIZE)
        for rid in (rid1, rid2):
            assert iommu.translate(rid, IOVA).fault
            assert self.serves(iommu, rid)
            assert self.serves(iommu, rid, last)
        bindings = iommu.invalidate("vm1", iova=IOVA, size=SIZE)
        assert [str(binding.slot) for binding in bindings] == [rid1, rid2]
        assert iommu.last.commands
        for rid in (rid1, rid2):
            assert [lands(iommu, rid, iova) for iova in (IOVA, last)] == [None, None]

    @needs("simulates")
    @pytest.mark.parametrize("scope", ["all", "range", "leaf", "odd"])
    def test_a_change_is_seen_after_every_kind_of_invalidation(
        self, iommu: Iommu, rid1: str, bound: str, page: int, scope: str
    ) -> None:
        # Three pages, none of whose covering blocks is aligned to them.
        first, size = IOVA + 7 * page, 3 * page
        for index in range(3):
            assert lands(iommu, rid1, first + index * page) is not None
        iommu.pgtable_unmap(bound, iova=first, size=size)
        iommu.pgtable_map(bound, iova=first, size=size, gpa=BASE + 0x60_0000)
        match scope:
            case "all":
                iommu.invalidate("vm1")
            case "range":
                iommu.invalidate("vm1", iova=first, size=size)
            case "leaf":
                iommu.invalidate("vm1", iova=first, size=size, leaf=True)
            case "odd":
                iommu.invalidate("vm1", iova=first + 1, size=2 * page)
        for index in range(3):
            assert lands(iommu, rid1, first + index * page) == 0x60_0000 + index * page
        assert lands(iommu, rid1, IOVA) == 0x20_0000

    @needs("simulates")
    def test_the_ends_of_the_address_space(self, iommu: Iommu, rid1: str, bound: str, page: int) -> None:
        iommu.pgtable_map(bound, iova=0, size=page, gpa=BASE)
        assert lands(iommu, rid1, 0) == 0
        iommu.pgtable_unmap(bound, iova=0, size=page)
        iommu.invalidate("vm1", iova=0, size=1)
        assert lands(iommu, rid1, 0) is None
        assert lands(iommu, rid1, IOVA) == 0x20_0000
        iommu.pgtable_unmap(bound, iova=IOVA, size=SIZE)
        iommu.invalidate("vm1", iova=0, size=(1 << 64) - 1)
        assert lands(iommu, rid1, IOVA) is None

    @pytest.mark.usefixtures("bound")
    def test_what_is_meant_is_answered(self, iommu: Iommu, rid1: str, rid2: str) -> None:
        assert [str(binding.slot) for binding in iommu.invalidate("vm1")] == [rid1, rid2]
        assert [str(binding.slot) for binding in iommu.invalidate("vm1", device=rid2)] == [rid2]
        with refused(iommu, "nothing-bound"):
            iommu.invalidate("vm1", pasid=5)
        iommu.unbind_pgtable("vm1", rid1)
        with refused(iommu, "nothing-bound"):
            iommu.invalidate("vm1", device=rid1)
        assert [str(binding.slot) for binding in iommu.invalidate("vm1")] == [rid2]

    @needs("pasid_bits", "simulates")
    def test_by_device_and_pasid(self, iommu: Iommu, rid1: str, rid2: str, bound: str) -> None:
        slots = [(rid1, 1), (rid1, 2), (rid2, 1)]
        for rid, pasid in slots:
            iommu.bind_pgtable("vm1", rid, pgtable=bound, pasid=pasid)
            assert lands(iommu, rid, IOVA, pasid=pasid) == 0x20_0000
        iommu.pgtable_unmap(bound, iova=IOVA, size=SIZE)
        assert all(self.serves(iommu, rid, pasid=pasid) for rid, pasid in slots)
        assert len(iommu.invalidate("vm1", device=rid1, pasid=2)) == 1
        assert not self.serves(iommu, rid1, pasid=2)
        assert len(iommu.invalidate("vm1", pasid=1)) == 2
        assert not any(self.serves(iommu, rid, pasid=pasid) for rid, pasid in slots)
        assert len(iommu.invalidate("vm1", device=rid1)) == 3

    @needs("simulates")
    def test_other_parents_are_left_alone(self, iommu: Iommu, rid1: str, rid2: str, vm1: str, vm2: str) -> None:
        for rid, parent, name in ((rid1, vm1, "t"), (rid2, vm2, "u")):
            self.build(iommu, name, parent, 0x20_0000, size=SIZE)
            iommu.attach(parent, rid)
            iommu.bind_pgtable(parent, rid, pgtable=name)
            assert lands(iommu, rid, IOVA) is not None
            iommu.pgtable_unmap(name, iova=IOVA, size=SIZE)
        assert len(iommu.invalidate(vm1)) == 1
        assert lands(iommu, rid1, IOVA) is None
        iommu.invalidate(vm2)
        assert lands(iommu, rid2, IOVA) is None

    @needs("simulates")
    def test_what_takes_a_table_off_needs_no_invalidation(self, iommu: Iommu, rid1: str, rid2: str, bound: str) -> None:
        for rid in (rid1, rid2):
            assert lands(iommu, rid, IOVA) == 0x20_0000
        iommu.unbind_pgtable("vm1", rid1)
        iommu.detach("vm1", rid2, force=True)
        assert lands(iommu, rid1, IOVA) is None
        assert lands(iommu, rid2, IOVA) is None
        # The very table comes back with other contents.
        iommu.pgtable_unmap(bound, iova=IOVA, size=SIZE)
        iommu.pgtable_map(bound, iova=IOVA, size=SIZE, gpa=BASE + 0x50_0000)
        iommu.attach("vm1", rid2)
        for rid in (rid1, rid2):
            iommu.bind_pgtable("vm1", rid, pgtable=bound)
            assert lands(iommu, rid, IOVA) == 0x50_0000

    @needs("simulates")
    def test_unmap_of_the_parent_needs_no_invalidation(
        self, iommu: Iommu, rid1: str, rid2: str, bound: str, page: int
    ) -> None:
        put(iommu, "vm1", MORE, 2 * page, 0x30_0000)
        iommu.pgtable_map(bound, iova=2 * IOVA, size=2 * page, gpa=MORE)
        for rid in (rid1, rid2):
            assert lands(iommu, rid, 2 * IOVA) == 0x30_0000
        iommu.unmap("vm1", iova=MORE, size=2 * page)
        for rid in (rid1, rid2):
            assert [lands(iommu, rid, 2 * IOVA + offset) for offset in (0, page)] == [None, None]
            assert lands(iommu, rid, IOVA) == 0x20_0000

    def test_plain_attachments_need_none(self, iommu: Iommu, rid1: str, vm1: str) -> None:
        iommu.attach(vm1, rid1)
        with refused(iommu, "nothing-bound"):
            iommu.invalidate(vm1)

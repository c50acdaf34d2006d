# SPDX-License-Identifier: Apache-2.0
"""The reference topology: one device shared by the host and two guests, another given to a guest whole.

RID1 carries the host's own DMA on `domain1`, PASID x for vm1 on `domain2` and PASID y for vm2 on `domain3`; RID2
belongs to vm2. Guest processes share their address spaces with both: PASIDs a and b of RID1 are nested on `domain2`,
PASID c of RID1 and PASID a of RID2 on `domain3`.
"""

from typing import NamedTuple

import pytest

from iommuctl.iommu import Iommu
from iommuctl.model import Binding, Rid, Slot
from iommuctl.testing.nesting import BASE, GUEST, POOL, POOL_SIZE, NestingBase
from iommuctl.testing.probes import IOVA, lands, put, refused
from iommuctl.testing.selection import needs

X, Y, A, B, C = 1, 2, 31, 32, 33
HUGE = 0x20_0000_0000
"""Where a guest gets memory in large pages, and at multiples of it."""


class Place(NamedTuple):
    """A slot, an input address, and where it leads: an offset in the memory of the tests."""

    rid: str
    pasid: int | None
    iova: int
    offset: int


class TopologySuite(NestingBase):
    """The reference topology whole, or as much of it as the backend has."""

    @pytest.fixture
    def domains(self, iommu: Iommu, page: int) -> Iommu:
        """The three domains, in no slot."""
        iommu.domain_create("domain1")
        put(iommu, "domain1", IOVA, 4 * page)
        nests = self.declared().nesting != "none"
        for name, offset in (("domain2", 0), ("domain3", GUEST)):
            iommu.domain_create(name, nest_parent=nests)
            put(iommu, name, BASE, GUEST, offset)
        return iommu

    @pytest.fixture
    def places(self, domains: Iommu, rid1: str, rid2: str) -> list[Place]:
        """The whole topology; one place in each of its slots."""
        iommu = domains
        iommu.attach("domain1", rid1, label="host")
        iommu.attach("domain2", rid1, pasid=X, label="vm1")
        iommu.attach("domain3", rid1, pasid=Y, label="vm2")
        iommu.attach("domain3", rid2, label="vm2")
        for index, (parent, rid, pasid) in enumerate(
            (("domain2", rid1, A), ("domain2", rid1, B), ("domain3", rid1, C), ("domain3", rid2, A))
        ):
            self.build(iommu, f"t{index}", parent, 0x40_0000 + index * 0x1_0000)
            iommu.bind_pgtable(parent, rid, pgtable=f"t{index}", pasid=pasid)
        return [
            Place(rid1, None, IOVA, 0),
            Place(rid1, X, BASE + 0x50_0000, 0x50_0000),
            Place(rid1, Y, BASE + 0x50_0000, GUEST + 0x50_0000),
            Place(rid2, None, BASE + 0x50_0000, GUEST + 0x50_0000),
            Place(rid1, A, IOVA, 0x40_0000),
            Place(rid1, B, IOVA, 0x41_0000),
            Place(rid1, C, IOVA, GUEST + 0x42_0000),
            Place(rid2, A, IOVA, GUEST + 0x43_0000),
        ]

    @needs("pasid_bits", nesting="slot")
    def test_every_slot_leads_where_it_should(self, iommu: Iommu, places: list[Place]) -> None:
        for _ in range(2):  # from the tables, then from the caches
            for place in places:
                assert lands(iommu, place.rid, place.iova, pasid=place.pasid) == place.offset
        assert len(iommu.slots()) == len(places)
        assert len(iommu.slots(domain="domain2")) == 3
        assert len(iommu.slots(domain="domain3")) == 4
        for place in places:
            assert lands(iommu, place.rid, place.iova + 0x100_0000, pasid=place.pasid) is None

    @needs("pasid_bits", nesting="slot")
    @pytest.mark.usefixtures("places")
    def test_the_same_pasid_of_two_devices_on_two_parents(self, iommu: Iommu, rid1: str, rid2: str) -> None:
        for rid, offset in ((rid1, 0x40_0000), (rid2, GUEST + 0x43_0000)) * 2:
            assert lands(iommu, rid, IOVA, pasid=A) == offset
        iommu.unbind_pgtable("domain2", rid1, pasid=A)
        assert lands(iommu, rid1, IOVA, pasid=A) is None
        assert lands(iommu, rid2, IOVA, pasid=A) == GUEST + 0x43_0000

    @needs("pasid_bits", "nesting")
    @pytest.mark.usefixtures("domains")
    def test_the_same_pasid_of_two_devices_on_one_parent(self, iommu: Iommu, rid1: str, rid2: str) -> None:
        for index, rid in enumerate((rid1, rid2)):
            iommu.attach("domain3", rid)
            self.build(iommu, f"t{index}", "domain3", 0x40_0000 + index * 0x1_0000)
            iommu.bind_pgtable("domain3", rid, pgtable=f"t{index}", pasid=A)
        for rid, offset in ((rid1, GUEST + 0x40_0000), (rid2, GUEST + 0x41_0000)) * 2:
            assert lands(iommu, rid, IOVA, pasid=A) == offset
        if self.declared().simulates:
            iommu.pgtable_unmap("t0", iova=IOVA, size=0x1_0000)
            iommu.invalidate("domain3", device=rid1, pasid=A)
            assert lands(iommu, rid1, IOVA, pasid=A) is None
        assert lands(iommu, rid2, IOVA, pasid=A) == GUEST + 0x41_0000
        iommu.detach("domain3", rid1, pasid=A, force=True)
        assert lands(iommu, rid2, IOVA, pasid=A) == GUEST + 0x41_0000

    @needs("pasid_bits", nesting="slot")
    @pytest.mark.usefixtures("places")
    def test_one_table_in_two_slots_and_one_invalidation(self, iommu: Iommu, rid1: str, rid2: str) -> None:
        for rid, pasid in ((rid1, 40), (rid2, 41)):
            iommu.bind_pgtable("domain3", rid, pgtable="t2", pasid=pasid)
        slots = [(rid1, C), (rid1, 40), (rid2, 41)]
        assert {lands(iommu, rid, IOVA, pasid=pasid) for rid, pasid in slots} == {GUEST + 0x42_0000}
        iommu.pgtable_unmap("t2", iova=IOVA, size=0x1_0000)
        meant = iommu.invalidate("domain3", iova=IOVA, size=0x1_0000)
        assert {binding.slot for binding in meant} > {Slot(Rid.parse(rid), pasid) for rid, pasid in slots}
        assert {lands(iommu, rid, IOVA, pasid=pasid) for rid, pasid in slots} == {None}
        assert lands(iommu, rid2, IOVA, pasid=A) == GUEST + 0x43_0000

    @needs("simulates", "pasid_bits", nesting="slot")
    @pytest.mark.usefixtures("places")
    def test_nothing_stale_is_left_after_unmap(self, iommu: Iommu, rid1: str, rid2: str) -> None:
        """Through a RID, a RID and PASID, and a nested slot; and elsewhere in the same large page."""
        for index, size in enumerate(self.declared().page_sizes):
            base = HUGE * (index + 1)
            memory = iommu.memory_create(f"m{index}", 2 * size)
            iommu.map("domain3", iova=base, size=size, memory=memory.name, offset=-memory.pa % size)
            iommu.pgtable_map("t3", iova=base, size=size, gpa=base)
            addresses = {base, base + size // 2, base + size - 8, base + 3 * size // 4 & -8}
            slots = [(rid2, None), (rid1, Y), (rid2, A)]
            for rid, pasid in slots:
                for iova in addresses:
                    assert not iommu.dma(rid, iova, size=8, pasid=pasid).fault
            iommu.unmap("domain3", iova=base, size=size)
            addresses |= {base + size // 4, base + size - 4096}
            for rid, pasid in slots:
                for iova in addresses:
                    assert lands(iommu, rid, iova, pasid=pasid) is None

    @needs("pasid_bits", nesting="slot")
    def test_taking_it_down_by_force_and_in_order(
        self, iommu: Iommu, rid1: str, rid2: str, places: list[Place]
    ) -> None:
        with refused(iommu, "in-use") as caught:
            iommu.domain_destroy("domain3")
        for user in (f"{rid1} PASID {Y}", f"{rid1} PASID {C}", f"{rid2}", f"{rid2} PASID {A}", "page table t2"):
            assert user in caught.value.because
        iommu.domain_destroy("domain3", force=True)
        assert [table.name for table in iommu.pgtables()] == ["t0", "t1"]
        gone = (Y, C)
        for place in places:
            here = place.rid == rid1 and place.pasid not in gone
            assert lands(iommu, place.rid, place.iova, pasid=place.pasid) == (place.offset if here else None)

    @needs("pasid_bits", nesting="device")
    @pytest.mark.usefixtures("domains")
    def test_as_much_as_one_stage_2_for_each_device_allows(self, iommu: Iommu, rid1: str, rid2: str, page: int) -> None:
        iommu.domain_create("guest")
        put(iommu, "guest", IOVA, page, page)
        iommu.attach("domain1", rid1)
        iommu.attach("guest", rid1, pasid=X)
        iommu.attach("domain3", rid2)
        table = self.build(iommu, "t", "domain3", 0x40_0000)
        iommu.bind_pgtable("domain3", rid2, pgtable="t", pasid=A)
        assert POOL <= table.root < POOL + POOL_SIZE
        assert isinstance(iommu.slots(rid=rid2)[1], Binding)
        assert [lands(iommu, rid1, IOVA, pasid=pasid) for pasid in (None, X)] == [0, page]
        assert lands(iommu, rid2, IOVA, pasid=A) == GUEST + 0x40_0000
        self.build(iommu, "u", "domain2", 0x40_0000)
        for rid in (rid1, rid2):
            with refused(iommu, "cannot-nest"):
                iommu.bind_pgtable("domain2", rid, pgtable="u", pasid=B)

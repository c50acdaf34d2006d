# SPDX-License-Identifier: Apache-2.0
"""Domains and their mappings: domain-wide, whole mappings, and nothing stale after unmap."""

import pytest

from iommuctl.errors import Unsupported
from iommuctl.iommu import Iommu
from iommuctl.model import Mapping, Memory
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.probes import IOVA, RAM, lands, put, refused, sizes_to_try
from iommuctl.testing.selection import needs


class DomainSuite(BackendSuite):
    """The rules of `iommu_domain_alloc`, `iommu_map` and `iommu_unmap`."""

    def test_a_new_domain_is_empty(self, iommu: Iommu, rid1: str) -> None:
        domain = iommu.domain_create("d", label="words, and [brackets]")
        assert iommu.domains() == [domain] == [iommu.domain("d")] == [iommu.domain(f"id:{domain.id}")]
        assert (domain.name, domain.label, domain.nest_parent) == ("d", "words, and [brackets]", False)
        assert domain.width in self.declared().widths
        assert domain.page_sizes == self.declared().page_sizes
        assert iommu.mappings("d") == []
        iommu.attach("d", rid1)
        assert iommu.translate(rid1, IOVA).fault

    def test_ids_are_never_used_again(self, iommu: Iommu) -> None:
        first = iommu.domain_create("d")
        iommu.domain_destroy("d")
        second = iommu.domain_create("d")
        assert second.id != first.id
        with refused(iommu, "no-such-domain"):
            iommu.domain(f"id:{first.id}")

    def test_names_are_unique_for_each_kind(self, iommu: Iommu, ram: Memory) -> None:
        iommu.domain_create(ram.name)
        with refused(iommu, "name-taken"):
            iommu.domain_create(ram.name)
        with refused(iommu, "name-taken"):
            iommu.memory_create(ram.name, ram.size)

    def test_every_slot_sees_a_mapping(
        self, iommu: Iommu, rid1: str, rid2: str, page: int, pasids: list[int | None]
    ) -> None:
        iommu.domain_create("d")
        slots = [(rid, pasid) for rid in (rid1, rid2) for pasid in pasids]
        for rid, pasid in slots[::2]:
            iommu.attach("d", rid, pasid=pasid)
        put(iommu, "d", IOVA, 2 * page, offset=page)
        for rid, pasid in slots[1::2]:
            iommu.attach("d", rid, pasid=pasid)
        for rid, pasid in slots:
            assert lands(iommu, rid, IOVA + page + 8, pasid=pasid) == 2 * page + 8
            assert lands(iommu, rid, IOVA - 1, pasid=pasid) is None
            assert lands(iommu, rid, IOVA + 2 * page, pasid=pasid) is None
        put(iommu, "d", IOVA + 2 * page, page)
        for rid, pasid in slots:
            assert lands(iommu, rid, IOVA + 2 * page, pasid=pasid) == 0

    def test_no_slot_sees_what_was_unmapped(
        self, iommu: Iommu, rid1: str, rid2: str, page: int, pasids: list[int | None]
    ) -> None:
        iommu.domain_create("d")
        slots = [(rid, pasid) for rid in (rid1, rid2) for pasid in pasids]
        for rid, pasid in slots:
            iommu.attach("d", rid, pasid=pasid)
        put(iommu, "d", IOVA, 4 * page)
        put(iommu, "d", IOVA + 4 * page, page, offset=8 * page)
        for rid, pasid in slots:
            for index in range(5):
                assert lands(iommu, rid, IOVA + index * page, pasid=pasid) is not None
        iommu.unmap("d", iova=IOVA, size=4 * page)
        for rid, pasid in slots:
            assert [lands(iommu, rid, IOVA + index * page, pasid=pasid) for index in range(4)] == [None] * 4
            assert lands(iommu, rid, IOVA + 4 * page, pasid=pasid) == 8 * page
        put(iommu, "d", IOVA, page, offset=16 * page)
        for rid, pasid in slots:
            assert lands(iommu, rid, IOVA, pasid=pasid) == 16 * page

    def test_domains_are_separate(self, iommu: Iommu, rid1: str, rid2: str, page: int) -> None:
        for rid, name, offset in ((rid1, "d", 0), (rid2, "e", page)):
            iommu.domain_create(name)
            iommu.attach(name, rid)
            put(iommu, name, IOVA, page, offset)
        assert (lands(iommu, rid1, IOVA), lands(iommu, rid2, IOVA)) == (0, page)
        iommu.unmap("d", iova=IOVA, size=page)
        assert (lands(iommu, rid1, IOVA), lands(iommu, rid2, IOVA)) == (None, page)

    def test_mappings_are_listed_as_they_were_made(self, iommu: Iommu, ram: Memory, page: int) -> None:
        iommu.domain_create("d")
        second = put(iommu, "d", IOVA + page, page, offset=2 * page, prot="r")
        first = put(iommu, "d", IOVA, page)
        assert second == Mapping(IOVA + page, page, ram.pa + 2 * page, RAM, 2 * page, "r")
        assert iommu.mappings("d") == [first, second]

    def test_unmap_takes_all_whole_mappings_in_its_range(self, iommu: Iommu, rid1: str, page: int) -> None:
        iommu.domain_create("d")
        iommu.attach("d", rid1)
        made = [put(iommu, "d", IOVA + index * page, page, index * page) for index in (0, 1, 5, 9)]
        assert iommu.unmap("d", iova=IOVA + page, size=8 * page) == made[1:3]
        assert iommu.mappings("d") == [made[0], made[3]]
        assert [lands(iommu, rid1, IOVA + index * page) for index in (0, 1, 5, 9)] == [0, None, None, 9 * page]

    @pytest.mark.parametrize("prot", ["r", "w", "rw"])
    def test_protection(self, iommu: Iommu, rid1: str, page: int, prot: str) -> None:
        iommu.domain_create("d")
        iommu.attach("d", rid1)
        try:
            put(iommu, "d", IOVA, page, prot=prot)
        except Unsupported:
            assert prot == "w", "read-only and read-write mappings are what every backend has"
            return
        assert lands(iommu, rid1, IOVA) == (0 if "r" in prot else None)
        assert lands(iommu, rid1, IOVA, write=True) == (0 if "w" in prot else None)
        assert iommu.translate(rid1, IOVA, access="w" if prot == "w" else "r").prot == prot

    @needs("simulates")
    def test_unmapping_a_large_page_takes_all_of_it_away(self, iommu: Iommu, rid1: str, rid2: str) -> None:
        iommu.domain_create("d")
        for rid in (rid1, rid2):
            iommu.attach("d", rid)
        for size in sizes_to_try(self.declared().page_sizes, self.largest):
            memory = iommu.memory_create("large", 2 * size)
            offset = -memory.pa % size
            iommu.map("d", iova=size, size=size, memory="large", offset=offset)
            for rid in (rid1, rid2):
                assert iommu.translate(rid, size).page_size == size
                assert lands(iommu, rid, size, memory="large") == offset
            iommu.unmap("d", iova=size, size=size)
            for rid in (rid1, rid2):
                for address in (size, size + size // 2, 2 * size - 1):
                    assert lands(iommu, rid, address) is None
            iommu.memory_destroy("large")

    @needs("simulates")
    def test_a_dma_goes_as_far_as_the_first_fault(self, iommu: Iommu, rid1: str, ram: Memory, page: int) -> None:
        iommu.domain_create("d")
        iommu.attach("d", rid1)
        put(iommu, "d", IOVA, page, offset=3 * page)
        put(iommu, "d", IOVA + page, page)
        data = bytes(range(256)) * (2 * page // 256)
        assert not iommu.dma(rid1, IOVA, data=data).fault
        assert iommu.read_memory(ram.pa + 3 * page, page) == data[:page]
        assert iommu.read_memory(ram.pa, page) == data[page:]
        answer = iommu.dma(rid1, IOVA + page - 16, size=2 * page)
        assert [(piece.iova, piece.size) for piece in answer.pieces] == [(IOVA + page - 16, 16), (IOVA + page, page)]
        assert answer.data == data[page - 16 :]
        assert answer.fault
        assert (answer.fault.iova, str(answer.fault.rid), answer.fault.access) == (IOVA + 2 * page, rid1, "r")

    def test_destroying_a_domain_gives_everything_back(
        self, iommu: Iommu, rid1: str, rid2: str, page: int, pasids: list[int | None]
    ) -> None:
        iommu.domain_create("d")
        put(iommu, "d", IOVA, page)
        for rid in (rid1, rid2):
            for pasid in pasids:
                iommu.attach("d", rid, pasid=pasid)
                assert lands(iommu, rid, IOVA, pasid=pasid) == 0
        with refused(iommu, "in-use"):
            iommu.domain_destroy("d")
        iommu.domain_destroy("d", force=True)
        assert (iommu.domains(), iommu.slots()) == ([], [])
        for rid in (rid1, rid2):
            assert lands(iommu, rid, IOVA) is None
        iommu.memory_destroy(RAM)

    def test_destroying_memory_in_use(self, iommu: Iommu, rid1: str, page: int) -> None:
        iommu.domain_create("d")
        iommu.attach("d", rid1)
        put(iommu, "d", IOVA, page)
        put(iommu, "d", IOVA + 4 * page, page)
        assert lands(iommu, rid1, IOVA) == 0
        with refused(iommu, "in-use"):
            iommu.memory_destroy(RAM)
        iommu.memory_destroy(RAM, force=True)
        assert (iommu.memories(), iommu.mappings("d")) == ([], [])
        iommu.memory_create(RAM, 4 * page)
        assert lands(iommu, rid1, IOVA) is None

# SPDX-License-Identifier: Apache-2.0
"""What a backend declares: present must work, absent must be refused."""

from pathlib import Path

from iommuctl.iommu import Iommu
from iommuctl.model import Domain, Memory
from iommuctl.plugins import architecture
from iommuctl.testing.base import BackendSuite
from iommuctl.testing.probes import IOVA, lands, put, refused, sizes_to_try
from iommuctl.testing.selection import lacks, needs


class DeclarationSuite(BackendSuite):
    """Every member of Capabilities, from both sides."""

    def test_the_declaration_is_the_one_that_is_meant(self, iommu: Iommu) -> None:
        assert iommu.capabilities() == self.declared()

    def test_a_folder_that_does_not_exist_yet_has_the_declaration_of_a_new_one(self, tmp_path: Path) -> None:
        with Iommu(tmp_path / "new", backend=self.backend) as iommu:
            before = iommu.capabilities()
            assert not (tmp_path / "new").exists()
            iommu.domain_create("d")
            assert iommu.capabilities() == before

    def test_the_declaration_makes_sense(self, iommu: Iommu) -> None:
        declared = iommu.capabilities()
        assert declared.nesting in ("none", "slot", "device")
        assert declared.widths
        assert list(declared.widths) == sorted(set(declared.widths))
        assert declared.widths[-1] < 64
        for sizes in declared.page_sizes_by_granule:
            assert sizes
            assert list(sizes) == sorted(set(sizes))
            assert all(size >= 4096 and size.bit_count() == 1 for size in sizes)
        granules = [sizes[0] for sizes in declared.page_sizes_by_granule]
        assert len(set(granules)) == len(granules)
        assert not declared.context_tables_in_guest or declared.nesting == "device"
        assert all(0 <= first <= last for first, last in declared.reserved)
        assert 0 <= declared.pasid_bits <= 20
        assert bool(declared.pgtable_formats) == (declared.nesting != "none")

    # Limits

    def test_every_width_works_up_to_its_last_page(self, iommu: Iommu, rid1: str, page: int) -> None:
        for width in self.declared().widths:
            top = (1 << width) - page
            domain = iommu.domain_create(f"d{width}", width=width)
            assert domain.width == width
            put(iommu, domain.name, top, page)
            iommu.attach(domain.name, rid1)
            assert lands(iommu, rid1, top + 8) == 8
            with refused(iommu, "out-of-aperture"):
                put(iommu, domain.name, top + page, page, page)
            iommu.detach(domain.name, rid1)

    def test_other_widths_are_refused(self, iommu: Iommu) -> None:
        for width in {0, 1, 12, 32, 39, 47, 48, 52, 57, 64, 65} - set(self.declared().widths):
            with refused(iommu, "unsupported"):
                iommu.domain_create("d", width=width)

    def test_every_page_size_works_alone(self, iommu: Iommu, rid1: str) -> None:
        for sizes in self.declared().page_sizes_by_granule:
            for size in sizes_to_try(sizes, self.largest):
                domain = iommu.domain_create(f"d{size}", page_sizes=[size])
                assert domain.page_sizes == (size,)
                self._works(iommu, domain, rid1, size, max(sizes[-1], IOVA))
                with refused(iommu, "misaligned"):
                    iommu.map(domain.name, iova=3 * max(sizes[-1], IOVA), size=size // 2, memory="m")
                iommu.domain_destroy(domain.name)
                iommu.memory_destroy("m")

    def test_all_page_sizes_of_a_granule_work_together(self, iommu: Iommu, rid1: str) -> None:
        for sizes in self.declared().page_sizes_by_granule:
            domain = iommu.domain_create(f"d{sizes[0]}", page_sizes=sizes)
            assert domain.page_sizes == sizes
            for size in sizes_to_try(sizes, self.largest):
                self._works(iommu, domain, rid1, size, max(sizes[-1], IOVA))
                iommu.unmap(domain.name, iova=max(sizes[-1], IOVA), size=size)
                iommu.memory_destroy("m")

    def _works(self, iommu: Iommu, domain: Domain, rid: str, size: int, iova: int) -> None:
        """A page of that size is one page for the unit, where the tables can be read. Its memory is `m`."""
        memory = iommu.memory_create("m", 2 * size)
        iommu.map(domain.name, iova=iova, size=size, memory="m", offset=-memory.pa % size)
        iommu.attach(domain.name, rid)
        told = iommu.translate(rid, iova + size - 1)
        assert told.fault is None
        assert told.page_size in ((size,) if self.declared().simulates else (size, None))
        iommu.detach(domain.name, rid)

    def test_other_page_sizes_are_refused(self, iommu: Iommu) -> None:
        granules = self.declared().page_sizes_by_granule
        sizes = {1 << shift for shift in range(31)} - {size for granule in granules for size in granule}
        for size in sizes:
            with refused(iommu, "unsupported"):
                iommu.domain_create("d", page_sizes=[size])
        with refused(iommu, "unsupported"):
            iommu.domain_create("d", page_sizes=[self.declared().page_sizes[0], max(sizes)])
        with refused(iommu, "unsupported"):
            iommu.domain_create("d", page_sizes=[])
        for granule in granules[1:]:
            mixed = (granules[0][0], granule[0])
            if not any(set(mixed) <= set(each) for each in granules):
                with refused(iommu, "unsupported") as caught:
                    iommu.domain_create("d", page_sizes=mixed)
                assert "granule" in caught.value.because

    def test_reserved_ranges_are_kept_free(self, iommu: Iommu, ram: Memory, page: int) -> None:
        domain = iommu.domain_create("d")
        for first, last in self.declared().reserved:
            below, above = first & -page, last & -page
            for start, size in ((below, page), (above, page), (below - page, above - below + 3 * page)):
                if start >= 0 and start + size <= min(1 << domain.width, ram.size + start):
                    with refused(iommu, "reserved-range"):
                        put(iommu, "d", start, size)
            for start in (below - page, above + page):
                if 0 <= start < 1 << domain.width and not self._is_reserved(start, page):
                    put(iommu, "d", start, page)

    def _is_reserved(self, start: int, size: int) -> bool:
        return any(start <= last and first < start + size for first, last in self.declared().reserved)

    # Flags

    @needs("execute_permission")
    def test_execute_permission(self, iommu: Iommu, rid1: str, ram: Memory, page: int) -> None:
        iommu.domain_create("d")
        put(iommu, "d", IOVA, page, prot="rx")
        put(iommu, "d", IOVA + page, page, prot="r")
        iommu.attach("d", rid1)
        assert iommu.translate(rid1, IOVA, access="x").pa == ram.pa
        assert iommu.translate(rid1, IOVA + page, access="x").fault

    @lacks("execute_permission")
    def test_execute_permission_that_is_not_declared_is_refused(self, iommu: Iommu, page: int) -> None:
        iommu.domain_create("d")
        for prot in ("rx", "rwx"):
            with refused(iommu, "unsupported"):
                put(iommu, "d", IOVA, page, prot=prot)

    @needs("physical_addresses")
    def test_physical_addresses(self, iommu: Iommu, rid1: str, ram: Memory, page: int) -> None:
        iommu.domain_create("d")
        made = iommu.map("d", iova=IOVA, size=page, pa=ram.pa + page)
        assert (made.memory, made.pa) == (None, ram.pa + page)
        iommu.attach("d", rid1)
        assert lands(iommu, rid1, IOVA) == page

    @lacks("physical_addresses")
    def test_physical_addresses_that_are_not_declared_are_refused(self, iommu: Iommu, ram: Memory, page: int) -> None:
        iommu.domain_create("d")
        with refused(iommu, "unsupported"):
            iommu.map("d", iova=IOVA, size=page, pa=ram.pa)

    @needs("dirty_tracking")
    def test_dirty_tracking(self, iommu: Iommu) -> None:
        assert iommu.domain_create("d", dirty=True).name == "d"

    @lacks("dirty_tracking")
    def test_dirty_tracking_that_is_not_declared_is_refused(self, iommu: Iommu) -> None:
        with refused(iommu, "unsupported"):
            iommu.domain_create("d", dirty=True)

    @lacks("nesting")
    def test_nesting_that_is_not_declared_is_refused(self, iommu: Iommu, rid1: str, page: int) -> None:
        with refused(iommu, "unsupported"):
            iommu.domain_create("p", nest_parent=True)
        iommu.domain_create("d")
        put(iommu, "d", IOVA, 64 * page)
        iommu.attach("d", rid1)
        with refused(iommu, "cannot-nest"):
            iommu.bind_pgtable("d", rid1, addr=IOVA)
        with refused(iommu, "cannot-nest"):
            iommu.pgtable_create("t", parent="d", pool=IOVA, pool_size=64 * page)

    @needs("simulates")
    def test_simulation(self, iommu: Iommu, rid1: str) -> None:
        told = iommu.describe()
        assert told["registers"]
        assert told["caches"]
        memory = told["memory"]
        assert memory["base"] <= memory["tables"]["base"] < memory["base"] + memory["size"]
        iommu.write_memory(memory["base"] + 5, b"words")
        assert iommu.read_memory(memory["base"] + 4, 7) == b"\0words\0"
        with open(memory["file"], "rb") as file:
            assert file.read(16) == b"\0" * 5 + b"words" + b"\0" * 6
        assert iommu.dma(rid1, IOVA, size=1).fault

    @needs("fault_records")
    def test_fault_records(self, iommu: Iommu) -> None:
        """A real machine may have recorded some before, whoever's they were; a simulated one has not."""
        found = iommu.faults()
        assert not (found.faults and iommu.capabilities().simulates)
        assert iommu.faults() == found

    @needs("fault_records", "simulates")
    def test_a_fault_is_recorded_once_and_kept(self, iommu: Iommu, rid1: str, page: int) -> None:
        iommu.domain_create("d")
        iommu.attach("d", rid1)
        told = iommu.dma(rid1, IOVA, size=1).fault
        assert told
        (known,) = iommu.faults().faults
        fault, slot = known.fault, (told.code, told.name, told.rid, told.pasid)
        assert (fault.code, fault.name, fault.rid, fault.pasid) == slot
        assert fault.iova in (None, IOVA & -page, IOVA)
        assert (known.source, known.times) == (iommu.units()[0].name, 1)
        assert iommu.faults().faults == [known]
        assert iommu.dma(rid1, IOVA, size=1).fault == told
        assert [(again.id, again.times) for again in iommu.faults().faults] == [(known.id, 2)]

    @lacks("fault_records")
    def test_faults_of_a_backend_that_is_told_of_none_are_refused(self, iommu: Iommu) -> None:
        """Unless it is told of page requests, which are asked for with them."""
        if iommu.capabilities().page_responses:
            assert iommu.faults().faults == []
            return
        with refused(iommu, "unsupported"):
            iommu.faults()

    @needs("simulates")
    def test_units(self, iommu: Iommu) -> None:
        units = iommu.units()
        assert units
        assert len({unit.name for unit in units}) == len(units)
        for unit in units:
            assert iommu.unit(unit.name) == unit
            assert unit.registers
            assert all(isinstance(value, int) and value >= 0 for value in unit.registers.values())
            words = architecture(unit.architecture).unit_words
            assert words(unit.registers)
            for missing in unit.registers:
                assert words({name: value for name, value in unit.registers.items() if name != missing})
        with refused(iommu, "no-such-unit"):
            iommu.unit("nobody")

    @lacks("simulates")
    def test_simulation_that_is_not_declared_is_refused(self, iommu: Iommu, rid1: str) -> None:
        for simulated in (
            lambda: iommu.device_add("0000:7f:00.0"),
            lambda: iommu.device_remove(rid1),
            lambda: iommu.dma(rid1, IOVA, size=1),
            lambda: iommu.dma(rid1, IOVA, data=b"word"),
            iommu.describe,
            lambda: iommu.read_memory(0, 8),
            lambda: iommu.write_memory(0, b"word"),
        ):
            with refused(iommu, "unsupported"):
                simulated()

    @needs("simulates")
    def test_devices_have_no_more_pasid_bits_than_declared(self, iommu: Iommu) -> None:
        bits = self.declared().pasid_bits
        iommu.device_add("0000:00:05.0", pasid_bits=bits)
        if bits < 20:
            with refused(iommu, "unsupported"):
                iommu.device_add("0000:00:06.0", pasid_bits=bits + 1)
        with refused(iommu, "bad-number"):
            iommu.device_add("0000:00:06.0", pasid_bits=21)

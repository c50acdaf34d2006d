# SPDX-License-Identifier: Apache-2.0
"""Pages that are mapped on demand: in domains and in page tables, whole groups or nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.errors import (
    DamagedTable,
    IommuError,
    NoRoom,
    NoSuchFault,
    NotWaiting,
    OutsideMemory,
    Overlap,
    ReservedRange,
    Unsupported,
    Usage,
)
from iommuctl.handlers import Handler, Pages
from iommuctl.model import Access, Slot
from tests.serving.asking import A, B, ask

PLAIN, BOUND = Slot(B, 5), Slot(A, 3)
FROM = 0x600000


@pytest.fixture(params=["vtd", "smmuv3"])
def iommu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Iommu]:
    """Domain d in a slot, whose pages come from memory m; page table t in another one, whose pages are guest memory."""
    with Iommu(tmp_path / "state", backend="sim") as made:
        made.setup(architecture=request.param)
        for rid in (A, B):
            made.device_add(rid, ats=True, pri=True, pasid_bits=8)
        made.memory_create("m", 4 << 12)
        made.domain_create("parent", nest_parent=True)
        executed = made.capabilities().execute_permission
        made.map("parent", iova=0, size=12 << 20, pa=32 << 20, prot="rwx" if executed else "rw")
        made.map("parent", iova=12 << 20, size=4 << 20, pa=44 << 20)
        made.attach("parent", A)
        made.pgtable_create("t", parent="parent", pool=8 << 20, pool_size=0x40000)
        made.bind_pgtable("parent", A, pgtable="t", pasid=BOUND.pasid)
        made.domain_create("d")
        made.attach("d", B)
        made.attach("d", B, pasid=PLAIN.pasid)
        made.handler_set(str(B), Handler("demand-map", pages=Pages("m", 0, 4 << 12)), pasid=PLAIN.pasid)
        made.handler_set(str(A), Handler("demand-map", pages=Pages(None, FROM, 4 << 12)), pasid=BOUND.pasid)
        yield made


def page_in(iommu: Iommu, slot: Slot, *pages: int, access: str = "rw", privileged: bool = False) -> int:
    """Ask for pages in one group, have them mapped, and answer it. Returns its id."""
    ask(iommu, slot, *pages, access=access, privileged=privileged)
    (waiting,) = iommu.page_requests()
    key = waiting.group.id
    try:
        iommu.page_in(key)
    finally:
        assert iommu.respond(key, "success").slot == slot
    return key


def used(iommu: Iommu, slot: Slot) -> int:
    (pages,) = [each.handler.pages for each in iommu.handlers() if each.slot == slot]
    assert pages
    return pages.used


def goes_to(iommu: Iommu, slot: Slot, page: int, access: Access = "r", *, privileged: bool = False) -> int | None:
    return iommu.translate(slot.rid, page << 12, pasid=slot.pasid, access=access, privileged=privileged).pa


def test_pages_one_after_the_other(iommu: Iommu) -> None:
    start = {PLAIN: iommu.memory("m").pa, BOUND: (32 << 20) + FROM}
    for slot, first in start.items():
        page_in(iommu, slot, 7, 3)
        page_in(iommu, slot, 3, 9, access="r")
        assert used(iommu, slot) == 3 << 12
        for page, number in ((7, 0), (3, 1), (9, 2)):
            assert goes_to(iommu, slot, page) == goes_to(iommu, slot, page, "w") == first + (number << 12)
        assert goes_to(iommu, slot, 4) is None
    assert iommu.check() == []


def test_a_group_takes_all_its_pages_or_none(iommu: Iommu) -> None:
    for slot in (PLAIN, BOUND):
        with pytest.raises(NoRoom, match="no page is left"):
            page_in(iommu, slot, 1, 2, 3, 4, 5)
        assert used(iommu, slot) == 0
        assert goes_to(iommu, slot, 1) is None
        page_in(iommu, slot, 1, 2, 3, 4)
    assert iommu.check() == []


def test_a_domain_s_handler_keeps_count_for_all_its_slots(iommu: Iommu) -> None:
    iommu.handler_clear(str(B), pasid=PLAIN.pasid)
    iommu.attach("d", B, pasid=6)
    iommu.handler_set("d", Handler("demand-map", pages=Pages("m", 0x1000, 0x2000)))
    page_in(iommu, PLAIN, 1)
    page_in(iommu, Slot(B, 6), 1)
    page_in(iommu, Slot(B, 6), 2)
    assert [(each.iova, each.offset) for each in iommu.mappings("d")] == [(0x1000, 0x1000), (0x2000, 0x2000)]
    with pytest.raises(NoRoom):
        page_in(iommu, PLAIN, 3)


def test_what_is_mapped_is_left_as_it_is(iommu: Iommu) -> None:
    iommu.map("d", iova=0x1000, size=0x2000, pa=0x100000, prot="r")
    iommu.pgtable_map("t", iova=0x1000, size=0x2000, gpa=0x100000, prot="r")
    for slot in (PLAIN, BOUND):
        page_in(iommu, slot, 1, 2, access="r")
        with pytest.raises(Overlap, match="0x2000 is mapped already, r"):
            page_in(iommu, slot, 5, 2, access="w")
        assert used(iommu, slot) == 0
        assert goes_to(iommu, slot, 5) is None


def test_pages_to_be_executed(iommu: Iommu) -> None:
    """Where tables have no such permission, there is no page that could be executed."""
    for slot in (PLAIN, BOUND):
        if iommu.capabilities().execute_permission:
            page_in(iommu, slot, 1, access="rx")
            assert goes_to(iommu, slot, 1, "x") == goes_to(iommu, slot, 1, "w") != goes_to(iommu, slot, 2)
        else:
            with pytest.raises(Unsupported):
                page_in(iommu, slot, 1, access="rx")
            assert used(iommu, slot) == 0
    if iommu.capabilities().execute_permission:
        iommu.handler_set(str(A), Handler("demand-map", pages=Pages(None, 12 << 20, 0x1000)), pasid=BOUND.pasid)
        with pytest.raises(Unsupported, match="GPA 0xc00000 is not mapped in parent to be executed"):
            page_in(iommu, BOUND, 2, access="rx")


def test_privileged_pages_are_for_privileged_requests(iommu: Iommu) -> None:
    page_in(iommu, BOUND, 1, privileged=True)
    assert goes_to(iommu, BOUND, 1) is None
    assert goes_to(iommu, BOUND, 1, privileged=True)
    page_in(iommu, BOUND, 1, privileged=True)
    with pytest.raises(Overlap, match="not privileged"):
        page_in(iommu, BOUND, 1)
    page_in(iommu, BOUND, 2)
    page_in(iommu, BOUND, 2, privileged=True)
    page_in(iommu, PLAIN, 1, privileged=True)
    page_in(iommu, PLAIN, 1)


def test_a_request_for_nothing_maps_nothing(iommu: Iommu) -> None:
    """Without PASID it is no stop marker, but a group as any other."""
    iommu.handler_set("d", Handler("demand-map", pages=Pages("m", 0, 0x1000)))
    page_in(iommu, Slot(B), 3, access="")
    assert iommu.mappings("d") == []


def test_guest_memory_that_went(iommu: Iommu) -> None:
    iommu.unbind_pgtable("parent", A, pasid=BOUND.pasid)
    iommu.pgtable_destroy("t")
    iommu.unmap("parent", iova=0, size=16 << 20)
    iommu.map("parent", iova=8 << 20, size=1 << 20, pa=40 << 20)
    iommu.pgtable_create("t", parent="parent", pool=8 << 20, pool_size=0x40000)
    iommu.bind_pgtable("parent", A, pgtable="t", pasid=BOUND.pasid)
    with pytest.raises(OutsideMemory, match="GPA 0x600000 is not memory of parent"):
        page_in(iommu, BOUND, 1)


def test_a_pool_that_came_later(iommu: Iommu) -> None:
    iommu.pgtable_create("u", parent="parent", pool=FROM + 0x1000, pool_size=0x40000)
    page_in(iommu, BOUND, 1)
    with pytest.raises(ReservedRange, match="touches the pool of page table u"):
        page_in(iommu, BOUND, 2)


def test_a_table_that_was_written_over(iommu: Iommu) -> None:
    page_in(iommu, BOUND, 1)
    deepest = iommu.table_entries("t")[-1]
    word = {"vtd": (1 << 64) - 1, "smmuv3": 1}[str(iommu.architecture)]
    iommu.write_memory((32 << 20) + deepest.address + 8, word.to_bytes(8, "little"))
    with pytest.raises(DamagedTable):
        page_in(iommu, BOUND, 2)


def test_addresses_that_no_table_translates(iommu: Iommu) -> None:
    for slot in (PLAIN, BOUND):
        with pytest.raises(IommuError) as error:
            page_in(iommu, slot, (1 << 52) - 1)
        assert error.value.id == "out-of-aperture"


def test_page_tables_of_guests_and_memory_for_page_tables(iommu: Iommu) -> None:
    for binding, what in ({"addr": 0x400000}, "is its guest's"), ({"pgtable": "t"}, "leads to addresses of parent"):
        iommu.unbind_pgtable("parent", A, pasid=BOUND.pasid)
        iommu.handler_set(str(A), Handler("demand-map", pages=Pages("m", 0, 0x1000)), pasid=BOUND.pasid)
        pool = {"cd_pool": (0x500000, 0x20000)} if iommu.capabilities().context_tables_in_guest else {}
        iommu.bind_pgtable("parent", A, pasid=BOUND.pasid, **binding, **(pool if "addr" in binding else {}))  # type: ignore[arg-type]
        ask(iommu, BOUND, 1, group=7)
        (waiting,) = iommu.page_requests()
        with pytest.raises(Unsupported) as error:
            iommu.page_in(waiting.group.id)
        assert what in error.value.because
        iommu.respond(waiting.group.id, "invalid")


def test_who_does_not_wait_and_who_has_no_such_handler(iommu: Iommu) -> None:
    key = page_in(iommu, PLAIN, 1)
    with pytest.raises(NotWaiting, match="was answered success"):
        iommu.page_in(key)
    with pytest.raises(NoSuchFault):
        iommu.page_in(99)
    iommu.handler_set(str(B), Handler("queue"), pasid=PLAIN.pasid)
    with pytest.raises(Usage, match="no pages are mapped on demand for "):
        page_in(iommu, PLAIN, 2)

# SPDX-License-Identifier: Apache-2.0
"""Changes of tables that caches hold, for what SMMUv3 alone has: stage 2 of a RID, leaves of CDs, tables of a bus."""

from collections.abc import Callable, Iterator

from iommuctl.iommu import Iommu
from iommuctl.model import DmaResult
from tests.sim.scenarios import HIGH, LOW, PAGE, POOL, SMMUV3, A, B, Scenario, dma, warm

C = "0000:01:00.0"
"""The one device of its bus."""
FIRST, SECOND, THIRD = 3, 100, 200
"""PASIDs whose CDs are in different leaves of a table."""
FORTH = 150


def _parents(iommu: Iommu) -> None:
    """Both devices have a stage 2 alone."""
    iommu.domain_create("p", nest_parent=True)
    for iova, pages in ((0, 4096), (LOW, 1), (LOW + PAGE, 3), (HIGH, 2)):
        iommu.map("p", iova=iova, size=pages * PAGE, memory="ram", offset=iova % (16 << 20))
    for rid in (A, B):
        iommu.attach("p", rid)
        warm(iommu, *((rid, iova, None) for iova in (LOW, LOW + PAGE, LOW + 3 * PAGE, HIGH, HIGH + PAGE)))


def _look_at(*places: tuple[str, int, int | None]) -> Callable[[Iommu], Iterator[DmaResult]]:
    def look(iommu: Iommu) -> Iterator[DmaResult]:
        for rid, iova, pasid in places:
            yield from dma(iommu, rid, iova, pasid)

    return look


def unmap_pages() -> Scenario:
    """Pages of a stage 2 that nothing is nested on."""

    def act(iommu: Iommu) -> None:
        iommu.unmap("p", iova=LOW + PAGE, size=3 * PAGE)

    return Scenario(_parents, act, _look_at((A, LOW + PAGE, None), (A, LOW + 3 * PAGE, None)), SMMUV3)


def unmap_table() -> Scenario:
    """A table of such a stage 2."""

    def act(iommu: Iommu) -> None:
        iommu.unmap("p", iova=HIGH, size=2 * PAGE)

    return Scenario(_parents, act, _look_at((A, HIGH, None), (A, HIGH + PAGE, None)), SMMUV3)


def leave(*, reuse: bool = False) -> Scenario:
    """A RID leaves its stage 2; with `reuse` the VMID gets another meaning then."""

    def prepare(iommu: Iommu) -> None:
        _parents(iommu)
        if reuse:
            iommu.detach("p", B)
            warm(iommu, (A, LOW, None))

    def act(iommu: Iommu) -> None:
        iommu.detach("p", A)
        if reuse:
            iommu.domain_destroy("p")
            iommu.domain_create("q", nest_parent=True)
            iommu.map("q", iova=LOW, size=PAGE, memory="other")
            iommu.attach("q", A)

    return Scenario(prepare, act, _look_at((A, LOW, None)), SMMUV3)


def cover() -> Scenario:
    """A page table comes before the stage 2 that a RID has used alone."""

    def act(iommu: Iommu) -> None:
        iommu.pgtable_create("t", parent="p", pool=POOL, pool_size=0x10_0000)
        iommu.pgtable_map("t", iova=LOW, size=PAGE, gpa=0x10_0000)
        iommu.bind_pgtable("p", A, pgtable="t")

    return Scenario(_parents, act, _look_at((A, LOW, None)), SMMUV3)


def unmap_parent() -> Scenario:
    """Guest memory goes under the page table of a RID, beside which nothing has the parent."""

    def prepare(iommu: Iommu) -> None:
        iommu.domain_create("p", nest_parent=True)
        iommu.map("p", iova=0, size=16 << 20, memory="ram")
        iommu.map("p", iova=16 << 20, size=2 * PAGE, memory="other")
        iommu.attach("p", A)
        iommu.pgtable_create("t", parent="p", pool=POOL, pool_size=0x10_0000)
        iommu.pgtable_map("t", iova=LOW, size=2 * PAGE, gpa=16 << 20)
        iommu.bind_pgtable("p", A, pgtable="t")
        warm(iommu, (A, LOW, None))

    def act(iommu: Iommu) -> None:
        iommu.unmap("p", iova=16 << 20, size=2 * PAGE)

    return Scenario(prepare, act, _look_at((A, LOW, None), (A, LOW + PAGE, None)), SMMUV3)


def unbind() -> Scenario:
    """A page table leaves a slot, and its ASID is that of another one of the same parent then."""

    def prepare(iommu: Iommu) -> None:
        iommu.domain_create("p", nest_parent=True)
        iommu.map("p", iova=0, size=16 << 20, memory="ram")
        iommu.attach("p", A)
        for name, at, gpa in (("t", 0, 0x10_0000), ("u", 0x10_0000, 0x20_0000)):
            iommu.pgtable_create(name, parent="p", pool=POOL + at, pool_size=0x10_0000)
            iommu.pgtable_map(name, iova=LOW, size=PAGE, gpa=gpa)
        iommu.bind_pgtable("p", A, pgtable="t", pasid=FIRST)
        warm(iommu, (A, LOW, FIRST))

    def act(iommu: Iommu) -> None:
        iommu.unbind_pgtable("p", A, pasid=FIRST)
        iommu.bind_pgtable("p", A, pgtable="u", pasid=FIRST)

    return Scenario(prepare, act, _look_at((A, LOW, FIRST)), SMMUV3)


def _leaves(iommu: Iommu) -> None:
    """CDs in three leaves; nobody has been in a fourth."""
    for name, memory in (("d", "ram"), ("e", "other")):
        iommu.domain_create(name)
        iommu.map(name, iova=LOW, size=PAGE, memory=memory)
    for pasid in (FIRST, SECOND, THIRD):
        iommu.attach("d", A, pasid=pasid)
    warm(iommu, *((A, LOW, pasid) for pasid in (FIRST, SECOND, THIRD)))


def add_leaf() -> Scenario:
    """A leaf comes where the unit knows that there is none."""

    def prepare(iommu: Iommu) -> None:
        _leaves(iommu)
        for done in dma(iommu, A, LOW, FORTH):
            assert done.fault

    def act(iommu: Iommu) -> None:
        iommu.attach("d", A, pasid=FORTH)

    return Scenario(prepare, act, _look_at((A, LOW, FORTH)), SMMUV3)


def remove_leaf() -> Scenario:
    """The last CD of a leaf goes; then there is another in the same place, whose leaf lies elsewhere."""

    def act(iommu: Iommu) -> None:
        iommu.detach("d", A, pasid=SECOND)
        iommu.domain_create("g")
        iommu.map("g", iova=LOW, size=PAGE, memory="ram")
        iommu.attach("e", A, pasid=SECOND)

    return Scenario(_leaves, act, _look_at((A, LOW, SECOND), (A, LOW, FIRST)), SMMUV3)


def remove_device() -> Scenario:
    """A device of several goes that was refused last, and another comes to its place."""

    def prepare(iommu: Iommu) -> None:
        _leaves(iommu)
        for pasid in (FIRST, SECOND, THIRD):
            iommu.detach("d", A, pasid=pasid)
        for done in dma(iommu, A, LOW):
            assert done.fault

    def act(iommu: Iommu) -> None:
        iommu.device_remove(A)
        iommu.device_add(A, ats=True, pasid_bits=20)
        iommu.attach("d", A)

    return Scenario(prepare, act, _look_at((A, LOW, None)), SMMUV3)


def remove_bus() -> Scenario:
    """The only device of a bus goes, and another comes to its place."""

    def prepare(iommu: Iommu) -> None:
        iommu.device_add(C, ats=True, pasid_bits=16)
        iommu.domain_create("d")
        iommu.map("d", iova=LOW, size=PAGE, memory="ram")
        iommu.attach("d", C)
        warm(iommu, (C, LOW, None))
        iommu.detach("d", C)

    def act(iommu: Iommu) -> None:
        iommu.device_remove(C)
        # The table of its bus lies elsewhere, since others have the old one's pages by now.
        iommu.domain_create("g")
        iommu.map("g", iova=LOW, size=PAGE, memory="ram")
        iommu.device_add(C, ats=True, pasid_bits=20)
        iommu.attach("d", C)

    return Scenario(prepare, act, _look_at((C, LOW, None)), SMMUV3)

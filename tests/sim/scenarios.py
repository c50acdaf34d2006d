# SPDX-License-Identifier: Apache-2.0
"""Changes of tables that caches hold, for each change of the tables of rules that both architectures know.

A scenario has three acts: `prepare` builds and has every cache filled, `act` is the change, `look` has the devices do
DMA again. The act is where tests leave out what a correct driver or caller does.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from iommuctl.iommu import Iommu
from iommuctl.model import DmaResult

A, B = "0000:00:01.0", "0000:00:02.0"
PAGE = 0x1000
LOW, HIGH = 0x4000_0000, 0x4020_0000
"""Two ranges whose pages are in different leaf tables."""
POOL = 0x80_0000
SVA = 0x7F00_0000_0000


SCALABLE, LEGACY, SMMUV3 = "scalable", "legacy", "smmuv3"
"""The units: VT-d in both of its modes, and SMMUv3."""


class Scenario(NamedTuple):
    """The three acts, and the unit."""

    prepare: Callable[[Iommu], None]
    act: Callable[[Iommu], None]
    look: Callable[[Iommu], Iterator[DmaResult]]
    mode: str = SCALABLE


def machine(iommu: Iommu, mode: str) -> None:
    """Two devices with TLBs of their own, and some memory."""
    if mode == SMMUV3:
        iommu.setup(architecture="smmuv3", ram=(0, 1 << 30))
    else:
        iommu.setup(architecture="vtd", ram=(0, 1 << 30), options={"mode": mode})
    for rid in (A, B):
        iommu.device_add(rid, ats=True, pasid_bits=0 if mode == LEGACY else 16)
    iommu.memory_create("ram", 32 << 20)
    iommu.memory_create("other", 32 << 20)


def dma(iommu: Iommu, rid: str, iova: int, pasid: int | None = None) -> Iterator[DmaResult]:
    """The device asks the unit to translate, then it translates by itself."""
    yield iommu.dma(rid, iova, size=8, pasid=pasid)
    yield iommu.dma(rid, iova, size=8, pasid=pasid, translated=True)


def warm(iommu: Iommu, *places: tuple[str, int, int | None]) -> None:
    """Have all caches filled for these places, where everything is in order."""
    for rid, iova, pasid in places:
        for done in dma(iommu, rid, iova, pasid):
            assert not done.fault
            assert not done.stale


# Pages of a second stage


def _domain(pasid: int | None) -> Callable[[Iommu], None]:
    def prepare(iommu: Iommu) -> None:
        iommu.domain_create("d")
        # The first page keeps its leaf table there when the others go.
        for iova, pages in ((LOW, 1), (LOW + PAGE, 3), (HIGH, 2)):
            iommu.map("d", iova=iova, size=pages * PAGE, memory="ram", offset=iova % (16 << 20))
        iommu.attach("d", A, pasid=pasid)
        iommu.attach("d", B, pasid=7 if pasid else None)
        warm(iommu, *((A, iova, pasid) for iova in (LOW, LOW + PAGE, LOW + 3 * PAGE, HIGH, HIGH + PAGE)))
        warm(iommu, (B, LOW + PAGE, 7 if pasid else None))

    return prepare


def _look_at(*iovas: int, pasid: int | None) -> Callable[[Iommu], Iterator[DmaResult]]:
    def look(iommu: Iommu) -> Iterator[DmaResult]:
        for iova in iovas:
            yield from dma(iommu, A, iova, pasid)

    return look


def unmap_pages(pasid: int | None = 3, mode: str = SCALABLE) -> Scenario:
    """Leaf entries go, their table stays."""
    return Scenario(
        _domain(pasid),
        lambda iommu: (iommu.unmap("d", iova=LOW + PAGE, size=3 * PAGE), None)[1],
        _look_at(LOW + PAGE, LOW + 3 * PAGE, pasid=pasid),
        mode,
    )


def unmap_table(pasid: int | None = 3, mode: str = SCALABLE) -> Scenario:
    """A whole leaf table goes, of whose pages one was never asked for."""
    return Scenario(
        _domain(pasid),
        lambda iommu: (iommu.unmap("d", iova=HIGH, size=2 * PAGE), None)[1],
        _look_at(HIGH, HIGH + PAGE, pasid=pasid),
        mode,
    )


# Page tables of guests


def _guest(iommu: Iommu) -> None:
    iommu.domain_create("p", nest_parent=True)
    iommu.map("p", iova=0, size=16 << 20, memory="ram")
    iommu.map("p", iova=16 << 20, size=2 * PAGE, memory="other")
    iommu.pgtable_create("t", parent="p", pool=POOL, pool_size=0x10_0000)
    iommu.pgtable_map("t", iova=SVA, size=PAGE, gpa=0x10_0000)
    iommu.pgtable_map("t", iova=SVA + PAGE, size=3 * PAGE, gpa=0x20_0000)
    iommu.pgtable_map("t", iova=SVA + 0x20_0000, size=2 * PAGE, gpa=0x30_0000)
    iommu.pgtable_map("t", iova=SVA + 0x40_0000, size=2 * PAGE, gpa=16 << 20)
    if iommu.capabilities().nesting == "device":
        for rid in (A, B):
            iommu.attach("p", rid)
    for rid, pasid in ((A, 3), (A, 4), (B, 3)):
        iommu.bind_pgtable("p", rid, pgtable="t", pasid=pasid)
        pages = (0, PAGE, 3 * PAGE, 0x20_0000, 0x20_1000, 0x40_0000, 0x40_1000)
        warm(iommu, *((rid, SVA + page, pasid) for page in pages))


def _guest_looks(*offsets: int) -> Callable[[Iommu], Iterator[DmaResult]]:
    def look(iommu: Iommu) -> Iterator[DmaResult]:
        for rid, pasid in ((A, 3), (A, 4), (B, 3)):
            for offset in offsets:
                yield from dma(iommu, rid, SVA + offset, pasid)

    return look


def guest_moves_a_page(mode: str = SCALABLE) -> Scenario:
    """A page of the guest's leads elsewhere, within the same large page of its parent."""

    def act(iommu: Iommu) -> None:
        iommu.pgtable_unmap("t", iova=SVA + PAGE, size=3 * PAGE)
        iommu.pgtable_map("t", iova=SVA + PAGE, size=3 * PAGE, gpa=0x21_0000)
        iommu.invalidate("p", iova=SVA + PAGE, size=3 * PAGE, leaf=True)

    return Scenario(_guest, act, _guest_looks(PAGE, 3 * PAGE), mode)


def unmap_parent(mode: str = SCALABLE) -> Scenario:
    """Guest memory goes under a bound page table."""
    return Scenario(
        _guest,
        lambda iommu: (iommu.unmap("p", iova=16 << 20, size=2 * PAGE), None)[1],
        _guest_looks(0x40_0000, 0x40_1000),
        mode,
    )


def guest_pages(mode: str = SCALABLE) -> Scenario:
    """The guest takes pages away, and tells."""

    def act(iommu: Iommu) -> None:
        iommu.pgtable_unmap("t", iova=SVA + PAGE, size=3 * PAGE)
        iommu.invalidate("p", iova=SVA + PAGE, size=3 * PAGE, leaf=True)

    return Scenario(_guest, act, _guest_looks(PAGE, 3 * PAGE), mode)


def guest_table(mode: str = SCALABLE) -> Scenario:
    """The guest takes a table away, which is used again."""

    def act(iommu: Iommu) -> None:
        iommu.pgtable_unmap("t", iova=SVA + 0x20_0000, size=2 * PAGE)
        iommu.invalidate("p", iova=SVA + 0x20_0000, size=2 * PAGE)
        iommu.pgtable_map("t", iova=SVA + 0x60_0000, size=2 * PAGE, gpa=0x50_0000)

    return Scenario(_guest, act, _guest_looks(0x20_0000, 0x20_1000), mode)


# Slots


def _two_domains(*pasids: int | None, shared: bool = True) -> Callable[[Iommu], None]:
    """Device A has the first domain in these slots, and device B has it too or has the other one."""

    def prepare(iommu: Iommu) -> None:
        for name, memory in (("d", "ram"), ("e", "other")):
            iommu.domain_create(name)
            iommu.map(name, iova=LOW, size=4 * PAGE, memory=memory)
        for pasid in pasids:
            iommu.attach("d", A, pasid=pasid)
            warm(iommu, (A, LOW, pasid))
        iommu.attach("d" if shared else "e", B)
        warm(iommu, (B, LOW, None))

    return prepare


def _slots(pasid: int | None, mode: str, *, reuse: bool) -> Callable[[Iommu], None]:
    if reuse:
        return _two_domains(pasid, shared=False)
    return _two_domains(None) if mode == LEGACY else _two_domains(None, 3, 4)


def _slots_look(pasid: int | None) -> Callable[[Iommu], Iterator[DmaResult]]:
    def look(iommu: Iommu) -> Iterator[DmaResult]:
        yield from dma(iommu, A, LOW, pasid)
        yield from dma(iommu, B, LOW)

    return look


def _reuse(iommu: Iommu, pasid: int | None) -> None:
    """Nobody has the first domain any more; its DID then tags a new one in the same slot."""
    iommu.domain_destroy("d")
    iommu.domain_create("f")
    iommu.map("f", iova=LOW, size=PAGE, memory="other", offset=0x10_0000)
    iommu.attach("f", A, pasid=pasid, replace=True)


def detach(pasid: int | None = 3, *, reuse: bool = False, mode: str = SCALABLE) -> Scenario:
    """A slot is emptied; with `reuse` the domain id gets another meaning then."""

    def act(iommu: Iommu) -> None:
        iommu.detach("d", A, pasid=pasid)
        if reuse:
            _reuse(iommu, pasid)

    return Scenario(_slots(pasid, mode, reuse=reuse), act, _slots_look(pasid), mode)


def replace(pasid: int | None = 3, *, reuse: bool = False, mode: str = SCALABLE) -> Scenario:
    """A slot gets another domain."""

    def act(iommu: Iommu) -> None:
        iommu.attach("e", A, pasid=pasid, replace=True)
        if reuse:
            _reuse(iommu, pasid)

    return Scenario(_slots(pasid, mode, reuse=reuse), act, _slots_look(pasid), mode)


def replace_beside(mode: str = SCALABLE) -> Scenario:
    """A slot gets another domain, which moves the table that a neighbour is looked up in for the first time."""

    def act(iommu: Iommu) -> None:
        iommu.attach("e", A, pasid=3, replace=True)
        iommu.attach("d", A, pasid=5)

    return Scenario(_two_domains(None, 3, 4), act, lambda iommu: dma(iommu, A, LOW, 5), mode)


def remove_device(mode: str = SCALABLE) -> Scenario:
    """A device goes, and another comes to its place."""

    def prepare(iommu: Iommu) -> None:
        _two_domains(None, 3, 4)(iommu)
        for pasid in (None, 3, 4):
            iommu.detach("d", A, pasid=pasid)

    def act(iommu: Iommu) -> None:
        iommu.device_remove(A)
        # Its tables lie elsewhere, since others have the old ones' pages by now.
        iommu.domain_create("g")
        iommu.map("g", iova=LOW, size=PAGE, memory="ram")
        iommu.device_add(A, ats=True, pasid_bits=20)
        iommu.attach("d", A, pasid=3)

    return Scenario(prepare, act, _slots_look(3), mode)

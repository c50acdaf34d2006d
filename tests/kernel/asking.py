# SPDX-License-Identifier: Apache-2.0
"""A device of the kernel in this process that asks for pages, what it was told, and what ends its requests."""

from collections.abc import Callable

from iommuctl import Iommu
from iommuctl.handlers import Handler
from iommuctl.iommufd import uapi
from iommuctl.model import Slot
from tests.kernel.bench import PAGE, Bench
from tests.kernel.host import NODES, ONE, TWO
from tests.kernel.objects import FaultQueue
from tests.kernel.objects import Page as Wanted

READS, WRITES = uapi.IOMMU_PGFAULT_PERM_READ, uapi.IOMMU_PGFAULT_PERM_WRITE
SUCCESS, INVALID = uapi.IOMMUFD_PAGE_RESP_SUCCESS, uapi.IOMMUFD_PAGE_RESP_INVALID
QUEUE = Handler("queue")


def prepare(bench: Bench) -> None:
    """`d` in ONE and its PASID 5, a page table nested on `p` in PASID 6; `d` in TWO, which has no PRI; all served."""
    iommu = bench.iommu
    iommu.device_bind(ONE)
    iommu.device_bind(TWO)
    iommu.memory_create("m", 16 * PAGE)
    for name, parent in (("d", False), ("e", False), ("p", True)):
        iommu.domain_create(name, nest_parent=parent)
        iommu.map(name, iova=0, size=16 * PAGE, memory="m")
    for rid, pasid in ((ONE, None), (ONE, 5), (TWO, None)):
        iommu.attach("d", rid, pasid=pasid)
    iommu.bind_pgtable("p", ONE, addr=PAGE, pasid=6)
    changed = [*iommu.handler_set("d", QUEUE), *iommu.handler_set("p", QUEUE)]
    assert [held.slot for held in changed] == [Slot(ONE), Slot(ONE, 5), Slot(ONE, 6)]
    bench.assert_agrees()


def ask(bench: Bench, number: int, *pages: int, pasid: int | None = None) -> None:
    """ONE asks to read pages."""
    wanted = [Wanted(page, READS) for page in pages or (PAGE,)]
    assert bench.kernel.request(NODES[ONE], number, *wanted, pasid=pasid)


def answered(bench: Bench) -> list[tuple[int | None, int, int]]:
    """What ONE was told: PASID, number of the group, code."""
    return bench.device(ONE).answered


def waiting(iommu: Iommu) -> list[tuple[int | None, int]]:
    return [(group.slot.pasid, group.requests[0].group) for group in iommu.faults().waiting]


def queues(bench: Bench) -> list[int]:
    return [number for number, one in bench.kernel.objects.items() if isinstance(one, FaultQueue)]


CHANGES: dict[str, tuple[int | None, Callable[[Iommu], object]]] = {
    "detach": (5, lambda iommu: iommu.detach("d", ONE, pasid=5)),
    "replace": (5, lambda iommu: iommu.attach("e", ONE, pasid=5, replace=True)),
    "unbind": (6, lambda iommu: iommu.unbind_pgtable("p", ONE, pasid=6)),
    "clear": (5, lambda iommu: iommu.handler_clear("d")),
    "destroy": (6, lambda iommu: iommu.domain_destroy("p", force=True)),
    "device unbind": (None, lambda iommu: iommu.device_unbind(ONE, force=True)),
}
"""By name: the PASID whose table goes, and how."""

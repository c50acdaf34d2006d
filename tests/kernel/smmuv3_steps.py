# SPDX-License-Identifier: Apache-2.0
"""What tests do with devices behind an SMMUv3, as steps that are commands each, and where they begin."""

from collections.abc import Callable

from iommuctl import Iommu
from iommuctl.model import Rid
from tests.kernel.bench import Bench
from tests.kernel.host import ONE, TWO
from tests.kernel.smmuv3_bench import assert_agrees

Step = Callable[[Iommu], object]
MIB = 1 << 20
ROOT, OTHER, THIRD = 0x10_0000, 0x10_1000, 0x10_2000
"""GPAs of page tables, which nobody looks into here."""
POOL, NEXT_POOL = (2 * MIB, MIB), (3 * MIB, MIB)
FEW, MANY = 3, 300
"""A PASID for which one page of CDs is enough, and one for which it is not."""


def attach(domain: str, *, pasid: int | None = None, rid: Rid = ONE) -> Step:
    return lambda iommu: iommu.attach(domain, str(rid), pasid=pasid, replace=pasid is None)


def detach(domain: str, *, pasid: int | None = None, rid: Rid = ONE) -> Step:
    return lambda iommu: iommu.detach(domain, str(rid), pasid=pasid, force=True)


def bind(root: int, pasid: int | None = None, *, domain: str = "p", rid: Rid = ONE) -> Step:
    pool = POOL if rid == ONE else NEXT_POOL
    return lambda iommu: iommu.bind_pgtable(domain, str(rid), addr=root, pasid=pasid, cd_pool=pool)


def unbind(pasid: int | None = None, *, domain: str = "p", rid: Rid = ONE) -> Step:
    return lambda iommu: iommu.unbind_pgtable(domain, str(rid), pasid=pasid)


def whole(*steps: Step) -> Step:
    """All in one transaction."""

    def change(iommu: Iommu) -> None:
        with iommu.transaction():
            for step in steps:
                step(iommu)

    return change


def again(*steps: Step) -> tuple[Step, ...]:
    """A parent that was destroyed, with its memory, and what was on it."""
    return (
        lambda iommu: iommu.domain_create("p", nest_parent=True),
        lambda iommu: iommu.map("p", iova=0, size=4 * MIB, memory="m"),
        *steps,
    )


PARENT = (attach("p"),)
BELOW = (*PARENT, bind(ROOT, FEW))
FULL = (*PARENT, bind(ROOT), bind(ROOT, FEW), bind(OTHER, MANY))
BOTH = (*FULL, attach("p", rid=TWO), bind(OTHER, rid=TWO))


def prepare(bench: Bench, before: tuple[Step, ...]) -> None:
    iommu = bench.iommu
    # A free id below the others.
    iommu.device_bind(TWO)
    iommu.domain_create("x")
    iommu.device_bind(ONE)
    iommu.memory_create("m", 4 * MIB)
    for name in ("p", "q"):
        iommu.domain_create(name, nest_parent=True)
        iommu.map(name, iova=0, size=4 * MIB, memory="m")
    iommu.domain_create("d")
    iommu.domain_destroy("x")
    for step in before:
        step(iommu)
    assert_agrees(bench)

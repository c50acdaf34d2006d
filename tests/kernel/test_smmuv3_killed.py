# SPDX-License-Identifier: Apache-2.0
"""Commands on an SMMUv3 that are killed before and after each of their calls: the next one finds old or new, whole."""

from itertools import count
from typing import Any, NamedTuple

import pytest

from iommuctl import Iommu
from tests.kernel.bench import Bench
from tests.kernel.calls import Killed
from tests.kernel.host import ONE, TWO
from tests.kernel.smmuv3_bench import assert_agrees
from tests.kernel.smmuv3_steps import (
    BELOW,
    BOTH,
    FEW,
    FULL,
    MANY,
    OTHER,
    PARENT,
    ROOT,
    THIRD,
    Step,
    again,
    attach,
    bind,
    detach,
    prepare,
    unbind,
    whole,
)
from tests.kernel.smmuv3_unit import QEMU, SUBSTREAMS
from tests.thorough import THOROUGH

STRIDE = 9


class Change(NamedTuple):
    """A change and its reverse, from what `before` makes: both are killed at every call."""

    name: str
    before: tuple[Step, ...]
    change: tuple[Step, ...]
    back: tuple[Step, ...]


OF_RIDS = [
    Change("attach a parent", (), PARENT, (detach("p"),)),
    Change("bind to a RID", PARENT, (bind(ROOT),), (unbind(),)),
    Change("replace a parent", PARENT, (attach("q"),), (attach("p"),)),
    Change("replace a parent by a domain", PARENT, (attach("d"),), (attach("p"),)),
    Change(
        "replace all of a parent at once",
        (*PARENT, bind(ROOT)),
        (whole(detach("p"), attach("q"), bind(OTHER, domain="q")),),
        (whole(detach("q"), attach("p"), bind(ROOT)),),
    ),
    Change("detach with what is below", (*PARENT, bind(ROOT)), (detach("p"),), (*PARENT, bind(ROOT))),
    Change(
        "unbind a device with a number",
        (*PARENT, bind(ROOT)),
        (lambda iommu: iommu.device_unbind(ONE, force=True),),
        (lambda iommu: iommu.device_bind(ONE), *PARENT, bind(ROOT)),
    ),
    Change(
        "destroy a parent",
        (*PARENT, bind(ROOT), attach("p", rid=TWO)),
        (lambda iommu: iommu.domain_destroy("p", force=True),),
        again(*PARENT, bind(ROOT), attach("p", rid=TWO)),
    ),
    Change("invalidate", (*PARENT, bind(ROOT)), (lambda iommu: iommu.invalidate("p"),), ()),
]
OF_PASIDS = [
    Change("bind the first PASID", PARENT, (bind(ROOT, FEW),), (unbind(FEW),)),
    Change("bind another table", BELOW, (bind(OTHER, FEW + 1),), (unbind(FEW + 1),)),
    Change("bind the same table", BELOW, (bind(ROOT, FEW + 1),), (unbind(FEW + 1),)),
    Change("bind beyond a page of CDs", BELOW, (bind(OTHER, MANY),), (unbind(MANY),)),
    Change("bind the RID above PASIDs", BELOW, (bind(OTHER),), (unbind(),)),
    Change("bind another table in its place", BELOW, (whole(unbind(FEW), bind(OTHER, FEW)),), ()),
    Change("unbind all but one", FULL, (whole(unbind(), unbind(MANY)),), (whole(bind(ROOT), bind(OTHER, MANY)),)),
    Change("detach with all that is below", FULL, (detach("p"),), FULL),
    Change(
        "replace all of a parent at once, with PASIDs",
        FULL,
        (whole(detach("p"), attach("q"), bind(THIRD, FEW, domain="q")),),
        (whole(detach("q"), *FULL),),
    ),
    Change(
        "unbind a device with PASIDs",
        BOTH,
        (lambda iommu: iommu.device_unbind(ONE, force=True),),
        (lambda iommu: iommu.device_bind(ONE), *FULL),
    ),
    Change(
        "destroy a parent of two devices",
        BOTH,
        (lambda iommu: iommu.domain_destroy("p", force=True),),
        again(*BOTH),
    ),
    Change("invalidate all that is below", BOTH, (lambda iommu: iommu.invalidate("p"),), ()),
    Change(
        "invalidate a range of one",
        BOTH,
        (lambda iommu: iommu.invalidate("p", device=ONE, pasid=FEW, iova=0x1000, size=0x3000),),
        (),
    ),
    Change("attach a PASID to a domain", (attach("d"),), (attach("d", pasid=FEW),), (detach("d", pasid=FEW),)),
]


def killed_everywhere(bench: Bench, step: Step, first: int) -> None:
    """Have a step killed before and after each of its calls, until it is done; without IOMMUCTL_THOROUGH at a few."""
    before = seen(bench.iommu)
    for moment in count() if THOROUGH else count(first, STRIDE):
        bench.kernel.kill(None, skip=moment // 2, made=bool(moment % 2))
        try:
            step(bench.iommu)
        except Killed:
            bench.reopen()
        else:
            bench.kernel.next_process()
            assert_agrees(bench)
            return
        now = seen(bench.iommu)
        assert_agrees(bench)
        if now != before:
            # It was killed behind its commit, as it would be at each later moment.
            return


def seen(iommu: Iommu) -> object:
    """What rows say of what there is."""
    domains = iommu.domains()
    bound = [one.rid for one in iommu.devices() if one.bound]
    return domains, bound, iommu.slots(), [iommu.mappings(one.name) for one in domains]


def check(bench: Bench, change: Change, first: int) -> None:
    prepare(bench, change.before)
    for number, step in enumerate((*change.change, *change.back)):
        killed_everywhere(bench, step, (first + number) % STRIDE)


def cases(changes: list[Change]) -> list[Any]:
    """Each change with its place in the list."""
    return [pytest.param(number, change, id=change.name) for number, change in enumerate(changes)]


@pytest.mark.parametrize("registers", [SUBSTREAMS, QEMU], ids=["substreams", "qemu"])
@pytest.mark.parametrize(("number", "change"), cases(OF_RIDS))
def test_a_killed_change_of_a_rid_is_repaired(smmu: Bench, number: int, change: Change) -> None:
    check(smmu, change, number)


@pytest.mark.parametrize(("number", "change"), cases(OF_PASIDS))
def test_a_killed_change_of_pasids_is_repaired(smmu: Bench, number: int, change: Change) -> None:
    check(smmu, change, number)

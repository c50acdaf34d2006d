# SPDX-License-Identifier: Apache-2.0
"""What is left of changes on an SMMUv3 that did not come to their end, moment by moment, and after all was lost."""

import pytest

from iommuctl.iommufd import uapi
from iommuctl.iommufd import vfio_uapi as vfio
from tests.kernel.bench import Bench
from tests.kernel.calls import Killed
from tests.kernel.host import NODES, ONE, TWO
from tests.kernel.objects import Device, Ioas, Veventq, Viommu
from tests.kernel.smmuv3_bench import assert_agrees
from tests.kernel.smmuv3_steps import (
    BOTH,
    FEW,
    MANY,
    OTHER,
    PARENT,
    ROOT,
    THIRD,
    attach,
    bind,
    detach,
    prepare,
    unbind,
    whole,
)

ATTACH = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT


def number_of(call: str) -> int:
    found: int = getattr(vfio if call.startswith("VFIO") else uapi, call)
    return found


@pytest.mark.parametrize(
    "call",
    [
        "IOMMU_VIOMMU_ALLOC",
        "IOMMU_VEVENTQ_ALLOC",
        "IOMMU_VDEVICE_ALLOC",
        "IOMMU_HWPT_ALLOC",
        "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
    ],
)
def test_an_interrupted_binding_has_not_happened(smmu: Bench, call: str) -> None:
    prepare(smmu, PARENT)
    before = dict(smmu.kernel.objects)
    smmu.kernel.interrupt(number_of(call))
    with pytest.raises(KeyboardInterrupt):
        bind(ROOT, FEW)(smmu.iommu)
    smmu.reopen()
    assert smmu.iommu.check() == []
    assert smmu.kernel.objects.keys() == before.keys()


def test_a_number_on_another_viommu_goes_before_that_of_the_rows_comes_back(smmu: Bench) -> None:
    prepare(smmu, (*PARENT, bind(ROOT)))
    change = whole(detach("p"), attach("q"), bind(OTHER, domain="q"))
    smmu.kernel.kill(uapi.IOMMU_VDEVICE_ALLOC, made=True)
    smmu.killed(lambda: change(smmu.iommu)).slots()
    smmu.assert_agrees()


def test_what_took_the_id_of_a_number_that_went_is_destroyed(smmu: Bench) -> None:
    prepare(smmu, (*PARENT, bind(ROOT)))
    released = smmu.rows("vdevice")[str(ONE)]["id"]
    smmu.kernel.kill(uapi.IOMMU_IOAS_ALLOC, made=True)
    change = whole(detach("p"), lambda iommu: iommu.domain_create("n"))
    with pytest.raises(Killed):
        change(smmu.iommu)
    assert smmu.kernel.objects[released] == Ioas()
    smmu.reopen().slots()
    assert_agrees(smmu)


TRIED_OUT = ["IOMMU_IOAS_ALLOC", "IOMMU_HWPT_ALLOC", "IOMMU_VIOMMU_ALLOC"]


@pytest.mark.parametrize(
    ("call", "made"),
    [
        *((call, made) for call in [*TRIED_OUT, "IOMMU_DESTROY"] for made in (False, True)),
    ],
)
def test_what_a_killed_bind_of_a_device_tried_out_is_destroyed(smmu: Bench, call: str, made: bool) -> None:
    smmu.iommu.device_bind(TWO)
    smmu.kernel.kill(number_of(call), made=made)
    smmu.killed(lambda: smmu.iommu.device_bind(ONE)).devices()
    others = [one for one in smmu.kernel.objects.values() if one not in (Device(NODES[ONE]), Device(NODES[TWO]))]
    assert others == []


def test_what_was_cached_of_a_killed_binding_is_dropped(smmu: Bench) -> None:
    prepare(smmu, (*PARENT, bind(ROOT, FEW)))
    smmu.kernel.kill(ATTACH, made=True)
    smmu.killed(lambda: bind(OTHER, MANY)(smmu.iommu)).slots()
    assert_agrees(smmu)


def test_what_was_cached_of_a_killed_first_binding_is_dropped(smmu: Bench) -> None:
    """Of a parent that has no vIOMMU but that which repair destroys; the other device keeps its VMID in use."""
    prepare(smmu, (*PARENT, attach("p", rid=TWO), bind(ROOT), unbind(), detach("p")))
    smmu.kernel.kill(ATTACH, skip=1, made=True)
    smmu.killed(lambda: whole(attach("p"), bind(ROOT))(smmu.iommu)).slots()
    assert_agrees(smmu)


def test_contexts_are_in_memory_when_a_device_is_led_to_them(smmu: Bench) -> None:
    prepare(smmu, PARENT)
    smmu.kernel.kill(ATTACH, made=True)
    with pytest.raises(Killed):
        bind(ROOT, FEW)(smmu.iommu)
    live = smmu.kernel.caches.live(smmu.kernel.objects, NODES[ONE])
    assert {number: context.root for number, context in live.items()} == {FEW: ROOT}


def test_a_grown_table_is_in_memory_when_a_device_is_led_to_it(smmu: Bench) -> None:
    prepare(smmu, (*PARENT, bind(ROOT, FEW)))
    smmu.kernel.kill(ATTACH, made=True)
    with pytest.raises(Killed):
        bind(OTHER, MANY)(smmu.iommu)
    live = smmu.kernel.caches.live(smmu.kernel.objects, NODES[ONE])
    assert {number: context.root for number, context in live.items()} == {FEW: ROOT, MANY: OTHER}


def test_contexts_that_a_pool_had_earlier_do_not_come_back(smmu: Bench) -> None:
    prepare(smmu, (*PARENT, bind(ROOT, FEW), unbind(FEW)))
    bind(THIRD, FEW)(smmu.iommu)
    assert_agrees(smmu)


def test_a_parents_viommu_goes_with_it_and_not_before(smmu: Bench) -> None:
    prepare(smmu, BOTH)
    objects = smmu.kernel.objects
    detach("p")(smmu.iommu)
    detach("p", rid=TWO)(smmu.iommu)
    assert [type(one) for one in objects.values() if isinstance(one, Viommu | Veventq)] == [Viommu, Veventq]
    smmu.iommu.domain_destroy("p")
    assert not any(isinstance(one, Viommu | Veventq) for one in smmu.kernel.objects.values())
    assert_agrees(smmu)


def test_all_is_made_again(smmu: Bench) -> None:
    prepare(smmu, BOTH)
    smmu.kill_keeper()
    iommu = smmu.reopen()
    assert smmu.kernel.objects == {}
    iommu.rebuild_lost()
    assert_agrees(smmu)

# SPDX-License-Identifier: Apache-2.0
"""What a command that was killed left undone, the next one does."""

from collections.abc import Callable
from copy import deepcopy

import pytest

from iommuctl import Iommu
from iommuctl.iommufd import uapi
from iommuctl.iommufd import vfio_uapi as vfio
from tests.kernel.bench import PAGE, Bench
from tests.kernel.calls import Killed
from tests.kernel.host import DRIVER, NODES, ONE, TWO
from tests.kernel.objects import Device

BIND = vfio.VFIO_DEVICE_BIND_IOMMUFD


def test_a_mapping_in_place_of_a_larger_is_there_after_a_kill_behind_the_commit(bench: Bench) -> None:
    iommu = bench.iommu
    iommu.memory_create("a", 16 * PAGE)
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=2 * PAGE, memory="a")
    iommu.domain_create("x")

    def change() -> None:
        with iommu.transaction():
            iommu.unmap("d", iova=0, size=2 * PAGE)
            iommu.map("d", iova=0, size=PAGE, memory="a")
            iommu.domain_destroy("x")
            bench.kernel.kill(uapi.IOMMU_DESTROY)

    assert [(one.iova, one.size) for one in bench.killed(change).mappings("d")] == [(0, PAGE)]
    assert [(one.iova, one.size) for one in bench.ioas("d").mapped] == [(0, PAGE)]
    bench.assert_agrees()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("made", [False, True])
def test_a_domain_whose_destruction_was_killed_leaves_nothing(bench: Bench, first: int, made: bool) -> None:
    iommu = bench.iommu
    # A free id below those of the domain.
    iommu.domain_create("x")
    iommu.device_bind(ONE)
    iommu.domain_create("d")
    iommu.attach("d", ONE)
    iommu.detach("d", ONE)
    iommu.domain_destroy("x")
    bench.kernel.kill(uapi.IOMMU_DESTROY, skip=first, made=made)
    assert bench.killed(lambda: iommu.domain_destroy("d")).domains() == []
    assert list(bench.kernel.objects.values()) == [Device(NODES[ONE])]
    bench.assert_agrees()


CHANGES: list[tuple[str, Callable[[Iommu], object]]] = [
    ("IOMMU_IOAS_ALLOC", lambda iommu: iommu.domain_create("n")),
    ("IOMMU_IOAS_MAP_FILE", lambda iommu: iommu.map("d", iova=PAGE, size=PAGE, memory="m")),
    ("IOMMU_IOAS_UNMAP", lambda iommu: iommu.unmap("d", iova=0, size=PAGE)),
    ("IOMMU_HWPT_ALLOC", lambda iommu: iommu.attach("d", ONE)),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", lambda iommu: iommu.attach("d", ONE)),
    ("VFIO_DEVICE_BIND_IOMMUFD", lambda iommu: iommu.device_bind(TWO)),
    ("IOMMU_GET_HW_INFO", lambda iommu: iommu.device_bind(TWO)),
]


@pytest.mark.parametrize("end", ["before", "after", "interrupt"])
@pytest.mark.parametrize(("call", "change"), CHANGES)
def test_a_change_that_did_not_come_to_its_end_has_not_happened(
    bench: Bench, call: str, change: Callable[[Iommu], object], end: str
) -> None:
    iommu = bench.iommu
    iommu.domain_create("x")
    iommu.device_bind(ONE)
    iommu.memory_create("m", 16 * PAGE)
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=PAGE, memory="m")
    iommu.domain_destroy("x")
    before = deepcopy(bench.kernel.objects)
    number = getattr(vfio if call.startswith("VFIO") else uapi, call)
    if end == "interrupt":
        bench.kernel.interrupt(number)
        with pytest.raises(KeyboardInterrupt):
            change(iommu)
    else:
        bench.kernel.kill(number, made=end == "after")
        iommu = bench.killed(lambda: change(iommu))
        assert [one.name for one in iommu.domains()] == ["d"]
    assert bench.kernel.objects == before
    assert bench.host.drivers[TWO] == (DRIVER, None)
    bench.assert_agrees()
    change(iommu)
    bench.assert_agrees()


def test_a_device_that_is_gone_after_its_bind_was_killed_blocks_nothing(bench: Bench) -> None:
    iommu = bench.iommu
    iommu.device_bind(ONE)
    bench.kernel.kill(BIND, made=True)
    with pytest.raises(Killed):
        iommu.device_bind(TWO)
    del bench.host.drivers[TWO]
    iommu = bench.reopen()
    assert iommu.domains() == []
    iommu.domain_create("d")
    iommu.attach("d", ONE)
    assert [one.rid for one in iommu.devices()] == [ONE]
    bench.assert_agrees()


def test_a_bound_device_that_is_gone_blocks_nothing(bench: Bench) -> None:
    iommu = bench.iommu
    iommu.device_bind(ONE)
    iommu.device_bind(TWO)
    iommu.domain_create("d")
    iommu.attach("d", ONE)
    del bench.host.drivers[TWO]
    bench.kernel.kill(uapi.IOMMU_IOAS_ALLOC, made=True)
    iommu = bench.killed(lambda: iommu.domain_create("e"))
    iommu.domain_create("e")
    iommu.attach("e", ONE, replace=True)
    assert bench.device(ONE).slots.keys() == {None}
    assert iommu.check() == [f"{TWO} is bound, but not there any more"]

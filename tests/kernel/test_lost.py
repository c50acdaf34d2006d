# SPDX-License-Identifier: Apache-2.0
"""The keeper is killed, and all objects with it: that is told, and they are made again or forgotten."""

from copy import deepcopy

import pytest

from iommuctl.errors import KernelRefused, Lost
from iommuctl.iommufd import uapi
from iommuctl.iommufd import vfio_uapi as vfio
from tests.kernel.bench import PAGE, Bench
from tests.kernel.host import DRIVER, ONE

ATTACH = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT


def prepare(bench: Bench) -> None:
    iommu = bench.iommu
    iommu.memory_create("m", 16 * PAGE)
    iommu.device_bind(ONE)
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=PAGE, memory="m")
    iommu.attach("d", ONE)
    iommu.attach("d", ONE, pasid=7)


def test_a_folder_that_began_with_memory(bench: Bench) -> None:
    iommu = bench.iommu
    iommu.memory_create("m", 16 * PAGE)
    assert iommu.check() == []
    assert iommu.lost() == ""
    bench.kill_keeper()
    iommu = bench.reopen()
    assert "keeper" in iommu.lost()
    assert iommu.rebuild_lost() == ["memory m is empty"]
    assert iommu.lost() == ""
    assert bench.held() == ["memory-1"]
    iommu.domain_create("d")
    iommu.map("d", iova=0, size=PAGE, memory="m")
    assert len(bench.ioas("d").mapped) == 1
    bench.assert_agrees()


def test_all_is_made_again(bench: Bench) -> None:
    prepare(bench)
    bench.kill_keeper()
    iommu = bench.reopen()
    assert bench.kernel.objects == {}
    assert iommu.lost()
    iommu.rebuild_lost()
    assert bench.device(ONE).slots.keys() == {None, 7}
    bench.assert_agrees()


def test_a_session_notices_that_its_keeper_died(bench: Bench) -> None:
    prepare(bench)
    iommu = bench.iommu
    bench.kill_keeper()
    assert "keeper" in iommu.lost()
    with pytest.raises(Lost):
        iommu.domain_create("e")
    assert bench.kernel.objects == {}
    iommu.rebuild_lost()
    bench.assert_agrees()
    iommu.domain_create("e")
    bench.assert_agrees()


def test_nothing_is_made_again_where_nothing_is_lost(bench: Bench) -> None:
    prepare(bench)
    objects, held = deepcopy(bench.kernel.objects), bench.held()
    assert bench.iommu.rebuild_lost() == []
    assert bench.kernel.objects == objects
    assert bench.held() == held
    bench.assert_agrees()


@pytest.mark.parametrize(
    "refused", [vfio.VFIO_DEVICE_BIND_IOMMUFD, uapi.IOMMU_IOAS_MAP_FILE, uapi.IOMMU_HWPT_ALLOC, ATTACH]
)
def test_a_recovery_that_failed_is_forgotten(bench: Bench, refused: int) -> None:
    prepare(bench)
    bench.kill_keeper()
    iommu = bench.reopen()
    bench.kernel.refuse(refused)
    with pytest.raises(KernelRefused):
        iommu.rebuild_lost()
    assert bench.kernel.objects == {}
    assert iommu.lost()
    assert iommu.forget_lost()
    assert bench.held() == []
    assert bench.kernel.objects == {}
    assert bench.host.drivers[ONE] == (DRIVER, None)
    prepare(bench)
    bench.assert_agrees()


def test_a_recovery_that_was_killed_is_made_again(bench: Bench) -> None:
    prepare(bench)
    bench.kill_keeper()
    iommu = bench.reopen()
    bench.kernel.kill(ATTACH, skip=1)
    iommu = bench.killed(iommu.rebuild_lost)
    assert iommu.lost()
    iommu.rebuild_lost()
    assert bench.device(ONE).slots.keys() == {None, 7}
    bench.assert_agrees()

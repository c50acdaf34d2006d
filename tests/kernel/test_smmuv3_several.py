# SPDX-License-Identifier: Apache-2.0
"""Several devices, parents, segments and units: whose id, whose commands, and whose contexts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iommuctl import Iommu
from iommuctl.errors import CannotNest
from iommuctl.iommufd import uapi
from iommuctl.iommufd import vfio_uapi as vfio
from iommuctl.iommufd.sysfs import PciDevice, Unit
from iommuctl.kernel import viommus
from iommuctl.kernel.hooks import HardwareBackend
from iommuctl.model import Rid
from iommuctl_smmuv3.host import KIND
from tests.kernel.bench import Bench
from tests.kernel.calls import Kernel, Killed
from tests.kernel.host import NODES, ONE, TWO, UNIT, Host
from tests.kernel.smmuv3_bench import assert_agrees
from tests.kernel.smmuv3_host import NAME, SmmuBackend, SmmuHost
from tests.kernel.smmuv3_steps import FEW, MIB, OTHER, PARENT, ROOT, attach, bind, detach, prepare, unbind, whole
from tests.kernel.smmuv3_unit import SUBSTREAMS, Smmuv3Unit
from tests.kernel.units import Place

THREE = Rid.parse("0001:00:10.0")
"""Like the first device, in another segment."""
SECOND = "unit1"


def test_another_device_has_the_id_that_was_released(smmu: Bench) -> None:
    """In one transaction, which is killed after its commit."""
    on_q = (attach("q", rid=TWO), bind(OTHER, domain="q", rid=TWO), unbind(domain="q", rid=TWO))
    prepare(smmu, (*PARENT, bind(ROOT), *on_q, detach("q", rid=TWO), attach("q", rid=TWO)))
    released = smmu.rows("vdevice")[str(ONE)]["id"]
    change = whole(detach("p"), bind(OTHER, domain="q", rid=TWO))
    smmu.kernel.kill(uapi.IOMMU_DESTROY, skip=1, made=False)
    smmu.killed(lambda: change(smmu.iommu))
    assert smmu.rows("vdevice")[str(TWO)]["id"] == released
    smmu.iommu.slots()
    assert_agrees(smmu)


def test_a_repair_that_is_killed_knows_what_it_made(smmu: Bench) -> None:
    prepare(smmu, (*PARENT, bind(ROOT)))
    change = whole(detach("p"), lambda iommu: iommu.domain_create("n"))
    smmu.kernel.kill(uapi.IOMMU_IOAS_ALLOC, made=True)
    smmu.killed(lambda: change(smmu.iommu))
    smmu.kernel.kill(vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, made=False)
    with pytest.raises(Killed):
        smmu.iommu.slots()
    smmu.reopen().slots()
    assert_agrees(smmu)


def test_a_device_that_moves_in_one_transaction(smmu: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands for its first parent name a number that it has on the other's vIOMMU by then."""
    refused: list[Exception] = []
    real = viommus.invalidate

    def watched(*arguments: Any) -> None:
        try:
            real(*arguments)
        except Exception as error:
            refused.append(error)
            raise

    monkeypatch.setattr(viommus, "invalidate", watched)
    prepare(smmu, (*PARENT, bind(ROOT, FEW), bind(OTHER, FEW + 1)))
    steps = (unbind(FEW), unbind(FEW + 1), detach("p"), attach("q"), bind(OTHER, FEW + 2, domain="q"))
    whole(*steps)(smmu.iommu)
    assert refused == []
    assert_agrees(smmu)


class TestSegments:
    @pytest.fixture
    def registers(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
        monkeypatch.setitem(NODES, THREE, "vfio2")
        return SUBSTREAMS

    def test_devices_with_the_same_numbers(self, smmu: Bench) -> None:
        prepare(smmu, (*PARENT, bind(ROOT, FEW)))
        smmu.iommu.device_bind(THREE)
        smmu.iommu.attach("p", str(THREE))
        assert_agrees(smmu)
        unbind(FEW)(smmu.iommu)
        assert_agrees(smmu)


class TwoUnits(SmmuHost):
    """The second device is behind a unit of its own, on which nothing nests."""

    def __init__(self, folder: Path) -> None:
        first = Smmuv3Unit.of(SUBSTREAMS, UNIT)
        second = Smmuv3Unit.of(SUBSTREAMS, SECOND, coherent=False)
        places = {NODES[ONE]: Place(first, first.pasid_bits), NODES[TWO]: Place(second, second.pasid_bits)}
        Host.__init__(self, Kernel(places), folder)
        self._bits = first.pasid_bits

    def units(self) -> list[Unit]:
        return [Unit(UNIT, KIND, {}, (ONE,)), Unit(SECOND, KIND, {}, (TWO,))]

    def device(self, rid: Rid) -> PciDevice:
        return super().device(rid)._replace(unit=SECOND if rid == TWO else UNIT)


def test_a_unit_on_which_nothing_nests_takes_nothing_from_the_other(
    tmp_path: Path, bench_of: Callable[[Host, HardwareBackend, str], Bench]
) -> None:
    host = TwoUnits(tmp_path)
    with bench_of(host, SmmuBackend(host), NAME) as bench:
        iommu: Iommu = bench.iommu
        iommu.device_bind(ONE)
        iommu.memory_create("m", 4 * MIB)
        iommu.domain_create("p", nest_parent=True)
        iommu.map("p", iova=0, size=4 * MIB, memory="m")
        for step in (attach("p"), bind(ROOT, FEW), bind(OTHER, FEW + 1)):
            step(iommu)
        iommu.device_bind(TWO)
        assert iommu.capabilities().nesting == "device"
        assert "CANWBS" in iommu.unit(SECOND).words["nesting"]
        attach("p", rid=TWO)(iommu)
        with pytest.raises(CannotNest) as raised:
            bind(OTHER, rid=TWO)(iommu)
        assert "CANWBS" in raised.value.because
        unbind(FEW)(iommu)
        assert_agrees(bench)

# SPDX-License-Identifier: Apache-2.0
"""A host with two devices behind one SMMUv3, and the backend that drives it: the real one, but for what /sys says."""

from functools import cached_property
from pathlib import Path

from iommuctl.hookspecs import API_VERSION, Availability, hookimpl
from iommuctl.iommufd.sysfs import PciDevice, Unit
from iommuctl.model import Rid
from iommuctl_smmuv3.backend import Smmuv3Backend
from iommuctl_smmuv3.hardware import Smmuv3
from iommuctl_smmuv3.host import KIND
from tests.kernel.calls import Kernel
from tests.kernel.host import NODES, UNIT, Host
from tests.kernel.smmuv3_unit import Smmuv3Unit
from tests.kernel.units import Place

NAME = "smmuv3"


class SmmuHost(Host):
    """Both devices have ATS, and as many bits of PASIDs as the unit."""

    def __init__(self, registers: dict[str, int], folder: Path) -> None:
        unit = Smmuv3Unit.of(registers, UNIT)
        super().__init__(Kernel({node: Place(unit, unit.pasid_bits) for node in NODES.values()}), folder)
        self._bits = unit.pasid_bits

    def units(self) -> list[Unit]:
        return [Unit(UNIT, KIND, {}, tuple(NODES))]

    def device(self, rid: Rid) -> PciDevice:
        return super().device(rid)._replace(pasid_bits=self._bits)


class SmmuBackend(Smmuv3Backend):
    """As installed, on this host."""

    def __init__(self, host: SmmuHost) -> None:
        self._host = host

    @cached_property
    def vendor(self) -> Smmuv3:
        return Smmuv3(self._host)

    @hookimpl
    def iommuctl_probe(self) -> Availability:
        return Availability(NAME, True, "", self.architecture, API_VERSION)

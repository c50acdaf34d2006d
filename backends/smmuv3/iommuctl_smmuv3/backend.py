# SPDX-License-Identifier: Apache-2.0
"""The backend for real SMMUv3 hardware, through iommufd. It says why it cannot work where it cannot."""

import os
from functools import cached_property
from typing import TYPE_CHECKING

from iommuctl.hookspecs import API_VERSION, Availability, FaultsRequest, HardwareContext, hookimpl
from iommuctl.kernel.hooks import HardwareBackend, why_not

if TYPE_CHECKING:
    from iommuctl.model import IommuUnit
    from iommuctl.recorded import Events
    from iommuctl_smmuv3.hardware import Smmuv3


class Smmuv3Backend(HardwareBackend):
    """The entry point `iommuctl.backends: smmuv3`."""

    architecture = "smmuv3"

    @cached_property
    def vendor(self) -> "Smmuv3":
        from iommuctl.iommufd.sysfs import Sysfs
        from iommuctl_smmuv3.hardware import Smmuv3

        return Smmuv3(Sysfs())

    @hookimpl
    def iommuctl_probe(self) -> Availability:
        because = why_not(
            lambda unit: os.path.basename(unit).startswith("smmu3."),
            "there is no SMMUv3 in /sys/class/iommu: the machine has none, or the firmware does not tell of it",
        )
        return Availability("smmuv3", not because, because, "smmuv3", API_VERSION)

    @hookimpl
    def iommuctl_units(self, context: HardwareContext) -> "list[IommuUnit]":
        return self.vendor.units(self.machine(context))

    @hookimpl
    def iommuctl_faults(self, context: HardwareContext, request: FaultsRequest) -> "list[Events]":
        from iommuctl_smmuv3.events_of_host import taken

        return list(taken(self.machine(context), request.positions))


BACKEND = Smmuv3Backend()

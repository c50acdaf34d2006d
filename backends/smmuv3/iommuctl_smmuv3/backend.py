# SPDX-License-Identifier: Apache-2.0
"""The backend for real SMMUv3 hardware, through iommufd. It says why it cannot work where it cannot."""

import os
from functools import cached_property
from typing import TYPE_CHECKING

from iommuctl.hookspecs import API_VERSION, Availability, FaultsRequest, HardwareContext, hookimpl
from iommuctl.kernel.hooks import HardwareBackend

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
        because = _why_not()
        return Availability("smmuv3", not because, because, "smmuv3", API_VERSION)

    @hookimpl
    def iommuctl_units(self, context: HardwareContext) -> "list[IommuUnit]":
        return self.vendor.units(self.machine(context))

    @hookimpl
    def iommuctl_faults(self, context: HardwareContext, request: FaultsRequest) -> "list[Events]":
        from iommuctl_smmuv3.events_of_host import taken

        return list(taken(self.machine(context), request.positions))


BACKEND = Smmuv3Backend()


def _why_not() -> str:
    if not os.path.exists("/dev/iommu"):
        return "there is no /dev/iommu: the kernel has no iommufd, or its module is not loaded"
    try:
        units = os.listdir("/sys/class/iommu")
    except OSError:
        units = []
    if not any(unit.startswith("smmu3.") for unit in units):
        return "there is no SMMUv3 in /sys/class/iommu: the machine has none, or the firmware does not tell of it"
    if not os.access("/dev/iommu", os.R_OK | os.W_OK):
        return "this user may not open /dev/iommu: run as root, or have udev give a group access"
    return ""

# SPDX-License-Identifier: Apache-2.0
"""The backend for real VT-d hardware, through iommufd. It says why it cannot work where it cannot."""

import os
from functools import cached_property
from typing import TYPE_CHECKING

from iommuctl.hookspecs import API_VERSION, Availability, HardwareContext, MapRequest, hookimpl
from iommuctl.kernel.hooks import HardwareBackend, why_not

if TYPE_CHECKING:
    from iommuctl.model import IommuUnit
    from iommuctl_vtd.hardware import Vtd


class VtdBackend(HardwareBackend):
    """The entry point `iommuctl.backends: vtd`."""

    architecture = "vtd"

    @cached_property
    def vendor(self) -> "Vtd":
        from iommuctl.iommufd.sysfs import Sysfs
        from iommuctl_vtd.hardware import Vtd

        return Vtd(Sysfs())

    @hookimpl
    def iommuctl_probe(self) -> Availability:
        because = why_not(
            lambda unit: os.path.isdir(f"{unit}/intel-iommu"),
            "there is no VT-d unit in /sys/class/iommu: the machine has none, or intel_iommu=on is missing",
        )
        return Availability("vtd", not because, because, "vtd", API_VERSION)

    @hookimpl
    def iommuctl_units(self, context: HardwareContext) -> "list[IommuUnit]":  # noqa: ARG002
        return self.vendor.units()

    @hookimpl
    def iommuctl_map(self, context: HardwareContext, request: MapRequest) -> bool:
        if request.domain.nest_parent and "w" not in request.mapping.prot:
            from iommuctl.errors import Unsupported

            raise Unsupported(
                f"{request.domain.name} cannot have a mapping that is {request.mapping.prot}",
                because="Linux maps nothing read-only into a nest parent: an erratum of VT-d units lets nested requests"
                " write there (772415)",
                hint="map it rw, or into a domain that is no nest parent",
            )
        return super().iommuctl_map(context, request)


BACKEND = VtdBackend()

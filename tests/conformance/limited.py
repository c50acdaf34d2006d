# SPDX-License-Identifier: Apache-2.0
"""A backend as hardware's are: its devices are there, nothing can be simulated, and named memory is all that it maps.

It nests as SMMUv3 does, all nested slots of a device on one parent. Inside it is the simulator.
"""

from iommuctl.capabilities import Capabilities
from iommuctl.hookspecs import API_VERSION, Context, hookimpl
from iommuctl.model import Device, Rid
from iommuctl.requests import Availability, SetupRequest
from iommuctl_sim import backend as sim

RIDS = ("0000:00:01.0", "0000:00:02.0")
PASID_BITS = 16

iommuctl_check = sim.iommuctl_check
iommuctl_devices = sim.iommuctl_devices
iommuctl_domain_create = sim.iommuctl_domain_create
iommuctl_domain_destroy = sim.iommuctl_domain_destroy
iommuctl_driver = sim.iommuctl_driver
iommuctl_install = sim.iommuctl_install
iommuctl_invalidate = sim.iommuctl_invalidate
iommuctl_map = sim.iommuctl_map
iommuctl_plan_memory = sim.iommuctl_plan_memory
iommuctl_translate = sim.iommuctl_translate
iommuctl_unmap = sim.iommuctl_unmap


@hookimpl
def iommuctl_probe() -> Availability:
    return Availability("limited", True, "", None, API_VERSION)


@hookimpl
def iommuctl_setup(context: Context, request: SetupRequest) -> str:
    name = sim.iommuctl_setup(context, request)
    for rid in RIDS:
        sim.iommuctl_device_add(context, Device(Rid.parse(rid), pasid_bits=PASID_BITS))
    return name


@hookimpl
def iommuctl_capabilities(context: Context) -> Capabilities:
    return sim.iommuctl_capabilities(context)._replace(
        nesting="device", hitless_replace=False, physical_addresses=False, simulates=False, pasid_bits=PASID_BITS
    )

# SPDX-License-Identifier: Apache-2.0
"""The backend `sim`: the generic operations carried out by an architecture's driver, on an architecture's unit.

Which architecture that is it learns by name; it knows none itself.
"""

from typing import Any

from iommuctl.architecture import Driver
from iommuctl.capabilities import Capabilities
from iommuctl.hookspecs import (
    API_VERSION,
    Availability,
    CheckRequest,
    Context,
    DmaRequest,
    FaultsRequest,
    InvalidateRequest,
    MapRequest,
    MemoryPlan,
    Settled,
    SetupRequest,
    SlotChange,
    TranslateRequest,
    UnmapRequest,
    hookimpl,
)
from iommuctl.model import Device, DmaResult, Domain, IommuUnit, Rid, Slot, Translation
from iommuctl.page_requests import AskedPages, PageAnswer
from iommuctl.recorded import Events
from iommuctl_sim import devices
from iommuctl_sim.dma import Dma
from iommuctl_sim.journal import is_followed
from iommuctl_sim.machine import plan_memory
from iommuctl_sim.system import UNIT, System, describe

DEFAULT_ARCHITECTURE = "vtd"


@hookimpl
def iommuctl_probe() -> Availability:
    return Availability("sim", True, "", None, API_VERSION)


@hookimpl
def iommuctl_plan_memory(request: SetupRequest) -> MemoryPlan:
    return plan_memory(request)


@hookimpl
def iommuctl_setup(context: Context, request: SetupRequest) -> str:
    name = request.architecture or DEFAULT_ARCHITECTURE
    architecture = context.architecture(name)
    context.rows.put("sim", "architecture", name)
    architecture.reset_unit(context, request.options)
    System(context).driver.start()
    return name


@hookimpl
def iommuctl_capabilities(context: Context) -> Capabilities:
    return System(context).driver.capabilities()


@hookimpl
def iommuctl_driver(context: Context) -> Driver:
    return System(context).driver


@hookimpl
def iommuctl_devices(context: Context, rid: Rid | None) -> list[Device]:
    return devices.find(context.rows, rid)


@hookimpl
def iommuctl_device_add(context: Context, device: Device) -> bool:
    with System(context).writing(Slot(device.rid)) as driver:
        driver.device_add(device)
    devices.add(context.rows, device)
    return True


@hookimpl
def iommuctl_device_remove(context: Context, device: Device) -> bool:
    system = System(context)
    with system.writing(Slot(device.rid)) as driver:
        driver.device_remove(device)
    system.tlbs.drop_device(device.rid)
    system.groups.drop_device(device.rid)
    devices.remove(context.rows, device)
    return True


@hookimpl
def iommuctl_domain_create(context: Context, domain: Domain) -> bool:
    System(context).driver.domain_create(domain)
    return True


@hookimpl
def iommuctl_domain_destroy(context: Context, domain: Domain) -> bool:
    System(context).driver.domain_destroy(domain)
    return True


@hookimpl
def iommuctl_map(context: Context, request: MapRequest) -> bool:
    System(context).driver.map(request.domain, request.mapping)
    return True


@hookimpl
def iommuctl_unmap(context: Context, request: UnmapRequest) -> bool:
    System(context).unmap(request)
    return True


@hookimpl
def iommuctl_install(context: Context, change: SlotChange) -> bool:
    with System(context).writing(change.slot) as driver:
        driver.install(change)
    return True


@hookimpl
def iommuctl_invalidate(context: Context, request: InvalidateRequest) -> bool:
    span = None if request.first is None or request.last is None else (request.first, request.last)
    System(context).driver.invalidate(request.bindings, span, leaf=request.leaf)
    return True


@hookimpl
def iommuctl_translate(context: Context, request: TranslateRequest) -> Translation:
    return System(context).unit.walk(request.slot, request.iova, request.access, privileged=request.privileged)


@hookimpl
def iommuctl_check(context: Context, request: CheckRequest) -> list[str]:
    return System(context).driver.check(request)


@hookimpl
def iommuctl_faults(context: Context, request: FaultsRequest) -> list[Events]:  # noqa: ARG001 - all is in the registers
    return System(context).take_faults()


@hookimpl
def iommuctl_page_requests(context: Context) -> AskedPages:
    return System(context).take_page_requests()


@hookimpl
def iommuctl_respond(context: Context, request: PageAnswer) -> bool:
    System(context).respond(request)
    return True


@hookimpl
def iommuctl_dma(context: Context, request: DmaRequest) -> DmaResult:
    return Dma(System(context), request).run()


@hookimpl
def iommuctl_settle(context: Context, request: Settled) -> bool:
    if is_followed(context.rows):
        System(context).journal.note(request)
    return True


@hookimpl
def iommuctl_describe(context: Context) -> dict[str, Any]:
    return describe(context)


@hookimpl
def iommuctl_units(context: Context) -> list[IommuUnit]:
    system = System(context)
    return [IommuUnit(UNIT, system.architecture.name, system.unit.registers())]

# SPDX-License-Identifier: Apache-2.0
"""The backend `sim`: the generic operations carried out by an architecture's driver, on an architecture's unit.

Which architecture that is it learns by name; it knows none itself.
"""

from typing import Any

from iommuctl.architecture import Architecture, Driver, Unit
from iommuctl.capabilities import Capabilities
from iommuctl.hookspecs import (
    API_VERSION,
    Availability,
    CheckRequest,
    Context,
    DmaRequest,
    InvalidateRequest,
    MapRequest,
    MemoryPlan,
    SetupRequest,
    SlotChange,
    TranslateRequest,
    UnmapRequest,
    hookimpl,
)
from iommuctl.model import Device, DmaResult, Domain, Rid, Translation
from iommuctl_sim import devices, dma
from iommuctl_sim.machine import plan_memory

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
    _driver(context).start()
    return name


@hookimpl
def iommuctl_capabilities(context: Context) -> Capabilities:
    return _driver(context).capabilities()


@hookimpl
def iommuctl_driver(context: Context) -> Driver:
    return _driver(context)


@hookimpl
def iommuctl_devices(context: Context, rid: Rid | None) -> list[Device]:
    return devices.find(context.rows, rid)


@hookimpl
def iommuctl_device_add(context: Context, device: Device) -> bool:
    _driver(context).device_add(device)
    devices.add(context.rows, device)
    return True


@hookimpl
def iommuctl_device_remove(context: Context, device: Device) -> bool:
    _driver(context).device_remove(device)
    devices.remove(context.rows, device)
    return True


@hookimpl
def iommuctl_domain_create(context: Context, domain: Domain) -> bool:
    _driver(context).domain_create(domain)
    return True


@hookimpl
def iommuctl_domain_destroy(context: Context, domain: Domain) -> bool:
    _driver(context).domain_destroy(domain)
    return True


@hookimpl
def iommuctl_map(context: Context, request: MapRequest) -> bool:
    _driver(context).map(request.domain, request.mapping)
    return True


@hookimpl
def iommuctl_unmap(context: Context, request: UnmapRequest) -> bool:
    _driver(context).unmap(request.domain, request.mappings, request.users)
    return True


@hookimpl
def iommuctl_install(context: Context, change: SlotChange) -> bool:
    _driver(context).install(change)
    return True


@hookimpl
def iommuctl_invalidate(context: Context, request: InvalidateRequest) -> bool:
    span = None if request.first is None or request.last is None else (request.first, request.last)
    _driver(context).invalidate(request.bindings, span, leaf=request.leaf)
    return True


@hookimpl
def iommuctl_translate(context: Context, request: TranslateRequest) -> Translation:
    return _unit(context).walk(request.slot, request.iova, request.access, privileged=request.privileged)


@hookimpl
def iommuctl_check(context: Context, request: CheckRequest) -> list[str]:
    return _driver(context).check(request)


@hookimpl
def iommuctl_dma(context: Context, request: DmaRequest) -> DmaResult:
    return dma.run(_unit(context), context.memory, request)


@hookimpl
def iommuctl_describe(context: Context) -> dict[str, Any]:
    unit = _unit(context)
    return {"registers": unit.registers(), "caches": unit.caches()}


def _architecture(context: Context) -> Architecture:
    return context.architecture(context.rows.get("sim", "architecture"))


def _unit(context: Context) -> Unit:
    return _architecture(context).unit(context)


def _driver(context: Context) -> Driver:
    architecture = _architecture(context)
    return architecture.driver(context, architecture.unit(context))

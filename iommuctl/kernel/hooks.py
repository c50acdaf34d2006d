# SPDX-License-Identifier: Apache-2.0
"""The hooks of a backend of real hardware. A vendor's backend derives from `HardwareBackend`, and is an object.

What talks to the kernel is imported when it is needed: every command that chooses a backend loads this module.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from iommuctl.hookspecs import (
    Availability,
    CheckRequest,
    DirtyRequest,
    HardwareContext,
    InvalidateRequest,
    MapRequest,
    MemoryRequest,
    MemorySource,
    RepairRequest,
    SetupRequest,
    SlotChange,
    Truth,
    UnmapRequest,
    hookimpl,
)

if TYPE_CHECKING:
    from iommuctl.architecture import TableFormats
    from iommuctl.capabilities import Capabilities
    from iommuctl.kernel.machine import Machine
    from iommuctl.kernel.vendor import Vendor
    from iommuctl.model import Device, Dirty, Domain, DomainRanges, IommuUnit, Memory, Rid
    from iommuctl.page_requests import AskedPages, PageAnswer


_UNITS = "/sys/class/iommu"


def why_not(is_ours: Callable[[str], bool], without: str) -> str:
    """Why iommufd cannot be used here with units that are ours, by their folders; "" where it can. Without effect."""
    if not os.path.exists("/dev/iommu"):
        return "there is no /dev/iommu: the kernel has no iommufd, or its module is not loaded"
    try:
        units = os.listdir(_UNITS)
    except OSError:
        units = []
    if not any(is_ours(f"{_UNITS}/{unit}") for unit in units):
        return without
    if not os.access("/dev/iommu", os.R_OK | os.W_OK):
        return "this user may not open /dev/iommu: run as root, or have udev give a group access"
    return ""


class HardwareBackend(ABC):
    """All hooks of a backend that works through iommufd; the vendor says what is its own."""

    architecture: str

    @cached_property
    @abstractmethod
    def vendor(self) -> "Vendor":
        """What is the vendor's own, made when it is needed."""

    @abstractmethod
    def iommuctl_probe(self) -> Availability:
        """As the hook."""

    @abstractmethod
    def iommuctl_units(self, context: HardwareContext) -> "list[IommuUnit]":
        """As the hook."""

    def machine(self, context: HardwareContext) -> "Machine":
        """What the operations of iommuctl.kernel work on."""
        from iommuctl.kernel.machine import Machine

        return Machine(context, self.vendor)

    @hookimpl
    def iommuctl_setup(self, request: SetupRequest) -> str:
        from iommuctl.errors import Usage

        if request != SetupRequest():
            raise Usage("real hardware is as it is", because="a machine can be described to the simulator only")
        return self.architecture

    @hookimpl
    def iommuctl_capabilities(self, context: HardwareContext) -> "Capabilities":
        return self.vendor.capabilities(self.machine(context))

    @hookimpl
    def iommuctl_formats(self, context: HardwareContext) -> "TableFormats":
        return self.vendor.formats(self.machine(context))

    @hookimpl
    def iommuctl_lost(self, context: HardwareContext) -> str:
        return self.machine(context).lost()

    @hookimpl
    def iommuctl_repair(self, context: HardwareContext, request: RepairRequest) -> bool:
        from iommuctl.kernel.repair import repair

        repair(self.machine(context), request)
        return True

    @hookimpl
    def iommuctl_recover(self, context: HardwareContext, truth: Truth) -> list[str]:
        from iommuctl.kernel.repair import recover

        return recover(self.machine(context), truth)

    @hookimpl
    def iommuctl_check(self, context: HardwareContext, request: CheckRequest) -> list[str]:
        from iommuctl.kernel.checking import check

        return check(self.machine(context), request)

    # Devices

    @hookimpl
    def iommuctl_devices(self, context: HardwareContext, rid: "Rid | None") -> "list[Device]":
        return self.machine(context).devices.find(rid)

    @hookimpl
    def iommuctl_device_bind(self, context: HardwareContext, rid: "Rid") -> "Device":
        return self.machine(context).devices.bind(rid)

    @hookimpl
    def iommuctl_device_unbind(self, context: HardwareContext, rid: "Rid") -> "Device":
        return self.machine(context).devices.unbind(rid)

    @hookimpl
    def iommuctl_descriptors(self, context: HardwareContext, rids: "list[Rid]") -> dict[str, int]:
        machine = self.machine(context)
        devices = {f"vfio:{rid}": machine.devices.descriptor(rid) for rid in rids}
        return {"iommufd": machine.iommufd.fd, **devices}

    # Named memory

    @hookimpl
    def iommuctl_memory_create(self, context: HardwareContext, request: MemoryRequest) -> bool:
        from iommuctl.kernel import memories

        memories.create(self.machine(context), request)
        return True

    @hookimpl
    def iommuctl_memory_destroy(self, context: HardwareContext, memory: "Memory") -> bool:
        from iommuctl.kernel import memories

        memories.destroy(self.machine(context), memory)
        return True

    @hookimpl
    def iommuctl_memory_descriptor(self, context: HardwareContext, memory: "Memory") -> int:
        from iommuctl.kernel import memories

        return memories.readable(self.machine(context), memory)

    @hookimpl
    def iommuctl_memory_source(self, context: HardwareContext, memory: "Memory") -> MemorySource:
        from iommuctl.kernel import memories

        return memories.source(self.machine(context), memory)

    # Domains

    @hookimpl
    def iommuctl_domain_create(self, context: HardwareContext, domain: "Domain", dirty: bool) -> bool:
        from iommuctl.kernel import domains

        domains.create(self.machine(context), domain, dirty=dirty)
        return True

    @hookimpl
    def iommuctl_domain_destroy(self, context: HardwareContext, domain: "Domain") -> bool:
        from iommuctl.kernel import domains

        domains.destroy(self.machine(context), domain)
        return True

    @hookimpl
    def iommuctl_map(self, context: HardwareContext, request: MapRequest) -> bool:
        from iommuctl.kernel import domains

        domains.map_(self.machine(context), request)
        return True

    @hookimpl
    def iommuctl_unmap(self, context: HardwareContext, request: UnmapRequest) -> bool:
        from iommuctl.kernel import domains

        domains.unmap(self.machine(context), request)
        return True

    @hookimpl
    def iommuctl_ranges(self, context: HardwareContext, domain: "Domain") -> "DomainRanges":
        from iommuctl.kernel import domains

        return domains.ranges(self.machine(context), domain)

    @hookimpl
    def iommuctl_dirty(self, context: HardwareContext, request: DirtyRequest) -> "Dirty":
        from iommuctl.kernel import domains

        return domains.dirty(self.machine(context), request)

    # Slots

    @hookimpl
    def iommuctl_install(self, context: HardwareContext, change: SlotChange) -> bool:
        self.machine(context).slots.install(change)
        return True

    @hookimpl
    def iommuctl_invalidate(self, context: HardwareContext, request: InvalidateRequest) -> bool:
        self.machine(context).slots.invalidate(request)
        return True

    # Page requests, for vendors that declare `page_responses`

    @hookimpl
    def iommuctl_page_requests(self, context: HardwareContext) -> "AskedPages":
        from iommuctl.kernel import fault_queues

        return fault_queues.take(self.machine(context))

    @hookimpl
    def iommuctl_respond(self, context: HardwareContext, request: "PageAnswer") -> bool:
        from iommuctl.kernel import fault_queues

        fault_queues.respond(self.machine(context), request)
        return True

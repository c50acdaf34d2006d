# SPDX-License-Identifier: Apache-2.0
"""A backend as hardware's are: its devices are there, nothing can be simulated, and named memory is all that it maps.

It nests as SMMUv3 does: all nested slots of a device on one parent, with a table in guest memory that leads from PASIDs
to page tables. Inside it is the simulator of a unit that needs no such table, so only `check` reads it: a page for each
device, which has (1 + PASID, root) of each slot that holds a page table.
"""

import struct
from collections.abc import Iterator
from typing import Any

from iommuctl.capabilities import Capabilities
from iommuctl.errors import NoRoom
from iommuctl.formats.memory import PAGE, Memory, Run
from iommuctl.hookspecs import API_VERSION, Context, hookimpl
from iommuctl.model import Binding, Device, Rid, Slot
from iommuctl.requests import Availability, CheckRequest, SetupRequest, SlotChange
from iommuctl_sim import backend as sim

RIDS = ("0000:00:01.0", "0000:00:02.0")
PASID_BITS = 16
TABLE = "limited.table"
ENTRY = struct.Struct("<QQ")

iommuctl_devices = sim.iommuctl_devices
iommuctl_domain_create = sim.iommuctl_domain_create
iommuctl_domain_destroy = sim.iommuctl_domain_destroy
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
        nesting="device",
        context_tables_in_guest=True,
        hitless_replace=False,
        physical_addresses=False,
        simulates=False,
        fault_records=False,
        page_responses=(),
        pasid_bits=PASID_BITS,
    )


class Driver:
    """The simulator's, and the pages of guest memory that the tables are in."""

    def __init__(self, context: Context) -> None:
        self._rows = context.rows
        self._driver = sim.iommuctl_driver(context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def used_in_guest(self, rid: Rid, guest: Memory) -> Iterator[Run]:
        page = self._rows.get(TABLE, str(rid))
        assert guest.read(page, 1)
        yield Run(page, 1)


@hookimpl
def iommuctl_driver(context: Context) -> Driver:
    return Driver(context)


@hookimpl
def iommuctl_install(context: Context, change: SlotChange) -> bool:
    assert (change.guest is not None) == (isinstance(change.old, Binding) or isinstance(change.new, Binding))
    if change.guest:
        key = str(change.slot.rid)
        page = context.rows.get(TABLE, key)
        roots = {} if page is None else entries(change.guest, page)
        roots.pop(number(change.slot), None)
        if isinstance(change.new, Binding):
            roots[number(change.slot)] = change.new.root
        if len(roots) * ENTRY.size > PAGE:
            raise NoRoom(f"the table of {key} is full")
        if not roots:
            change.guest.free(Run(page, 1))
            context.rows.delete(TABLE, key)
        else:
            if page is None:
                page = change.guest.allocate_run(1)
                context.rows.put(TABLE, key, page)
            words = b"".join(ENTRY.pack(*entry) for entry in sorted(roots.items()))
            change.guest.write(page, words.ljust(PAGE, b"\0"))
    return sim.iommuctl_install(context, change)


@hookimpl
def iommuctl_check(context: Context, request: CheckRequest) -> list[str]:
    problems = sim.iommuctl_check(context, request)
    for rid, guest in request.guests.items():
        bound = {
            number(slot): held.root
            for slot, held in request.slots.items()
            if slot.rid == rid and isinstance(held, Binding)
        }
        if entries(guest, context.rows.get(TABLE, str(rid))) != bound:
            problems.append(f"the table of {rid} in guest memory does not lead to its page tables")
    return problems


def number(slot: Slot) -> int:
    return 1 + (slot.pasid or 0)


def entries(guest: Memory, page: int) -> dict[int, int]:
    return {key: root for key, root in ENTRY.iter_unpack(guest.read(page, PAGE)) if key}

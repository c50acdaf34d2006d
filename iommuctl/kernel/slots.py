# SPDX-License-Identifier: Apache-2.0
"""Slots: which HWPT is attached to a device or to one of its PASIDs, and the nested HWPT of each binding."""

from typing import Any

from iommuctl.errors import InUse
from iommuctl.hookspecs import InvalidateRequest, SlotChange
from iommuctl.iommufd import uapi
from iommuctl.kernel import objects
from iommuctl.kernel.domains import hwpt
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.vendor import Port
from iommuctl.model import Binding, Command, Occupant, Slot


def install(machine: Machine, change: SlotChange) -> None:
    """Attach, replace, bind, unbind, detach. What the slot held before is destroyed after the commit.

    Raises KernelRefused, DeviceNotBound, Lost; InUse for a slot that devices of one group cannot share.
    """
    slot, records = change.slot, machine.records
    if change.new is None and machine.lost():
        # What is to be taken away went with the rest.
        records.put_slot(slot, None)
        return
    port = machine.devices.port(slot.rid)
    before = records.slot(slot)
    _check_siblings(machine, change)
    machine.intend({"slot": [str(slot.rid), slot.pasid]})
    if change.new is None:
        port.detach(slot.pasid)
        records.put_slot(slot, None)
    else:
        record = make(machine, port, change.new)
        port.attach(record["pt"], slot.pasid)
        records.put_slot(slot, record)
    if before and before["nested"]:
        objects.destroy_later(machine, before["pt"])


def make(machine: Machine, port: Port, held: Occupant) -> dict[str, Any]:
    """The record of a slot that is to hold this: the domain's HWPT, or a new one nested on it."""
    table = hwpt(machine, held.domain, port)
    if not isinstance(held, Binding):
        return {"pt": table, "nested": False}
    payload = machine.vendor.payload(held)
    flags = uapi.IOMMU_HWPT_ALLOC_PASID if port.pasid_bits and machine.vendor.parents_take_pasids else 0
    iommufd = machine.iommufd
    nested = objects.make(
        machine,
        lambda: iommufd.hwpt_alloc(port.dev_id, table, flags, data_type=payload.type, data=payload.data),
    )
    return {"pt": nested, "nested": True}


def reinstall(machine: Machine, slot: Slot) -> None:
    """Bring the kernel to what the row of a slot says."""
    record = machine.records.slot(slot)
    if record is None and machine.records.device(slot.rid) is None:
        return
    port = machine.devices.port(slot.rid)
    if record is None:
        port.detach(slot.pasid)
    else:
        port.attach(record["pt"], slot.pasid)


def invalidate(machine: Machine, request: InvalidateRequest) -> None:
    """One call for each binding, as each has a HWPT of its own; the kernel flushes device TLBs by itself."""
    span = None if request.first is None or request.last is None else (request.first, request.last)
    entries = machine.vendor.invalidations(span, leaf=request.leaf)
    for binding in request.bindings:
        record = machine.records.slot(binding.slot)
        assert record
        for entry in entries:
            machine.context.log(Command(entry.name, entry.raw, entry.fields))
        machine.iommufd.hwpt_invalidate(
            record["pt"], machine.vendor.invalidation_type, [entry.raw for entry in entries]
        )


def _check_siblings(machine: Machine, change: SlotChange) -> None:
    """The kernel has one table for all devices of an IOMMU group, but for their PASIDs."""
    if change.slot.pasid is not None or change.new is None:
        return
    (device,) = machine.devices.find(change.slot.rid)
    others = [Slot(rid) for rid in device.siblings if machine.records.slot(Slot(rid))]
    if not others:
        return
    table = machine.records.domain(change.new.domain)["hwpts"].values()
    for other in others:
        record = machine.records.slot(other)
        assert record
        if isinstance(change.new, Binding) or record["pt"] not in table:
            raise InUse(
                f"{change.slot} shares its IOMMU group with {other}, which holds something else",
                because="the kernel has one table for the devices of a group",
                hint=f"detach {other} first, or attach both to one domain",
            )

# SPDX-License-Identifier: Apache-2.0
"""Slots: which HWPT is attached to a device or to one of its PASIDs. How page tables nest is for derived classes.

`NestedBySlot` is for IOMMUs where each binding has a nested HWPT of its own, in its own slot.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from iommuctl.errors import InUse
from iommuctl.hookspecs import CheckRequest, InvalidateRequest, SlotChange, Truth
from iommuctl.iommufd import uapi
from iommuctl.kernel import fault_queues, objects
from iommuctl.kernel.domains import disown, hwpt, own_hwpt
from iommuctl.kernel.vendor import Port
from iommuctl.model import Binding, Command, Occupant, Slot
from iommuctl.page_requests import ended

if TYPE_CHECKING:
    from iommuctl.kernel.machine import Machine


class Payload(NamedTuple):
    """What a nested HWPT is made of: a number IOMMU_HWPT_DATA_*, and the vendor's structure."""

    type: int
    data: bytes


class Entry(NamedTuple):
    """One request to invalidate, as the kernel takes it, with the vendor's name for it and its fields."""

    name: str
    raw: bytes
    fields: dict[str, int]


class KernelSlots(ABC):
    """Slots that domains are in. `Slots` of iommuctl.kernel.vendor says what each method is for."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine

    @abstractmethod
    def invalidate(self, request: InvalidateRequest) -> None:
        """As the hook."""

    def install(self, change: SlotChange) -> None:
        slot, machine, records = change.slot, self.machine, self.machine.records
        before = records.slot(slot)
        if change.new is None and machine.lost():
            # What is to be taken away went with the rest.
            records.put_slot(slot, None)
            self._take_down(change.old, before)
            return
        port = machine.devices.port(slot.rid)
        self._check_siblings(change)
        machine.intend({"slot": [str(slot.rid), slot.pasid]})
        record = self.made(port, change.new, queued=change.page_requests) if change.new else None
        if before and "queue" in before:
            machine.intend(ended(slot))
        if record is None:
            port.detach(slot.pasid)
        else:
            port.attach(record["pt"], slot.pasid)
        records.put_slot(slot, record)
        self._take_down(change.old, before)

    def _take_down(self, old: Occupant | None, before: dict[str, Any] | None) -> None:
        """What was made for a slot alone goes, the queue of its page requests after the table that it was made with."""
        if old is None or before is None or not before["nested"]:
            return
        if not isinstance(old, Binding):
            disown(self.machine, old.domain, before["pt"])
        objects.destroy_later(self.machine, before["pt"])
        if "queue" in before:
            fault_queues.destroy_later(self.machine, before)

    def repair(self, slot: Slot) -> None:
        record = self.machine.records.slot(slot)
        if record is None and self.machine.records.device(slot.rid) is None:
            return
        port = self.machine.devices.port(slot.rid)
        if record is None:
            port.detach(slot.pasid)
        else:
            port.attach(record["pt"], slot.pasid)

    def recover(self, truth: Truth) -> None:
        for held in in_order(truth):
            self.put_back(held, queued=held.slot in truth.page_requests)

    def put_back(self, held: Occupant, *, queued: bool = False) -> None:
        """Put into a slot again what the rows say."""
        port = self.machine.devices.port(held.slot.rid)
        record = self.made(port, held, queued=queued)
        port.attach(record["pt"], held.slot.pasid)
        self.machine.records.put_slot(held.slot, record)

    def refresh(self, intent: dict[str, Any]) -> None:
        raise TypeError(f"no intent of these slots is {intent}")

    def problems(self, request: CheckRequest) -> list[str]:
        return [problem for slot in request.slots for problem in self.missing(slot)]

    def missing(self, slot: Slot) -> Iterator[str]:
        """A sentence about a slot that should have a row of its own and has none."""
        if self.machine.records.slot(slot) is None:
            yield f"{slot} is attached, but no HWPT is known that would be in it"

    def made(self, port: Port, held: Occupant, *, queued: bool) -> dict[str, Any]:
        """The record of a slot that is to hold a domain: the domain's HWPT, or one with a queue of page requests."""
        if not queued:
            return {"pt": hwpt(self.machine, held.domain, port), "nested": False}
        queue = fault_queues.make(self.machine)
        return {"pt": own_hwpt(self.machine, held.domain, port, held.slot, queue["queue"]), "nested": True, **queue}

    def _check_siblings(self, change: SlotChange) -> None:
        """The kernel has one table for all devices of an IOMMU group, but for their PASIDs."""
        if change.slot.pasid is not None or change.new is None:
            return
        records = self.machine.records
        (device,) = self.machine.devices.find(change.slot.rid)
        others = [Slot(rid) for rid in device.siblings if records.slot(Slot(rid))]
        if not others:
            return
        table = records.domain(change.new.domain)["hwpts"].values()
        for other in others:
            record = records.slot(other)
            assert record
            own = isinstance(change.new, Binding) or change.page_requests or record["nested"]
            if own or record["pt"] not in table:
                raise InUse(
                    f"{change.slot} shares its IOMMU group with {other}, which holds something else",
                    because="the kernel has one table for the devices of a group"
                    + (", and one with a queue of page requests is one slot's own" if change.page_requests else ""),
                    hint=f"detach {other} first, or attach both to one domain",
                )


def in_order(truth: Truth) -> list[Occupant]:
    """What slots hold, that of each RID before that of its PASIDs."""
    return [truth.slots[slot] for slot in sorted(truth.slots, key=lambda slot: (slot.rid, slot.pasid or 0))]


class NestedBySlot(KernelSlots):
    """Slots of IOMMUs that nest each slot on its own parent; the vendor says by which payloads."""

    invalidation_type: int
    """IOMMU_HWPT_INVALIDATE_DATA_* of `entries`."""

    @abstractmethod
    def payload(self, binding: Binding) -> Payload:
        """What makes the nested HWPT of a binding. Raises Unsupported."""

    @abstractmethod
    def entries(self, span: tuple[int, int] | None, *, leaf: bool) -> Sequence[Entry]:
        """The requests for one nested HWPT: input addresses first..last, or everything."""

    def made(self, port: Port, held: Occupant, *, queued: bool) -> dict[str, Any]:
        """The domain's HWPT, or for a binding a new one that is nested on it."""
        if not isinstance(held, Binding):
            return super().made(port, held, queued=queued)
        machine, payload = self.machine, self.payload(held)
        parent = hwpt(machine, held.domain, port)
        if not machine.dry:
            # The device is led to the table now, before the commit.
            machine.context.write_out()
        queue = fault_queues.make(machine) if queued else {}
        flags = uapi.IOMMU_HWPT_ALLOC_PASID if port.pasid_bits and machine.vendor.parents_take_pasids else 0
        flags |= uapi.IOMMU_HWPT_FAULT_ID_VALID if queued else 0
        iommufd, fault_id = machine.iommufd, queue.get("queue", 0)

        def alloc() -> int:
            kind, data = payload
            return iommufd.hwpt_alloc(port.dev_id, parent, flags, data_type=kind, data=data, fault_id=fault_id)

        return {"pt": objects.make(machine, alloc), "nested": True, **queue}

    def invalidate(self, request: InvalidateRequest) -> None:
        """One call for each binding, as each has a HWPT of its own; the kernel flushes device TLBs by itself."""
        machine = self.machine
        span = None if request.first is None or request.last is None else (request.first, request.last)
        entries = self.entries(span, leaf=request.leaf)
        for binding in request.bindings:
            record = machine.records.slot(binding.slot)
            assert record
            for entry in entries:
                machine.context.log(Command(entry.name, entry.raw, entry.fields))
            machine.iommufd.hwpt_invalidate(record["pt"], self.invalidation_type, [entry.raw for entry in entries])

# SPDX-License-Identifier: Apache-2.0
"""Slots on real hardware. Domains are the kernel's affair; what nests is per device: one stage 2, and CDs below it."""

import errno
from collections.abc import Iterator
from typing import Any

from iommuctl.audit import some
from iommuctl.errors import CannotNest, KernelRefused
from iommuctl.hookspecs import CheckRequest, InvalidateRequest, SlotChange, Truth
from iommuctl.kernel import viommus
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.slots import KernelSlots, in_order
from iommuctl.model import Binding, Domain, Occupant, Rid, Slot
from iommuctl_smmuv3 import host
from iommuctl_smmuv3.audit import audit_contexts
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.guest_contexts import CONTEXT_FORMATS, Forgotten, GuestContexts
from iommuctl_smmuv3.streams import Stream, Streams, parent_of, stream_id
from iommuctl_smmuv3.submission import logged
from iommuctl_smmuv3.viommu_commands import everything, phases, send


class SmmuSlots(KernelSlots):
    """Slots of SMMUv3. The row of a RID's slot has `ste` besides, the words that its nested HWPT was made of.

    A PASID that a page table is bound to has no row of its own: it is a CD below what its RID holds.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._rows = machine.context.rows
        self._streams = Streams(self._rows)

    def install(self, change: SlotChange) -> None:
        slot, old, new = change.slot, change.old, change.new
        stream = self._streams.get(slot.rid)
        bound = [held for held in (old, new) if isinstance(held, Binding)]
        if bound or (slot.pasid is None and stream and stream.cds):
            self._install_below(change, foreign=any(held.format in CONTEXT_FORMATS for held in bound))
        else:
            super().install(change)
            if slot.pasid is None:
                self._note_parent(slot.rid, new)
        parent = parent_of(old)
        if slot.pasid is None and parent and parent_of(new) != parent:
            viommus.release(self.machine, slot.rid)

    def _install_below(self, change: SlotChange, *, foreign: bool) -> None:
        machine, rid, held = self.machine, change.slot.rid, change.new or change.old
        assert held
        if change.new is None and machine.lost():
            # What is to be taken away went with the rest: only rows tell of it.
            guest = Forgotten(change.guest) if change.guest else None
            device = machine.records.device(rid)
            assert device
            contexts = GuestContexts(machine, None, held.domain, self._features(device["unit"]))
            (contexts.install_foreign if foreign else contexts.install)(change._replace(guest=guest))
            if change.slot.pasid is None:
                machine.records.put_slot(change.slot, None)
            return
        unit = machine.devices.port(rid).unit
        if isinstance(change.new, Binding) and (because := host.records(self._rows)[unit]["obstacle"]):
            raise CannotNest(f"no page table can be nested on {held.domain.name}", because=because)
        # What changes is the RID's table, whichever PASID is bound.
        self._check_siblings(change._replace(slot=Slot(rid)))
        machine.intend({"slot": [str(rid), None]})
        contexts = self._contexts(rid, held.domain)
        (contexts.install_foreign if foreign else contexts.install)(change)

    def _note_parent(self, rid: Rid, held: Occupant | None) -> None:
        """What is known of a device that has no CDs in guest memory."""
        parent = parent_of(held)
        if held is None or parent is None:
            self._streams.remove(rid)
            return
        port = self.machine.devices.port(rid)
        features = self._features(port.unit)
        stream = Stream(port.ats and features.ats, min(port.pasid_bits, features.ssid_bits))
        contexts = GuestContexts(self.machine, port, parent, features)
        self._streams.put(rid, contexts.below(stream, held))

    def _contexts(self, rid: Rid, parent: Domain) -> GuestContexts:
        port = self.machine.devices.port(rid)
        return GuestContexts(self.machine, port, parent, self._features(port.unit))

    def _features(self, unit: str) -> Features:
        return host.features_of(host.records(self._rows)[unit])

    # Caches

    def invalidate(self, request: InvalidateRequest) -> None:
        """For each unit one call for each kind of command, whichever bindings it is about."""
        by_unit: dict[str, tuple[int, list[int]]] = {}
        for binding in request.bindings:
            contexts = self._contexts(binding.slot.rid, binding.domain)
            unit, viommu, raws = contexts.invalidation(binding, request)
            by_unit.setdefault(unit, (viommu, []))[1].extend(raws)
        for viommu, raws in by_unit.values():
            for batch in phases(raws):
                for raw in batch:
                    self.machine.context.log(logged(raw))
                send(self.machine, viommu, batch)

    def refresh(self, intent: dict[str, Any]) -> None:
        # A vIOMMU that no row names is there as yet: what was made and is not wanted goes last.
        viommu, name = intent["stale"]
        rid = Rid.parse(name)
        known, stream = self.machine.records.vdevice(rid), self._streams.get(rid)
        raws = everything(stream_id(rid), ats=bool(stream and stream.ats), substreams=bool(stream and stream.bits))
        try:
            for batch in phases(raws):
                send(self.machine, viommu, batch, with_device=known is not None and known["viommu"] == viommu)
        except KernelRefused as refused:
            # With the vIOMMU went the parent, and whatever was cached of it.
            if refused.errno != errno.ENOENT:
                raise

    # Looking after them

    def recover(self, truth: Truth) -> None:
        for held in in_order(truth):
            stream, rid = self._streams.get(held.slot.rid), held.slot.rid
            if held.slot.pasid is None and stream and stream.contexts:
                below = {each.slot.pasid or 0: each for each in truth.slots.values() if each.slot.rid == rid}
                self._contexts(rid, held.domain).build_again(rid, stream, below, truth.guests.get(rid))
            elif held.slot.pasid is None or not isinstance(held, Binding):
                self.put_back(held)

    def problems(self, request: CheckRequest) -> list[str]:
        return [*some(self._problems(request))]

    def _problems(self, request: CheckRequest) -> Iterator[str]:
        for slot, held in request.slots.items():
            if slot.pasid is None or not isinstance(held, Binding):
                yield from self.missing(slot)
            if slot.pasid is None and (stream := self._streams.get(slot.rid)) and stream.contexts:
                contexts = self._contexts(slot.rid, held.domain)
                record = self.machine.records.slot(slot)
                if record and record.get("ste") != list(contexts.stage_1_words(stream)):
                    yield f"{slot} was given another STE than rows tell"
                guest = request.guests.get(slot.rid)
                table = contexts.table(slot.rid, stream, guest)
                if table and guest and not stream.foreign:
                    yield from audit_contexts(contexts, table, guest, slot.rid, request)

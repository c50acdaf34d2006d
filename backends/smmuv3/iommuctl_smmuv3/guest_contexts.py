# SPDX-License-Identifier: Apache-2.0
"""CDs in guest memory on real hardware, to which the kernel leads a device by the first words of an STE of ours.

Of that STE the kernel takes what is about stage 1 (`iommu_hwpt_arm_smmuv3`); stage 2 is the parent's. A change of it is
a new nested HWPT. Commands go through the vIOMMU, when memory has been written. The kernel itself sends those about
what it manages: STEs, stage 2, and what a device had cached that it attaches anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iommuctl.errors import Misaligned
from iommuctl.formats.memory import Run, TableMemory
from iommuctl.hookspecs import InvalidateRequest, SlotChange
from iommuctl.kernel import objects, viommus
from iommuctl.kernel.domains import hwpt
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.vendor import Port
from iommuctl.model import Binding, Domain, Occupant, Rid, Slot
from iommuctl_smmuv3 import host, uapi
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.guest_entry import stage_1_entry
from iommuctl_smmuv3.invalidation import Span, Target, commands
from iommuctl_smmuv3.kernel_tags import SOME_VMID, KernelTags
from iommuctl_smmuv3.rules import INVALIDATIONS, Change, Scope
from iommuctl_smmuv3.slots import NO_TAG, Slots
from iommuctl_smmuv3.ste import LINEAR, Ste, cd_table_size
from iommuctl_smmuv3.streams import Stream, Streams, stream_id, uses_stage_1
from iommuctl_smmuv3.submission import logged
from iommuctl_smmuv3.tables import PageTables
from iommuctl_smmuv3.tags import Tag
from iommuctl_smmuv3.viommu_commands import everything, phases, send

CONTEXT_FORMATS = ("cd-table",)
"""A linear CD table that the guest owns, with room for all PASIDs of the device."""
_BY_THE_KERNEL = {Scope.EVERY_STREAM, Scope.BUS, Scope.STREAM, Scope.IPAS}
_ATTACHED_ANEW = {Change.STAGE_2_LEFT, Change.STAGE_2_COVERED}
"""Changes with which the kernel clears the device's own TLB."""


class GuestContexts(Slots):
    """What a device's slots hold below its parent; without a port, where the kernel's objects are lost."""

    def __init__(self, machine: Machine, port: Port | None, parent: Domain, features: Features) -> None:
        super().__init__(self)
        self._machine = machine
        self._port = port
        self._parent = parent
        self._pending: list[int] = []
        self.memory = machine.context.memory
        self.rows = machine.context.rows
        self.features = features
        self.page_tables = PageTables(features)
        self.tags = KernelTags(self.rows, host.all_features(self.rows))
        self.streams = Streams(self.rows)

    def domain_root(self, domain: Domain) -> int:
        raise TypeError(f"{domain.name} is a table that the kernel manages")

    def install(self, change: SlotChange) -> None:
        super().install(change)
        if self._port and self._pending:
            self._send_after_commit(self._port, change.slot.rid, self._pending)

    def below(self, stream: Stream, held: Occupant) -> Stream:
        """The stream of a device whose RID holds the parent alone."""
        return self._following(stream, held.slot, None, held)

    def install_foreign(self, change: SlotChange) -> None:
        """Lead a RID to a CD table that the guest owns, or away from it. Raises Misaligned."""
        rid, new = change.slot.rid, change.new
        before = self.stream(rid)
        stream = self._following(before._replace(foreign=False, pointer=None, nested=False), change.slot, None, new)
        if isinstance(new, Binding):
            size = cd_table_size(LINEAR, before.bits)
            if new.root % size:
                raise Misaligned(
                    f"the CD table's address {new.root:#x} is not a multiple of {size:#x}",
                    because=f"that is the size of a linear table for PASIDs of {before.bits} bits",
                )
            stream = stream._replace(foreign=True, pointer=new.root, cd_bits=before.bits, nested=True, cds=0)
        self.enter(rid, stream)
        if change.old:
            self.announce(Change.PAGE_TABLE_LEFT, change.slot, Tag(SOME_VMID))
        self.streams.put(rid, stream)
        if self._port and self._pending:
            self._send_after_commit(self._port, rid, self._pending)

    def build_again(self, rid: Rid, stream: Stream, below: Mapping[int, Occupant], guest: TableMemory | None) -> None:
        """After all was lost: CDs where they were, and what leads to them."""
        table = self.table(rid, stream, guest)
        if table and not stream.foreign:
            table.write_again({number: self.context(held) for number, held in below.items() if uses_stage_1(held)})
        self._machine.records.put_slot(Slot(rid), None)
        self.enter(rid, stream)
        if self._port and self._pending:
            self._send_after_commit(self._port, rid, self._pending)

    def stage_1_words(self, stream: Stream) -> tuple[int, int]:
        """The 64-bit words of the STE that the kernel takes."""
        low, high, *_ = Ste.to_words(stage_1_entry(self.features, stream))
        return low, high

    def enter(self, rid: Rid, stream: Stream) -> None:
        machine, port, slot = self._machine, self._port, Slot(rid)
        if port is None:
            return
        before = machine.records.slot(slot)
        words = list(self.stage_1_words(stream)) if stream.contexts else None
        if words and before and before.get("ste") == words:
            return
        if stream.parent is None:
            port.detach()
            machine.records.put_slot(slot, None)
        else:
            table = hwpt(machine, self._parent, port)
            record: dict[str, Any] = {"pt": table, "nested": False}
            if words:
                record = {"pt": self._nested(port, rid, words), "nested": True, "ste": words}
                self._intend_refresh(port, rid)
            port.attach(record["pt"])
            machine.records.put_slot(slot, record)
        if before and before["nested"]:
            objects.destroy_later(machine, before["pt"])

    def _nested(self, port: Port, rid: Rid, words: Sequence[int]) -> int:
        machine, dev_id = self._machine, port.dev_id
        viommu = viommus.viommu(machine, self._parent, port, uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3)
        viommus.vdevice(machine, rid, viommu, stream_id(rid))
        if not machine.dry and not machine.context.write_out():
            # What the device finds there until the commit must not outlive it in a cache.
            stream = stream_id(rid)
            self._pending += everything(stream, ats=port.ats, substreams=bool(port.pasid_bits))
        data = b"".join(word.to_bytes(8, "little") for word in words)
        kind, iommufd = uapi.IOMMU_HWPT_DATA_ARM_SMMUV3, machine.iommufd
        return objects.make(machine, lambda: iommufd.hwpt_alloc(dev_id, viommu, data_type=kind, data=data))

    # Caches

    def announce(self, change: Change, slot: Slot, tag: Tag = NO_TAG) -> None:
        self._require(change, Target(slot, tag))

    def _require(self, change: Change, target: Target) -> None:
        for scope in self._scopes(change, target.slot):
            self._pending += commands(scope, target, self.features)

    def _scopes(self, change: Change, slot: Slot) -> Iterator[Scope]:
        for scope in INVALIDATIONS[change]:
            if scope.cache == "device_tlb" and (change in _ATTACHED_ANEW or not self.stream(slot.rid).ats):
                continue
            if scope not in _BY_THE_KERNEL:
                # Of a VMID, the kernel leaves to us what came of stage 1.
                yield Scope.STAGE_1_OF_VMID if scope is Scope.VMID else scope

    def invalidation(self, binding: Binding, request: InvalidateRequest) -> tuple[str, int, list[int]]:
        """The unit, the vIOMMU, and the commands that a page table's change takes."""
        assert self._port
        unit = self._port.unit
        found = self._machine.records.viommu(self._parent.id, unit)
        assert found
        span, change = None, Change.PAGE_TABLE_LEFT
        if binding.format in CONTEXT_FORMATS:
            rid, stream = binding.slot.rid, self.stream(binding.slot.rid)
            return unit, found["id"], everything(stream_id(rid), ats=stream.ats, substreams=bool(stream.bits))
        if request.first is not None and request.last is not None:
            granule = self.page_tables.named(binding.format).page_sizes[0]
            span, change = Span(request.first, request.last, request.leaf, granule), Change.STAGE_1_REMOVED
        self._pending = []
        self._require(change, Target(binding.slot, self.tags.of(binding), span))
        return unit, found["id"], self._pending

    def _intend_refresh(self, port: Port, rid: Rid) -> None:
        """Note that caches may come to have what will not be so."""
        found = self._machine.records.viommu(self._parent.id, port.unit)
        assert found
        self._machine.intend({"stale": [found["id"], str(rid)]})

    def _send_after_commit(self, port: Port, rid: Rid, pending: Sequence[int]) -> None:
        machine, unit = self._machine, port.unit
        found = machine.records.viommu(self._parent.id, unit)
        if found is None:
            return
        batches = [list(batch) for batch in phases(pending)]
        for raw in (raw for batch in batches for raw in batch):
            machine.context.log(logged(raw))
        self._intend_refresh(port, rid)

        def tell() -> None:
            known = machine.records.vdevice(rid)
            for batch in batches:
                send(machine, found["id"], batch, with_device=known is not None and known["viommu"] == found["id"])

        if machine.dry:
            tell()
        else:
            machine.context.after_commit(tell)


class Forgotten:
    """Guest memory that is lost: what is written to it goes nowhere, pages go back to their pool."""

    def __init__(self, memory: TableMemory) -> None:
        self._memory = memory

    def read(self, address: int, size: int) -> bytes:  # noqa: ARG002
        return bytes(size)

    def write(self, address: int, data: bytes) -> None:
        """Nobody would read it."""

    def allocate(self, pages: int) -> list[Run]:
        return self._memory.allocate(pages)

    def allocate_run(self, pages: int) -> int:
        return self._memory.allocate_run(pages)

    def free(self, run: Run) -> None:
        self._memory.free(run)

# SPDX-License-Identifier: Apache-2.0
"""The driver's end of the invalidation queue: which descriptors a change needs, and how they are submitted.

VT-d 4.1 sections 6.5.2 and 6.5.3.3. An IOTLB invalidation has completed before a device TLB is told (6.5.2.5).
"""

from collections.abc import Iterable
from typing import NamedTuple

from iommuctl.architecture import Unit
from iommuctl.errors import DamagedTable
from iommuctl.hookspecs import Context
from iommuctl.model import Command, Slot
from iommuctl_vtd.capability import Capability
from iommuctl_vtd.invalidation import (
    DESCRIPTORS,
    ContextCacheInvalidate,
    DeviceTlbInvalidate,
    InvalidationWait,
    IotlbInvalidate,
    PasidCacheInvalidate,
    PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate,
    covering_block,
    device_tlb_range,
)
from iommuctl_vtd.queue import descriptor_size
from iommuctl_vtd.registers import FSTS, IQA, IQERCD

QUEUE_PAGES = 2
EVERYTHING = (0, (1 << 64) - 1)
_FIRST_STAGE_LIMIT = 52
"""A block of first-stage addresses that is larger is all of the PASID's."""


class Span(NamedTuple):
    """Addresses first..last, and whether only leaf entries for them changed."""

    first: int
    last: int
    leaf: bool


class CommandQueue:
    """The ring in memory, as the driver fills it."""

    def __init__(self, context: Context, unit: Unit, status: int) -> None:
        self._context = context
        self._unit = unit
        self._status = status

    def submit(self, descriptors: Iterable[int]) -> None:
        """Queue these and a wait, ring the doorbell, and see the wait completed.

        Raises DamagedTable when the unit refuses one, which only foreign writes to the ring can bring about.
        """
        pending = list(descriptors)
        if not pending:
            return
        memory = self._context.memory
        done = (int.from_bytes(memory.read(self._status, 4), "little") + 1) & 0xFFFF_FFFF
        pending.append(InvalidationWait.encode(SW=1, STDATA=done, STADDR=self._status))
        iqa = self._unit.read_register("IQA")
        ring, length = IQA.IQA.get(iqa), descriptor_size(iqa)
        tail, size = self._unit.read_register("IQT"), QUEUE_PAGES * 4096
        room = size // length - 1
        for start in range(0, len(pending), room):
            for raw in pending[start : start + room]:
                data = raw.to_bytes(length, "little")
                memory.write(ring + tail, data)
                tail = (tail + length) % size
                layout = DESCRIPTORS[raw & 0xF]
                self._context.log(Command(layout.name, data, layout.values(raw)))
            self._unit.write_register("IQT", tail)
        if FSTS.IQE.get(self._unit.read_register("FSTS")):
            info = IQERCD.IQEI.get(self._unit.read_register("IQERCD"))
            raise DamagedTable("the unit stopped at a descriptor of its queue", because=IQERCD.IQEI.values[info])
        if int.from_bytes(memory.read(self._status, 4), "little") != done:
            raise DamagedTable("the unit did not complete an invalidation", because="its wait was not answered")


def context_device(source_id: int, did: int = 0) -> int:
    """Forget the context entry of a device. In scalable mode the DID is ignored."""
    return ContextCacheInvalidate.encode(G=3, SID=source_id, DID=did)


def pasid_entry(did: int, pasid: int) -> int:
    """Forget one PASID table entry."""
    return PasidCacheInvalidate.encode(G=1, DID=did, PASID=pasid)


def all_pasid_entries() -> int:
    """Forget the PASID directory and table entries of all devices."""
    return PasidCacheInvalidate.encode(G=3)


def everything(capability: Capability, *pasid_cache: int) -> list[int]:
    """Forget all, in the order that a new root table asks for."""
    return [all_contexts(), *pasid_cache, IotlbInvalidate.encode(G=1, **capability.drains)]


def all_contexts() -> int:
    """Forget the context entries of all devices."""
    return ContextCacheInvalidate.encode(G=1)


def iotlb_domain(capability: Capability, did: int) -> int:
    """Forget everything under a DID."""
    return IotlbInvalidate.encode(G=2, DID=did, **capability.drains)


def iotlb_pages(capability: Capability, did: int, span: Span) -> int:
    """Forget second-stage addresses under a DID: the smallest block that covers them, else the whole DID."""
    address, order = covering_block(span.first, span.last)
    if order > capability.max_address_mask:
        return iotlb_domain(capability, did)
    return IotlbInvalidate.encode(G=3, DID=did, AM=order, IH=span.leaf, ADDR=address, **capability.drains)


def pasid_iotlb(did: int, pasid: int, span: Span | None) -> int:
    """Forget first-stage addresses of one PASID under a DID: the smallest block that covers them, or all."""
    if span:
        address, order = covering_block(span.first, span.last)
        if order + 12 < _FIRST_STAGE_LIMIT:
            return PasidIotlbInvalidate.encode(G=3, DID=did, PASID=pasid, AM=order, IH=span.leaf, ADDR=address)
    return PasidIotlbInvalidate.encode(G=2, DID=did, PASID=pasid)


def device_tlb(slot: Slot, span: Span | None) -> int:
    """Have a device forget input addresses of one slot, or all of them."""
    first, last = (span.first, span.last) if span else EVERYTHING
    address, s = device_tlb_range(*covering_block(first, last))
    source = slot.rid.source_id
    if slot.pasid is None:
        return DeviceTlbInvalidate.encode(SID=source, S=s, ADDR=address)
    return PasidDeviceTlbInvalidate.encode(SID=source, PASID=slot.pasid, S=s, ADDR=address)

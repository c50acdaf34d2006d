# SPDX-License-Identifier: Apache-2.0
"""The driver's end of the invalidation queue: the descriptors of each scope, and how they are submitted.

VT-d 4.1 section 6.5.2. What a change requires is in `rules`.
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
from iommuctl_vtd.queue import WIDE, descriptor_size
from iommuctl_vtd.registers import FSTS, IQA, IQERCD
from iommuctl_vtd.rules import Scope

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
                command = logged(raw, length)
                memory.write(ring + tail, command.raw)
                tail = (tail + length) % size
                self._context.log(command)
            self._unit.write_register("IQT", tail)
        status, record = (self._unit.read_register(name) for name in ("FSTS", "IQERCD"))
        if FSTS.IQE.get(status):
            because = IQERCD.IQEI.values[IQERCD.IQEI.get(record)]
            raise DamagedTable("the unit stopped at a descriptor of its queue", because=because)
        if FSTS.ITE.get(status):
            because = f"the device with source id {IQERCD.ITESID.get(record):#06x} did not answer in time"
            raise DamagedTable("the unit did not complete an invalidation of a device TLB", because=because)
        if int.from_bytes(memory.read(self._status, 4), "little") != done:
            raise DamagedTable("the unit did not complete an invalidation", because="its wait was not answered")


class Target(NamedTuple):
    """What a command is about: a slot, the PASID and DID that tag its translations, and addresses (None is all)."""

    slot: Slot
    pasid: int
    did: int
    span: Span | None = None


def command(scope: Scope, target: Target, capability: Capability) -> int:  # noqa: PLR0911
    """The descriptor for a scope of the table of rules.

    Pages are the smallest aligned block that covers the addresses, or what is next wider where the unit cannot.
    """
    slot, pasid, did, span = target
    match scope:
        case Scope.ALL_CONTEXTS:
            return ContextCacheInvalidate.encode(G=1)
        case Scope.DEVICE_CONTEXT:
            # In scalable mode the DID is ignored.
            return ContextCacheInvalidate.encode(G=3, SID=slot.rid.source_id, DID=did)
        case Scope.ALL_PASIDS:
            return PasidCacheInvalidate.encode(G=3)
        case Scope.ONE_PASID:
            return PasidCacheInvalidate.encode(G=1, DID=did, PASID=pasid)
        case Scope.ALL_TRANSLATIONS:
            return IotlbInvalidate.encode(G=1, **capability.drains)
        case Scope.DOMAIN:
            return IotlbInvalidate.encode(G=2, DID=did, **capability.drains)
        case Scope.DOMAIN_PAGES:
            return _iotlb_pages(capability, did, span)
        case Scope.PASID_PAGES:
            return _pasid_iotlb(did, pasid, span)
        case Scope.DEVICE_TLB:
            return _device_tlb(slot, None)
        case Scope.DEVICE_TLB_PAGES:
            return _device_tlb(slot, span)


def logged(raw: int, size: int = WIDE) -> Command:
    """A descriptor as the log of commands has it, in `size` bytes."""
    layout = DESCRIPTORS[raw & 0xF]
    return Command(layout.name, raw.to_bytes(size, "little"), layout.values(raw))


def _iotlb_pages(capability: Capability, did: int, span: Span | None) -> int:
    if span:
        address, order = covering_block(span.first, span.last)
        if order <= capability.max_address_mask:
            return IotlbInvalidate.encode(G=3, DID=did, AM=order, IH=span.leaf, ADDR=address, **capability.drains)
    return IotlbInvalidate.encode(G=2, DID=did, **capability.drains)


def _pasid_iotlb(did: int, pasid: int, span: Span | None) -> int:
    if span:
        address, order = covering_block(span.first, span.last)
        if order + 12 < _FIRST_STAGE_LIMIT:
            return PasidIotlbInvalidate.encode(G=3, DID=did, PASID=pasid, AM=order, IH=span.leaf, ADDR=address)
    return PasidIotlbInvalidate.encode(G=2, DID=did, PASID=pasid)


def _device_tlb(slot: Slot, span: Span | None) -> int:
    first, last = (span.first, span.last) if span else EVERYTHING
    address, s = device_tlb_range(*covering_block(first, last))
    source = slot.rid.source_id
    if slot.pasid is None:
        return DeviceTlbInvalidate.encode(SID=source, S=s, ADDR=address)
    return PasidDeviceTlbInvalidate.encode(SID=source, PASID=slot.pasid, S=s, ADDR=address)

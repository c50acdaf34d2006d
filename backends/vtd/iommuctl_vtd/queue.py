# SPDX-License-Identifier: Apache-2.0
"""The invalidation queue as the unit consumes it: a ring in memory, checked and carried out one by one.

VT-d 4.1 section 6.5.2. Descriptors have 256 bits; in legacy mode 128, if IQA says so.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

from iommuctl.architecture import Bus, Completion
from iommuctl.errors import OutsideMemory
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory
from iommuctl_vtd.caches import Caches
from iommuctl_vtd.capability import ABORT_MODE, LEGACY_MODE, SCALABLE_MODE, Capability
from iommuctl_vtd.invalidation import (
    DESCRIPTORS,
    RESPONSES,
    ContextCacheInvalidate,
    DeviceTlbInvalidate,
    InvalidationWait,
    IotlbInvalidate,
    PageGroupResponse,
    PasidCacheInvalidate,
    PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate,
    device_tlb_block,
)
from iommuctl_vtd.registers import FSTS, IQA, IQERCD, RTADDR

LEGACY_TYPES = range(1, 6)
"""The types that are valid in legacy mode: VT-d 4.1 section 6.5.2.10."""
BAD_TAIL, BAD_FETCH, BAD_TYPE, BAD_FIELD, BAD_WIDTH, BAD_ALIGNMENT, BAD_MODE = 1, 2, 3, 4, 5, 6, 7
"""Values of IQERCD.IQEI."""

WIDE, NARROW = 32, 16
"""Bytes of a descriptor of 256 and of 128 bits."""


def descriptor_size(iqa: int) -> int:
    """How many bytes a descriptor has in the queue that register IQA describes."""
    return WIDE if IQA.DW.get(iqa) else NARROW


class QueueError(Exception):
    """The queue stops at a descriptor. `info` is the value of IQEI."""

    def __init__(self, info: int) -> None:
        super().__init__(info)
        self.info = info


class DeviceTimeout(Exception):
    """A device does not answer an invalidation of its TLB."""

    def __init__(self, source_id: int) -> None:
        super().__init__(source_id)
        self.source_id = source_id


class Outcome(NamedTuple):
    """What came of a run: the new head, bits to set in FSTS, IQERCD, and whether a wait asked for an interrupt."""

    head: int
    status: int
    record: int
    interrupt: bool


class Queue:
    """The queue that register IQA describes."""

    def __init__(self, memory: Memory, caches: Caches, bus: Bus, capability: Capability, iqa: int) -> None:
        self._memory = memory
        self._caches = caches
        self._bus = bus
        self._capability = capability
        self._base = IQA.IQA.get(iqa)
        self._size = 4096 << IQA.QS.get(iqa)
        self._descriptor = descriptor_size(iqa)
        self._legacy = False
        self._status = self._record = 0
        self._interrupt = False

    def run(self, head: int, tail: int, root: int) -> Outcome:
        """Consume from `head` up to `tail`, or up to the first descriptor that fails."""
        try:
            if tail >= self._size:
                raise QueueError(BAD_TAIL)
            # A head that is off by half a descriptor would never meet the tail.
            if (head | tail) % self._descriptor:
                raise QueueError(BAD_ALIGNMENT)
            self._check_mode(RTADDR.TTM.get(root))
            while head != tail:
                self._execute(self._fetch(head))
                head = self._after(head)
        except QueueError as error:
            self._status |= FSTS.IQE.mask
            self._record |= IQERCD.encode(IQEI=error.info)
        except DeviceTimeout as error:
            self._status |= FSTS.ITE.mask
            self._record |= IQERCD.encode(ITESID=error.source_id)
            head = self._abort(self._after(head), tail)
        return Outcome(head, self._status, self._record, self._interrupt)

    def _check_mode(self, mode: int) -> None:
        """Whether there are queues like this one in a table mode: VT-d 4.1 section 6.5.2.10."""
        self._legacy = mode == LEGACY_MODE
        if mode not in (LEGACY_MODE, SCALABLE_MODE) and not (mode == ABORT_MODE and self._capability.has("ADMS")):
            raise QueueError(BAD_MODE)
        if not self._legacy and self._descriptor != WIDE:
            raise QueueError(BAD_WIDTH)

    def _after(self, offset: int) -> int:
        return (offset + self._descriptor) % self._size

    def _abort(self, head: int, tail: int) -> int:
        """Pass the descriptors up to the next wait, which is pending and never completes. Returns the new head."""
        with contextlib.suppress(QueueError):
            while head != tail:
                raw = self._fetch(head)
                head = self._after(head)
                if _kind(raw) == InvalidationWait.TYPE.value:
                    break
        return head

    def _fetch(self, offset: int) -> int:
        try:
            return int.from_bytes(self._memory.read(self._base + offset, self._descriptor), "little")
        except OutsideMemory:
            raise QueueError(BAD_FETCH) from None

    def _execute(self, raw: int) -> None:
        kind = _kind(raw)
        layout = DESCRIPTORS.get(kind)
        if layout is None or (self._legacy and kind not in LEGACY_TYPES):
            raise QueueError(BAD_TYPE)
        if raw & self._capability.reserved(layout):
            raise QueueError(BAD_FIELD)
        # No interrupts are remapped, so commands about these have nothing to do.
        if carry_out := self._COMMANDS.get(layout):
            carry_out(self, raw)

    def _context_invalidate(self, raw: int) -> None:
        granularity, did = ContextCacheInvalidate.G.get(raw), ContextCacheInvalidate.DID.get(raw)
        source, mask = ContextCacheInvalidate.SID.get(raw), ContextCacheInvalidate.FM.get(raw)
        _check(granularity != 0)
        contexts, pasids = self._caches.contexts, self._caches.pasids
        if granularity == 3:
            contexts.drop_device(source, mask, did if self._legacy else None)
            pasids.drop_directories(source, mask)
        elif granularity == 2 and self._legacy:
            contexts.drop_domain(did)
        else:
            # Context entries of scalable mode have no DID.
            contexts.drop_all()
            pasids.drop_directories()

    def _pasid_invalidate(self, raw: int) -> None:
        granularity, did = PasidCacheInvalidate.G.get(raw), PasidCacheInvalidate.DID.get(raw)
        _check(granularity != 2)
        if granularity == 3:
            self._caches.pasids.drop_all()
        elif granularity == 1:
            self._caches.pasids.drop_pasid(did, PasidCacheInvalidate.PASID.get(raw))
        else:
            self._caches.pasids.drop_domain(did)

    def _iotlb_invalidate(self, raw: int) -> None:
        granularity, did = IotlbInvalidate.G.get(raw), IotlbInvalidate.DID.get(raw)
        _check(granularity != 0)
        iotlb, paging = self._caches.iotlb, self._caches.paging
        if granularity == 1:
            iotlb.drop_all()
            paging.drop_all()
        elif granularity == 2:
            iotlb.drop_domain(did)
            paging.drop_domain(did)
        else:
            address, mask = IotlbInvalidate.ADDR.get(raw), IotlbInvalidate.AM.get(raw)
            _check(mask <= self._capability.max_address_mask)
            first, last = _block(address, mask)
            iotlb.drop_domain_pages(did, first, last)
            paging.drop_domain_pages(did, first, last, leaf=bool(IotlbInvalidate.IH.get(raw)))

    def _pasid_iotlb_invalidate(self, raw: int) -> None:
        granularity = PasidIotlbInvalidate.G.get(raw)
        did, pasid = PasidIotlbInvalidate.DID.get(raw), PasidIotlbInvalidate.PASID.get(raw)
        _check(granularity in (2, 3))
        iotlb, paging = self._caches.iotlb, self._caches.paging
        if granularity == 2:
            iotlb.drop_pasid(did, pasid)
            paging.drop_pasid(did, pasid)
        else:
            first, last = _block(PasidIotlbInvalidate.ADDR.get(raw), PasidIotlbInvalidate.AM.get(raw))
            iotlb.drop_pasid_pages(did, pasid, first, last)
            paging.drop_pasid_pages(did, pasid, first, last, leaf=bool(PasidIotlbInvalidate.IH.get(raw)))

    def _device_tlb_invalidate(self, raw: int) -> None:
        source = DeviceTlbInvalidate.SID.get(raw)
        block = device_tlb_block(DeviceTlbInvalidate.ADDR.get(raw), DeviceTlbInvalidate.S.get(raw))
        self._complete(source, self._bus.invalidate(source, None, *block))

    def _pasid_device_tlb_invalidate(self, raw: int) -> None:
        descriptor = PasidDeviceTlbInvalidate
        source, pasid = descriptor.SID.get(raw), descriptor.PASID.get(raw)
        block = device_tlb_block(descriptor.ADDR.get(raw), descriptor.S.get(raw))
        if descriptor.G.get(raw):
            self._complete(source, self._bus.invalidate_pasids(source, *block))
        else:
            self._complete(source, self._bus.invalidate(source, pasid, *block))

    def _complete(self, source: int, completion: Completion) -> None:
        if completion == "timeout":
            raise DeviceTimeout(source)
        if completion == "invalid":
            # It is reported, and the queue goes on.
            self._status |= FSTS.ICE.mask
            self._record = self._record & ~IQERCD.ICESID.mask | IQERCD.encode(ICESID=source)

    def _page_group_response(self, raw: int) -> None:
        answer = PageGroupResponse
        pasid = answer.PASID.get(raw) if answer.PP.get(raw) else None
        # Devices take every other code for a failure.
        response = RESPONSES.get(answer.RC.get(raw), "failure")
        self._bus.respond(answer.RID.get(raw), pasid, answer.PRGI.get(raw), response)

    def _wait(self, raw: int) -> None:
        # Nothing is under way that PD would have to drain: requests are in their queue, and devices have their answers.
        if InvalidationWait.SW.get(raw):
            data = InvalidationWait.STDATA.get(raw).to_bytes(4, "little")
            try:
                self._memory.write(InvalidationWait.STADDR.get(raw), data)
            except OutsideMemory:
                raise QueueError(BAD_FETCH) from None
        self._interrupt |= bool(InvalidationWait.IF.get(raw))

    _COMMANDS: ClassVar[Mapping[type[Layout], Callable[["Queue", int], None]]] = {
        ContextCacheInvalidate: _context_invalidate,
        IotlbInvalidate: _iotlb_invalidate,
        DeviceTlbInvalidate: _device_tlb_invalidate,
        InvalidationWait: _wait,
        PasidIotlbInvalidate: _pasid_iotlb_invalidate,
        PasidCacheInvalidate: _pasid_invalidate,
        PasidDeviceTlbInvalidate: _pasid_device_tlb_invalidate,
        PageGroupResponse: _page_group_response,
    }


def _kind(raw: int) -> int:
    """The type of a descriptor, which has its upper three bits apart."""
    return raw & 0xF | raw >> 5 & 0x70


def _block(address: int, mask: int) -> tuple[int, int]:
    """The addresses that ADDR and AM mean, as (first, last)."""
    size = 4096 << mask
    return address & -size, address | size - 1


def _check(good: bool) -> None:
    if not good:
        raise QueueError(BAD_FIELD)

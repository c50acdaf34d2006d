# SPDX-License-Identifier: Apache-2.0
"""The invalidation queue as the unit consumes it: a ring in memory, checked and carried out one by one.

VT-d 4.1 section 6.5.2. In scalable mode descriptors have 256 bits.
"""

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory
from iommuctl_vtd.capability import SCALABLE_MODE, Capability
from iommuctl_vtd.invalidation import (
    DESCRIPTORS,
    ContextCacheInvalidate,
    InvalidationWait,
    IotlbInvalidate,
    PasidCacheInvalidate,
    PasidIotlbInvalidate,
)
from iommuctl_vtd.iotlb import Iotlb
from iommuctl_vtd.registers import IQA, IQERCD, RTADDR

DESCRIPTOR = 32
"""Bytes of a descriptor of 256 bits."""
BAD_TAIL, BAD_FETCH, BAD_TYPE, BAD_FIELD, BAD_WIDTH, BAD_ALIGNMENT = 1, 2, 3, 4, 5, 6
"""Values of IQERCD.IQEI."""


class QueueError(Exception):
    """The queue stops. `info` is the value of IQEI."""

    def __init__(self, info: int) -> None:
        super().__init__(info)
        self.info = info


class Queue:
    """The queue that register IQA describes."""

    def __init__(self, memory: Memory, iotlb: Iotlb, capability: Capability, iqa: int) -> None:
        self._memory = memory
        self._iotlb = iotlb
        self._capability = capability
        self._base = IQA.IQA.get(iqa)
        self._size = 4096 << IQA.QS.get(iqa)
        self._wide = bool(IQA.DW.get(iqa))

    def run(self, head: int, tail: int, root: int) -> tuple[int, int]:
        """Consume from `head` up to `tail`. Returns the new head and IQERCD, 0 when all went well."""
        try:
            if tail >= self._size:
                raise QueueError(BAD_TAIL)
            if tail % DESCRIPTOR:
                raise QueueError(BAD_ALIGNMENT)
            if not self._wide or RTADDR.TTM.get(root) != SCALABLE_MODE:
                raise QueueError(BAD_WIDTH)
            while head != tail:
                self._execute(self._fetch(head))
                head = (head + DESCRIPTOR) % self._size
        except QueueError as error:
            return head, IQERCD.encode(IQEI=error.info)
        return head, 0

    def _fetch(self, offset: int) -> int:
        try:
            return int.from_bytes(self._memory.read(self._base + offset, DESCRIPTOR), "little")
        except OutsideMemory:
            raise QueueError(BAD_FETCH) from None

    def _execute(self, raw: int) -> None:
        layout = DESCRIPTORS.get(raw & 0xF | raw >> 5 & 0x70)
        if layout is None:
            raise QueueError(BAD_TYPE)
        if raw & self._capability.reserved(layout):
            raise QueueError(BAD_FIELD)
        if layout is IotlbInvalidate:
            self._iotlb_invalidate(raw)
        elif layout is PasidIotlbInvalidate:
            self._pasid_iotlb_invalidate(raw)
        elif layout is InvalidationWait:
            self._wait(raw)
        elif layout is ContextCacheInvalidate:
            _check(ContextCacheInvalidate.G.get(raw) in (1, 2, 3))
        elif layout is PasidCacheInvalidate:
            _check(PasidCacheInvalidate.G.get(raw) in (0, 1, 3))

    def _iotlb_invalidate(self, raw: int) -> None:
        granularity, did = IotlbInvalidate.G.get(raw), IotlbInvalidate.DID.get(raw)
        _check(granularity != 0)
        if granularity == 1:
            self._iotlb.drop_all()
        elif granularity == 2:
            self._iotlb.drop_domain(did)
        else:
            address, mask = IotlbInvalidate.ADDR.get(raw), IotlbInvalidate.AM.get(raw)
            _check(mask <= self._capability.max_address_mask)
            size = 4096 << mask
            self._iotlb.drop_domain_pages(did, address & -size, address | size - 1)

    def _pasid_iotlb_invalidate(self, raw: int) -> None:
        granularity = PasidIotlbInvalidate.G.get(raw)
        did, pasid = PasidIotlbInvalidate.DID.get(raw), PasidIotlbInvalidate.PASID.get(raw)
        _check(granularity in (2, 3))
        if granularity == 2:
            self._iotlb.drop_pasid(did, pasid)
        else:
            address, size = PasidIotlbInvalidate.ADDR.get(raw), 4096 << PasidIotlbInvalidate.AM.get(raw)
            self._iotlb.drop_pasid_pages(did, pasid, address & -size, address | size - 1)

    def _wait(self, raw: int) -> None:
        if not InvalidationWait.SW.get(raw):
            return
        data = InvalidationWait.STDATA.get(raw).to_bytes(4, "little")
        try:
            self._memory.write(InvalidationWait.STADDR.get(raw), data)
        except OutsideMemory:
            raise QueueError(BAD_FETCH) from None


def _check(good: bool) -> None:
    if not good:
        raise QueueError(BAD_FIELD)

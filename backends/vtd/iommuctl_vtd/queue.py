# SPDX-License-Identifier: Apache-2.0
"""The invalidation queue as the unit consumes it: a ring in memory, checked and carried out one by one.

VT-d 4.1 section 6.5.2. Descriptors have 256 bits; in legacy mode 128, if IQA says so.
"""

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory
from iommuctl_vtd.capability import LEGACY_MODE, SCALABLE_MODE, Capability
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

LEGACY_TYPES = range(1, 6)
"""The types that are valid in legacy mode: VT-d 4.1 section 6.5.2.10."""
BAD_TAIL, BAD_FETCH, BAD_TYPE, BAD_FIELD, BAD_WIDTH, BAD_ALIGNMENT = 1, 2, 3, 4, 5, 6
"""Values of IQERCD.IQEI."""


WIDE, NARROW = 32, 16
"""Bytes of a descriptor of 256 and of 128 bits."""


def descriptor_size(iqa: int) -> int:
    """How many bytes a descriptor has in the queue that register IQA describes."""
    return WIDE if IQA.DW.get(iqa) else NARROW


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
        self._descriptor = descriptor_size(iqa)
        self._legacy = False

    def run(self, head: int, tail: int, root: int) -> tuple[int, int]:
        """Consume from `head` up to `tail`. Returns the new head and IQERCD, 0 when all went well."""
        try:
            if tail >= self._size:
                raise QueueError(BAD_TAIL)
            if tail % self._descriptor:
                raise QueueError(BAD_ALIGNMENT)
            self._legacy = RTADDR.TTM.get(root) == LEGACY_MODE
            if not self._legacy and (RTADDR.TTM.get(root) != SCALABLE_MODE or self._descriptor != WIDE):
                raise QueueError(BAD_WIDTH)
            while head != tail:
                self._execute(self._fetch(head))
                head = (head + self._descriptor) % self._size
        except QueueError as error:
            return head, IQERCD.encode(IQEI=error.info)
        return head, 0

    def _fetch(self, offset: int) -> int:
        try:
            return int.from_bytes(self._memory.read(self._base + offset, self._descriptor), "little")
        except OutsideMemory:
            raise QueueError(BAD_FETCH) from None

    def _execute(self, raw: int) -> None:
        kind = raw & 0xF | raw >> 5 & 0x70
        layout = DESCRIPTORS.get(kind)
        if layout is None or (self._legacy and kind not in LEGACY_TYPES):
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

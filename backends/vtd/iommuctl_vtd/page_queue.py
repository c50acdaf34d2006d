# SPDX-License-Identifier: Apache-2.0
"""The page request queue as the unit fills it, and what it answers by itself: VT-d 4.1 section 7.4.

Which codes its own answers have is not in our sources; see docs/decisions.md.
"""

from iommuctl.architecture import Bus, PageRequest, PageResponse
from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import PAGE, Memory
from iommuctl_vtd import page_request
from iommuctl_vtd.fault_log import FaultLog
from iommuctl_vtd.page_request import PQA, PQH, PQT, PRS
from iommuctl_vtd.register_bank import RegisterBank
from iommuctl_vtd.registers import GSTS
from iommuctl_vtd.walk import Refused, Request, Walk

DESCRIPTOR = page_request.PageRequest.bits // 8
"""Bytes of a request in the queue."""


class PageQueue:
    """The queue that the registers of one unit describe."""

    def __init__(self, memory: Memory, registers: RegisterBank, faults: FaultLog, bus: Bus) -> None:
        self._memory = memory
        self._registers = registers
        self._faults = faults
        self._bus = bus

    def receive(self, request: PageRequest, asked: Request, walker: Walk) -> None:
        """Queue a request that `walker` admits; answer its group where it cannot be queued."""
        response = self._refused(asked, walker) or self._put(request)
        if response and request.last and not request.stops:
            slot = request.slot
            self._bus.respond(slot.rid.source_id, slot.pasid, request.group, response)

    def _refused(self, asked: Request, walker: Walk) -> PageResponse | None:
        registers = self._registers.all()
        if "PQA" not in registers or not GSTS.TES.get(registers["GSTS"]):
            return "failure"
        try:
            walker.admit()
        except Refused as refused:
            self._faults.record(asked, refused.code, silent=walker.fpd)
            return "invalid"
        return None

    def _put(self, request: PageRequest) -> PageResponse | None:
        """Write it behind the others. What comes while there is an overflow is lost, and so is what causes it."""
        registers = self._registers
        queue, status = registers.get("PQA"), registers.get("PRS")
        size = PAGE << PQA.PQS.get(queue)
        tail = PQT.PQT.get(registers.get("PQT")) % size
        after = (tail + DESCRIPTOR) % size
        if PRS.PRO.get(status):
            return "success"
        if after == PQH.PQH.get(registers.get("PQH")) % size:
            registers.put("PRS", status | PRS.PRO.mask)
            return "success"
        try:
            self._memory.write(PQA.PQA.get(queue) + tail, _descriptor(request))
        except OutsideMemory:
            return "failure"
        registers.put("PQT", after)
        registers.put("PRS", status | PRS.PPR.mask)
        return None


def _descriptor(request: PageRequest) -> bytes:
    slot = request.slot
    with_pasid = slot.pasid is not None
    raw = page_request.PageRequest.encode(
        PP=with_pasid,
        RID=slot.rid.source_id,
        PASID=slot.pasid or 0,
        EXE=request.execute and with_pasid,
        PMR=request.privileged and with_pasid,
        R=request.read,
        W=request.write,
        LPIG=request.last,
        PRGI=request.group,
        ADDR=request.iova & -PAGE,
    )
    return page_request.PageRequest.to_bytes(raw)

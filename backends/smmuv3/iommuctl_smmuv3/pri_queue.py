# SPDX-License-Identifier: Apache-2.0
"""The PRI queue as the unit fills it, and what it answers by itself: IHI0070 G.b sections 7.4 and 8.1 to 8.3."""

from iommuctl.architecture import Bus, PageRequest, PageResponse
from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import PAGE, Memory
from iommuctl_smmuv3 import page_request
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.positions import Ring
from iommuctl_smmuv3.queue_registers import PriqBase, PriqProd
from iommuctl_smmuv3.refused import Refused
from iommuctl_smmuv3.register_bank import RegisterBank
from iommuctl_smmuv3.registers import CR0, Gerror
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.stream_lookup import StreamTable
from iommuctl_smmuv3.visits import Caches, Visits

_ENTRY = page_request.PageRequest.bits // 8
_ON = CR0.SMMUEN.mask | CR0.PRIQEN.mask
_OVERFLOW = PriqProd.OVFLG.mask
"""OVACKFLG of PRIQ_CONS stands at the same place."""


class PriQueue:
    """The PRI queue of one unit."""

    def __init__(self, memory: Memory, registers: RegisterBank, features: Features, caches: Caches, bus: Bus) -> None:
        self._memory = memory
        self._registers = registers
        self._features = features
        self._caches = caches
        self._bus = bus

    def receive(self, request: PageRequest) -> None:
        """Queue a request, or answer its group."""
        response = self._put(request)
        if response and request.last and not request.stops:
            slot = request.slot
            pasid, response = self._addressed(request, response)
            self._bus.respond(slot.rid.source_id, pasid, request.group, response)

    def _put(self, request: PageRequest) -> PageResponse | None:
        """Write it. What finds no room is lost, and all that comes until software acknowledges the overflow."""
        registers, features = self._registers, self._features
        error = (registers.get("GERROR") ^ registers.get("GERRORN")) & Gerror.PRIQ_ABT_ERR.mask
        if not features.pri or registers.get("CR0") & _ON != _ON or error:
            return "failure"
        base, produced = registers.get("PRIQ_BASE"), registers.get("PRIQ_PROD")
        consumed = registers.get("PRIQ_CONS")
        ring = Ring(PriqBase.ADDR.get(base), PriqBase.LOG2SIZE.get(base), features.priq_bits, _ENTRY)
        if (produced ^ consumed) & _OVERFLOW:
            return "success"
        if ring.is_full(produced, consumed):
            registers.put("PRIQ_PROD", produced ^ _OVERFLOW)
            return "success"
        try:
            self._memory.write(ring.place(produced), _entry(request).to_bytes(_ENTRY, "little"))
        except OutsideMemory:
            registers.put("GERROR", registers.get("GERROR") ^ Gerror.PRIQ_ABT_ERR.mask)
            return "failure"
        registers.put("PRIQ_PROD", ring.after(produced) | produced & _OVERFLOW)
        return None

    def _addressed(self, request: PageRequest, response: PageResponse) -> tuple[int | None, PageResponse]:
        """The PASID of an automatic answer, if it has one, and what becomes of the answer where nothing tells."""
        slot = request.slot
        if slot.pasid is None or self._features.pps:
            return slot.pasid, response
        if response == "failure":
            return None, response
        table = StreamTable.of(self._registers.all(), self._features)
        try:
            ste = table.find(Visits(self._memory, self._caches), slot.rid.source_id)
        except Refused:
            return None, "failure"
        return slot.pasid if Ste.PPAR.get(ste) else None, response


def _entry(request: PageRequest) -> int:
    slot = request.slot
    with_pasid = slot.pasid is not None
    return page_request.PageRequest.encode(
        StreamID=slot.rid.source_id,
        SubstreamID=slot.pasid or 0,
        Priv=request.privileged and with_pasid,
        Exec=request.execute and with_pasid,
        Read=request.read,
        Write=request.write,
        Last=request.last,
        SSV=with_pasid,
        PRGIndex=request.group,
        Addr=request.iova & -PAGE,
    )

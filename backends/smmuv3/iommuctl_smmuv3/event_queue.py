# SPDX-License-Identifier: Apache-2.0
"""The event queue as the unit fills it, and the transactions that stall: IHI0070 G.b sections 3.12, 7.2 and 7.4."""

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory
from iommuctl.hookspecs import Rows
from iommuctl_smmuv3.events import EVENTS
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.positions import Ring
from iommuctl_smmuv3.queue_registers import EventqBase
from iommuctl_smmuv3.refused import Refused
from iommuctl_smmuv3.register_bank import RegisterBank
from iommuctl_smmuv3.registers import CR0, Gerror
from iommuctl_smmuv3.walk import Request

STALLED = "smmuv3.stalled"
"""Rows by STAG: the StreamID of a stalled transaction, and its record while there is no room for it."""
_RECORD = 32
_OVERFLOW = 1 << 31
"""OVFLG of EVENTQ_PROD, OVACKFLG of EVENTQ_CONS."""
_STAGS = 1 << 16


class EventQueue:
    """The event queue of one unit."""

    def __init__(self, memory: Memory, rows: Rows, registers: RegisterBank, features: Features) -> None:
        self._memory = memory
        self._rows = rows
        self._registers = registers
        self._features = features

    def record(self, request: Request, refused: Refused) -> None:
        """Tell of a request that was refused."""
        if not refused.recorded:
            return
        layout = EVENTS[refused.event]
        pasid = request.slot.pasid
        known = {
            "SSV": pasid is not None,
            "SubstreamID": pasid or 0,
            "StreamID": request.stream,
            "PnU": request.privileged,
            "InD": request.access == "x",
            "RnW": request.access != "w",
            "InputAddr": request.iova,
            **refused.fields,
        }
        stag = None
        if refused.stalls:
            if (stag := self._free_stag()) is None:
                # The transaction waits for a tag, and its record with it.
                return
            known |= {"Stall": 1, "STAG": stag}
        names = {field.name for field in layout.fields}
        record = layout.encode(**{name: int(value) for name, value in known.items() if name in names})
        told = self._put(record, may_be_lost=stag is None)
        if stag is not None:
            # What is not told yet is told when there is room: IHI0070 G.b section 7.2.
            self._rows.put(STALLED, _key(stag), [request.stream, None if told else f"{record:#x}"])

    def retry(self) -> None:
        """Software made room, or switched the queue on: tell of stalled transactions that wait for it."""
        for key, (stream, record) in self._rows.scan(STALLED):
            if record and self._put(int(record, 16), may_be_lost=False):
                self._rows.put(STALLED, key, [stream, None])

    def resume(self, stag: int, stream: int) -> None:
        """A stalled transaction was answered: it is tried again by who asked, or is over."""
        found = self._rows.get(STALLED, _key(stag))
        if found and found[0] == stream:
            self._rows.delete(STALLED, _key(stag))

    def end_stalls(self, stream: int | None = None) -> None:
        """All stalled transactions of a stream, or of all, are over."""
        for key, (owner, _) in self._rows.scan(STALLED):
            if stream in (None, owner):
                self._rows.delete(STALLED, key)

    def _free_stag(self) -> int | None:
        used = {int(key, 16) for key, _ in self._rows.scan(STALLED)}
        return next((stag for stag in range(_STAGS) if stag not in used), None)

    def _put(self, record: int, *, may_be_lost: bool) -> bool:
        """Write a record. False when there is no room for it; the queue has overflowed if the record is lost then."""
        registers = self._registers
        if not CR0.EVENTQEN.get(registers.get("CR0")) or self._has_error(Gerror.EVENTQ_ABT_ERR.mask):
            return False
        produced, consumed = registers.get("EVENTQ_PROD"), registers.get("EVENTQ_CONS")
        base = registers.get("EVENTQ_BASE")
        ring = Ring(EventqBase.ADDR.get(base), EventqBase.LOG2SIZE.get(base), self._features.eventq_bits, _RECORD)
        if ring.is_full(produced, consumed):
            if may_be_lost and not (produced ^ consumed) & _OVERFLOW:
                registers.put("EVENTQ_PROD", produced ^ _OVERFLOW)
            return False
        try:
            self._memory.write(ring.place(produced), record.to_bytes(_RECORD, "little"))
        except OutsideMemory:
            registers.put("GERROR", registers.get("GERROR") ^ Gerror.EVENTQ_ABT_ERR.mask)
            return False
        registers.put("EVENTQ_PROD", ring.after(produced) | produced & _OVERFLOW)
        return True

    def _has_error(self, mask: int) -> bool:
        return bool((self._registers.get("GERROR") ^ self._registers.get("GERRORN")) & mask)


def _key(stag: int) -> str:
    return f"{stag:04x}"

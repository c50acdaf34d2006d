# SPDX-License-Identifier: Apache-2.0
"""The event queue as a driver reads it, and what a record says: IHI0070 G.b sections 3.5, 7.2 and 7.3."""

from iommuctl.architecture import Unit
from iommuctl.formats.memory import Memory
from iommuctl.model import Access, Rid
from iommuctl.recorded import Events, RecordedFault
from iommuctl_smmuv3.events import CLASS_IN, EVENTS, EPageRequest, FTranslation
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.positions import Ring
from iommuctl_smmuv3.queue_registers import EventqBase, EventqCons, EventqProd
from iommuctl_smmuv3.refused import REASONS, Reason

RECORD = FTranslation.bits // 8
"""Bytes of a record, whichever event it is."""


def take_faults(memory: Memory, unit: Unit, features: Features, source: str) -> Events:
    """Read what the queue holds, and make room.

    A queue that is full overflows: of untold events OVFLG tells, and not how many they were.
    """
    base, produced = unit.read_register("EVENTQ_BASE"), unit.read_register("EVENTQ_PROD")
    consumed = unit.read_register("EVENTQ_CONS")
    ring = Ring(EventqBase.ADDR.get(base), EventqBase.LOG2SIZE.get(base), features.eventq_bits, RECORD)
    position, faults = EventqCons.RD.get(consumed), []
    while not ring.same(position, produced):
        fault = recorded(int.from_bytes(memory.read(ring.place(position), RECORD), "little"))
        if fault:
            faults.append(fault)
        position = ring.after(position)
    flag = EventqProd.OVFLG.get(produced)
    overflow = flag ^ EventqCons.OVACKFLG.get(consumed)
    unit.write_register("EVENTQ_CONS", EventqCons.encode(RD=position, OVACKFLG=flag))
    return Events(source, faults, overflow, exact=not overflow)


def recorded(raw: int) -> RecordedFault | None:
    """What a record says, whatever it holds; None for E_PAGE_REQUEST, which is a hint and no fault.

    StreamIDs stand for RIDs: the source id, with the segment in the 16 bits above it.
    """
    number = raw & 0xFF
    if number == EPageRequest.Event.value:
        return None
    layout = EVENTS.get(number)
    values = layout.values(raw) if layout else {}
    reason = REASONS[number] if layout else Reason(f"EVENT_{number:02X}", "no event is known by this number")
    return RecordedFault(
        number,
        reason.name,
        reason.sentence + _where(values),
        Rid.of(FTranslation.StreamID.get(raw)),
        values.get("SubstreamID") if values.get("SSV", 1) else None,
        values.get("InputAddr"),
        _access(values),
        layout.name if layout else "",
        FTranslation.to_words(raw),
    )


def _where(values: dict[str, int]) -> str:
    """At which stage it was, and of which address where it was not that of the request."""
    if "S2" not in values:
        return ""
    words = [FTranslation.S2.values[values["S2"]]]
    if values["CLASS"] != CLASS_IN:
        words += [text for value, text in FTranslation.CLASS.values.items() if value == values["CLASS"]]
    return f" ({', '.join(words)})"


def _access(values: dict[str, int]) -> Access | None:
    if "RnW" not in values:
        return None
    if not values["RnW"]:
        return "w"
    return "x" if values.get("InD") else "r"

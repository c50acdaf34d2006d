# SPDX-License-Identifier: Apache-2.0
"""The fault recording registers as a driver reads and frees them, and what a record says: VT-d 4.1 section 7.2.1."""

from iommuctl.architecture import Unit
from iommuctl.model import Access, Rid
from iommuctl.recorded import Events, RecordedFault
from iommuctl_vtd.fault_record import REASONS, FaultRecord, Reason
from iommuctl_vtd.registers import CAP, FSTS

_REQUESTS: dict[tuple[int, int], Access] = {(0, 0): "w", (1, 0): "r", (1, 1): "w"}
"""By T1 and T2. An atomic operation needs both rights; a request for pages is no access."""

_UNKNOWN = Reason("unknown", "No reason is known by this code.", False)


def take_faults(unit: Unit, source: str) -> Events:
    """Read all records, the oldest first, and free them.

    The unit writes its records one after the other and around, and drops what finds the next one in use: FSTS.FRI is
    the oldest, and FSTS.PFO says that at least one fault was dropped.
    """
    status = unit.read_register("FSTS")
    number = CAP.NFR.get(unit.read_register("CAP")) + 1
    faults = []
    for turn in range(number if FSTS.PPF.get(status) else 0):
        name = f"FRCD{(FSTS.FRI.get(status) + turn) % number}"
        raw = unit.read_register(name)
        if FaultRecord.F.get(raw):
            faults.append(recorded(raw))
            unit.write_register(name, FaultRecord.F.mask)
    overflow = FSTS.PFO.get(status)
    if overflow:
        # After the records: what faults in between would be dropped once more.
        unit.write_register("FSTS", FSTS.PFO.mask)
    return Events(source, faults, overflow, exact=not overflow)


def recorded(raw: int) -> RecordedFault:
    """What a record says. It has the page, not the address; the unit is that of segment 0.

    What FI holds depends on the reason (interrupt remapping has an index there), so of an unknown one it is not told.
    """
    code = FaultRecord.FR.get(raw)
    reason = REASONS.get(code, _UNKNOWN)
    access = _REQUESTS.get((FaultRecord.T1.get(raw), FaultRecord.T2.get(raw)))
    return RecordedFault(
        code,
        reason.name,
        reason.sentence,
        Rid.of(FaultRecord.SID.get(raw)),
        FaultRecord.PV.get(raw) if FaultRecord.PP.get(raw) else None,
        FaultRecord.FI.get(raw) if code in REASONS else None,
        "x" if access == "r" and FaultRecord.EXE.get(raw) else access,
        FaultRecord.name,
        FaultRecord.to_words(raw),
    )

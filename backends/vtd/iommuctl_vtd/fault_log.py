# SPDX-License-Identifier: Apache-2.0
"""The fault recording registers, as the unit fills them and software frees them: VT-d 4.1 section 7.2.1."""

from iommuctl.hookspecs import Rows
from iommuctl_vtd.fault_record import REASONS, FaultRecord
from iommuctl_vtd.register_bank import RegisterBank
from iommuctl_vtd.registers import CAP, FSTS
from iommuctl_vtd.walk import Request

NEXT_RECORD = "next fault record"
RECOVERABLE = frozenset({0x05, 0x06, 0x71, 0x79, 0x81, 0x85, 0x86})
"""What a translation request is answered with no rights for: a device may ask for the page and try again."""
_ADDRESS_TYPES = {"untranslated": 0, "translation": 1, "translated": 2, "page": 0}


class FaultLog:
    """The records of one unit, and the bits of FSTS that tell of them."""

    def __init__(self, rows: Rows, registers: RegisterBank) -> None:
        self._rows = rows
        self._registers = registers

    def record(self, request: Request, code: int, *, silent: bool) -> None:
        """Note a request that was refused; `silent` says that an FPD bit was set on its way."""
        registers = self._registers
        status = registers.get("FSTS")
        if (silent and REASONS[code].qualified) or FSTS.PFO.get(status):
            return
        if request.kind == "translation" and code in RECOVERABLE:
            return
        index = self._rows.get("vtd", NEXT_RECORD)
        name = f"FRCD{index}"
        if FaultRecord.F.get(registers.get(name)):
            registers.put("FSTS", status | FSTS.PFO.mask)
            return
        slot, pages = request.slot, request.kind == "page"
        record = FaultRecord.encode(
            FI=request.iova & -4096,
            SID=slot.rid.source_id,
            PP=slot.pasid is not None,
            PV=slot.pasid or 0,
            PRIV=request.privileged,
            T1=not (request.write or pages),
            T2=pages,
            AT=_ADDRESS_TYPES[request.kind],
            FR=code,
            F=1,
        )
        registers.put(name, record)
        if not FSTS.PPF.get(status):
            registers.put("FSTS", status & ~FSTS.FRI.mask | FSTS.encode(PPF=1, FRI=index))
        self._rows.put("vtd", NEXT_RECORD, (index + 1) % self._size())

    def free(self, name: str, value: int) -> None:
        """Software writes to a record: F is cleared by writing 1."""
        registers = self._registers
        registers.put(name, registers.get(name) & ~(value & FaultRecord.F.mask))
        if not any(FaultRecord.F.get(registers.get(f"FRCD{index}")) for index in range(self._size())):
            registers.put("FSTS", registers.get("FSTS") & ~(FSTS.PPF.mask | FSTS.FRI.mask))

    def _size(self) -> int:
        return CAP.NFR.get(self._registers.get("CAP")) + 1

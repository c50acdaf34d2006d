# SPDX-License-Identifier: Apache-2.0
"""QEMU's VT-d unit, programmed as a driver programs it: VT-d 4.1 chapter 11.

GCMD is write-only, so every write repeats the bits that are to stay.
"""

from collections.abc import Mapping

from iommuctl.formats.memory import FileMemory
from iommuctl_vtd.fault_record import FaultRecord
from iommuctl_vtd.invalidation import InvalidationWait
from iommuctl_vtd.registers import CAP, FSTS, GCMD, GSTS, IQA
from tests.differential.outcome import Faulted
from tests.differential.qtest import Qtest, reading, writing

BASE = 0xFED9_0000
_SIZES = {"GCMD": 4, "GSTS": 4, "FSTS": 4}
_OFFSETS = {
    "CAP": 0x08, "ECAP": 0x10, "GCMD": 0x18, "GSTS": 0x1C, "RTADDR": 0x20, "FSTS": 0x34, "IQH": 0x80, "IQT": 0x88,
    "IQA": 0x90,
}  # fmt: skip


class VtdUnit:
    """The unit at its address on the machine q35. `status` is RAM for the answer to a wait of ours."""

    def __init__(self, qtest: Qtest, ram: FileMemory, status: int) -> None:
        self._qtest = qtest
        self._ram = ram
        self._status = status
        self.cap, self.ecap = self.read("CAP"), self.read("ECAP")
        self._record = BASE + 16 * CAP.FRO.get(self.cap)
        self._wide = False

    def read(self, name: str) -> int:
        """A register by the specification's name."""
        return self._qtest.read(BASE + _OFFSETS[name], _SIZES.get(name, 8))

    def write(self, name: str, value: int) -> None:
        """Write a register."""
        self._qtest.write(BASE + _OFFSETS[name], value, _SIZES.get(name, 8))

    def start(self, registers: Mapping[str, int]) -> None:
        """From off to translating, with the root table and the queue of these registers (names to values).

        The queue is consumed up to IQT before any DMA can come.
        """
        self._wide = bool(IQA.DW.get(registers["IQA"]))
        self.write("IQT", 0)
        self.write("IQA", registers["IQA"])
        self._command(GCMD.encode(QIE=1), GSTS.QIES.mask)
        self.write("RTADDR", registers["RTADDR"])
        self._command(GCMD.encode(QIE=1, SRTP=1), GSTS.RTPS.mask)
        self.write("IQT", registers["IQT"])
        self._command(GCMD.encode(QIE=1, TE=1), GSTS.TES.mask)

    def stop(self) -> None:
        """Translation off, then the queue, from whatever state it is in; no fault stays recorded."""
        if self.read("GSTS") & GSTS.QIES.mask:
            self._command(GCMD.encode(QIE=1), 0, GSTS.TES.mask)
            self._drain()
            self._command(0, 0, GSTS.QIES.mask)
        self.take_record()

    def ring(self, tail: int) -> tuple[int, bool]:
        """Write IQT. Returns IQH, and whether the unit has stopped at a descriptor."""
        iqh, fsts = BASE + _OFFSETS["IQH"], BASE + _OFFSETS["FSTS"]
        answers = self._qtest.batch([writing(BASE + _OFFSETS["IQT"], tail, 8), reading(iqh, 8), reading(fsts, 4)])
        return int(answers[1], 16), bool(FSTS.IQE.get(int(answers[2], 16)))

    def clear_queue_error(self) -> None:
        """Have the unit go on with its queue."""
        self.write("FSTS", FSTS.IQE.mask)

    def take_record(self) -> int | None:
        """The fault that is recorded, and free its record; None without one."""
        low, high = (int(word, 16) for word in self._qtest.batch(reading(self._record + at, 8) for at in (0, 8)))
        record = high << 64 | low
        if not FaultRecord.F.get(record):
            return None
        free = writing(self._record + 12, 1 << 31, 4)
        overflow = writing(BASE + _OFFSETS["FSTS"], FSTS.PFO.mask, 4)
        self._qtest.batch([free, overflow])
        return record

    def take_fault(self) -> Faulted | None:
        """The same as an outcome."""
        record = self.take_record()
        return None if record is None else Faulted(FaultRecord.FR.get(record), record)

    def _command(self, value: int, ones: int, zeros: int = 0) -> None:
        self.write("GCMD", value)
        status = self.read("GSTS")
        assert status & (ones | zeros) == ones, f"GCMD {value:#x} was answered with GSTS {status:#x}"

    def _drain(self) -> None:
        """A queue can be switched off when it is empty and a wait was its last descriptor: put one at its head."""
        self.clear_queue_error()
        iqa, head = self.read("IQA"), self.read("IQH")
        size = 32 if self._wide else 16
        wait = InvalidationWait.encode(SW=1, STDATA=1, STADDR=self._status)
        self._ram.write(IQA.IQA.get(iqa) + head, wait.to_bytes(32, "little")[:size])
        head, failed = self.ring((head + size) % (4096 << IQA.QS.get(iqa)))
        assert not failed, f"QEMU's queue cannot be emptied at {head:#x}"

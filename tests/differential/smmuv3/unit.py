# SPDX-License-Identifier: Apache-2.0
"""A unit, programmed as a driver programs it: IHI0070 G.b chapter 6; and QEMU's."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from iommuctl.formats.memory import FileMemory, Memory
from iommuctl_smmuv3.commands import Sync
from iommuctl_smmuv3.configuration_commands import EVERY_STREAM, CfgiSteRange
from iommuctl_smmuv3.events import EVENTS
from iommuctl_smmuv3.queue_registers import CmdqBase, CmdqCons, EventqBase, EventqCons, EventqProd
from iommuctl_smmuv3.registers import CR0, CR1, CR2, Gerror
from iommuctl_smmuv3.tlb_commands import TlbiNsnhAll
from tests.differential.outcome import Faulted
from tests.differential.qtest import Qtest, reading, writing
from tests.differential.smmuv3.plans import COMMANDS_AT, EVENTS_AT, QUEUE_BITS

BASE = 0x0C00_0000
_OFFSETS = {
    "IDR0": 0x0, "IDR1": 0x4, "IDR3": 0xC, "IDR5": 0x14, "CR0": 0x20, "CR0ACK": 0x24, "CR1": 0x28, "CR2": 0x2C,
    "GERROR": 0x60, "GERRORN": 0x64, "STRTAB_BASE": 0x80, "STRTAB_BASE_CFG": 0x88, "CMDQ_BASE": 0x90,
    "CMDQ_PROD": 0x98, "CMDQ_CONS": 0x9C, "EVENTQ_BASE": 0xA0, "EVENTQ_PROD": 0x100A8, "EVENTQ_CONS": 0x100AC,
}  # fmt: skip
_WIDE = ("STRTAB_BASE", "CMDQ_BASE", "EVENTQ_BASE")
_ENTRIES = 1 << QUEUE_BITS
_POSITIONS = 2 * _ENTRIES
"""Indices with their wrap bit."""
FORGET = (CfgiSteRange.encode(Range=EVERY_STREAM), TlbiNsnhAll.encode())
"""The commands with which all caches are empty."""
SYNC = Sync.encode()


class Smmu(ABC):
    """A unit with the queues of a configuration, in `memory`."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._commands = self._events = 0

    @abstractmethod
    def read(self, name: str) -> int:
        """A register by the specification's name."""

    @abstractmethod
    def write(self, name: str, value: int) -> None:
        """Write a register."""

    def ring(self, position: int) -> tuple[int, bool]:
        """Have the unit look at its queue. Returns CMDQ_CONS, and whether it has stopped."""
        self.write("CMDQ_PROD", position)
        cons, errors = self.read("CMDQ_CONS"), self.read("GERROR") ^ self.read("GERRORN")
        return cons, bool(Gerror.CMDQ_ERR.get(errors))

    def start(self, registers: Mapping[str, int]) -> None:
        """From off to translating, with these values of CR2 and of the stream table's registers."""
        self.write("CR1", CR1.encode(TABLE_SH=3, TABLE_OC=1, TABLE_IC=1, QUEUE_SH=3, QUEUE_OC=1, QUEUE_IC=1))
        for name, value in registers.items():
            self.write(name, value)
        self._commands = self._events = 0
        self.write("CMDQ_BASE", CmdqBase.encode(ADDR=COMMANDS_AT, LOG2SIZE=QUEUE_BITS, RA=1))
        self.write("EVENTQ_BASE", EventqBase.encode(ADDR=EVENTS_AT, LOG2SIZE=QUEUE_BITS, WA=1))
        for name in ("CMDQ_PROD", "CMDQ_CONS", "EVENTQ_PROD", "EVENTQ_CONS"):
            self.write(name, 0)
        self._enable(CR0.encode(CMDQEN=1))
        assert self.queue(FORGET) == (), "a good command is refused"
        self._enable(CR0.encode(CMDQEN=1, EVENTQEN=1))
        self._enable(CR0.encode(CMDQEN=1, EVENTQEN=1, SMMUEN=1))

    def stop(self) -> None:
        """Off; no event stays recorded."""
        self.take_fault()
        self._enable(0)

    def queue(self, commands: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Queue commands and a CMD_SYNC.

        Returns those at which the unit has stopped, by their number and its error; a CMD_SYNC took the place of each.
        """
        first, words = self._commands, (*commands, SYNC)
        for number, word in enumerate(words):
            self._put(first + number, word)
        self._commands = (first + len(words)) % _POSITIONS
        cons, wrong = self.ring(self._commands)
        stopped: list[tuple[int, int]] = []
        while wrong:
            at = CmdqCons.RD.get(cons)
            number = (at - first) % _POSITIONS
            assert all(number != other for other, _ in stopped), "CMD_SYNC is refused"
            stopped.append((number, CmdqCons.ERR.get(cons)))
            self._put(at, SYNC)
            self.write("GERRORN", self.read("GERROR"))
            cons, wrong = self.ring(self._commands)
        assert CmdqCons.RD.get(cons) == self._commands, f"the queue has come to {cons:#x}, not {self._commands:#x}"
        return tuple(stopped)

    def take_fault(self) -> Faulted | None:
        """The event that is recorded for a DMA.

        Of a DMA that is refused, QEMU's bus asks again for each part of at most 8 bytes: the first event counts.
        """
        written = EventqProd.WR.get(self.read("EVENTQ_PROD")) % _POSITIONS
        if written == self._events:
            return None
        records = [self._record(self._events + number) for number in range((written - self._events) % _POSITIONS)]
        raw, self._events = records[0], written
        assert {record % (1 << 64) for record in records} == {raw % (1 << 64)}, "there are different events"
        self.write("EVENTQ_CONS", EventqCons.encode(RD=written))
        code = raw & 0xFF
        assert code in EVENTS, f"{raw:#x} is recorded"
        return Faulted(code, raw)

    def _record(self, position: int) -> int:
        return int.from_bytes(self._memory.read(EVENTS_AT + 32 * (position % _ENTRIES), 32), "little")

    def _put(self, position: int, command: int) -> None:
        self._memory.write(COMMANDS_AT + 16 * (position % _ENTRIES), command.to_bytes(16, "little"))

    def _enable(self, value: int) -> None:
        self.write("CR0", value)
        found = self.read("CR0ACK")
        assert found == value, f"CR0 {value:#x} was answered with CR0ACK {found:#x}"


class SmmuUnit(Smmu):
    """QEMU's unit, at the address that the machine virt gives to the first one."""

    def __init__(self, qtest: Qtest, ram: FileMemory) -> None:
        super().__init__(ram)
        self._qtest = qtest
        self.features = {name: self.read(name) for name in ("IDR0", "IDR1", "IDR3", "IDR5")}

    def read(self, name: str) -> int:
        return self._qtest.read(BASE + _OFFSETS[name], _size(name))

    def write(self, name: str, value: int) -> None:
        self._qtest.write(BASE + _OFFSETS[name], value, _size(name))

    def ring(self, position: int) -> tuple[int, bool]:
        names = ("CMDQ_CONS", "GERROR", "GERRORN")
        requests = [writing(BASE + _OFFSETS["CMDQ_PROD"], position, 4)]
        answers = self._qtest.batch([*requests, *(reading(BASE + _OFFSETS[name], 4) for name in names)])
        cons, gerror, gerrorn = (int(answer, 16) for answer in answers[1:])
        return cons, bool(Gerror.CMDQ_ERR.get(gerror ^ gerrorn))


def registers(strtab_base: int, strtab_base_cfg: int, *, recinvsid: bool) -> dict[str, int]:
    """What a configuration has in registers, in the order in which they are written."""
    return {
        "CR2": CR2.encode(RECINVSID=recinvsid, PTM=1),
        "STRTAB_BASE": strtab_base,
        "STRTAB_BASE_CFG": strtab_base_cfg,
    }


def _size(name: str) -> int:
    return 8 if name in _WIDE else 4

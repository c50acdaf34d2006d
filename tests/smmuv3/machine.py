# SPDX-License-Identifier: Apache-2.0
"""A machine for tests with a unit of SMMUv3: registers, a command queue and an event queue as software has them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iommuctl.architecture import Answer
from iommuctl.model import Access, Command, RequestKind, Rid, Slot
from iommuctl_smmuv3.id_registers import IDR0
from iommuctl_smmuv3.register_bank import DEFAULTS
from iommuctl_smmuv3.unit import Unit
from tests.machine import DictRows, SilentBus, SparseMemory

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture

SMMUEN, EVENTQEN, CMDQEN, ATSCHK = 1 << 0, 1 << 2, 1 << 3, 1 << 4
COMMANDS, RECORDS = 0xE0000, 0xE8000
"""Where the queues lie: 256 commands, 256 records."""
Words = tuple[int, ...]


def idr0_with(**fields: int) -> int:
    """IDR0 of the unit that is simulated by default, with some fields changed."""
    return DEFAULTS["IDR0"] & ~sum(IDR0.field(name).mask for name in fields) | IDR0.encode(**fields)


def slot(stream: int, pasid: int | None = None) -> Slot:
    """The requester whose StreamID that is."""
    return Slot(Rid(0, stream >> 8, stream >> 3 & 0x1F, stream & 7), pasid)


class Machine:
    """A hookspecs.Context with a unit in it."""

    def __init__(self, memory: SparseMemory, **options: int) -> None:
        """Options of the unit: idr0, idr1, idr3, idr5, mpamidr."""
        self.memory = memory
        self.rows = DictRows()
        self.commands: list[Command] = []
        self.warnings: list[str] = []
        self.bus = SilentBus()
        self._told = 0
        Unit.reset(self, {name: f"{value:#x}" for name, value in options.items()})
        self.unit = Unit(self, self.bus)

    def architecture(self, name: str) -> "Architecture":
        raise NotImplementedError(name)

    def log(self, command: Command) -> None:
        self.commands.append(command)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def switch_on(self, base: int, config: int, *, cr0: int = SMMUEN | EVENTQEN | CMDQEN, cr2: int = 0) -> None:
        """Give the unit a stream table and queues, and translate."""
        values = {"STRTAB_BASE": base, "STRTAB_BASE_CFG": config, "CR2": cr2, "CMDQ_BASE": COMMANDS | 8}
        for name, value in (values | {"EVENTQ_BASE": RECORDS | 8, "CR0": cr0}).items():
            self.unit.write_register(name, value)

    def get(self, register: str) -> int:
        return self.unit.read_register(register)

    def send(self, *commands: Words) -> int:
        """Queue commands of one or two words, and have them consumed. Returns CMDQ_CONS.ERR."""
        produced = self.get("CMDQ_PROD")
        for first, *second in commands:
            place = COMMANDS + 16 * (produced % 256)
            self.memory.put({place: first, place + 8: second[0] if second else 0})
            produced = (produced + 1) % 512
        self.unit.write_register("CMDQ_PROD", produced)
        return self.get("CMDQ_CONS") >> 24

    def records(self) -> list[Words]:
        """The event records since the last call, and the room that they took given back."""
        produced, found = self.get("EVENTQ_PROD") & 0x1FF, []
        while self._told != produced:
            place = RECORDS + 32 * (self._told % 256)
            found.append(tuple(self.memory.word(place + 8 * number) for number in range(4)))
            self._told = (self._told + 1) % 512
        self.unit.write_register("EVENTQ_CONS", self._told)
        return found

    def ask(
        self,
        where: Slot,
        iova: int,
        access: Access = "r",
        *,
        privileged: bool = False,
        kind: RequestKind = "untranslated",
    ) -> Answer:
        """A request through the caches."""
        return self.unit.request(where, iova, access, privileged=privileged, kind=kind)

    def goes(self, where: Slot, iova: int, access: Access = "r", *, privileged: bool = False) -> int | str:
        """Where a request through the caches goes, or the name of its event."""
        told = self.ask(where, iova, access, privileged=privileged).translation
        if told.fault:
            return told.fault.name
        assert told.pa is not None
        return told.pa

    def reaches(self, where: Slot, iova: int, access: Access = "r", *, privileged: bool = False) -> int | str:
        """The same by the tables alone."""
        told = self.unit.walk(where, iova, access, privileged=privileged)
        if told.fault:
            return told.fault.name
        assert told.pa is not None
        return told.pa


def structures(words: Sequence[int], address: int) -> dict[int, int]:
    """Words that lie one behind the other, by address."""
    return {address + 8 * number: word for number, word in enumerate(words)}

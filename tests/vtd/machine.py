# SPDX-License-Identifier: Apache-2.0
"""A machine for tests with a unit of VT-d, which is switched on as software does it."""

from typing import TYPE_CHECKING

from iommuctl.model import Access, Command, RequestKind, Slot, Translation
from iommuctl_vtd import ARCHITECTURE
from iommuctl_vtd.unit import Unit
from tests.machine import DictRows, SilentBus, SparseMemory

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture

SRTP, QIE, TE = 1 << 30, 1 << 26, 1 << 31
SCALABLE = 0x400
RECORD_FREE = 1 << 127


class Machine:
    """A hookspecs.Context with a unit in it."""

    def __init__(self, memory: SparseMemory, **options: int) -> None:
        """Options of the unit: haw, cap, ecap."""
        self.memory = memory
        self.rows = DictRows()
        self.commands: list[Command] = []
        self.warnings: list[str] = []
        self.bus = SilentBus()
        Unit.reset(self, {name: f"{value:#x}" for name, value in options.items()})
        self.unit = Unit(self, self.bus)

    def architecture(self, name: str) -> "Architecture":
        assert name == "vtd"
        return ARCHITECTURE

    def log(self, command: Command) -> None:
        self.commands.append(command)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def request(
        self,
        slot: Slot,
        iova: int,
        access: Access = "r",
        *,
        privileged: bool = False,
        kind: RequestKind = "untranslated",
    ) -> tuple[Translation, bool, bool]:
        """A request through the caches: the answer, whether the IOTLB had it, whether the tables say otherwise."""
        answer = self.unit.request(slot, iova, access, privileged=privileged, kind=kind)
        told, truth = answer.translation, self.unit.walk(slot, iova, access, privileged=privileged, kind=kind)
        return told, answer.hit, bool(answer.recalled) and (told.pa, told.fault) != (truth.pa, truth.fault)

    def switch_on(self, rtaddr: int) -> None:
        """Latch a root table and translate."""
        self.unit.write_register("RTADDR", rtaddr)
        self.unit.write_register("GCMD", SRTP)
        self.unit.write_register("GCMD", TE)

    def records(self) -> list[int]:
        """The fault records that are in use."""
        registers = self.unit.registers()
        return [value for name, value in registers.items() if name.startswith("FRCD") and value & RECORD_FREE]

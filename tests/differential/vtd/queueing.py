# SPDX-License-Identifier: Apache-2.0
"""The invalidation queue on both sides: the same descriptors, compared one by one."""

from collections.abc import Callable

from iommuctl.formats.memory import FileMemory
from iommuctl_vtd.invalidation import InvalidationWait
from iommuctl_vtd.queue import descriptor_size
from iommuctl_vtd.registers import IQA
from tests.differential.theirs import TheirMachine
from tests.differential.vtd.build import WAIT
from tests.differential.vtd.descriptors import global_invalidation
from tests.differential.vtd.deviations import REFETCH
from tests.differential.vtd.ours import OurMachine
from tests.differential.vtd.plans import POOL, TABLES, Tail
from tests.differential.vtd.prediction import Predictor
from tests.differential.vtd.unit import VtdUnit

Note = Callable[[object, object, tuple[str, ...] | None, str], None]
"""Takes our answer, QEMU's, what explains the difference, and what it is about."""


class Queueing:
    """The queues of one configuration. `memory` is our RAM."""

    def __init__(
        self, ours: OurMachine, theirs: TheirMachine[VtdUnit], memory: FileMemory, predictor: Predictor, note: Note
    ) -> None:
        self._ours = ours
        self._theirs = theirs
        self._memory = memory
        self._predictor = predictor
        self._note = note
        self._global = global_invalidation(ours.kind)

    def follow(self, before: int | None = None) -> None:
        """Tables and queue have changed on our side: QEMU gets both, and must take all descriptors.

        `before` was IQT; where it has moved since, the last descriptor is a wait, which QEMU must answer, too.
        """
        registers = self._ours.registers()
        self._theirs.copy(self._memory, (TABLES, POOL))
        moved = before is not None and before != registers["IQT"]
        status = self._last_wait(registers) if moved else None
        answer = self._theirs.unit.ring(registers["IQT"])
        expected = (registers["IQH"], False)
        self._note(expected, answer, () if answer == expected else None, "our driver's descriptors: IQH, IQE")
        if status:
            self._compare_status(*status)

    def descriptor(self, raw: int) -> None:
        """Queue one, good or bad. What is refused gives way to a wait."""
        ours = self._ours.queue([raw])
        refused, names = self._predictor.refuses(raw, ours=ours[1])
        registers = self._ours.registers()
        self._theirs.copy(self._memory, (TABLES,))
        status = self._last_wait(registers) if raw == WAIT else None
        theirs = self._theirs.unit.ring(registers["IQT"])
        good = theirs == ours if refused == ours[1] else theirs[1] == refused
        self._note(ours, theirs, names if good else None, f"descriptor {raw:#x}: IQH, IQE")
        self._mend(registers, ours=ours[1], theirs=theirs[1])
        if status:
            self._compare_status(*status)
        self._predictor.invalidated()
        if ours[1] != theirs[1]:
            self._forget()
        elif raw in self._global[-2:-1]:
            self._predictor.forgotten()

    def tail(self, event: Tail) -> None:
        """Give IQT a wrong value, and then the right one again."""
        good = self._ours.registers()["IQT"]
        ours, theirs = (side.ring(good + event.by) for side in (self._ours, self._theirs.unit))
        self._note(ours, theirs, () if ours == theirs else None, f"IQT {good + event.by:#x}: IQH, IQE")
        for side in (self._ours, self._theirs.unit):
            side.ring(good)
            side.clear_queue_error()

    def _last_wait(self, registers: dict[str, int]) -> tuple[int, int]:
        """The last descriptor is a wait: where it stores what. QEMU's RAM gets something else there."""
        size = descriptor_size(registers["IQA"])
        raw = int.from_bytes(self._theirs.ram.read(self._slot(registers), size), "little")
        assert InvalidationWait.SW.get(raw), f"{raw:#x} is not a wait that answers"
        address, data = InvalidationWait.STADDR.get(raw), InvalidationWait.STDATA.get(raw)
        self._theirs.ram.write(address, (data ^ 0xFFFF_FFFF).to_bytes(4, "little"))
        return address, data

    def _compare_status(self, address: int, data: int) -> None:
        found = int.from_bytes(self._theirs.ram.read(address, 4), "little")
        if found != data:
            self._note(f"{data:#x}", f"{found:#x}", None, f"the answer to a wait, at {address:#x}")

    def _mend(self, registers: dict[str, int], *, ours: bool, theirs: bool) -> None:
        """A wait takes the place of a descriptor that was refused, as drivers do it."""
        if not (ours or theirs):
            return
        wait = WAIT.to_bytes(32, "little")[: descriptor_size(registers["IQA"])]
        self._ours.write(self._slot(registers), wait)
        self._theirs.ram.write(self._slot(registers), wait)
        if ours:
            self._ours.clear_queue_error()
        if theirs:
            self._theirs.unit.clear_queue_error()
            head = self._theirs.unit.read("IQH")
            waits = head != registers["IQT"]
            detail = f"IQT {registers['IQT']:#x}: IQH after IQE has been cleared"
            self._note(f"{registers['IQT']:#x}", f"{head:#x}", (REFETCH,) if waits else None, detail)
            self._theirs.unit.ring(registers["IQT"])

    def _slot(self, registers: dict[str, int]) -> int:
        """Where the last descriptor lies."""
        iqa = registers["IQA"]
        return IQA.IQA.get(iqa) + (registers["IQT"] - descriptor_size(iqa)) % (4096 << IQA.QS.get(iqa))

    def _forget(self) -> None:
        """Empty all caches, of which one side's may have lost what the other's has kept."""
        before = self._ours.registers()["IQT"]
        self._ours.queue(self._global)
        self.follow(before)
        self._predictor.forgotten()

# SPDX-License-Identifier: Apache-2.0
"""Our side of a comparison: our unit, with nothing of ours around it but memory."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from iommuctl.formats.memory import FileMemory, read_word, write_word
from iommuctl.model import Access, Rid, Slot, Step
from iommuctl_smmuv3.id_registers import IDR0
from iommuctl_smmuv3.unit import Unit
from tests.differential.outcome import Faulted, Ours, Outcome
from tests.differential.plans import DEVICES, Dma
from tests.differential.smmuv3.caches import outcome_at
from tests.differential.smmuv3.prediction import Predictor
from tests.differential.smmuv3.unit import Smmu
from tests.machine import DictRows, SilentBus

_NUMBERS = {rid: number for number, (rid, _) in enumerate(DEVICES)}


class OurUnit(Smmu):
    """Our unit with QEMU's identification registers."""

    def __init__(self, memory: FileMemory, features: Mapping[str, int]) -> None:
        super().__init__(memory)
        self._context: Any = SimpleNamespace(memory=memory, rows=DictRows())
        # Without ATS, NS1ATS means nothing; the simulated unit has it.
        features = {**features, "IDR0": features["IDR0"] | IDR0.NS1ATS.mask}
        Unit.reset(self._context, {name.lower(): f"{value:#x}" for name, value in features.items()})
        self._unit = Unit(self._context, SilentBus())

    def read(self, name: str) -> int:
        return self._unit.read_register(name)

    def write(self, name: str, value: int) -> None:
        self._unit.write_register(name, value)

    def request(self, event: Dma) -> tuple[Outcome, bool]:
        """What it answers to a device, and whether its TLB had the answer."""
        answer = self._unit.request(Slot(DEVICES[event.device][0]), event.iova, event.access, privileged=False)
        address = answer.translation.pa
        if address is None:
            return self.take_fault() or Faulted(_code(answer.translation.fault), None), answer.hit
        return outcome_at(event, address), answer.hit

    def entries(self, event: Dma) -> tuple[Step, ...]:
        """What it visits on the way to an address, where it has nothing in its caches."""
        slot = Slot(DEVICES[event.device][0])
        return self._unit.walk(slot, event.iova, event.access, privileged=False).steps


class OurSide:
    """Our memory and our unit. The entries on a way are those of the tests' own walk, which says where bits change."""

    def __init__(self, memory: FileMemory, unit: OurUnit, predictor: Predictor) -> None:
        self._memory = memory
        self._unit = unit
        self._predictor = predictor
        self._record: int | None = None

    def word(self, address: int) -> int:
        return read_word(self._memory, address)

    def put(self, address: int, word: int) -> None:
        write_word(self._memory, address, word)

    def steps(self, rid: Rid, iova: int, access: Access = "r") -> tuple[Step, ...]:
        asked = Dma(_NUMBERS[rid], "w" if access == "w" else "r", iova, 1)
        return self._predictor.specified(asked).steps

    def dma(self, event: Dma, data: bytes) -> Ours:  # noqa: ARG002
        specified = self._predictor.specified(event)
        outcome, hit = self._unit.request(event)
        self._record = getattr(outcome, "record", None)
        return Ours(outcome, hit, outcome != specified.outcome, specified.steps)

    def take_record(self) -> int | None:
        record, self._record = self._record, None
        return record


def _code(fault: Any) -> int | None:
    """The number of an event; None for an abort that has none."""
    return fault.code or None

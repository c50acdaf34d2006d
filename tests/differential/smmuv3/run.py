# SPDX-License-Identifier: Apache-2.0
"""One configuration on QEMU's SMMUv3 and on our side."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from iommuctl.formats.memory import FileMemory
from iommuctl_smmuv3.features import Features
from tests.differential.comparison import Comparison, trace
from tests.differential.outcome import Ours
from tests.differential.plans import Dma
from tests.differential.runner import Run
from tests.differential.smmuv3 import commands, deviations
from tests.differential.smmuv3.build import TABLES, Built
from tests.differential.smmuv3.caches import Translations
from tests.differential.smmuv3.ours import OurSide, OurUnit
from tests.differential.smmuv3.plans import RAM, Commands, Configuration
from tests.differential.smmuv3.prediction import Expected, Predictor
from tests.differential.smmuv3.reader import Registers
from tests.differential.smmuv3.records import Unsafe
from tests.differential.smmuv3.tables import STAGE_1_DESCRIPTOR, STAGE_2_DESCRIPTOR
from tests.differential.smmuv3.unit import SmmuUnit, registers
from tests.differential.theirs import TheirMachine


class SmmuRun(Run[Expected]):
    """A configuration being run."""

    paging = frozenset((STAGE_1_DESCRIPTOR, STAGE_2_DESCRIPTOR))

    def __init__(
        self,
        configuration: Configuration,
        built: Built,
        theirs: TheirMachine[SmmuUnit],
        memory: FileMemory,
    ) -> None:
        self._registers = Registers(built.strtab_base, built.strtab_base_cfg, configuration.recinvsid)
        self._features = Features.of(theirs.unit.features)
        self._predictor = Predictor(memory, self._features, self._registers)
        self._theirs = theirs
        self._cached, self._cached_by_qemu = Translations(self._features), Translations(self._features)
        self._unit = OurUnit(memory, theirs.unit.features)
        super().__init__(configuration, OurSide(memory, self._unit, self._predictor), theirs, memory)

    def start(self) -> None:
        self._theirs.copy(self._memory, TABLES)
        base, cfg, recinvsid = self._registers
        for unit in (self._unit, self._theirs.unit):
            unit.start(registers(base, cfg, recinvsid=recinvsid))

    def other(self, event: Commands) -> None:
        ours, theirs = (unit.queue(event.words) for unit in (self._unit, self._theirs.unit))
        expected, names = commands.theirs(event.words, self._features, deviations.DEVIATIONS)
        specified = commands.specified(event.words, self._features)
        explained = names if theirs == expected and ours == specified else None
        what = "commands at which the queue stopped, with their errors"
        self.note(ours, theirs, explained, f"{what}; expected {specified} and {expected}")
        for cached in (self._cached, self._cached_by_qemu):
            cached.told(event.words)

    def can_be_asked(self, event: Dma) -> bool:
        try:
            self._predictor.expect(event)
        except Unsafe:
            return False
        return True

    def expect(self, event: Dma, ours: Ours) -> list[Expected]:
        specified, theirs = self._predictor.specified(event), self._predictor.theirs(event)
        stale = self._cached.answers(event, specified.asked)
        if ours.outcome not in (specified.outcome, *stale):
            what = f"our unit and the specification; cached is {[str(one) for one in stale]}"
            self.note(ours.outcome, specified.outcome, None, what)
        visited, way = trace(self._unit.entries(event)), trace(specified.steps)
        if visited != way:
            self.note(visited, way, None, "the entries that our unit visits, and those of the tests' own walk")
        stale = self._cached_by_qemu.answers(event, theirs.asked)
        fresh = self._predictor.expect(event)
        return [fresh, *(Expected(outcome, ()) for outcome in stale if outcome != fresh.outcome)]

    def done(self, event: Dma, ours: Ours, expected: Expected) -> None:
        found = (
            (self._cached, self._predictor.specified(event), ours.outcome),
            (self._cached_by_qemu, self._predictor.theirs(event), expected.outcome),
        )
        for cached, fresh, outcome in found:
            if outcome == fresh.outcome:
                cached.remember(fresh.cached)
            else:
                cached.remember(one for landed, one in cached.answers(event, fresh.asked).items() if landed == outcome)


@contextmanager
def _memory() -> Iterator[FileMemory]:
    """RAM that holds zeros."""
    descriptor = os.memfd_create("iommuctl-differential")
    try:
        os.truncate(descriptor, RAM[1])
        yield FileMemory(descriptor, *RAM)
    finally:
        os.close(descriptor)


def run(configuration: Configuration, theirs: TheirMachine[SmmuUnit]) -> list[Comparison]:
    """Run a configuration."""
    with _memory() as memory:
        return SmmuRun(configuration, Built(memory, configuration), theirs, memory).run()

# SPDX-License-Identifier: Apache-2.0
"""One configuration on QEMU's VT-d unit and on ours: what our driver and its queue do, besides DMAs."""

import os
import tempfile
from pathlib import Path

from iommuctl.formats.memory import FileMemory
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.second_stage import SecondStageEntry
from tests.differential.comparison import Comparison
from tests.differential.outcome import Nowhere, Ours
from tests.differential.plans import Dma
from tests.differential.runner import Run
from tests.differential.theirs import TheirMachine
from tests.differential.vtd.build import Built
from tests.differential.vtd.deviations import ACCESSED, DIRTY, ONCE
from tests.differential.vtd.kinds import KINDS
from tests.differential.vtd.ours import OurMachine
from tests.differential.vtd.plans import RAM, Attach, Configuration, Queue, Tail, Unmap
from tests.differential.vtd.prediction import Expected, Predictor
from tests.differential.vtd.queueing import Queueing
from tests.differential.vtd.unit import VtdUnit

_USED = FirstStageEntry.A.mask | FirstStageEntry.D.mask


class VtdRun(Run[Expected]):
    """A configuration being run."""

    paging = frozenset((FirstStageEntry.name, SecondStageEntry.name))

    def __init__(
        self, configuration: Configuration, ours: OurMachine, theirs: TheirMachine[VtdUnit], memory: FileMemory
    ) -> None:
        super().__init__(configuration, ours, theirs, memory)
        self._plan = configuration
        self._ours = ours
        self._theirs = theirs
        self._predictor = Predictor(ours, theirs.unit, theirs.ram)
        self._queueing = Queueing(ours, theirs, memory, self._predictor, self.note)

    def start(self) -> None:
        self._built = Built(self._ours, self._plan)
        self._theirs.copy(self._memory, self._theirs.board.tables)
        self._theirs.unit.start(self._ours.registers())

    def other(self, event: Unmap | Attach | Queue | Tail) -> None:
        if isinstance(event, Queue):
            for raw in event.descriptors:
                self._queueing.descriptor(raw)
        elif isinstance(event, Tail):
            self._queueing.tail(event)
        else:
            self._change(event)

    def _change(self, event: Unmap | Attach) -> None:
        """Our driver changes something."""
        self.compare_tables()
        before = self._ours.registers()["IQT"]
        self._built.change(event)
        self._predictor.invalidated()
        self._queueing.follow(before)

    def expect(self, event: Dma, ours: Ours) -> list[Expected]:
        return self._predictor.expect(event, ours)

    def done(self, event: Dma, ours: Ours, expected: Expected) -> None:
        self._predictor.done(event, ours, expected)

    def why_bits_differ(self, match: Expected, places: list[int]) -> tuple[str, ...]:
        if match.walk is None:
            return match.names or (DIRTY,)
        if any(self._ours.word(at) & ~self._word(at) & _USED for at in places):
            return (ONCE,)
        # Our simulator undoes a DMA that ends where there is no memory.
        return match.names or (() if isinstance(match.outcome, Nowhere) else (ACCESSED,))


def run(configuration: Configuration, theirs: TheirMachine[VtdUnit]) -> list[Comparison]:
    """Run a configuration, in a state folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="iommuctl-differential-") as folder:
        ours = OurMachine(Path(folder) / "state", KINDS[configuration.kind], theirs.unit.cap, theirs.unit.ecap)
        try:
            file = os.open(ours.iommu.describe()["memory"]["file"], os.O_RDWR | os.O_CLOEXEC)
            try:
                return VtdRun(configuration, ours, theirs, FileMemory(file, 0, RAM)).run()
            finally:
                os.close(file)
        finally:
            ours.close()

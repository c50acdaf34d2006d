# SPDX-License-Identifier: Apache-2.0
"""One configuration on both sides, DMA by DMA and descriptor by descriptor."""

import os
import tempfile
from pathlib import Path
from typing import Final

from iommuctl.formats.memory import FileMemory, read_word
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.second_stage import SecondStageEntry
from tests.differential.build import Built
from tests.differential.comparison import Comparison, same, trace
from tests.differential.deviations import ACCESSED, DIRTY, ONCE
from tests.differential.ours import OurMachine
from tests.differential.outcome import Faulted, Nowhere, Ours, Outcome
from tests.differential.plans import (
    DEVICES,
    POOL,
    RAM,
    TABLES,
    Attach,
    Clear,
    Configuration,
    Dma,
    Event,
    Flip,
    Queue,
    Tail,
    Unmap,
)
from tests.differential.prediction import Expected, Predictor
from tests.differential.queueing import Queueing
from tests.differential.theirs import TheirMachine
from tests.differential.transfer import Transfers
from tests.differential.vtd_kinds import KINDS

_PAGING = (FirstStageEntry.name, SecondStageEntry.name)
_USED = FirstStageEntry.A.mask | FirstStageEntry.D.mask


class Run:
    """A configuration being run. `comparisons` has what was compared so far."""

    def __init__(self, configuration: Configuration, theirs: TheirMachine, folder: Path) -> None:
        self.comparisons: Final[list[Comparison]] = []
        self._configuration = configuration
        self._theirs = theirs
        self._ours = OurMachine(folder, KINDS[configuration.kind], theirs.unit.cap, theirs.unit.ecap)
        self._file = os.open(self._ours.iommu.describe()["memory"]["file"], os.O_RDWR | os.O_CLOEXEC)
        self._memory = FileMemory(self._file, 0, RAM)
        self._predictor = Predictor(self._ours, theirs.unit, theirs.ram)
        self._transfers = Transfers(theirs, self._memory)
        self._queueing = Queueing(self._ours, theirs, self._memory, self._predictor, self._note)
        self._flipped: dict[Flip, tuple[int, int]] = {}
        self._event = 0

    def run(self) -> list[Comparison]:
        """All of it."""
        try:
            built = Built(self._ours, self._configuration)
            self._theirs.copy(self._memory, (TABLES, POOL))
            self._theirs.unit.start(self._ours.registers())
            try:
                for number, event in enumerate(self._configuration.events):
                    self._event = number
                    self._do(event, built)
                self._compare_tables()
            finally:
                self._theirs.unit.stop()
            for index, theirs in self._transfers.failed_reads().items():
                self.comparisons[index] = self.comparisons[index]._replace(theirs=theirs, explained=None)
            return self.comparisons
        finally:
            os.close(self._file)
            self._ours.close()

    def _do(self, event: Event, built: Built) -> None:
        if isinstance(event, Dma):
            self._dma(event)
        elif isinstance(event, Flip):
            self._flip(event)
        elif isinstance(event, Clear):
            step = self._ours.steps(DEVICES[event.device][0], event.iova)[-1]
            if step.structure in _PAGING:
                self._store(step.address, 0)
        elif isinstance(event, Queue):
            for raw in event.descriptors:
                self._queueing.descriptor(raw)
        elif isinstance(event, Tail):
            self._queueing.tail(event)
        else:
            self._change(event, built)

    def _note(self, ours: object, theirs: object, explained: tuple[str, ...] | None, detail: str) -> None:
        self.comparisons.append(Comparison(self._event, str(ours), str(theirs), explained, detail=detail))

    # Memory

    def _store(self, address: int, word: int) -> None:
        self._ours.put(address, word)
        self._theirs.ram.write(address, word.to_bytes(8, "little"))

    def _flip(self, event: Flip) -> None:
        # Mending it goes by address: the way there may be cut off.
        place = self._flipped.pop(event, None)
        if place is None:
            steps = self._ours.steps(DEVICES[event.device][0], event.iova)
            step = steps[-1 - event.depth % len(steps)]
            if event.paging and step.structure not in _PAGING:
                return
            bit = event.bit % (64 * len(step.raw))
            place = self._flipped[event] = (step.address + bit // 64 * 8, 1 << bit % 64)
        address, mask = place
        self._store(address, self._ours.word(address) ^ mask)

    def _compare_tables(self) -> None:
        """No side may have written anything into tables that has not been compared already."""
        for first, size in (TABLES, POOL):
            ours, theirs = self._memory.read(first, size), self._theirs.ram.read(first, size)
            for at in range(0, size, 8) if ours != theirs else ():
                if ours[at : at + 8] != theirs[at : at + 8]:
                    self._note(ours[at : at + 8].hex(), theirs[at : at + 8].hex(), None, f"memory at {first + at:#x}")

    def _change(self, event: Unmap | Attach, built: Built) -> None:
        """Our driver changes something."""
        self._compare_tables()
        before = self._ours.registers()["IQT"]
        built.change(event)
        self._predictor.invalidated()
        self._queueing.follow(before)

    # DMA

    def _dma(self, event: Dma) -> None:
        data = self._transfers.payload(event)
        before = self._ours.steps(DEVICES[event.device][0], event.iova, event.access)
        ours = self._ours.dma(event, data)
        self._check_our_record(ours)
        expected = self._predictor.expect(event, ours)
        addresses = {step.address for step in before if step.structure in _PAGING}
        start = {address: self._word(address) for address in addresses.union(*(one.updates for one in expected))}
        theirs = self._transfers.carry_out(event, expected, len(self.comparisons))
        match = self._match(expected, theirs, start)
        self.comparisons.append(
            Comparison(
                self._event,
                str(ours.outcome),
                str(theirs),
                None if match is None else match.names,
                ours.outcome,
                ours.stale,
                f"expected {' or '.join(str(one.outcome) for one in expected)}; {trace(before)}",
            )
        )
        if match:
            self._compare_updates(start, match)
            self._predictor.done(event, ours, match)
        if event.access == "w":
            self._transfers.wipe(ours.outcome, theirs, event)

    def _check_our_record(self, ours: Ours) -> None:
        """Our unit must have recorded what is compared with QEMU's record."""
        if isinstance(ours.outcome, Faulted):
            found = self._ours.take_record()
            if found != ours.outcome.record:
                self._note(found, ours.outcome.record, None, "the record that our unit has made, and what it should be")

    def _match(self, expected: list[Expected], theirs: Outcome, start: dict[int, int]) -> Expected | None:
        """What was expected and happened. Where outcomes are the same, the bits that were set tell."""
        found = [one for one in expected if same(one.outcome, theirs)]
        return next((one for one in found if not self._wrong(start, one)), found[0] if found else None)

    def _wrong(self, start: dict[int, int], expected: Expected) -> dict[int, int]:
        """The entries that QEMU has not left as expected, and what they should be."""
        wanted = {address: word | expected.updates.get(address, 0) for address, word in start.items()}
        return {address: word for address, word in wanted.items() if self._word(address) != word}

    def _compare_updates(self, start: dict[int, int], match: Expected) -> None:
        """The accessed and dirty bits that this DMA has set. Ours become QEMU's, so that each is compared once."""
        wrong = self._wrong(start, match)
        differs = [address for address in start if self._ours.word(address) != self._word(address)]
        if wrong or differs:
            places = sorted({*wrong, *differs})
            ours, theirs = (" ".join(f"{word(at):x}" for at in places) for word in (self._ours.word, self._word))
            where = f"entries at {' '.join(f'{at:x}' for at in places)}"
            self._note(
                ours, theirs, None if wrong else self._why_bits_differ(match, places), f"{where}; wrong: {wrong}"
            )
        for address in differs:
            self._memory.write(address, self._theirs.ram.read(address, 8))

    def _why_bits_differ(self, match: Expected, places: list[int]) -> tuple[str, ...]:
        if match.walk is None:
            return match.names or (DIRTY,)
        if any(self._ours.word(at) & ~self._word(at) & _USED for at in places):
            return (ONCE,)
        # Our simulator undoes a DMA that ends where there is no memory.
        return match.names or (() if isinstance(match.outcome, Nowhere) else (ACCESSED,))

    def _word(self, address: int) -> int:
        return read_word(self._theirs.ram, address)


def run(configuration: Configuration, theirs: TheirMachine) -> list[Comparison]:
    """Run a configuration, in a state folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="iommuctl-differential-") as folder:
        return Run(configuration, theirs, Path(folder) / "state").run()

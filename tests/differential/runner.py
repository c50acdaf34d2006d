# SPDX-License-Identifier: Apache-2.0
"""One configuration on both sides, DMA by DMA; what is an architecture's own is asked of a subclass."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from iommuctl.formats.memory import FileMemory, read_word
from iommuctl.model import Access, Rid, Step
from tests.differential.comparison import Comparison, same, trace
from tests.differential.outcome import Faulted, Ours, Outcome
from tests.differential.plans import DEVICES, Clear, Configuration, Dma, Flip
from tests.differential.theirs import TheirMachine
from tests.differential.transfer import Transfers


class Expectation(Protocol):
    """What QEMU may do: the outcome, the deviations by which it differs from ours, and the bits that it sets.

    `updates` has accessed and dirty bits by the address of their entry.
    """

    @property
    def outcome(self) -> Outcome: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def updates(self) -> Mapping[int, int]: ...


class Side(Protocol):
    """Our side: memory, and a unit that answers."""

    def word(self, address: int) -> int:
        """A word of 64 bits."""

    def put(self, address: int, word: int) -> None:
        """Store a word of 64 bits."""

    def steps(self, rid: Rid, iova: int, access: Access = "r") -> tuple[Step, ...]:
        """The entries on the way to an address."""

    def dma(self, event: Dma, data: bytes) -> Ours:
        """Carry out a DMA within one page; `data` is what it writes."""

    def take_record(self) -> int | None:
        """The fault that is recorded, and free its record; None without one."""


Expected = TypeVar("Expected", bound=Expectation)


class Run(ABC, Generic[Expected]):
    """A configuration being run. `comparisons` has what was compared so far."""

    paging: frozenset[str]
    """The names of page-table entries."""

    def __init__(self, configuration: Configuration, ours: Side, theirs: TheirMachine[Any], memory: FileMemory) -> None:
        """`memory` is our RAM."""
        self.comparisons: Final[list[Comparison]] = []
        self._configuration = configuration
        self._side = ours
        self._machine = theirs
        self._memory = memory
        self._transfers = Transfers(theirs, memory)
        self._flipped: dict[Flip, tuple[int, int]] = {}
        self._event = 0

    @abstractmethod
    def start(self) -> None:
        """Build what the configuration says on both sides, and have QEMU's unit translate."""

    @abstractmethod
    def other(self, event: Any) -> None:
        """An event that only this architecture has."""

    @abstractmethod
    def expect(self, event: Dma, ours: Ours) -> Sequence[Expected]:
        """What QEMU may do to a request that we have answered; nearly always that is one thing."""

    def done(self, event: Dma, ours: Ours, expected: Expected) -> None:
        """QEMU did as expected."""

    def why_bits_differ(self, match: Expected, places: list[int]) -> tuple[str, ...]:  # noqa: ARG002
        """The deviations by which accessed and dirty bits differ where QEMU did as expected."""
        return match.names

    def run(self) -> list[Comparison]:
        """All of it."""
        self.start()
        try:
            for number, event in enumerate(self._configuration.events):
                self._event = number
                self._do(event)
            self.compare_tables()
        finally:
            self._machine.unit.stop()
        for index, theirs in self._transfers.failed_reads().items():
            self.comparisons[index] = self.comparisons[index]._replace(theirs=theirs, explained=None)
        return self.comparisons

    def _do(self, event: Any) -> None:
        if isinstance(event, Dma):
            self._dma(event)
        elif isinstance(event, Flip):
            self._flip(event)
        elif isinstance(event, Clear):
            for step in self._side.steps(DEVICES[event.device][0], event.iova)[-1:]:
                if step.structure in self.paging:
                    self._store(step.address, 0)
        else:
            self.other(event)

    def note(self, ours: object, theirs: object, explained: tuple[str, ...] | None, detail: str) -> None:
        """Our answer, QEMU's, what explains the difference, and what it is about."""
        self.comparisons.append(Comparison(self._event, str(ours), str(theirs), explained, detail=detail))

    # Memory

    def _store(self, address: int, word: int) -> None:
        self._side.put(address, word)
        self._machine.ram.write(address, word.to_bytes(8, "little"))

    def _flip(self, event: Flip) -> None:
        # Mending it goes by address: the way there may be cut off.
        place = self._flipped.pop(event, None)
        if place is None:
            steps = self._side.steps(DEVICES[event.device][0], event.iova)
            if not steps:
                return
            step = steps[-1 - event.depth % len(steps)]
            if event.paging and step.structure not in self.paging:
                return
            bit = event.bit % (64 * len(step.raw))
            place = self._flipped[event] = (step.address + bit // 64 * 8, 1 << bit % 64)
        address, mask = place
        self._store(address, self._side.word(address) ^ mask)

    def compare_tables(self) -> None:
        """No side may have written anything into tables that has not been compared already."""
        for first, size in self._machine.board.tables:
            ours, theirs = self._memory.read(first, size), self._machine.ram.read(first, size)
            for at in range(0, size, 8) if ours != theirs else ():
                if ours[at : at + 8] != theirs[at : at + 8]:
                    self.note(ours[at : at + 8].hex(), theirs[at : at + 8].hex(), None, f"memory at {first + at:#x}")

    # DMA

    def can_be_asked(self, event: Dma) -> bool:  # noqa: ARG002
        """Whether QEMU survives a request."""
        return True

    def _dma(self, event: Dma) -> None:
        if not self.can_be_asked(event):
            return
        data = self._transfers.payload(event)
        before = self._side.steps(DEVICES[event.device][0], event.iova, event.access)
        ours = self._side.dma(event, data)
        self._check_our_record(ours)
        expected = self.expect(event, ours)
        addresses = {step.address for step in before if step.structure in self.paging}
        start = {address: self._word(address) for address in addresses.union(*(one.updates for one in expected))}
        theirs = self._transfers.carry_out(event, [one.outcome for one in expected], len(self.comparisons))
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
            self.done(event, ours, match)
        if event.access == "w":
            self._transfers.wipe(ours.outcome, theirs, event)

    def _check_our_record(self, ours: Ours) -> None:
        """Our unit must have recorded what is compared with QEMU's record."""
        if isinstance(ours.outcome, Faulted):
            found = self._side.take_record()
            if found != ours.outcome.record:
                self.note(found, ours.outcome.record, None, "the record that our unit has made, and what it should be")

    def _match(self, expected: Sequence[Expected], theirs: Outcome, start: dict[int, int]) -> Expected | None:
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
        differs = [address for address in start if self._side.word(address) != self._word(address)]
        if wrong or differs:
            places = sorted({*wrong, *differs})
            ours, theirs = (" ".join(f"{word(at):x}" for at in places) for word in (self._side.word, self._word))
            where = f"entries at {' '.join(f'{at:x}' for at in places)}"
            explained = None if wrong else self.why_bits_differ(match, places)
            self.note(ours, theirs, explained, f"{where}; wrong: {wrong}")
        for address in differs:
            self._memory.write(address, self._machine.ram.read(address, 8))

    def _word(self, address: int) -> int:
        return read_word(self._machine.ram, address)

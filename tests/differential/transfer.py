# SPDX-License-Identifier: Apache-2.0
"""One DMA of QEMU's devices, and what can be found out about where it went."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from iommuctl.formats.memory import FileMemory
from tests.differential.devices import Answer
from tests.differential.outcome import Elsewhere, Faulted, Landed, Nowhere, Outcome
from tests.differential.plans import Dma
from tests.differential.theirs import READS, TheirMachine, payload

_SLOT = 32
"""Bytes that each read has in an edu's buffer."""


class Pending(NamedTuple):
    """A read that has come to its end: where in which buffer its bytes are, and what they may be."""

    comparison: int
    device: int
    offset: int
    contents: tuple[bytes, ...]


class Transfers:
    """The DMAs of one configuration. `memory` is our RAM, which is kept the same as QEMU's."""

    def __init__(self, theirs: TheirMachine[Any], memory: FileMemory) -> None:
        self._theirs = theirs
        self._memory = memory
        self._count = 0
        self._reads: dict[int, int] = {}
        self.pending: list[Pending] = []

    def payload(self, event: Dma) -> bytes:
        """What the next DMA writes."""
        self._count += 1
        return payload(event.device, event.size, self._count * 31)

    def carry_out(self, event: Dma, expected: Sequence[Outcome], comparison: int) -> Outcome:
        """Have QEMU do it. What an edu has read is told at the end; until then it counts as expected."""
        landings = [one for one in expected if isinstance(one, Landed)]
        if event.access == "r":
            return self._read(event, expected, landings, comparison)
        data = payload(event.device, event.size, self._count * 31)
        for landing in landings:
            self._put(landing.pieces[0].pa, bytes(byte ^ 0xFF for byte in data))
        expected_at = landings[0].pieces[0].pa if landings else 0
        answer = self._theirs.write(event.device, event.iova, event.size, self._count * 31, expected_at)
        return self._written(data, answer, expected)

    def _written(self, data: bytes, answer: Answer, expected: Sequence[Outcome]) -> Outcome:
        fault: Faulted | None = self._theirs.unit.take_fault()
        if fault is not None:
            return fault
        refused = next((one for one in expected if isinstance(one, Nowhere)), Faulted(None, None))
        if answer is Answer.REFUSED:
            return refused
        for one in expected:
            if isinstance(one, Landed) and self._theirs.ram.read(one.pieces[0].pa, len(data)) == data:
                return one
        places = tuple(at for at in self._theirs.search(data) if at & -4096 != self._theirs.board.scratch)
        return Elsewhere(places) if places or answer is Answer.DONE else refused

    def _read(self, event: Dma, expected: Sequence[Outcome], landings: list[Landed], comparison: int) -> Outcome:
        number = self._reads.get(event.device, 0)
        self._reads[event.device] = number + 1
        assert (number + 1) * _SLOT <= READS, "a configuration has more reads than an edu has room for"
        for index, landing in enumerate(landings):
            self._put(landing.pieces[0].pa, _token(comparison * 4 + index, event.size))
        contents = tuple(self._theirs.ram.read(landing.pieces[0].pa, event.size) for landing in landings)
        self._theirs.read(event.device, event.iova, event.size, number * _SLOT)
        fault: Faulted | None = self._theirs.unit.take_fault()
        if fault is not None:
            return fault
        quiet = [one for one in expected if not (isinstance(one, Faulted) and one.record is not None)]
        if landings and len(landings) == len(quiet):
            self.pending.append(Pending(comparison, event.device, number * _SLOT, contents))
            return landings[0]
        # What was read cannot be told from what is read where there is nothing.
        return next((one for one in quiet if not isinstance(one, Landed)), Faulted(None, None))

    def failed_reads(self) -> dict[int, str]:
        """The comparisons whose bytes are wrong, and how. Translation is off."""
        buffers = self._theirs.buffers()
        found = {}
        for one in self.pending:
            data = buffers[one.device][one.offset : one.offset + len(one.contents[0])]
            if data not in one.contents:
                found[one.comparison] = f"read {data.hex()}, not {' or '.join(part.hex() for part in one.contents)}"
        return found

    def wipe(self, ours: Outcome, theirs: Outcome, event: Dma) -> None:
        """After a write: make our RAM the same again, and take its bytes away, which later searches would find."""
        places = [outcome.pieces[0].pa for outcome in (ours, theirs) if isinstance(outcome, Landed)]
        for at in [*places, *(theirs.found if isinstance(theirs, Elsewhere) else ())]:
            self._memory.write(at, self._theirs.ram.read(at, event.size))
            self._put(at, bytes(event.size))

    def _put(self, address: int, data: bytes) -> None:
        """Store into both RAMs, but never over tables."""
        if not self._in_tables(address, len(data)):
            self._memory.write(address, data)
            self._theirs.ram.write(address, data)

    def _in_tables(self, address: int, size: int) -> bool:
        tables = self._theirs.board.tables
        return any(first < address + size and address < first + extent for first, extent in tables)


def _token(number: int, size: int) -> bytes:
    """Bytes that no other number has."""
    return ((0xA5C3_0000_0000_0000 | number * 0x1_0001_0001).to_bytes(8, "little") * 4)[:size]

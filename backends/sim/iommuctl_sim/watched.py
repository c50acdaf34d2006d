# SPDX-License-Identifier: Apache-2.0
"""The driver's memory under watch: in which order structures are written, and what is freed.

Hardware may read a structure at any moment, so each store counts; and what a cached entry points to is still in use.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from iommuctl.architecture import Driver, Unit
from iommuctl.formats import radix
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import PAGE, Memory, Run, TableMemory
from iommuctl.hookspecs import Context, Rows, UnmapRequest
from iommuctl.model import MAX_ADDRESS, Command, Slot, Step

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture

_WORD = 8

Store = tuple[int, bytes, bytes]
"""Address, the old bytes, the new ones."""


class WatchedContext:
    """The context that the driver works on: everything goes through, and a warning comes for what is wrong."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.memory = WatchedMemory(context.memory, context)
        self.rows: Rows = context.rows

    def architecture(self, name: str) -> "Architecture":
        return self._context.architecture(name)

    def log(self, command: Command) -> None:
        self.memory.caches_changed()
        self._context.log(command)

    def warn(self, text: str) -> None:
        self._context.warn(text)


class WatchedMemory:
    """A TableMemory. `unit` is whose caches are looked at when memory is freed."""

    def __init__(self, memory: TableMemory, context: Context) -> None:
        self._memory = memory
        self._context = context
        self._cached: list[int] | None = None
        self.unit: Unit | None = None
        self.freed: list[Run] = []
        self.stores: list[Store] | None = None
        """The stores in their order, while somebody wants them."""

    def read(self, address: int, size: int) -> bytes:
        return self._memory.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        if self.stores is not None:
            self.stores.append((address, self._memory.read(address, len(data)), bytes(data)))
        self._memory.write(address, data)

    def allocate(self, pages: int) -> list[Run]:
        return self._memory.allocate(pages)

    def allocate_run(self, pages: int) -> int:
        return self._memory.allocate_run(pages)

    def free(self, run: Run) -> None:
        if self.unit:
            if self._cached is None:
                self._cached = sorted(self.unit.cached_tables())
            at = bisect_left(self._cached, run.address)
            if at < len(self._cached) and self._cached[at] < run.address + run.pages * PAGE:
                self._context.warn(
                    f"the table at {self._cached[at]:#x} was freed while an entry in a cache still points to it"
                )
        self.freed.append(run)
        self._memory.free(run)

    def caches_changed(self) -> None:
        """What caches hold may have changed."""
        self._cached = None


def still_reached(driver: Driver, memory: Memory, request: UnmapRequest, freed: Sequence[Run]) -> set[int]:
    """Tables that were freed with the mappings of a request, and that a walk for these still comes to."""
    domain = request.domain
    fmt, root = driver.domain_format(domain), driver.domain_root(domain)
    ends = {request.mappings[0].iova, request.mappings[-1].iova + request.mappings[-1].size - 1}
    tables = {visit.address & -PAGE for iova in ends for visit in radix.walk(fmt, memory, root, iova)}
    return {table for table in tables for run in freed if run.address <= table < run.address + run.pages * PAGE}


def torn(unit: Unit, slot: Slot, stores: Sequence[Store], structures: Mapping[str, type[Layout]]) -> list[str]:
    """Sentences about structures of a slot that were written while hardware looked at them, by more than one store.

    Each state that was present must be the first or the last one, in the bits that hardware uses of that.
    """
    found: list[str] = []
    pointed_at = -1
    # What leads to the tables is of interest, so the address is one that hardly any table translates.
    for step in unit.walk(slot, MAX_ADDRESS, "r", privileged=False).steps:
        layout = structures[step.structure]
        size = layout.bits // 8
        touching = [
            number
            for number, (address, _, new) in enumerate(stores)
            if address < step.address + size and step.address < address + len(new)
        ]
        # One word is there as a whole or not at all.
        if layout.present and sum(len(stores[number][1]) for number in touching) > _WORD:
            # Before the store that led here, nobody looked.
            states = _states(step, layout, [stores[number] for number in touching if number > pointed_at])
            if problem := _problem(layout, states):
                found.append(f"the {step.structure} of {slot} at {step.address:#x} {problem}")
        pointed_at = max([pointed_at, *touching])
    return found


def _states(step: Step, layout: type[Layout], stores: Sequence[Store]) -> list[int]:
    """What the structure held, from before the first of these stores to the end, after each word."""
    size = layout.bits // 8
    content = bytearray(layout.to_bytes(layout.from_words(step.raw)))
    states = [int.from_bytes(content, "little")]
    for address, old, _ in reversed(stores):
        # Backwards, from what is there now.
        for at in reversed(range(0, len(old), 8)):
            place = address + at - step.address
            if 0 <= place < size:
                content[place : place + 8] = old[at : at + 8]
                states.append(int.from_bytes(content, "little"))
    return states[::-1]


def _problem(layout: type[Layout], states: Sequence[int]) -> str:
    assert layout.present
    ends = [(end, layout.used(end)) for end in (states[0], states[-1])]
    for state in states:
        if layout.present.get(state) and all((state ^ end) & used for end, used in ends):
            if layout.present.get(states[0]):
                return "was changed by several stores while it was present"
            return f"had {layout.present.name} set before the rest was written"
    return ""

# SPDX-License-Identifier: Apache-2.0
"""What QEMU must answer: our answer, changed by the deviations that are listed, and by what QEMU has cached."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from iommuctl.formats.memory import Memory, read_word
from iommuctl.model import Piece, Step
from iommuctl_vtd.capability import capability
from iommuctl_vtd.first_stage import FirstStageEntry
from tests.differential.outcome import Faulted, Landed, Nowhere, Ours, Outcome
from tests.differential.plans import Dma
from tests.differential.vtd.deviations import ANSWERS, READINGS, REFUSALS, RIGHTS, TAGS, Question
from tests.differential.vtd.ours import OurMachine, Walk, fault
from tests.differential.vtd.plans import RAM
from tests.differential.vtd.unit import VtdUnit

_BEFORE_TABLES = (*range(0x01, 0x70), 0x80)
"""Fault codes of requests that come to no first-stage entry."""
_AT_ENTRY = (0x71, 0x72)
"""Fault codes that are about the last entry that was read."""
_ROUNDS = 16
"""More than there are entries on the longest way, each of which can be taken for another one."""


class Expected(NamedTuple):
    """What QEMU may do: the outcome, the deviations by which it differs from ours, and the bits that it sets.

    `updates` has accessed and dirty bits by the address of their entry.
    """

    outcome: Outcome
    names: tuple[str, ...] = ()
    updates: Mapping[int, int] = MappingProxyType({})
    walk: Walk | None = None
    """What was found in the tables, unless the answer comes from a cache."""


class Cached(NamedTuple):
    """What QEMU holds of a page for one device.

    `born` counts the invalidations before, `shared` says that our unit has cached it, too, and `names` are the
    deviations but for which QEMU would have nothing.
    """

    first: int
    size: int
    pa: int
    prot: str
    born: int
    shared: bool
    names: tuple[str, ...]


class Predictor:
    """Predicts the answers of one QEMU to one configuration."""

    def __init__(self, ours: OurMachine, unit: VtdUnit, ram: Memory) -> None:
        """`ram` is QEMU's."""
        self._ours = ours
        self._ram = ram
        self._facts = capability(unit.cap, unit.ecap | ours.kind.more, ours.kind.haw)
        self._cached: dict[int, list[Cached]] = {}
        self._invalidations = 0

    def refuses(self, raw: int, *, ours: bool) -> tuple[bool, tuple[str, ...]]:
        """Whether QEMU refuses a descriptor, given whether we do, and the deviation that says so."""
        for name, (rule, _) in REFUSALS.items():
            refused = rule(self._ours.kind, self._facts, raw)
            if refused is not None and refused != ours:
                return refused, (name,)
        return ours, ()

    def expect(self, event: Dma, ours: Ours) -> list[Expected]:
        """What QEMU may do to a request that we have answered; nearly always that is one thing."""
        fresh, known = self._fresh(event), self._find(event)
        other = fresh._replace(names=(*fresh.names, TAGS))
        if known is None:
            return [other if ours.hit and fresh.outcome != ours.outcome else fresh]
        cached = self._from_cache(event, known)
        if known.born == self._invalidations:
            return [cached]
        if ours.hit and known.shared:
            # What our unit has kept, QEMU has kept; unless another device has filled our entry again.
            return [cached, other] if self._filled_later(event, known) else [cached]
        if known.shared and event.access in known.prot and not (self._ours.kind.first_stage and event.access == "w"):
            # Our unit has forgotten it, so there was an invalidation that reached it. (For a dirty bit it walks, too.)
            return [fresh]
        return [fresh, cached]

    def done(self, event: Dma, ours: Ours, expected: Expected) -> None:
        """QEMU did as expected; what it has translated is cached now."""
        walk, outcome = expected.walk, expected.outcome
        if walk is None or not walk.size or not isinstance(outcome, Landed | Nowhere):
            return
        pa = outcome.pieces[0].pa if isinstance(outcome, Landed) else outcome.pa
        first, shared = event.iova & -walk.size, isinstance(ours.outcome, Landed)
        known = Cached(first, walk.size, (pa or 0) & -walk.size, walk.prot, self._invalidations, shared, expected.names)
        self._cached.setdefault(event.device, []).append(known)

    def invalidated(self) -> None:
        """Some caches were told something."""
        self._invalidations += 1

    def forgotten(self) -> None:
        """All caches are empty."""
        self._cached.clear()

    def _find(self, event: Dma) -> Cached | None:
        known = self._cached.get(event.device, [])
        return next((one for one in reversed(known) if one.first <= event.iova < one.first + one.size), None)

    def _filled_later(self, event: Dma, known: Cached) -> bool:
        """Whether another device has brought an entry for the address into our cache after a later invalidation."""
        others = [one for device, found in self._cached.items() if device != event.device for one in found]
        later = [one for one in others if one.shared and one.born > known.born]
        return any(one.first <= event.iova < one.first + one.size for one in later)

    def _from_cache(self, event: Dma, known: Cached) -> Expected:
        if event.access not in known.prot:
            return Expected(Faulted(None, None), (RIGHTS,))
        pa = known.pa | event.iova & known.size - 1
        if pa + event.size > RAM:
            return Expected(Nowhere(pa), known.names)
        return Expected(Landed((Piece(event.iova, pa, event.size),)), known.names)

    def _fresh(self, event: Dma) -> Expected:
        """QEMU's walk: ours, over entries as QEMU reads them, and with QEMU's answers."""
        original, walk, names = self._walk(event)
        if walk.outcome == original.outcome:
            names = []
        outcome = walk.outcome
        for name, (rule, _) in ANSWERS.items():
            answer = rule(Question(self._ours.kind, self._facts, event, walk.steps, outcome, walk.size))
            if answer is not None:
                outcome = fault(event, answer, walk.steps) if isinstance(answer, int) else answer
                names.append(name)
        expected = Expected(outcome, tuple(dict.fromkeys(names)), walk=walk)
        return expected._replace(updates=self._updates(event, expected, walk))

    def _updates(self, event: Dma, expected: Expected, walk: Walk) -> dict[int, int]:
        """Accessed and dirty bits that QEMU sets, entry by entry until one does not allow the request."""
        found: dict[int, int] = {}
        code = expected.outcome.code if isinstance(expected.outcome, Faulted) else None
        entries = [step for step in walk.steps if step.structure == FirstStageEntry.name]
        for step in entries if code not in _BEFORE_TABLES else ():
            raw, last = step.raw[0], step is entries[-1]
            allowed = FirstStageEntry.US.get(raw) and (event.access == "r" or FirstStageEntry.RW.get(raw))
            if not allowed or (last and code in _AT_ENTRY):
                break
            dirty = last and event.access == "w" and code != 0x70
            wanted = FirstStageEntry.A.mask | (FirstStageEntry.D.mask if dirty else 0)
            found[step.address] = 0 if read_word(self._ram, step.address) & wanted else wanted
        return found

    def _walk(self, event: Dma) -> tuple[Walk, Walk, list[str]]:
        """Our walk, the walk over entries as QEMU reads them, and the deviations between the two."""
        names: list[str] = []
        stored: dict[int, int] = {}
        original = walk = self._ours.walk(event)
        try:
            for _ in range(_ROUNDS):
                changes = dict(self._readings(walk.steps, names))
                if not changes:
                    break
                for address, word in changes.items():
                    stored.setdefault(address, self._ours.word(address))
                    self._ours.put(address, word)
                walk = self._ours.walk(event)
        finally:
            for address, word in stored.items():
                self._ours.put(address, word)
        return original, walk, names

    def _readings(self, steps: tuple[Step, ...], names: list[str]) -> list[tuple[int, int]]:
        """The words of these entries that QEMU takes for others, by their addresses."""
        changes = []
        for number, step in enumerate(steps):
            words = step.raw
            for name, (rule, _) in READINGS.items():
                before, words = words, rule(self._ours.kind, self._facts, step._replace(raw=words), steps[:number])
                if words != before:
                    names.append(name)
            pairs = enumerate(zip(step.raw, words, strict=True))
            changes += [(step.address + 8 * place, new) for place, (old, new) in pairs if old != new]
        return changes

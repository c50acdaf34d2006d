# SPDX-License-Identifier: Apache-2.0
"""What the specification demands and what QEMU must answer, both out of memory, by a walk that is the tests' own."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from iommuctl.formats.memory import Memory
from iommuctl.model import Step
from iommuctl_smmuv3.features import Features
from tests.differential.comparison import same
from tests.differential.outcome import Faulted, Landed, Nowhere, Outcome
from tests.differential.plans import DEVICES, Dma
from tests.differential.smmuv3 import deviations
from tests.differential.smmuv3.caches import Asked, Translation, outcome_at
from tests.differential.smmuv3.reader import Reader, Registers
from tests.differential.smmuv3.records import Refused, Request
from tests.differential.smmuv3.walk import Walk


class Expected(NamedTuple):
    """What QEMU must do, and the deviations by which that differs from what it should do. Nothing is written."""

    outcome: Outcome
    names: tuple[str, ...]
    updates: Mapping[int, int] = MappingProxyType({})


class Found(NamedTuple):
    """What a walk comes to, the entries on its way, and the deviations that it met."""

    outcome: Outcome
    steps: tuple[Step, ...]
    met: tuple[str, ...]
    asked: Asked | None
    cached: tuple[Translation, ...]
    """What may be cached now."""


class Predictor:
    """Predicts the answers to one configuration."""

    def __init__(self, memory: Memory, features: Features, registers: Registers) -> None:
        self._memory = memory
        self._features = features
        self._registers = registers

    def specified(self, event: Dma) -> Found:
        """What a unit must do that follows the specification."""
        return self._found(event, (), qemu=False)

    def theirs(self, event: Dma) -> Found:
        """What QEMU must do, with all of its deviations. Raises Unsafe."""
        return self._found(event, deviations.DEVIATIONS, qemu=True)

    def expect(self, event: Dma) -> Expected:
        """What QEMU must do, with the fewest deviations that make the difference. Raises Unsafe."""
        theirs, specified = self.theirs(event), self.specified(event)
        if same(theirs.outcome, specified.outcome):
            return Expected(theirs.outcome, ())
        needed = theirs.met
        for name in theirs.met:
            fewer = tuple(one for one in needed if one != name)
            if self._found(event, fewer, qemu=False).outcome == theirs.outcome:
                needed = fewer
        return Expected(theirs.outcome, tuple(dict.fromkeys(needed)))

    def _found(self, event: Dma, listed: Iterable[str], *, qemu: bool) -> Found:
        reader = Reader(self._memory, self._features, frozenset(listed), qemu=qemu)
        request = Request(DEVICES[event.device][0].source_id, event.iova, event.access == "w")
        outcome: Landed | Nowhere | Faulted
        try:
            address = Walk(reader, self._registers, request).run()
        except Refused as error:
            outcome = error.faulted
        else:
            reader.check_target(address, event.size)
            outcome = outcome_at(event, address)
        met = tuple(dict.fromkeys(reader.met))
        return Found(outcome, tuple(reader.steps), met, reader.asked, tuple(_cached(reader, request, outcome)))


def _cached(reader: Reader, request: Request, outcome: Landed | Nowhere | Faulted) -> Iterator[Translation]:
    """What may be cached after that outcome."""
    if reader.asked is None or isinstance(outcome, Faulted):
        return
    address = outcome.pieces[0].pa if isinstance(outcome, Landed) else outcome.pa
    assert address is not None
    within = request.iova % reader.page
    yield Translation(reader.asked.tag, request.iova - within, address - within, reader.page, reader.granule)
    if reader.stage_2:
        yield reader.stage_2

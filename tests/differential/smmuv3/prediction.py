# SPDX-License-Identifier: Apache-2.0
"""What the specification demands and what QEMU must answer, both out of memory, by a walk that is the tests' own."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from iommuctl.formats.memory import Memory
from iommuctl.model import Piece, Step
from iommuctl_smmuv3.features import Features
from tests.differential.comparison import same
from tests.differential.outcome import Landed, Nowhere, Outcome
from tests.differential.plans import DEVICES, Dma
from tests.differential.smmuv3 import deviations
from tests.differential.smmuv3.reader import Reader, Registers, is_ram
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


class Predictor:
    """Predicts the answers to one configuration."""

    def __init__(self, memory: Memory, features: Features, registers: Registers) -> None:
        self._memory = memory
        self._features = features
        self._registers = registers

    def specified(self, event: Dma) -> Found:
        """What a unit must do that follows the specification."""
        return self._found(event, (), qemu=False)

    def expect(self, event: Dma) -> Expected:
        """What QEMU must do, with the fewest deviations that make the difference. Raises Unsafe."""
        everything = tuple(deviations.DEVIATIONS)
        theirs, specified = self._found(event, everything, qemu=True), self.specified(event)
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
        outcome: Outcome
        try:
            address = Walk(reader, self._registers, request).run()
        except Refused as error:
            outcome = error.faulted
        else:
            reader.check_target(address, event.size)
            landed = is_ram(address, event.size)
            outcome = Landed((Piece(event.iova, address, event.size),)) if landed else Nowhere(address)
        return Found(outcome, tuple(reader.steps), tuple(dict.fromkeys(reader.met)))

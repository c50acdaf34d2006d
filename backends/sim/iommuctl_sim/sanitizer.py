# SPDX-License-Identifier: Apache-2.0
"""What hardware never tells: that a cache answered something else than the tables do, and why.

An answer is compared with a walk that asks no cache. Where they differ, each cache entry that the answer rests on is
compared with the entries of that walk: what it was made of and what is met no more is what changed.
"""

from collections.abc import Mapping, Sequence

from iommuctl.architecture import Recalled, Stale, Unit
from iommuctl.errors import OutsideMemory
from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory
from iommuctl.model import Changed, RequestKind, Step, Translation
from iommuctl_sim.device_tlb import Question
from iommuctl_sim.journal import Journal


class Sanitizer:
    """The comparison, for one unit."""

    def __init__(self, unit: Unit, memory: Memory, journal: Journal, structures: Mapping[str, type[Layout]]) -> None:
        self._unit = unit
        self._memory = memory
        self._journal = journal
        self._structures = structures

    def truth(self, question: Question, kind: RequestKind) -> Translation:
        """What the tables say."""
        slot, iova, access, privileged = question
        return self._unit.walk(slot, iova, access, privileged=privileged, kind=kind)

    def stale(
        self, question: Question, size: int, kind: RequestKind, answer: Translation, recalled: Sequence[Recalled]
    ) -> list[Stale] | None:
        """The cache entries that made the answer wrong; None for a right one."""
        if not recalled:
            return None
        truth = self.truth(question, kind)
        if same(answer, truth):
            return None
        met = {self._told(step) for step in truth.steps}
        found = []
        for cache, tag, steps in recalled:
            if changed := tuple(step for step in steps if self._told(step) not in met):
                ends = {step.stage: step for step in steps}
                leaf = all(step is ends[step.stage] for step in changed)
                found.append(Stale(cache, tag, question.iova, size, changed, leaf))
        return found

    def explain(self, stale: Sequence[Stale]) -> list[Changed]:
        """The first structure of each entry that is not as it was, each once.

        Those that are, and that nothing leads to any more, are left out where there are others.
        """
        causes = {(entry.cache, entry.changed[0].address): entry.changed[0] for entry in stale}
        changed = {key: step for key, step in causes.items() if self._is_other_now(step)}
        return [
            Changed(
                step.structure,
                step.address,
                step.raw,
                self._now(step),
                step.stage,
                cache,
                self._journal.operation(step.address, 8 * len(step.raw)),
            )
            for (cache, _), step in (changed or causes).items()
        ]

    def _told(self, step: Step) -> tuple[str, int]:
        """A step without its address, and without the bits that hardware sets by itself."""
        layout = self._structures[step.structure]
        return step.structure, layout.told(layout.from_words(step.raw))

    def _is_other_now(self, step: Step) -> bool:
        now = self._now(step)
        return not now or self._told(step._replace(raw=now)) != self._told(step)

    def _now(self, step: Step) -> tuple[int, ...]:
        try:
            data = self._memory.read(step.address, 8 * len(step.raw))
        except OutsideMemory:
            return ()
        return tuple(int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8))


def same(answer: Translation, truth: Translation) -> bool:
    """Whether two answers end at the same place, or in the same fault."""
    codes = [each.fault.code if each.fault else None for each in (answer, truth)]
    return answer.pa == truth.pa and codes[0] == codes[1]

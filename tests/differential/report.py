# SPDX-License-Identifier: Apache-2.0
"""Many configurations, and what came out of them in numbers."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.differential.architecture import Architecture
from tests.differential.comparison import Comparison
from tests.differential.devices import EDU, TESTDEV
from tests.differential.outcome import Faulted, Landed, Nowhere, Outcome
from tests.differential.plans import Configuration
from tests.differential.qemu import find
from tests.differential.theirs import TheirMachine


class Machines(contextlib.ExitStack):
    """QEMU processes, one for each sort of unit, each started when it is first asked for."""

    def __init__(self, architecture: Architecture) -> None:
        """Raises NoQemu."""
        super().__init__()
        self.installed = find(architecture.machine, (TESTDEV, EDU, *architecture.needed))
        self._architecture = architecture
        self._machines: dict[str, TheirMachine[Any]] = {}

    def run(self, configuration: Configuration) -> list[Comparison]:
        """Run a configuration on the unit that it is for."""
        unit = self._architecture.unit(configuration.kind)
        if unit not in self._machines:
            self._machines[unit] = self.enter_context(self._architecture.start(self.installed, unit))
        return self._architecture.run(configuration, self._machines[unit])


class Report:
    """Counts over configurations. `failures` has what nothing explains, with number or name and configuration."""

    def __init__(self, architecture: Architecture) -> None:
        self.kinds: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.deviations: Counter[str] = Counter(dict.fromkeys(architecture.deviations, 0))
        self.commands = self.dmas = self.stale = 0
        self.failures: list[tuple[int | str, Configuration, Comparison]] = []
        self._architecture = architecture

    def add(self, number: int | str, configuration: Configuration, comparisons: Iterable[Comparison]) -> None:
        """Count a configuration that was run."""
        self.kinds[configuration.kind] += 1
        for one in comparisons:
            if one.explained is None:
                self.failures.append((number, configuration, one))
            self.deviations.update(one.explained or ())
            if one.outcome is None:
                self.commands += 1
                continue
            self.dmas += 1
            self.stale += one.stale
            self.outcomes[self._outcome_name(one.outcome)] += 1

    def unmet(self) -> list[str]:
        """The deviations that were not met: after all of `cases.py`, one of these does not happen any more."""
        return [name for name, count in self.deviations.items() if not count]

    def lines(self) -> Iterator[str]:
        """The report in words."""
        yield f"configurations  {sum(self.kinds.values())}: " + ", ".join(
            f"{n} {k}" for k, n in sorted(self.kinds.items())
        )
        yield f"DMAs            {self.dmas}, of which {self.stale} were answered by a stale entry of our caches"
        yield f"other           {self.commands} comparisons of descriptors, of accessed and dirty bits, and of tables"
        yield f"unexplained     {len(self.failures)}"
        yield "our outcomes"
        yield from (f"  {count:7} {name}" for name, count in sorted(self.outcomes.items()))
        yield "deviations of QEMU"
        for name, count in self.deviations.items():
            deviation = self._architecture.deviations[name]
            free = " (left to the unit)" if deviation.free else ""
            yield f"  {count:7} {name}: section {deviation.section}. {deviation.what}{free}."

    def _outcome_name(self, outcome: Outcome) -> str:
        if isinstance(outcome, Faulted):
            return self._architecture.fault_name(outcome)
        return {Landed: "landed", Nowhere: "landed where there is no memory"}[type(outcome)]


def failure_lines(number: int | str, configuration: Configuration, one: Comparison) -> Iterator[str]:
    """What somebody needs who looks into a difference."""
    event = configuration.events[one.event] if one.event < len(configuration.events) else "the end"
    yield f"configuration {number} ({configuration.kind}), event {one.event}: {event}"
    yield from (f"  ours:   {one.ours}", f"  QEMU's: {one.theirs}", f"  {one.detail}")

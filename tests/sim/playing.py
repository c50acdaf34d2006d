# SPDX-License-Identifier: Apache-2.0
"""Scenarios played on a simulated machine, and what its sanitizer said."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

from iommuctl.formats.bits import Layout
from iommuctl.iommu import Iommu
from iommuctl.model import DmaResult
from iommuctl.state.transaction import Transaction
from tests.sim.sabotage import Sabotage
from tests.sim.scenarios import Scenario, machine

_Change = TypeVar("_Change")
_Scope = TypeVar("_Scope")
FREED = "was freed while an entry in a cache still points to it"


class Seen(NamedTuple):
    """What the sanitizer said: stale DMAs, and warnings."""

    stale: list[DmaResult]
    warnings: list[str]

    @property
    def missing(self) -> set[str]:
        """The names of the commands that are missing."""
        return {command.name for done in self.stale for command in done.missing}

    @property
    def freed(self) -> bool:
        """Whether a table was freed that caches still lead to."""
        return any(FREED in warning for warning in self.warnings)

    def check(self, missing: Iterable[type[Layout]], *, freed: bool) -> None:
        """A seeded mistake was found: exactly these commands are named, and a table that went too early."""
        assert self.stale or self.warnings
        assert self.missing == {layout.name for layout in missing}
        assert all(each.changed and each.missing for each in self.stale)
        assert self.freed == freed


def without_scope(
    rules: Mapping[_Change, tuple[_Scope, ...]], change: _Change, scope: _Scope
) -> dict[_Change, tuple[_Scope, ...]]:
    """A table of rules in which a change lacks one of its scopes."""
    left = {**rules, change: tuple(each for each in rules[change] if each is not scope)}
    assert len(left[change]) == len(rules[change]) - 1
    return left


def play(folder: Path, scenario: Scenario, sabotage: Sabotage) -> Seen:
    """A scenario, with its act under sabotage."""
    warnings: list[str] = []
    with Iommu(folder / "state", backend="sim") as iommu, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "warn", lambda _transaction, text: warnings.append(text))
        machine(iommu, scenario.mode)
        scenario.prepare(iommu)
        assert warnings == []
        with sabotage():
            scenario.act(iommu)
        stale = [done for done in scenario.look(iommu) if done.stale]
        assert iommu.check() == []
    return Seen(stale, warnings)

# SPDX-License-Identifier: Apache-2.0
"""The list of deviations, in both directions: each happens, and none that is not listed goes unnoticed."""

from collections.abc import Sequence
from types import MappingProxyType

import pytest

from tests.differential.deviation import Deviation
from tests.differential.outcome import Landed, Outcome
from tests.differential.plans import Dma
from tests.differential.report import Machines
from tests.differential.smmuv3 import deviations, readings
from tests.differential.smmuv3.cases import AGREED, CASES
from tests.differential.smmuv3.commands import Stops
from tests.differential.smmuv3.deviations import DEVIATIONS
from tests.differential.smmuv3.ours import OurUnit
from tests.differential.smmuv3.reader import Reader
from tests.differential.smmuv3.unit import SYNC


def test_every_deviation_has_a_case() -> None:
    assert CASES.keys() == DEVIATIONS.keys()


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, machines: Machines) -> None:
    comparisons = machines.run(CASES[name])
    assert not [one for one in comparisons if one.explained is None]
    assert any(name in (one.explained or ()) for one in comparisons)


@pytest.mark.parametrize("name", AGREED)
def test_both_do_the_same(name: str, machines: Machines) -> None:
    comparisons = machines.run(AGREED[name])
    assert {one.explained for one in comparisons} == {()}
    last = [one for one in comparisons if one.outcome][-1]
    assert last.ours.startswith("landed") == (" refused" not in name)
    assert last.stale == name.startswith("another")


@pytest.mark.parametrize("name", DEVIATIONS)
def test_what_is_not_listed_is_noticed(name: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {other: item for other, item in DEVIATIONS.items() if other != name}
    monkeypatch.setattr(deviations, "DEVIATIONS", MappingProxyType(rest))
    assert [one for one in machines.run(CASES[name]) if one.explained is None]


def test_what_is_listed_but_does_not_happen_is_noticed(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(reader: Reader, _ste: int) -> bool:
        return reader.deviates("never")

    monkeypatch.setattr(readings, "_refused", never)
    assert not [one for one in machines.run(CASES["ipa-low-bits"]) if one.explained is None]
    more = {"never": Deviation("0", "no STE is good enough"), **DEVIATIONS}
    monkeypatch.setattr(deviations, "DEVIATIONS", MappingProxyType(more))
    assert [one for one in machines.run(CASES["ipa-low-bits"]) if one.explained is None]


def test_a_mistake_of_our_unit_is_noticed(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    right = OurUnit.request

    def wrong(unit: OurUnit, event: Dma) -> tuple[Outcome, bool]:
        outcome, hit = right(unit, event)
        assert isinstance(outcome, Landed)
        (piece,) = outcome.pieces
        return Landed((piece._replace(pa=piece.pa + 8),)), hit

    monkeypatch.setattr(OurUnit, "request", wrong)
    assert [one for one in machines.run(AGREED["both stages"]) if one.explained is None]


@pytest.mark.parametrize("name", [name for name in AGREED if name.endswith("invalidated, refused")])
def test_a_command_that_our_unit_passes_over_is_noticed(
    name: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OurUnit.queue

    def passes_over(unit: OurUnit, words: Sequence[int]) -> Stops:
        return right(unit, [SYNC] * len(words))

    monkeypatch.setattr(OurUnit, "queue", passes_over)
    assert [one for one in machines.run(AGREED[name]) if one.explained is None]

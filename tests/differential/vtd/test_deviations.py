# SPDX-License-Identifier: Apache-2.0
"""The list of deviations, in both directions: each happens, and none that is not listed goes unnoticed."""

from types import MappingProxyType
from typing import Any

import pytest

from tests.differential.deviation import Deviation
from tests.differential.report import Machines
from tests.differential.vtd import prediction
from tests.differential.vtd.cases import AGREED, CASES
from tests.differential.vtd.deviations import ANSWERS, DEVIATIONS, READINGS, REFUSALS, Question

_TABLES = {"READINGS": READINGS, "ANSWERS": ANSWERS, "REFUSALS": REFUSALS}


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
    assert not [one for one in comparisons if one.explained is None]
    silent = [one for one in comparisons if one.outcome and one.ours == "refused, nothing recorded"]
    assert bool(silent) == name.startswith("FPD of")
    assert any(one.stale for one in comparisons) == name.startswith("another")
    assert {name for one in comparisons for name in one.explained or ()} <= {"legacy-codes", "no-refetch"}


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, names in _TABLES.items() for name in names])
def test_what_is_not_listed_is_noticed(
    table: str, name: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest: dict[str, Any] = {other: item for other, item in _TABLES[table].items() if other != name}
    monkeypatch.setattr(prediction, table, MappingProxyType(rest))
    assert [one for one in machines.run(CASES[name]) if one.explained is None]


def test_what_is_listed_but_does_not_happen_is_noticed(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(question: Question) -> int | None:
        return 0x03 if question.code == 0x79 else None

    more = {"never": (never, Deviation("0", "it gives another code")), **ANSWERS}
    monkeypatch.setattr(prediction, "ANSWERS", MappingProxyType(more))
    assert [one for one in machines.run(CASES["legacy-codes"]) if one.explained is None]

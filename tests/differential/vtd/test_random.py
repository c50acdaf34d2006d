# SPDX-License-Identifier: Apache-2.0
"""A part of what `python -m tests.differential` runs, the same each time."""

from collections.abc import Callable

import pytest

from tests.differential.occurring import without
from tests.differential.report import Machines, Report, failure_lines
from tests.differential.vtd.architecture import ARCHITECTURE
from tests.differential.vtd.kinds import KINDS
from tests.differential.vtd.strategies import configuration

_CHUNK = 25
_CHUNKS = 12


@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_random_configurations(chunk: int, machines: Machines, record_property: Callable[[str, object], None]) -> None:
    report = Report(ARCHITECTURE)
    for number in range(chunk * _CHUNK, (chunk + 1) * _CHUNK):
        one = configuration(number)
        report.add(number, one, machines.run(one))
    assert not report.failures, "\n".join(line for failure in report.failures for line in failure_lines(*failure))
    record_property(
        f"differential, part {chunk:02}", f"{_CHUNK} configurations, {report.dmas} DMAs, {report.stale} stale"
    )


def test_a_number_is_always_the_same_configuration() -> None:
    assert [configuration(number) for number in range(5)] == [configuration(number) for number in range(5)]


def test_every_kind_of_unit_occurs() -> None:
    assert without((configuration(number).kind for number in range(_CHUNK * 4)), KINDS) == set()

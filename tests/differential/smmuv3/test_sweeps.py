# SPDX-License-Identifier: Apache-2.0
"""Every bit of every structure, on both sides."""

import pytest

from tests.differential.report import Machines, failure_lines
from tests.differential.smmuv3.plans import Configuration
from tests.differential.smmuv3.sweeps import command_sweeps, opcode_sweep, sweeps

SWEEPS: dict[str, list[Configuration]] = {}
for layout, one in (*sweeps(), *command_sweeps()):
    SWEEPS.setdefault(layout.__name__, []).append(one)


@pytest.mark.parametrize("structure", SWEEPS)
def test_every_bit(structure: str, machines: Machines) -> None:
    for configuration in SWEEPS[structure]:
        failures = [one for one in machines.run(configuration) if one.explained is None]
        assert not failures, "\n".join(failure_lines(structure, configuration, failures[0]))


def test_every_opcode(machines: Machines) -> None:
    assert not [one for one in machines.run(opcode_sweep()) if one.explained is None]

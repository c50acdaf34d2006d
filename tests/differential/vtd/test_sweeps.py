# SPDX-License-Identifier: Apache-2.0
"""Every bit of every structure, on both sides."""

import pytest

from iommuctl.formats.bits import Layout
from tests.differential.report import Machines, failure_lines
from tests.differential.vtd.plans import Configuration
from tests.differential.vtd.sweeps import good_descriptors, sweeps

SWEEPS: dict[str, list[Configuration]] = {}
for layout, one in sweeps():
    SWEEPS.setdefault(layout.__name__, []).append(one)


@pytest.mark.parametrize("structure", SWEEPS)
def test_every_bit(structure: str, machines: Machines) -> None:
    for configuration in SWEEPS[structure]:
        failures = [one for one in machines.run(configuration) if one.explained is None]
        assert not failures, "\n".join(failure_lines(structure, configuration, failures[0]))


@pytest.mark.parametrize(("layout", "configuration"), tuple(good_descriptors()))
def test_a_good_descriptor_is_taken(layout: type[Layout], configuration: Configuration, machines: Machines) -> None:
    (comparison,) = (one for one in machines.run(configuration) if one.detail.startswith("descriptor"))
    assert comparison.explained == ()
    assert comparison.ours.endswith("False)")

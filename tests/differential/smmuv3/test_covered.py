# SPDX-License-Identifier: Apache-2.0
"""The events that are said to be compared with QEMU are."""

import pytest

from tests.differential.outcome import Faulted
from tests.differential.report import Machines
from tests.differential.smmuv3.cases import AGREED, CASES
from tests.differential.smmuv3.covered import COVERED


@pytest.mark.parametrize("code", COVERED, ids="{:02x}".format)
def test_a_configuration_comes_to_it(code: int, machines: Machines) -> None:
    where, deviations = COVERED[code]
    found = machines.run({**CASES, **AGREED}[str(where)])
    compared = [one for one in found if isinstance(one.outcome, Faulted) and one.outcome.code == code]
    assert compared
    assert deviations in {", ".join(one.explained) for one in compared if one.explained is not None}

# SPDX-License-Identifier: Apache-2.0
"""The sanitizer's silence: ten thousand correct operations, and nothing is stale, nothing is warned of.

A ninth of them without IOMMUCTL_THOROUGH.

What it says of mistakes is in tests/sim.
"""

from typing import ClassVar

from iommuctl.testing import StatefulSuite
from tests.conformance.test_sim import Default, Legacy
from tests.conformance.test_smmuv3 import Default as Smmuv3
from tests.thorough import share


class Silence(StatefulSuite):
    """Longer walks with fewer questions than the conformance suite's. After each operation nothing may be stale.

    Each walk is a transaction: what an operation in it allocated is in use for those that follow.
    """

    together = True
    steps = 50
    probes = 1
    least: ClassVar[int]

    def test_any_sequence_of_operations(self) -> None:
        super().test_any_sequence_of_operations()
        assert self.counts["operations"] >= self.least
        assert self.counts["requests"] >= self.least


class TestScalable(Default, Silence):
    examples = share(245)
    least = share(6500)


class TestLegacy(Legacy, Silence):
    examples = share(160)
    least = share(2600)


class TestSmmuv3(Smmuv3, Silence):
    examples = share(45)
    least = share(900)

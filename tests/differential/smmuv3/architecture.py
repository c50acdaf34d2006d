# SPDX-License-Identifier: Apache-2.0
"""SMMUv3, as the harness knows it: QEMU's machine virt with an arm-smmuv3."""

from collections.abc import Mapping

from iommuctl_smmuv3.events import EVENTS
from tests.differential.comparison import Comparison
from tests.differential.deviation import Deviation
from tests.differential.outcome import Faulted
from tests.differential.qemu import Installed
from tests.differential.smmuv3.build import TABLES
from tests.differential.smmuv3.cases import CASES
from tests.differential.smmuv3.deviations import DEVIATIONS
from tests.differential.smmuv3.kinds import KINDS
from tests.differential.smmuv3.plans import RAM, SCRATCH, Configuration
from tests.differential.smmuv3.run import run
from tests.differential.smmuv3.strategies import configuration
from tests.differential.smmuv3.unit import SmmuUnit
from tests.differential.theirs import Board, TheirMachine

BOARD = Board("virt", RAM, TABLES, SCRATCH, 0x40_1000_0000, (0x1000_0000, 0x0800_0000))


class SmmuArchitecture:
    """QEMU's SMMUv3; see `tests.differential.architecture`."""

    name = "smmuv3"
    machine = "aarch64"
    needed = ("arm-smmuv3",)
    deviations: Mapping[str, Deviation] = DEVIATIONS
    cases: Mapping[str, Configuration] = CASES

    def configuration(self, number: int) -> Configuration:
        return configuration(number)

    def unit(self, kind: str) -> str:
        return KINDS[kind].unit

    def start(self, installed: Installed, unit: str) -> TheirMachine[SmmuUnit]:
        # A processor of 64 bits, without which the configuration space of PCI has no place for all buses.
        device = f"arm-smmuv3,primary-bus=pcie.0,stage={unit.split(maxsplit=1)[0]}"
        return TheirMachine(installed, BOARD, ["-cpu", "cortex-a57", "-device", device], SmmuUnit)

    def run(self, configuration: Configuration, theirs: TheirMachine[SmmuUnit]) -> list[Comparison]:
        return run(configuration, theirs)

    def fault_name(self, outcome: Faulted) -> str:
        if outcome.code is None:
            return "aborted"
        silent = "" if outcome.record is not None else ", not recorded"
        return f"event {outcome.code:02x} {EVENTS[outcome.code].name.partition('.')[2]}{silent}"


ARCHITECTURE = SmmuArchitecture()

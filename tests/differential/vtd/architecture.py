# SPDX-License-Identifier: Apache-2.0
"""VT-d, as the harness knows it: QEMU's machine q35 with an intel-iommu."""

from collections.abc import Mapping

from iommuctl.formats.memory import FileMemory
from iommuctl_vtd.fault_record import REASONS
from tests.differential.comparison import Comparison
from tests.differential.deviation import Deviation
from tests.differential.outcome import Faulted
from tests.differential.qemu import Installed
from tests.differential.qtest import Qtest
from tests.differential.theirs import Board, TheirMachine
from tests.differential.vtd.cases import CASES
from tests.differential.vtd.deviations import DEVIATIONS
from tests.differential.vtd.kinds import KINDS
from tests.differential.vtd.plans import POOL, RAM, SCRATCH, TABLES, Configuration
from tests.differential.vtd.run import run
from tests.differential.vtd.strategies import configuration
from tests.differential.vtd.unit import VtdUnit

BOARD = Board("q35", (0, RAM), (TABLES, POOL), SCRATCH, 0xB000_0000, (0xE000_0000, 0x0800_0000))


class VtdArchitecture:
    """QEMU's VT-d unit; see `tests.differential.architecture`."""

    name = "vtd"
    machine = "x86_64"
    needed = ("intel-iommu",)
    deviations: Mapping[str, Deviation] = DEVIATIONS
    cases: Mapping[str, Configuration] = CASES

    def configuration(self, number: int) -> Configuration:
        return configuration(number)

    def unit(self, kind: str) -> str:
        return KINDS[kind].device

    def start(self, installed: Installed, unit: str) -> TheirMachine[VtdUnit]:
        return TheirMachine(installed, BOARD, ["-device", unit], _unit)

    def run(self, configuration: Configuration, theirs: TheirMachine[VtdUnit]) -> list[Comparison]:
        return run(configuration, theirs)

    def fault_name(self, outcome: Faulted) -> str:
        assert outcome.code is not None
        silent = "" if outcome.record is not None else ", not recorded"
        return f"fault {outcome.code:02x} {REASONS[outcome.code].name}{silent}"


def _unit(qtest: Qtest, ram: FileMemory) -> VtdUnit:
    # The host bridge of a q35 has ECAM at the address of its PCIEXBAR, which the old ports reach.
    qtest.port_out(0xCF8, 0x8000_0060, 4)
    qtest.port_out(0xCFC, BOARD.ecam | 1, 4)
    return VtdUnit(qtest, ram, SCRATCH + 0x800)


ARCHITECTURE = VtdArchitecture()

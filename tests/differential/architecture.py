# SPDX-License-Identifier: Apache-2.0
"""What an architecture gives the harness, and where those are that do."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from tests.differential.comparison import Comparison
from tests.differential.deviation import Deviation
from tests.differential.outcome import Faulted
from tests.differential.plans import Configuration
from tests.differential.qemu import Installed
from tests.differential.theirs import TheirMachine


class Architecture(Protocol):
    """One unit of QEMU's that is compared with ours.

    A configuration's type is the architecture's own: it goes from `configuration` or `cases` to `run`.
    """

    @property
    def name(self) -> str: ...

    @property
    def machine(self) -> str:
        """Which QEMU has it: the end of `qemu-system-…`."""

    @property
    def needed(self) -> Sequence[str]:
        """The devices that QEMU must have."""

    @property
    def deviations(self) -> Mapping[str, Deviation]:
        """All places where QEMU differs, by name."""

    @property
    def cases(self) -> Mapping[str, Configuration]:
        """The smallest configuration that shows a deviation, by its name."""

    def configuration(self, number: int) -> Configuration:
        """The random configuration of that number, always the same."""

    def unit(self, kind: str) -> str:
        """What configurations of a kind run on: those of one unit share a QEMU."""

    def start(self, installed: Installed, unit: str) -> TheirMachine[Any]:
        """A machine of QEMU's with that unit. Raises QtestError."""

    def run(self, configuration: Any, theirs: TheirMachine[Any]) -> list[Comparison]:
        """Run a configuration on both sides."""

    def fault_name(self, outcome: Faulted) -> str:
        """What our unit's refusals are counted as."""


ARCHITECTURES = ("vtd", "smmuv3")
"""Their names; each is the object ARCHITECTURE of a module, for `smmuv3` tests.differential.smmuv3.architecture."""


def architecture(name: str) -> Architecture:
    """The architecture of that name."""
    found: Architecture = import_module(f"tests.differential.{name}.architecture").ARCHITECTURE
    return found

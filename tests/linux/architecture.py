# SPDX-License-Identifier: Apache-2.0
"""What an architecture gives these tests, and where those are that do."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tests.linux.report import Report


class Mode(Protocol):
    """A sort of unit, and what becomes of the devices of its VM."""

    @property
    def arguments(self) -> Sequence[str]:
        """Arguments of QEMU, among them a machine with `memory-backend=ram`."""

    @property
    def parameters(self) -> str:
        """Parameters of the kernel."""

    @property
    def roles(self) -> Mapping[str, Sequence[str]]:
        """What guest.py does with whom: requester ids by role.

        `alone` has an IOAS of its own; `shared` have one HWPT together, and `pasid-able` another HWPT of the same
        IOAS, with the flag that allows PASIDs; `bridged` have an IOAS together, as they must; `pasids` have the same
        PASIDs; `parent` have a HWPT that others can be nested on, and `nested` are nested on it; `identity` translate
        nothing; `blocked` are given to user space, which attaches nothing. All others are left as Linux has them.
        """


class Architecture(NamedTuple):
    """One unit of QEMU's whose tables Linux writes."""

    processor: str
    """As QEMU calls it."""
    needed: Sequence[str]
    """The devices that QEMU must have."""
    modes: Mapping[str, Mode]
    dumped: Mapping[str, Sequence[str]]
    """What the guest tells of its tables: by folders of the guest, patterns of the files in them."""
    parse: Callable[[Path], Any]
    """Reads a folder with copies of these files, each at its place below its folder. Raises UnknownLine."""
    compare: Callable[[Any], Report]
    """Compares a Snapshot whose `dump` is what `parse` returned."""
    registers: Mapping[str, tuple[int, int]]
    """The registers that the host reads: physical addresses and bytes, by name."""


class UnknownLine(Exception):
    """The guest told something that `parse` does not know."""


ARCHITECTURES = ("vtd", "smmuv3")
"""Their names; each is the object ARCHITECTURE of a module, for `vtd` tests.linux.vtd.architecture."""


def architecture(name: str) -> Architecture:
    """The architecture of that name."""
    found: Architecture = import_module(f"tests.linux.{name}.architecture").ARCHITECTURE
    return found

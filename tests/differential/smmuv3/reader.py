# SPDX-License-Identifier: Apache-2.0
"""How a walk reads memory, and by which of QEMU's deviations it goes."""

from collections.abc import Mapping
from typing import NamedTuple

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory
from iommuctl.model import Step
from iommuctl_smmuv3.features import Features
from tests.differential.smmuv3.caches import Asked, Translation
from tests.differential.smmuv3.plans import RAM, STAGE_1_AT, is_ram
from tests.differential.smmuv3.records import Unsafe

_HOLES = ((sum(RAM), 1 << 38), (1 << 40, 1 << 64))
"""Addresses (first, end) where the machine virt has nothing at all: the bus refuses what goes there."""


class Reader:
    """Reads entries for one walk, and remembers them.

    `deviations` are those of QEMU's by which it goes: with none it does what the specification says. `met` has those
    that came up.
    """

    def __init__(self, memory: Memory, features: Features, deviations: frozenset[str], *, qemu: bool) -> None:
        self.features = features
        self.steps: list[Step] = []
        self.met: list[str] = []
        self.asked: Asked | None = None
        """By what the answer is cached, once that is known."""
        self.stage_2: Translation | None = None
        """What stage 2 has made of the request's own IPA."""
        self.page = self.granule = 0
        """Of what was translated, once it is: its size, and the granule of the stage that the request enters."""
        self._memory = memory
        self._deviations = deviations
        self.qemu = qemu
        """Whether the walk is QEMU's, which must not end it or reach what is not memory."""

    def deviates(self, name: str) -> bool:
        """QEMU does something else here: whether this walk does so, too."""
        if name not in self._deviations:
            return False
        self.met.append(name)
        return True

    def fatal(self) -> None:
        """QEMU must not come here."""
        if self.qemu:
            raise Unsafe

    def check_target(self, address: int, size: int) -> None:
        """Raise Unsafe where QEMU would reach a device's registers, or what the harness needs."""
        known = is_ram(address, size) and address >= STAGE_1_AT[0]
        if self.qemu and not known and not any(first <= address and address + size <= end for first, end in _HOLES):
            raise Unsafe

    def found(self, size: int, granule: int) -> None:
        """A leaf on the request's own way, in bytes. With both stages, the smaller one counts."""
        self.page = min(self.page or size, size)
        self.granule = self.granule or granule

    def read(self, structure: str, address: int, words: int, stage: int = 0) -> tuple[int, ...] | None:
        """The words of an entry; None where there is no memory."""
        self.check_target(address, 8 * words)
        try:
            data = self._memory.read(address, 8 * words)
        except OutsideMemory:
            return None
        raw = tuple(int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8))
        self.steps.append(Step(structure, address, raw, _NO_FIELDS, stage))
        return raw


_NO_FIELDS: Mapping[str, int] = {}


class Registers(NamedTuple):
    """What a configuration has in registers."""

    strtab_base: int
    strtab_base_cfg: int
    recinvsid: bool

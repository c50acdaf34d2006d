# SPDX-License-Identifier: Apache-2.0
"""Arm SMMUv3: the structures, commands, records and registers of its non-secure interface.

One file for each structure that software builds, and one for each group of commands, records and registers.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iommuctl.formats.bits import Layout


class Smmuv3Architecture:
    """What the formats of SMMUv3 offer. Its parts are imported when they are asked for."""

    name = "smmuv3"

    @property
    def structures(self) -> "Mapping[str, type[Layout]]":
        from iommuctl_smmuv3.structures import STRUCTURES

        return STRUCTURES

    def register_layout(self, name: str) -> "type[Layout] | None":
        from iommuctl_smmuv3.structures import register_layout

        return register_layout(name)

    def unit_words(self, registers: "Mapping[str, int]") -> list[tuple[str, str]]:
        from iommuctl_smmuv3.describe import unit_words

        return unit_words(registers)


ARCHITECTURE = Smmuv3Architecture()

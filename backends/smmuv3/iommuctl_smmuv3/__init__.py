# SPDX-License-Identifier: Apache-2.0
"""Arm SMMUv3: the structures, commands, records and registers of its non-secure interface.

One file for each structure that software builds, and one for each group of commands, records and registers.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iommuctl.architecture import Bus, Driver, Unit
    from iommuctl.formats.bits import Layout
    from iommuctl.hookspecs import Context


class Smmuv3Architecture:
    """The entry point `iommuctl.architectures: smmuv3`. Its parts are imported when they are asked for."""

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

    def unit(self, context: "Context", bus: "Bus") -> "Unit":
        from iommuctl_smmuv3.unit import Unit

        return Unit(context, bus)

    def reset_unit(self, context: "Context", options: "Mapping[str, str]") -> None:
        from iommuctl_smmuv3.unit import Unit

        Unit.reset(context, options)

    def driver(self, context: "Context", unit: "Unit") -> "Driver":
        from iommuctl_smmuv3 import driver

        return driver.Driver(context, unit)


ARCHITECTURE = Smmuv3Architecture()

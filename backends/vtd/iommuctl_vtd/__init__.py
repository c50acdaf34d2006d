# SPDX-License-Identifier: Apache-2.0
"""Intel VT-d: the structures, page-table formats, driver side and hardware side of scalable mode.

One file for each hardware structure; `driver`, `walk` and `unit` put them to work.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iommuctl.architecture import Bus, Driver, Unit
    from iommuctl.formats.bits import Layout
    from iommuctl.hookspecs import Context


class VtdArchitecture:
    """The entry point `iommuctl.architectures: vtd`. Its parts are imported when they are asked for."""

    name = "vtd"

    @property
    def structures(self) -> "Mapping[str, type[Layout]]":
        from iommuctl_vtd.structures import STRUCTURES

        return STRUCTURES

    def register_layout(self, name: str) -> "type[Layout] | None":
        from iommuctl_vtd.structures import register_layout

        return register_layout(name)

    def unit_words(self, registers: "Mapping[str, int]") -> list[tuple[str, str]]:
        from iommuctl_vtd.describe import unit_words

        return unit_words(registers)

    def unit(self, context: "Context", bus: "Bus") -> "Unit":
        from iommuctl_vtd.unit import Unit

        return Unit(context, bus)

    def reset_unit(self, context: "Context", options: "Mapping[str, str]") -> None:
        from iommuctl_vtd.unit import Unit

        Unit.reset(context, options)

    def driver(self, context: "Context", unit: "Unit") -> "Driver":
        if context.rows.get("vtd", "mode") == "legacy":
            from iommuctl_vtd.legacy_driver import LegacyDriver

            return LegacyDriver(context, unit)
        from iommuctl_vtd.scalable_driver import ScalableDriver

        return ScalableDriver(context, unit)


ARCHITECTURE = VtdArchitecture()

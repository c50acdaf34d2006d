# SPDX-License-Identifier: Apache-2.0
"""What the driver of a unit adds to the rules of iommufd. A `Unit` by itself is as VT-d: it looks at no payload."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tests.kernel.objects import Device


@dataclass(frozen=True)
class Unit:
    """One IOMMU. Its PASIDs have `pasid_bits`."""

    name: str = "unit0"
    pasid_bits: int = 16

    nests_on_parents = True
    """Whether a nested table is made of its parent, and is invalidated by its own id."""

    def hw_info(self) -> tuple[int, bytes]:
        """IOMMU_HW_INFO_TYPE_*, and the vendor's structure."""
        return 0, b""

    def takes(self, flags: int) -> bool:  # noqa: ARG002
        """Whether the kernel manages tables with these IOMMU_HWPT_*."""
        return True

    def viommu_types(self) -> tuple[int, ...]:
        """IOMMU_VIOMMU_TYPE_*."""
        return ()


class Place(NamedTuple):
    """Where a device is, and how wide its own PASIDs are (0: it has none)."""

    unit: Unit = Unit()
    device_bits: int = 16

    @property
    def pasid_bits(self) -> int:
        """dev_iommu_get_max_pasids, drivers/iommu/iommu.c."""
        return min(self.unit.pasid_bits, self.device_bits)


class Places:
    """Where devices are by their nodes; without any, all are behind one unit as VT-d's."""

    def __init__(self, places: Mapping[str, Place] | None) -> None:
        self._places = places or defaultdict(Place)

    def of(self, device: Device) -> Place:
        return self._places[device.node]

    def unit(self, name: str) -> Unit:
        return next(place.unit for place in self._places.values() if place.unit.name == name)

# SPDX-License-Identifier: Apache-2.0
"""Every declared structure of VT-d by its full name."""

from iommuctl.formats.bits import Layout
from iommuctl_vtd import registers
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.fault_record import FaultRecord
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.invalidation import DESCRIPTORS
from iommuctl_vtd.pasid_entry import PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.root_entry import ScalableRootEntry
from iommuctl_vtd.second_stage import SecondStageEntry

_REGISTERS = [
    value
    for value in vars(registers).values()
    if isinstance(value, type) and issubclass(value, Layout) and value.__module__ == registers.__name__
]
_ALL: list[type[Layout]] = [
    ScalableRootEntry,
    ScalableContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    FirstStageEntry,
    SecondStageEntry,
    *DESCRIPTORS.values(),
    FaultRecord,
    *_REGISTERS,
]

STRUCTURES: dict[str, type[Layout]] = {layout.name: layout for layout in _ALL}

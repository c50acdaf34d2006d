# SPDX-License-Identifier: Apache-2.0
"""Every declared structure of VT-d by its full name, in the newest revision; registers also by their own names."""

from iommuctl.formats.bits import Layout
from iommuctl_vtd import (
    context_entry,
    fault_record,
    first_stage,
    interrupt_remap,
    invalidation,
    invalidation_registers,
    page_request,
    pasid_entry,
    registers,
    root_entry,
    second_stage,
)

MODULES = (
    root_entry,
    context_entry,
    pasid_entry,
    first_stage,
    second_stage,
    invalidation,
    page_request,
    interrupt_remap,
    fault_record,
    registers,
    invalidation_registers,
)

STRUCTURES: dict[str, type[Layout]] = {
    layout.name: layout
    for module in MODULES
    for layout in vars(module).values()
    if isinstance(layout, type) and issubclass(layout, Layout) and layout.__base__ is Layout
}


def register_layout(name: str) -> type[Layout] | None:
    """The layout of the register of that name; None for one without fields. FRCD0, FRCD1 … are fault records."""
    if name.startswith("FRCD"):
        return fault_record.FaultRecord
    return STRUCTURES.get("vtd.iotlb-register" if name == "IOTLB" else f"vtd.{name.lower()}")

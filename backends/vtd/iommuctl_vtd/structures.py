# SPDX-License-Identifier: Apache-2.0
"""Every declared structure of VT-d by its full name, in the newest revision."""

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

# SPDX-License-Identifier: Apache-2.0
"""Every declared structure of SMMUv3 by its full name, and the registers by their own names."""

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3 import (
    cd,
    commands,
    configuration_commands,
    configuration_events,
    events,
    id_registers,
    page_request,
    queue_registers,
    registers,
    stage1,
    stage2,
    ste,
    stream_table,
    tlb_commands,
)

MODULES = (
    stream_table,
    ste,
    cd,
    stage1,
    stage2,
    configuration_commands,
    tlb_commands,
    commands,
    configuration_events,
    events,
    page_request,
    id_registers,
    registers,
    queue_registers,
)

STRUCTURES: dict[str, type[Layout]] = {
    layout.name: layout
    for module in MODULES
    for layout in vars(module).values()
    if isinstance(layout, type) and issubclass(layout, Layout) and layout is not Layout
}

_SAME_FIELDS = {
    "CR0ACK": "cr0",
    "IRQ_CTRLACK": "irq-ctrl",
    "GERRORN": "gerror",
    **{f"{queue}_IRQ_CFG{n}": f"irq-cfg{n}" for queue in ("GERROR", "EVENTQ", "PRIQ") for n in (0, 1)},
    "GERROR_IRQ_CFG2": "irq-cfg2",
    "EVENTQ_IRQ_CFG2": "irq-cfg2",
}
"""Registers that have the fields of another, or that share a layout."""


def register_layout(name: str) -> type[Layout] | None:
    """The layout of the register of that name; None for one without fields."""
    return STRUCTURES.get(f"smmuv3.{_SAME_FIELDS.get(name, name.lower().replace('_', '-'))}")

# SPDX-License-Identifier: Apache-2.0
"""The machine: where its RAM is, and which part of it holds the tables."""

from iommuctl.errors import Usage
from iommuctl.formats.memory import PAGE
from iommuctl.hookspecs import MemoryPlan, SetupRequest

DEFAULT_RAM = (0, 8 << 30)
DEFAULT_TABLES_SIZE = 256 << 20
LEAST_TABLES = 64 << 10
GREATEST_ADDRESS = 1 << 46
"""RAM ends below it, so that every unit can address all of it."""


def plan_memory(request: SetupRequest) -> MemoryPlan:
    """RAM as wanted, or 8 GiB from 0; the tables at its end, an eighth of it and 256 MiB at most. Raises Usage."""
    base, size = request.ram or DEFAULT_RAM
    extent = min(DEFAULT_TABLES_SIZE, size // 8 & -PAGE)
    low, extent = request.tables or (base + size - extent, extent)
    if (base | size | low | extent) % PAGE:
        raise Usage("RAM and tables are of whole pages", because="an address or a size is not a multiple of 4096")
    if base < 0 or size <= 0 or base + size > GREATEST_ADDRESS:
        raise Usage(f"RAM cannot be {base:#x}+{size:#x}", because=f"it lies in 0x0..{GREATEST_ADDRESS - 1:#x}")
    if low < base or low + extent > base + size:
        raise Usage(f"the tables {low:#x}+{extent:#x} are not in RAM", because=f"RAM is {base:#x}+{size:#x}")
    if extent < LEAST_TABLES:
        raise Usage(f"the tables have {extent:#x} bytes", because=f"they need at least {LEAST_TABLES:#x}")
    return MemoryPlan((base, size), (low, extent))

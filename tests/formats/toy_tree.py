# SPDX-License-Identifier: Apache-2.0
"""Trees of a toy format, in order and out of order."""

from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, write_word
from tests.formats.toy import ToyEntry, ToyFormat, ToyMemory

FMT = ToyFormat(4096, width=39, levels=3, page_levels=3)
K4, M2, G1 = FMT.page_sizes
BASE = 0x4000_3000
USED = ToyEntry.USED.mask
RESERVED = 1 << 55


def tree(*mappings: tuple[int, int, int]) -> tuple[ToyMemory, int]:
    """Memory with a tree that has these mappings, read-write and from pages of 4 KiB."""
    memory = ToyMemory(3 << 20, BASE)
    root = radix.new_root(FMT, memory)
    for iova, size, pa in mappings:
        radix.map_range(FMT, memory, root, iova, size, pa, "rw", (K4,))
    memory.writes.clear()
    memory.allocations = 0
    return memory, root


def entry_address(memory: ToyMemory, root: int, iova: int, level: int) -> int:
    return next(step.address for step in radix.walk(FMT, memory, root, iova) if step.level == level)


def damaged_tree() -> tuple[ToyMemory, int]:
    """A page at 2 MiB and garbage behind it; at 4 MiB garbage, at 6 MiB a pointer to nowhere, at 8 and 10 MiB a table
    that is shared, at 20 MiB a page of 2 MiB."""
    memory, root = tree((M2, K4, 0x7000))
    radix.map_range(FMT, memory, root, 10 * M2, M2, 0, "rw", (M2,))
    write_word(memory, entry_address(memory, root, M2 + 2 * K4, 1), FMT.leaf(1, 0, "r") | RESERVED)
    middle = entry_address(memory, root, 0, 2)
    write_word(memory, middle + 8 * 2, FMT.table(2, 0) | RESERVED)
    write_word(memory, middle + 8 * 3, FMT.table(2, 1 << 40))
    shared = memory.allocate_run(1)
    memory.write(shared, bytes(PAGE))
    write_word(memory, middle + 8 * 4, FMT.table(2, shared))
    write_word(memory, middle + 8 * 5, FMT.table(2, shared))
    memory.allocations = 0
    return memory, root

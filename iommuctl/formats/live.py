# SPDX-License-Identifier: Apache-2.0
"""What the driver side looks at before it changes a tree."""

from iommuctl.errors import DamagedTable, Misaligned, OutOfAperture, OutsideMemory, ZeroSize
from iommuctl.formats.format import WORD, Format
from iommuctl.formats.memory import Memory


def check_range(fmt: Format, iova: int, size: int, pa: int, granule: int) -> None:
    """Raise ZeroSize, Misaligned or OutOfAperture where a mapping of that range cannot be."""
    if size <= 0:
        raise ZeroSize(f"a range of {size} bytes cannot be mapped")
    if misfit := (iova | size | pa) % granule:
        raise Misaligned(
            f"IOVA {iova:#x}, size {size:#x} or address {pa:#x} is off by {misfit:#x}",
            because=f"all must be multiples of the smallest page size, {granule:#x}",
        )
    if iova < 0 or iova + size > 1 << fmt.width:
        raise OutOfAperture(
            f"IOVA {iova:#x}..{iova + size - 1:#x} cannot be translated",
            because=f"{fmt.name} translates addresses of {fmt.width} bits",
        )


class LiveTables:
    """The tables of a live tree. Each is entered once: what is reached twice cannot be changed in one place."""

    def __init__(self, fmt: Format, memory: Memory) -> None:
        self._fmt = fmt
        self._memory = memory
        self._entered: set[int] = set()

    def read(self, level: int, table: int, first: int, count: int) -> bytes:
        """Entries of a table. Raises DamagedTable."""
        if table in self._entered:
            raise DamagedTable(f"{self._called(level, table)} is reached a second time")
        self._entered.add(table)
        try:
            return self._memory.read(table + WORD * first, WORD * count)
        except OutsideMemory as error:
            raise DamagedTable(f"{self._called(level, table)} is outside memory", because=error.what) from error

    def _called(self, level: int, table: int) -> str:
        return f"the table of level {self._fmt.numbered(level)} at {table:#x}"

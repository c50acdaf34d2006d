# SPDX-License-Identifier: Apache-2.0
"""PCI as firmware finds it: configuration space in memory (ECAM), and the memory that BARs are given.

Nothing here knows a machine or a vendor: a machine says where its ECAM is and which addresses BARs may have.
"""

from iommuctl.model import Rid
from tests.differential.qtest import Qtest

_COMMAND, _BAR0 = 0x04, 0x10
_PRIMARY_BUS, _MEMORY_WINDOW, _PREFETCH_WINDOW = 0x18, 0x20, 0x24
_MEMORY, _MASTER = 1 << 1, 1 << 2
_WINDOW = 4 << 20


class Pci:
    """The configuration space of one segment, and a store of addresses for BARs."""

    def __init__(self, qtest: Qtest, ecam: int, memory: tuple[int, int]) -> None:
        """`memory` is (first address, size) of the addresses for BARs."""
        self._qtest = qtest
        self._ecam = ecam
        self._next, self._end = memory[0], sum(memory)

    def read(self, rid: Rid, offset: int, size: int = 4) -> int:
        """A register of a function's configuration space."""
        return self._qtest.read(self._address(rid) + offset, size)

    def write(self, rid: Rid, offset: int, value: int, size: int = 4) -> None:
        """Write a register of a function's configuration space."""
        self._qtest.write(self._address(rid) + offset, value, size)

    def identity(self, rid: Rid) -> tuple[int, int]:
        """Vendor and device id; 0xffff of both where there is no function."""
        value = self.read(rid, 0)
        return value & 0xFFFF, value >> 16

    def enable(self, rid: Rid) -> int:
        """Give BAR 0 of a function an address, and let it answer there and do DMA. Returns the address."""
        self.write(rid, _BAR0, 0xFFFF_FFFF)
        size = -(self.read(rid, _BAR0) & ~0xF) & 0xFFFF_FFFF
        if not size:
            raise LookupError(f"{rid} has no memory in BAR 0")
        address = -(-self._next // size) * size
        if address + size > self._end:
            raise LookupError("no addresses are left for BARs")
        self._next = address + size
        self.write(rid, _BAR0, address)
        self.write(rid, _COMMAND, _MEMORY | _MASTER, 2)
        return address

    def open_bridge(self, rid: Rid, bus: int) -> "Pci":
        """Have a bridge lead to `bus`; what is behind it is enabled through the answer, in a window of 4 MiB."""
        first = -(-self._next // _WINDOW) * _WINDOW
        self._next = first + _WINDOW
        self.write(rid, _PRIMARY_BUS, bus << 16 | bus << 8 | rid.bus)
        self.write(rid, _MEMORY_WINDOW, (first + _WINDOW - 1) & 0xFFF0_0000 | first >> 16)
        self.write(rid, _PREFETCH_WINDOW, 0x0000_FFF0)
        self.write(rid, _COMMAND, _MEMORY | _MASTER, 2)
        return Pci(self._qtest, self._ecam, (first, _WINDOW))

    def _address(self, rid: Rid) -> int:
        return self._ecam + (rid.source_id << 12)

# SPDX-License-Identifier: Apache-2.0
"""The driver's hands on the root and context tables of legacy mode, with Present always written last."""

from collections.abc import Iterator
from contextlib import suppress

from iommuctl.errors import DamagedTable, OutsideMemory
from iommuctl.formats.memory import PAGE, Run, TableMemory, read_word, write_word
from iommuctl.model import Placed, Rid
from iommuctl_vtd.context_entry import ContextEntry
from iommuctl_vtd.root_entry import RootEntry

CONTEXT_SIZE = ContextEntry.bits // 8


class LegacyTables:
    """The tables under one root table: a context table for each bus that has devices."""

    def __init__(self, memory: TableMemory, root: int) -> None:
        self._memory = memory
        self._root = root

    def context(self, rid: Rid) -> int:
        """The context entry of a device; 0 without a context table."""
        address = self._address(rid)
        return 0 if address is None else int.from_bytes(self._memory.read(address, CONTEXT_SIZE), "little")

    def add_context(self, rid: Rid, entry: int) -> None:
        """Fill a context entry that was empty."""
        address = self._address(rid)
        if address is None:
            table = self._memory.allocate_run(1)
            self._memory.write(table, bytes(PAGE))
            write_word(self._memory, self._root_entry(rid), RootEntry.encode(P=1, CTP=table))
            address = table + CONTEXT_SIZE * (rid.source_id & 0xFF)
        low, high = ContextEntry.to_words(entry)
        write_word(self._memory, address + 8, high)
        write_word(self._memory, address, low)

    def clear_context(self, rid: Rid) -> None:
        """Take Present away; the rest stays until the caches have been told."""
        address = self._present_address(rid)
        write_word(self._memory, address, read_word(self._memory, address) & ~ContextEntry.P.mask)

    def zero_context(self, rid: Rid) -> None:
        """Zero an entry that is not present."""
        address = self._present_address(rid)
        self._memory.write(address, bytes(CONTEXT_SIZE))

    def swap_context(self, rid: Rid, entry: int) -> Run:
        """Replace a present entry without a moment in between: in a copy of its table, which one store brings in.

        Returns the old table.
        """
        address = self._present_address(rid)
        old, offset = address & -PAGE, address % PAGE
        content = bytearray(self._memory.read(old, PAGE))
        content[offset : offset + CONTEXT_SIZE] = ContextEntry.to_bytes(entry)
        table = self._memory.allocate_run(1)
        self._memory.write(table, bytes(content))
        write_word(self._memory, self._root_entry(rid), RootEntry.encode(P=1, CTP=table))
        return Run(old, 1)

    def contexts(self) -> Iterator[tuple[Rid, int]]:
        """Each context entry that is not zero."""
        for bus, table in self._tables():
            data = self._memory.read(table, PAGE)
            for devfn in range(256):
                if entry := int.from_bytes(data[CONTEXT_SIZE * devfn : CONTEXT_SIZE * (devfn + 1)], "little"):
                    yield Rid(0, bus, devfn >> 3, devfn & 7), entry

    def structures(self, rid: Rid) -> Iterator[Placed]:
        """The present structures of a device: root entry and context entry."""
        address, root = self._address(rid), self._root_entry(rid)
        if address is None:
            return
        yield Placed.of(RootEntry, root, int.from_bytes(self._memory.read(root, RootEntry.bits // 8), "little"), 0)
        with suppress(OutsideMemory):
            if ContextEntry.P.get(entry := self.context(rid)):
                yield Placed.of(ContextEntry, address, entry, 1)

    def runs(self) -> Iterator[Run]:
        """The pages of all these tables."""
        yield Run(self._root, 1)
        yield from (Run(table, 1) for _, table in self._tables())

    def _tables(self) -> Iterator[tuple[int, int]]:
        """The context tables, as (bus, address)."""
        root = self._memory.read(self._root, PAGE)
        for bus in range(256):
            low = int.from_bytes(root[16 * bus : 16 * bus + 8], "little")
            if low & 1:
                yield bus, low & -PAGE

    def _root_entry(self, rid: Rid) -> int:
        return self._root + 16 * rid.bus

    def _address(self, rid: Rid) -> int | None:
        low = read_word(self._memory, self._root_entry(rid))
        return (low & -PAGE) + CONTEXT_SIZE * (rid.source_id & 0xFF) if low & 1 else None

    def _present_address(self, rid: Rid) -> int:
        address = self._address(rid)
        if address is None:
            raise DamagedTable(
                f"the root entry of bus {rid.bus:02x} is not present", hint="`iommuctl check` looks for more"
            )
        return address

# SPDX-License-Identifier: Apache-2.0
"""The driver's hands on the stream table: STEs, and the tables of the second level that come and go with devices."""

from collections.abc import Callable, Iterator

from iommuctl.errors import DamagedTable, OutsideMemory
from iommuctl.formats.format import present
from iommuctl.formats.mapping import allocate_aligned
from iommuctl.formats.memory import PAGE, Run, TableMemory, read_word, write_word
from iommuctl.model import Placed, Rid
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.invalidation import SPLIT
from iommuctl_smmuv3.registers import LINEAR, TWO_LEVEL, StrtabBase, StrtabBaseCfg
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.stream_table import L1Std, array_size

STE_SIZE = Ste.bits // 8
SPAN = SPLIT + 1
"""Every table of the second level is whole."""
_BITS = 16
"""A StreamID is the source id of a device."""


class StreamTables:
    """The stream table that the registers of a unit describe, as `build` made it."""

    def __init__(self, memory: TableMemory, base: int, config: int) -> None:
        self._memory = memory
        self._base = StrtabBase.ADDR.get(base)
        self._bits = StrtabBaseCfg.LOG2SIZE.get(config)
        self._two_level = StrtabBaseCfg.FMT.get(config) == TWO_LEVEL

    @staticmethod
    def build(memory: TableMemory, features: Features) -> tuple[int, int]:
        """A stream table without streams: the values of STRTAB_BASE and STRTAB_BASE_CFG. Raises NoRoom."""
        bits = min(_BITS, features.sid_bits)
        pages = _pages(bits, features.two_level)
        table = allocate_aligned(memory, pages)
        memory.write(table, bytes(pages * PAGE))
        form = {"FMT": TWO_LEVEL, "SPLIT": SPLIT} if features.two_level else {"FMT": LINEAR}
        return StrtabBase.encode(ADDR=table, RA=1), StrtabBaseCfg.encode(LOG2SIZE=bits, **form)

    def holds(self, rid: Rid) -> bool:
        """Whether there are StreamIDs of that size."""
        return not rid.source_id >> self._bits

    def address(self, rid: Rid) -> int | None:
        """Where a device's STE lies; None without a table for its bus."""
        if not self._two_level:
            return self._base + STE_SIZE * rid.source_id
        descriptor = read_word(self._memory, self._descriptor(rid))
        if L1Std.Span.get(descriptor) != SPAN:
            return None
        return L1Std.L2Ptr.get(descriptor) + STE_SIZE * (rid.source_id % (1 << SPLIT))

    def entry(self, rid: Rid) -> int:
        """The STE of a device; 0 without a table for its bus."""
        address = self.address(rid)
        return 0 if address is None else self._number(address, STE_SIZE)

    def present_address(self, rid: Rid) -> int:
        """Where the STE of a device lies. Raises DamagedTable where there is none, or one that is not valid."""
        address = self.address(rid)
        if address is None or not Ste.V.get(self._number(address, STE_SIZE)):
            raise DamagedTable(f"the STE of {rid} is not valid", hint="`iommuctl check` looks for more")
        return address

    def add_table(self, rid: Rid, ste: int) -> None:
        """A table for the bus of a device, with that STE in it."""
        size = array_size(SPAN)
        table = allocate_aligned(self._memory, size // PAGE)
        content = bytearray(size)
        offset = STE_SIZE * (rid.source_id % (1 << SPLIT))
        content[offset : offset + STE_SIZE] = Ste.to_bytes(ste)
        self._memory.write(table, bytes(content))
        write_word(self._memory, self._descriptor(rid), L1Std.encode(Span=SPAN, L2Ptr=table))

    def is_last(self, rid: Rid) -> bool:
        """Whether a table of the second level has no STE but that of this device."""
        address = self.present_address(rid)
        table = address - STE_SIZE * (rid.source_id % (1 << SPLIT))
        return self._two_level and all(found == address for found, _ in self._entries(table, array_size(SPAN)))

    def remove_table(self, rid: Rid, announce: Callable[[], None]) -> None:
        """Take the table of a bus out; `announce` has the caches forget it before its memory is given back."""
        table = L1Std.L2Ptr.get(read_word(self._memory, self._descriptor(rid)))
        write_word(self._memory, self._descriptor(rid), 0)
        announce()
        self._memory.free(Run(table, array_size(SPAN) // PAGE))

    # What is there, for those who look after the tables. What lies outside memory has no entries.

    def descriptors(self) -> Iterator[tuple[int, int]]:
        """Each descriptor of the first level that is not zero, as (upper bits of its StreamIDs, word)."""
        if self._two_level:
            yield from present(self._read(self._base, 8 << max(0, self._bits - SPLIT)) or b"")

    def is_table(self, descriptor: int) -> bool:
        """Whether a word is what we write to point to a table."""
        table = L1Std.L2Ptr.get(descriptor)
        whole = descriptor == L1Std.encode(Span=SPAN, L2Ptr=table) and not table % array_size(SPAN)
        return whole and self._read(table, array_size(SPAN)) is not None

    def entries(self) -> Iterator[tuple[Rid, int]]:
        """Each STE that is not zero, those of a table once."""
        if not self._two_level:
            for address, ste in self._entries(self._base, STE_SIZE << self._bits):
                yield _rid((address - self._base) // STE_SIZE), ste
        entered: set[int] = set()
        for number, descriptor in self.descriptors():
            table = L1Std.L2Ptr.get(descriptor)
            if L1Std.Span.get(descriptor) == SPAN and table not in entered:
                entered.add(table)
                for address, ste in self._entries(table, array_size(SPAN)):
                    yield _rid(number << SPLIT | (address - table) // STE_SIZE), ste

    def structures(self, rid: Rid) -> Iterator[Placed]:
        """The structures that lead to a device's STE, and the STE, where they are present."""
        address = self.address(rid)
        if address is None:
            return
        if self._two_level:
            place = self._descriptor(rid)
            yield Placed.of(L1Std, place, read_word(self._memory, place), 0)
        ste = self._number(address, STE_SIZE)
        if Ste.V.get(ste):
            yield Placed.of(Ste, address, ste, 1 if self._two_level else 0)

    def runs(self) -> Iterator[Run]:
        """The pages of all these tables."""
        yield Run(self._base, _pages(self._bits, self._two_level))
        for _, descriptor in self.descriptors():
            if L1Std.Span.get(descriptor) == SPAN:
                yield Run(L1Std.L2Ptr.get(descriptor), array_size(SPAN) // PAGE)

    def _descriptor(self, rid: Rid) -> int:
        return self._base + 8 * (rid.source_id >> SPLIT)

    def _entries(self, table: int, size: int) -> Iterator[tuple[int, int]]:
        """The STEs of an array that are not zero, with their addresses."""
        data = self._read(table, size) or b""
        for start in range(0, len(data), STE_SIZE):
            if ste := int.from_bytes(data[start : start + STE_SIZE], "little"):
                yield table + start, ste

    def _number(self, address: int, size: int) -> int:
        return int.from_bytes(self._read(address, size) or b"", "little")

    def _read(self, address: int, size: int) -> bytes | None:
        try:
            return self._memory.read(address, size)
        except OutsideMemory:
            return None


def _pages(bits: int, two_level: bool) -> int:
    """Pages of a stream table, or of its first level."""
    size = 8 << max(0, bits - SPLIT) if two_level else STE_SIZE << bits
    return -(-size // PAGE)


def _rid(stream: int) -> Rid:
    return Rid(0, stream >> 8, stream >> 3 & 0x1F, stream & 7)

# SPDX-License-Identifier: Apache-2.0
"""The driver's hands on the tables between the root and the PASID entries, with Present always written last."""

from collections.abc import Iterator

from iommuctl.errors import DamagedTable, OutsideMemory
from iommuctl.formats.format import present
from iommuctl.formats.memory import PAGE, Run, TableMemory, read_word, write_word
from iommuctl.model import Device, Placed, Rid
from iommuctl_vtd.context_entry import ScalableContextEntry
from iommuctl_vtd.pasid_entry import PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.root_entry import ScalableRootEntry

CONTEXT_SIZE = ScalableContextEntry.bits // 8
PASID_SIZE = PasidEntry.bits // 8
ROOT_SIZE = ScalableRootEntry.bits // 8
_HINT = "`iommuctl check` looks for more"


class Tables:
    """The tables under one root table."""

    def __init__(self, memory: TableMemory, root: int) -> None:
        self._memory = memory
        self._root = root

    # Context entries

    def context_address(self, rid: Rid) -> int | None:
        """Where a device's context entry lies; None without a context table."""
        half = read_word(self._memory, self._half(rid))
        return None if not half & 1 else (half & -PAGE) + CONTEXT_SIZE * (rid.source_id & 0x7F)

    def context(self, rid: Rid) -> int:
        """The context entry of a device; 0 without a context table."""
        address = self.context_address(rid)
        return 0 if address is None else self._number(address, CONTEXT_SIZE)

    def add_context(self, device: Device) -> None:
        """A context entry with an empty PASID directory."""
        address = self.context_address(device.rid)
        if address is None:
            table = self._zeroed(1)
            half = ScalableRootEntry.encode(LP=1, LCTP=table)
            write_word(self._memory, self._half(device.rid), half)
            address = table + CONTEXT_SIZE * (device.rid.source_id & 0x7F)
        size = max(0, device.pasid_bits - 13)
        directory = self._zeroed(directory_pages(size))
        self._write_entry(address, ScalableContextEntry.to_bytes(context_entry(device, directory)))

    def clear_context(self, rid: Rid) -> int:
        """Take Present away; the rest of the entry, which is returned, stays until the caches have been told.

        Raises DamagedTable.
        """
        entry = self.present_context(rid) & ~ScalableContextEntry.P.mask
        address = self.context_address(rid)
        assert address is not None
        write_word(self._memory, address, entry & (1 << 64) - 1)
        return entry

    def free_context(self, rid: Rid, entry: int) -> None:
        """Zero an entry that is not present any more, and give its tables back."""
        address = self.context_address(rid)
        assert address is not None
        self._memory.write(address, bytes(CONTEXT_SIZE))
        for run in self.directory_runs(entry):
            self._memory.free(run)

    def present_context(self, rid: Rid) -> int:
        """The context entry of a device. Raises DamagedTable for one that is not present."""
        entry = self.context(rid)
        if not ScalableContextEntry.P.get(entry):
            raise DamagedTable(f"the context entry of {rid} is not present", hint=_HINT)
        return entry

    # PASID entries

    def directory_address(self, rid: Rid, pasid: int) -> int:
        """Where the PASID directory entry for a PASID lies. Raises DamagedTable without a context entry."""
        return ScalableContextEntry.PASIDDIRPTR.get(self.present_context(rid)) + 8 * (pasid >> 6)

    def pasid_address(self, rid: Rid, pasid: int) -> int:
        """Where a PASID entry lies. Raises DamagedTable without a PASID table."""
        pointer = read_word(self._memory, self.directory_address(rid, pasid))
        if not PasidDirectoryEntry.P.get(pointer):
            raise DamagedTable(f"there is no PASID table for PASID {pasid} of {rid}", hint=_HINT)
        return PasidDirectoryEntry.SMPTBLPTR.get(pointer) + PASID_SIZE * (pasid & 0x3F)

    def add_pasid(self, rid: Rid, pasid: int, entry: int) -> None:
        """Fill a PASID entry that was empty."""
        directory = self.directory_address(rid, pasid)
        if not PasidDirectoryEntry.P.get(read_word(self._memory, directory)):
            pointer = PasidDirectoryEntry.encode(P=1, SMPTBLPTR=self._zeroed(1))
            write_word(self._memory, directory, pointer)
        self._write_entry(self.pasid_address(rid, pasid), PasidEntry.to_bytes(entry))

    def clear_pasid(self, rid: Rid, pasid: int) -> None:
        """Take Present away; the rest stays until the caches have been told."""
        address = self.pasid_address(rid, pasid)
        write_word(self._memory, address, read_word(self._memory, address) & ~PasidEntry.P.mask)

    def zero_pasid(self, rid: Rid, pasid: int) -> None:
        """Zero an entry that is not present."""
        self._memory.write(self.pasid_address(rid, pasid), bytes(PASID_SIZE))

    def swap_pasid(self, rid: Rid, pasid: int, entry: int) -> Run:
        """Replace a present entry without a moment in between: in a copy of its table, which one store brings in.

        An entry has more words than one store can change. Returns the old table.
        """
        address = self.pasid_address(rid, pasid)
        old, offset = address & -PAGE, address % PAGE
        content = bytearray(self._memory.read(old, PAGE))
        content[offset : offset + PASID_SIZE] = PasidEntry.to_bytes(entry)
        table = self._memory.allocate_run(1)
        self._memory.write(table, bytes(content))
        pointer = PasidDirectoryEntry.encode(P=1, SMPTBLPTR=table)
        write_word(self._memory, self.directory_address(rid, pasid), pointer)
        return Run(old, 1)

    # What is there, for those who look after the tables. What lies outside memory has no entries.

    def halves(self) -> Iterator[tuple[int, int]]:
        """Each half of a root entry that is not zero, as (bus << 1 | half, word)."""
        return self._words(self._root, PAGE)

    def contexts(self) -> Iterator[tuple[Rid, int]]:
        """Each context entry that is not zero, those of a table once."""
        entered: set[int] = set()
        for index, half in self.halves():
            table = half & -PAGE
            if half & 1 and table not in entered:
                entered.add(table)
                for number, entry in self._structures(table, CONTEXT_SIZE):
                    device = (index & 1) << 7 | number
                    yield Rid(0, index >> 1, device >> 3, device & 7), entry

    def directory(self, context: int) -> Iterator[tuple[int, int]]:
        """Each PASID directory entry that is not zero, by the upper bits of its PASIDs."""
        size = 8 << ScalableContextEntry.PDTS.get(context) + 7
        return self._words(ScalableContextEntry.PASIDDIRPTR.get(context), size)

    def pasids(self, context: int) -> Iterator[tuple[int, int]]:
        """Each PASID entry that is not zero, as (PASID, entry)."""
        for index, pointer in self.directory(context):
            if pointer & 1:
                for number, entry in self._structures(pointer & -PAGE, PASID_SIZE):
                    yield index << 6 | number, entry

    def structures(self, rid: Rid) -> Iterator[Placed]:
        """The present structures of a device, from its root entry to its PASID entries.

        Of the root entry, the fields of its half. The entries of a PASID table come once, whatever points to it.
        """
        address = self.context_address(rid)
        if address is None:
            return
        half = ("UP", "UCTP") if rid.source_id & 0x80 else ("LP", "LCTP")
        root = self._root + ROOT_SIZE * rid.bus
        yield Placed.of(ScalableRootEntry, root, self._number(root, ROOT_SIZE), 0, names=half)
        context = self.context(rid)
        if not ScalableContextEntry.P.get(context):
            return
        yield Placed.of(ScalableContextEntry, address, context, 1)
        directory = ScalableContextEntry.PASIDDIRPTR.get(context)
        entered: set[int] = set()
        for index, pointer in self.directory(context):
            if not PasidDirectoryEntry.P.get(pointer):
                continue
            first, table = index << 6, pointer & -PAGE
            yield Placed.of(PasidDirectoryEntry, directory + 8 * index, pointer, 2, pasids=(first, first | 0x3F))
            for number, entry in () if table in entered else self._structures(table, PASID_SIZE):
                if PasidEntry.P.get(entry):
                    pasids = (first | number, first | number)
                    yield Placed.of(PasidEntry, table + PASID_SIZE * number, entry, 3, pasids=pasids)
            entered.add(table)

    def is_pointer(self, word: int) -> bool:
        """Whether a word is what we write to point to a table: Present, the address of a page, nothing else."""
        return word & PAGE - 1 == 1 and self._read(word & -PAGE, PAGE) is not None

    def runs(self) -> Iterator[Run]:
        """The pages of all these tables. No directory is looked through twice, whatever points to it."""
        yield Run(self._root, 1)
        yield from (Run(half & -PAGE, 1) for _, half in self.halves() if half & 1)
        entered: set[int] = set()
        for _, context in self.contexts():
            directory = ScalableContextEntry.PASIDDIRPTR.get(context)
            if ScalableContextEntry.P.get(context) and directory not in entered:
                entered.add(directory)
                yield from self.directory_runs(context)

    def directory_runs(self, context: int) -> Iterator[Run]:
        """The pages of a context entry's PASID tables and directory."""
        for _, pointer in self.directory(context):
            if pointer & 1:
                yield Run(pointer & -PAGE, 1)
        pages = directory_pages(ScalableContextEntry.PDTS.get(context))
        yield Run(ScalableContextEntry.PASIDDIRPTR.get(context), pages)

    def _words(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        return present(self._read(address, size) or b"")

    def _structures(self, table: int, size: int) -> Iterator[tuple[int, int]]:
        """The structures of a page that are not zero."""
        data = self._read(table, PAGE) or b""
        for number in range(len(data) // size):
            if entry := int.from_bytes(data[number * size : (number + 1) * size], "little"):
                yield number, entry

    def _number(self, address: int, size: int) -> int:
        return int.from_bytes(self._read(address, size) or b"", "little")

    def _read(self, address: int, size: int) -> bytes | None:
        try:
            return self._memory.read(address, size)
        except OutsideMemory:
            return None

    def _half(self, rid: Rid) -> int:
        """Where the half of the root entry lies that has a device's context table."""
        return self._root + ROOT_SIZE * rid.bus + (8 if rid.source_id & 0x80 else 0)

    def _write_entry(self, address: int, data: bytes) -> None:
        self._memory.write(address + 8, data[8:])
        self._memory.write(address, data[:8])

    def _zeroed(self, pages: int) -> int:
        address = self._memory.allocate_run(pages)
        self._memory.write(address, bytes(pages * PAGE))
        return address


def directory_pages(pdts: int) -> int:
    """Pages of a PASID directory of 2**(pdts + 7) entries."""
    return max(1, (8 << pdts + 7) // PAGE)


def context_entry(device: Device, directory: int) -> int:
    """The context entry of a device. Requests without PASID use PASID 0, as Linux has it."""
    return ScalableContextEntry.encode(
        P=1,
        DTE=device.ats,
        PASIDE=device.pasid_bits > 0,
        PRE=device.pri,
        PDTS=max(0, device.pasid_bits - 13),
        PASIDDIRPTR=directory,
    )

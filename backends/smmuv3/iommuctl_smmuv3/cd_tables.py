# SPDX-License-Identifier: Apache-2.0
"""The driver's hands on a stream's CDs: one CD, a linear table, or two levels whose leaves come and go with CDs.

The table of a nested stream lies in the guest's memory, where others can write. What the driver has to know, where the
leaves are and how many CDs they have, is therefore in rows, and nothing that it reads from there is followed.
"""

from collections.abc import Callable, Iterator, Mapping

from iommuctl.formats.mapping import allocate_aligned
from iommuctl.formats.memory import PAGE, Run, TableMemory, write_word
from iommuctl.hookspecs import Rows
from iommuctl_smmuv3.cd import Cd, L1Cd
from iommuctl_smmuv3.entries import LEAF_BITS, Contexts
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.rules import Change
from iommuctl_smmuv3.ste import LINEAR, cd_table_size
from iommuctl_smmuv3.update import write_live

LEAVES = "smmuv3.cd-leaf"
CD_SIZE = Cd.bits // 8

Announce = Callable[[Change, int], None]
"""Has the caches forget what a change makes untrue, for a substream."""


class CdTable:
    """The CDs of one stream. `memory` is what S1ContextPtr is an address of; rows know the table as `owner`."""

    def __init__(self, memory: TableMemory, rows: Rows, features: Features, owner: str, contexts: Contexts) -> None:
        self._memory = memory
        self._rows = rows
        self._features = features
        self._owner = owner
        self.contexts = contexts
        form = contexts.form(features)
        self._two_level = form != LINEAR
        self._pages = -(-cd_table_size(form, contexts.bits) // PAGE)

    @classmethod
    def build(cls, memory: TableMemory, rows: Rows, features: Features, owner: str, bits: int) -> "CdTable":
        """A table without CDs for substreams of `bits` bits. Raises NoRoom."""
        table = cls(memory, rows, features, owner, Contexts(0, bits))
        pointer = allocate_aligned(memory, table._pages)
        memory.write(pointer, bytes(table._pages * PAGE))
        table.contexts = Contexts(pointer, bits)
        return table

    def grown(self, bits: int, cds: int) -> tuple["CdTable", list[Run]]:
        """A table of these CDs, `cds` in all, that has room for substreams of `bits` bits; nothing leads to it yet.

        The second are the pages that it does not take over, to be given back when something does. Raises NoRoom.
        """
        table = CdTable.build(self._memory, self._rows, self._features, self._owner, bits)
        own, pointer = Run(self.contexts.pointer, self._pages), table.contexts.pointer
        if self._two_level:
            for number, leaf in self.leaves():
                write_word(self._memory, pointer + 8 * number, L1Cd.encode(V=1, L2Ptr=leaf))
        elif table._two_level:
            # A linear table of one page is what a leaf is.
            write_word(self._memory, pointer, L1Cd.encode(V=1, L2Ptr=own.address))
            self._rows.put(LEAVES, self._key(0), [own.address, cds])
            return table, []
        else:
            self._memory.write(pointer, self._memory.read(own.address, CD_SIZE << self.contexts.bits))
        return table, [own]

    def put(self, substream: int, cd: int, announce: Announce, *, adds: bool) -> None:
        """Write a CD, in place of another one or as one more."""
        if not self._two_level:
            self._write(self.contexts.pointer + CD_SIZE * substream, substream, cd, announce)
            return
        number, index = divmod(substream, 1 << LEAF_BITS)
        leaf, count = self._leaf(number)
        if leaf is None:
            leaf = self._memory.allocate_run(1)
            content = bytearray(PAGE)
            content[CD_SIZE * index : CD_SIZE * (index + 1)] = Cd.to_bytes(cd)
            self._memory.write(leaf, bytes(content))
            write_word(self._memory, self.contexts.pointer + 8 * number, L1Cd.encode(V=1, L2Ptr=leaf))
            announce(Change.CD_LEAF_ADDED, substream)
        else:
            self._write(leaf + CD_SIZE * index, substream, cd, announce)
        self._rows.put(LEAVES, self._key(number), [leaf, count + adds])

    def remove(self, substream: int, announce: Announce) -> None:
        """Take a CD out, and the leaf that has no other."""
        if not self._two_level:
            self._write(self.contexts.pointer + CD_SIZE * substream, substream, 0, announce)
            return
        number, index = divmod(substream, 1 << LEAF_BITS)
        leaf, count = self._leaf(number)
        assert leaf is not None
        if count > 1:
            self._write(leaf + CD_SIZE * index, substream, 0, announce)
            self._rows.put(LEAVES, self._key(number), [leaf, count - 1])
            return
        write_word(self._memory, self.contexts.pointer + 8 * number, 0)
        announce(Change.CD_LEAF_REMOVED, substream)
        self._memory.free(Run(leaf, 1))
        self._rows.delete(LEAVES, self._key(number))

    def write_again(self, cds: Mapping[int, int]) -> None:
        """Write all of it where it is, with these CDs by substream: what the memory held is lost."""
        for first, array, count, descriptor in list(self.arrays()):
            if descriptor:
                write_word(self._memory, descriptor, L1Cd.encode(V=1, L2Ptr=array))
            held = (cds.get(substream, 0) for substream in range(first, first + count))
            self._memory.write(array, b"".join(map(Cd.to_bytes, held)))

    def destroy(self) -> None:
        """Give all of it back. Nothing leads to it any more."""
        for run in list(self.runs()):
            self._memory.free(run)
        for number, _ in list(self.leaves()):
            self._rows.delete(LEAVES, self._key(number))

    def runs(self) -> Iterator[Run]:
        """The pages of the table, in its memory."""
        yield Run(self.contexts.pointer, self._pages)
        yield from (Run(leaf, 1) for _, leaf in self.leaves())

    def leaves(self) -> Iterator[tuple[int, int]]:
        """The leaves, by the upper bits of their substreams."""
        for key, (leaf, _) in self._rows.scan(LEAVES, f"{self._owner} ", f"{self._owner} ~"):
            yield int(key.split()[1], 16), leaf

    def arrays(self) -> Iterator[tuple[int, int, int, int]]:
        """Each array of CDs: its first substream, its address, how many CDs it has room for, and that of its L1CD."""
        if not self._two_level:
            yield 0, self.contexts.pointer, 1 << self.contexts.bits, 0
        for number, leaf in self.leaves():
            yield number << LEAF_BITS, leaf, 1 << LEAF_BITS, self.contexts.pointer + 8 * number

    def _write(self, address: int, substream: int, cd: int, announce: Announce) -> None:
        write_live(self._memory, Cd, address, cd, lambda: announce(Change.CD_WRITTEN, substream))

    def _leaf(self, number: int) -> tuple[int | None, int]:
        leaf, count = self._rows.get(LEAVES, self._key(number)) or (None, 0)
        return leaf, count

    def _key(self, number: int) -> str:
        return f"{self._owner} {number:04x}"

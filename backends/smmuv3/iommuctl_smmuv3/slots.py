# SPDX-License-Identifier: Apache-2.0
"""What is in a device's slots, as an STE and CDs: changes are made in an order that the unit may watch."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory, Run, TableMemory, read_word
from iommuctl.hookspecs import SlotChange
from iommuctl.model import Binding, Device, Occupant, Placed, Rid, Slot
from iommuctl_smmuv3.cd import Cd, L1Cd
from iommuctl_smmuv3.cd_tables import CD_SIZE, CdTable
from iommuctl_smmuv3.entries import context_descriptor, stage_2, stream_entry
from iommuctl_smmuv3.invalidation import Target
from iommuctl_smmuv3.rules import Change
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.streams import GuestView, Stream, parent_of, uses_stage_1, without_pasid
from iommuctl_smmuv3.tags import Tag
from iommuctl_smmuv3.update import write_live
from iommuctl_smmuv3.vmsa import VmsaFormat

if TYPE_CHECKING:
    from iommuctl_smmuv3.driver import Driver

_NO_TAG = Tag(0)


class Slots:
    """The slots of all devices of one driver."""

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver

    # Devices

    def add(self, device: Device) -> None:
        """An STE that aborts."""
        driver, rid = self._driver, device.rid
        ste = self.entry(driver.streams.add(device))
        address = driver.stream_tables.address(rid)
        if address is None:
            driver.stream_tables.add_table(rid, ste)
            self._announce(Change.STREAM_TABLE_CHANGED, Slot(rid))
        else:
            self._write_entry(address, rid, ste)

    def remove(self, rid: Rid) -> None:
        """The reverse. All slots are empty."""
        tables = self._driver.stream_tables
        if tables.is_last(rid):
            tables.remove_table(rid, lambda: self._announce(Change.STREAM_TABLE_CHANGED, Slot(rid)))
        else:
            self._write_entry(tables.present_address(rid), rid, 0)
        self._driver.streams.remove(rid)

    # Slots

    def install(self, change: SlotChange) -> None:
        driver, slot, old, new, guest = self._driver, change.slot, change.old, change.new, change.guest
        rid = slot.rid
        address = driver.stream_tables.present_address(rid)
        if isinstance(new, Binding):
            driver.tags.acquire(new)
        before = self.stream(rid)
        stream = self._following(before, slot, old, new)
        earlier = self.table(rid, before, guest)
        # The table goes when it has no CD left, and when the CDs come to lie in other memory.
        stays = earlier is not None and stream.cds > 0 and _owner(rid, stream) == _owner(rid, before)
        table = earlier if stays else None
        outgrown: list[Run] = []

        def announce(what: Change, substream: int) -> None:
            # Nobody has seen a table that no STE leads to yet.
            if stays:
                self._announce(what, Slot(rid, substream))

        if new and uses_stage_1(new):
            replaces = table is not None and uses_stage_1(old)
            bits = stream.bits_for(slot.pasid or 0)
            if table is None:
                table = self._build(rid, stream, guest, bits)
            elif bits > table.contexts.bits:
                table, outgrown = table.grown(bits, before.cds)
            table.put(slot.pasid or 0, self.context(new), announce, adds=not replaces)
        pointer, cd_bits = table.contexts if table else (None, 0)
        stream = stream._replace(pointer=pointer, cd_bits=cd_bits)
        self._write_entry(address, rid, self.entry(stream))
        if table and uses_stage_1(old) and not uses_stage_1(new):
            table.remove(slot.pasid or 0, announce)
        if old:
            self._leave(slot, old, new)
        if earlier and not stays:
            earlier.destroy()
        for run in outgrown:
            (guest if stream.nested and guest else driver.memory).free(run)
        driver.streams.put(rid, stream)
        if isinstance(old, Binding):
            driver.tags.release(old)

    def _following(self, before: Stream, slot: Slot, old: Occupant | None, new: Occupant | None) -> Stream:
        """The stream after a change, but for where its CDs are."""
        cds = before.cds + uses_stage_1(new) - uses_stage_1(old)
        nested = isinstance(new, Binding) if uses_stage_1(new) else before.nested and cds > 0
        if slot.pasid is not None:
            return before._replace(cds=cds, nested=nested)
        parent = parent_of(new)
        facts = (parent.id, self._driver.domain_format(parent).page_sizes[0], parent.width) if parent else None
        return before._replace(cds=cds, nested=nested, dss=without_pasid(new), parent=facts)

    def _leave(self, slot: Slot, old: Occupant, new: Occupant | None) -> None:
        """Have the caches forget what the slot used. A PASID leaves its parent with the RID."""
        tags, parent = self._driver.tags, parent_of(old)
        if parent and slot.pasid is None and parent_of(new) != parent:
            self._announce(Change.STAGE_2_LEFT, slot, tags.of_domain(parent))
        elif uses_stage_1(old):
            left = Change.PAGE_TABLE_LEFT if isinstance(old, Binding) else Change.STAGE_1_LEFT
            self._announce(left, slot, tags.of(old))
        else:
            self._announce(Change.STAGE_2_COVERED, slot)

    # What the structures hold

    def stream(self, rid: Rid) -> Stream:
        stream = self._driver.streams.get(rid)
        assert stream is not None
        return stream

    def entry(self, stream: Stream) -> int:
        """The STE of a stream."""
        driver = self._driver
        fields = 0
        if stream.parent:
            domain, granule, width = stream.parent
            fmt = driver.page_tables.stage2(granule, width)
            vmid = driver.tags.vmid(domain)
            fields = stage_2(fmt, driver.root_of(domain), vmid, driver.page_tables.output(granule))
        return stream_entry(
            driver.features, ats=stream.ats, contexts=stream.contexts, dss=stream.dss, stage_2_fields=fields
        )

    def context(self, occupant: Occupant) -> int:
        """The CD for what a slot is to hold."""
        driver = self._driver
        if isinstance(occupant, Binding):
            fmt: VmsaFormat = driver.page_tables.named(occupant.format)
            root = occupant.root
        else:
            fmt, root = driver.page_tables.of(occupant.domain), driver.domain_root(occupant.domain)
        asid = driver.tags.of(occupant).asid or 0
        return context_descriptor(fmt, root, asid, driver.page_tables.output(fmt.page_sizes[0]))

    def table(self, rid: Rid, stream: Stream, memory: TableMemory | None = None) -> CdTable | None:
        """The CDs of a stream, in our memory or in that which is given for a nested one; None where there are none."""
        if stream.contexts is None:
            return None
        driver = self._driver
        place = memory if stream.nested and memory else driver.memory
        return CdTable(place, driver.rows, driver.features, _owner(rid, stream), stream.contexts)

    # Looking after the tables

    def view(self, stream: Stream) -> Memory:
        """The memory that a stream has its CDs in, to read."""
        driver = self._driver
        if not stream.nested or stream.parent is None:
            return driver.memory
        domain, granule, width = stream.parent
        return GuestView(driver.memory, driver.page_tables.stage2(granule, width), driver.root_of(domain))

    def contexts(self, rid: Rid) -> Iterator[Placed]:
        """The L1CDs and CDs of a device that are present, at their physical addresses."""
        stream = self._driver.streams.get(rid)
        table = stream and self.table(rid, stream)
        if not stream or not table:
            return
        memory = self.view(stream)
        depth = 2 if self._driver.features.two_level else 1
        for first, array, count, descriptor in table.arrays():
            with suppress(OutsideMemory):
                last = first + count - 1
                if descriptor:
                    word = read_word(memory, descriptor)
                    yield Placed.of(L1Cd, _place(memory, descriptor), word, depth, pasids=(first, last))
                data = memory.read(array, CD_SIZE * count)
                for substream in range(first, first + count):
                    offset = CD_SIZE * (substream - first)
                    cd = int.from_bytes(data[offset : offset + CD_SIZE], "little")
                    if Cd.V.get(cd):
                        pasids = (substream, substream) if stream.bits else None
                        place = _place(memory, array + offset)
                        yield Placed.of(Cd, place, cd, depth + bool(descriptor), pasids=pasids)

    def runs_in_guest(self, rid: Rid) -> Iterator[Run]:
        """The pages of a device's CD table, by GPA, when they are the guest's."""
        stream = self.stream(rid)
        if stream.nested and (table := self.table(rid, stream)):
            yield from table.runs()

    def runs(self) -> Iterator[Run]:
        """The pages of all CD tables that are in our memory."""
        for number, stream in self._driver.streams.all():
            rid = Rid(0, number >> 8, number >> 3 & 0x1F, number & 7)
            if not stream.nested and (table := self.table(rid, stream)):
                yield from table.runs()

    # Writing

    def _build(self, rid: Rid, stream: Stream, guest: TableMemory | None, bits: int) -> CdTable:
        driver = self._driver
        memory = guest if stream.nested and guest else driver.memory
        return CdTable.build(memory, driver.rows, driver.features, _owner(rid, stream), bits)

    def _write_entry(self, address: int, rid: Rid, ste: int) -> None:
        write_live(self._driver.memory, Ste, address, ste, lambda: self._announce(Change.STE_WRITTEN, Slot(rid)))

    def _announce(self, change: Change, slot: Slot, tag: Tag = _NO_TAG) -> None:
        self._driver.announce((change, [Target(slot, tag)]))


def _owner(rid: Rid, stream: Stream) -> str:
    """Whose CDs these are: of one stream there can be two tables for a moment, ours and that of a guest."""
    parent = stream.parent[0] if stream.nested and stream.parent else 0
    return f"{rid.source_id:04x}.{parent:x}"


def _place(memory: Memory, address: int) -> int:
    return memory.place(address) if isinstance(memory, GuestView) else address

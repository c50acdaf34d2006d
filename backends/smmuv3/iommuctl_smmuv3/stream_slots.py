# SPDX-License-Identifier: Apache-2.0
"""The slots of devices as the driver side keeps them: an STE for each in the stream table, which leads to CDs."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory, Run, read_word
from iommuctl.hookspecs import SlotChange
from iommuctl.model import Device, Placed, Rid, Slot
from iommuctl_smmuv3.cd import Cd, L1Cd
from iommuctl_smmuv3.cd_tables import CD_SIZE
from iommuctl_smmuv3.entries import stage_2, stream_entry
from iommuctl_smmuv3.invalidation import Target
from iommuctl_smmuv3.rules import Change
from iommuctl_smmuv3.slots import NO_TAG, Slots
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.streams import GuestView, Stream
from iommuctl_smmuv3.tags import Tag
from iommuctl_smmuv3.update import write_live

if TYPE_CHECKING:
    from iommuctl_smmuv3.driver import Driver


class StreamSlots(Slots):
    """The slots of all devices of one driver."""

    def __init__(self, driver: "Driver") -> None:
        super().__init__(driver)
        self._driver = driver

    # Devices

    def add(self, device: Device) -> None:
        """An STE that aborts."""
        driver, rid = self._driver, device.rid
        ste = self.entry(driver.streams.add(device))
        address = driver.stream_tables.address(rid)
        if address is None:
            driver.stream_tables.add_table(rid, ste)
            self.announce(Change.STREAM_TABLE_CHANGED, Slot(rid))
        else:
            self._write_entry(address, rid, ste)

    def remove(self, rid: Rid) -> None:
        """The reverse. All slots are empty."""
        tables = self._driver.stream_tables
        if tables.is_last(rid):
            tables.remove_table(rid, lambda: self.announce(Change.STREAM_TABLE_CHANGED, Slot(rid)))
        else:
            self._write_entry(tables.present_address(rid), rid, 0)
        self._driver.streams.remove(rid)

    # Slots

    def install(self, change: SlotChange) -> None:
        # Before anything is changed: where the stream table has a hole, nothing can be entered.
        self._driver.stream_tables.present_address(change.slot.rid)
        super().install(change)

    def enter(self, rid: Rid, stream: Stream) -> None:
        self._write_entry(self._driver.stream_tables.present_address(rid), rid, self.entry(stream))

    def announce(self, change: Change, slot: Slot, tag: Tag = NO_TAG) -> None:
        self._driver.announce((change, [Target(slot, tag)]))

    def entry(self, stream: Stream) -> int:
        """The STE of a stream."""
        driver = self._driver
        fields = 0
        if stream.parent:
            domain, granule, width = stream.parent
            fmt = driver.page_tables.stage2(granule, width)
            vmid = driver.tags.vmid(domain)
            fields = stage_2(fmt, driver.root_of(domain), vmid, driver.page_tables.output(granule))
        # So that a device knows of each answer which PASID it is about, those of a full PRI queue included.
        return Ste.encode(PPAR=stream.pri) | stream_entry(
            driver.features, ats=stream.ats, contexts=stream.contexts, dss=stream.dss, stage_2_fields=fields
        )

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

    def runs(self) -> Iterator[Run]:
        """The pages of all CD tables that are in our memory."""
        for number, stream in self._driver.streams.all():
            rid = Rid.of(number)
            if not stream.nested and (table := self.table(rid, stream)):
                yield from table.runs()

    def _write_entry(self, address: int, rid: Rid, ste: int) -> None:
        write_live(self._driver.memory, Ste, address, ste, lambda: self.announce(Change.STE_WRITTEN, Slot(rid)))


def _place(memory: Memory, address: int) -> int:
    return memory.place(address) if isinstance(memory, GuestView) else address

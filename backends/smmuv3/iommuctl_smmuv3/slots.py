# SPDX-License-Identifier: Apache-2.0
"""What is in a device's slots, as CDs and what leads to them: changes are made in an order that the unit may watch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from iommuctl.formats.memory import Run, TableMemory
from iommuctl.hookspecs import Rows, SlotChange
from iommuctl.model import Binding, Domain, Occupant, Rid, Slot
from iommuctl_smmuv3.cd_tables import CdTable
from iommuctl_smmuv3.entries import context_descriptor
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.rules import Change
from iommuctl_smmuv3.streams import Stream, Streams, parent_of, stream_id, uses_stage_1, without_pasid
from iommuctl_smmuv3.tables import PageTables
from iommuctl_smmuv3.tags import Tag, Tags
from iommuctl_smmuv3.vmsa import VmsaFormat

NO_TAG = Tag(0)
"""For changes that are not about translations."""


class Site(Protocol):
    """What slots are changed with: a driver, or the kernel."""

    memory: TableMemory
    rows: Rows
    features: Features
    page_tables: PageTables
    tags: Tags
    streams: Streams

    def domain_root(self, domain: Domain) -> int:
        """Physical address of a stage 1 domain's root table."""


class Slots(ABC):
    """The slots of all devices of one unit. What leads to their CDs is for derived classes."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @abstractmethod
    def enter(self, rid: Rid, stream: Stream) -> None:
        """Have the unit use this from now on: stages, and where the CDs are."""

    @abstractmethod
    def announce(self, change: Change, slot: Slot, tag: Tag = NO_TAG) -> None:
        """Have the caches forget what a change makes untrue."""

    def install(self, change: SlotChange) -> None:
        site, slot, old, new, guest = self._site, change.slot, change.old, change.new, change.guest
        rid = slot.rid
        if isinstance(new, Binding):
            site.tags.acquire(new)
        before = self.stream(rid)
        stream = self._following(before, slot, old, new)
        earlier = self.table(rid, before, guest)
        # The table goes when it has no CD left, and when the CDs come to lie in other memory.
        stays = earlier is not None and stream.cds > 0 and owner(rid, stream) == owner(rid, before)
        table = earlier if stays else None
        outgrown: list[Run] = []

        def announce(what: Change, substream: int) -> None:
            # Nobody has seen a table that no STE leads to yet.
            if stays:
                self.announce(what, Slot(rid, substream))

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
        self.enter(rid, stream)
        if table and uses_stage_1(old) and not uses_stage_1(new):
            table.remove(slot.pasid or 0, announce)
        if old:
            self._leave(slot, old, new)
        if earlier and not stays:
            earlier.destroy()
        for run in outgrown:
            (guest if stream.nested and guest else site.memory).free(run)
        site.streams.put(rid, stream)
        if isinstance(old, Binding):
            site.tags.release(old)

    def _following(self, before: Stream, slot: Slot, old: Occupant | None, new: Occupant | None) -> Stream:
        """The stream after a change, but for where its CDs are."""
        cds = before.cds + uses_stage_1(new) - uses_stage_1(old)
        nested = isinstance(new, Binding) if uses_stage_1(new) else before.nested and cds > 0
        if slot.pasid is not None:
            return before._replace(cds=cds, nested=nested)
        parent = parent_of(new)
        facts = (parent.id, self._site.page_tables.of(parent).page_sizes[0], parent.width) if parent else None
        return before._replace(cds=cds, nested=nested, dss=without_pasid(new), parent=facts)

    def _leave(self, slot: Slot, old: Occupant, new: Occupant | None) -> None:
        """Have the caches forget what the slot used. A PASID leaves its parent with the RID."""
        tags, parent = self._site.tags, parent_of(old)
        if parent and slot.pasid is None and parent_of(new) != parent:
            self.announce(Change.STAGE_2_LEFT, slot, tags.of_domain(parent))
        elif uses_stage_1(old):
            left = Change.PAGE_TABLE_LEFT if isinstance(old, Binding) else Change.STAGE_1_LEFT
            self.announce(left, slot, tags.of(old))
        else:
            self.announce(Change.STAGE_2_COVERED, slot)

    def stream(self, rid: Rid) -> Stream:
        stream = self._site.streams.get(rid)
        assert stream is not None
        return stream

    def context(self, occupant: Occupant) -> int:
        """The CD for what a slot is to hold."""
        site = self._site
        if isinstance(occupant, Binding):
            fmt: VmsaFormat = site.page_tables.named(occupant.format)
            root = occupant.root
        else:
            fmt, root = site.page_tables.of(occupant.domain), site.domain_root(occupant.domain)
        asid = site.tags.of(occupant).asid or 0
        return context_descriptor(fmt, root, asid, site.page_tables.output(fmt.page_sizes[0]))

    def table(self, rid: Rid, stream: Stream, memory: TableMemory | None = None) -> CdTable | None:
        """The CDs of a stream, in our memory or in that which is given for a nested one; None where there are none."""
        if stream.contexts is None:
            return None
        site = self._site
        place = memory if stream.nested and memory else site.memory
        return CdTable(place, site.rows, site.features, owner(rid, stream), stream.contexts)

    def runs_in_guest(self, rid: Rid) -> Iterator[Run]:
        """The pages of a device's CD table, by GPA, when they are the guest's."""
        stream = self.stream(rid)
        if stream.nested and (table := self.table(rid, stream)):
            yield from table.runs()

    def _build(self, rid: Rid, stream: Stream, guest: TableMemory | None, bits: int) -> CdTable:
        site = self._site
        memory = guest if stream.nested and guest else site.memory
        return CdTable.build(memory, site.rows, site.features, owner(rid, stream), bits)


def owner(rid: Rid, stream: Stream) -> str:
    """Whose CDs these are: of one stream there can be two tables for a moment, ours and that of a guest."""
    parent = stream.parent[0] if stream.nested and stream.parent else 0
    return f"{stream_id(rid):04x}.{parent:x}"

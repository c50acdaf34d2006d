# SPDX-License-Identifier: Apache-2.0
"""The driver against a plain model of what is where, while devices send requests between any two of its stores."""

import random
from typing import Any

import pytest

from iommuctl.formats import radix
from iommuctl.model import Attachment, Binding, Domain, Slot
from tests.smmuv3.driven import Driven
from tests.smmuv3.test_driver import without

IOVAS = (0x5000, 0x4000_0000, 0x7F_FFFF_F000)
ELSEWHERE = IOVAS[1]
"""A page of each guest's memory that comes and goes."""
PASIDS = (1, 200)


class Model:
    """A machine with random operations, as the core lets them through: one stage 2 for a device and its PASIDs."""

    def __init__(self, seed: int, **options: int) -> None:
        self.chance = random.Random(seed)
        self.machine = Driven(**options)
        ats = self.machine.driver.features.ats
        self.rids = [
            self.machine.device("0000:00:01.0", ats=ats, pasid_bits=8),
            self.machine.device("0000:07:00.0", pasid_bits=0),
        ]
        self.domains = [self.machine.domain() for _ in range(2)]
        self.parents = [self.machine.parent(), self.machine.parent(base=0xA00_0000)]
        self.maps: dict[int, dict[int, int]] = {domain.id: {} for domain in self.domains}
        self.pages = 0
        for _ in range(20):
            self.map()
        self.tables: dict[int, dict[int, dict[int, int]]] = {}
        for parent in self.parents:
            self.machine.map(parent, ELSEWHERE, 0x60_0000)
            tables = [{iova: 0x1000 * (10 * number + n + 1) for n, iova in enumerate(IOVAS)} for number in range(2)]
            tables[0][IOVAS[0]] = ELSEWHERE
            self.tables[parent.id] = {self.machine.page_table(parent, table): table for table in tables}

    # What is where

    def expected(self, slot: Slot, iova: int) -> int:
        """The physical address, or 0 for none."""
        occupant = self.machine.slots.get(slot)
        if occupant is None:
            return 0
        if isinstance(occupant, Binding):
            gpa = self.tables[occupant.domain.id][occupant.root].get(iova, -1)
            return 0 if gpa < 0 else self.behind(occupant.domain, gpa)
        if occupant.domain.nest_parent:
            return self.behind(occupant.domain, iova)
        return self.maps[occupant.domain.id].get(iova, 0)

    def behind(self, parent: Domain, gpa: int) -> int:
        mapping = next((m for m in self.machine.mappings[parent.id] if m.iova <= gpa < m.iova + m.size), None)
        return mapping.pa + gpa - mapping.iova if mapping else 0

    def all_slots(self) -> list[Slot]:
        return [Slot(rid, pasid) for rid in self.rids for pasid in (None, *(PASIDS if rid != self.rids[1] else ()))]

    def look(self) -> None:
        """Every slot's requests go where they should, caches and all; and all else is as it should be."""
        for slot in self.all_slots():
            for iova in IOVAS:
                assert max(0, self.machine.dma(slot, iova)) == self.expected(slot, iova), (slot, hex(iova))
        assert self.machine.check() == []
        self.machine.accounts()

    # Operations

    def step(self) -> None:
        getattr(self, self.chance.choice(["change", "change", "change", "change", "map", "unmap", "invalidate"]))()

    def change(self) -> None:
        """What a slot holds. It is the old, nothing or the new at any moment, and other slots do not notice."""
        slot = self.chance.choice(self.all_slots())
        new = self.chance.choice(self.possible(slot))
        old = self.machine.slots.get(slot)
        if new is None and old is None:
            return
        was = {iova: self.expected(slot, iova) for iova in IOVAS}
        others = {
            (other, iova): self.expected(other, iova)
            for other in self.all_slots() if other.rid == slot.rid and other != slot for iova in IOVAS
        }  # fmt: skip
        seen: list[tuple[int, int]] = []

        def peek() -> None:
            # The unit writes events.
            self.machine.memory.on_write = None
            unit = self.machine.unit
            for iova in IOVAS:
                answer = unit.request(slot, iova, "r", privileged=False).translation
                seen.append((iova, answer.pa or 0))
            for (other, iova), right in others.items():
                pa = unit.request(other, iova, "r", privileged=False).translation.pa or 0
                assert pa == right, (slot, other)
            self.machine.memory.on_write = peek

        self.machine.memory.on_write = peek
        self.machine.install(slot, new)
        self.machine.memory.on_write = None
        for iova, pa in seen:
            assert pa in (0, was[iova], self.expected(slot, iova)), (slot, hex(iova), hex(pa))

    def possible(self, slot: Slot) -> list[Any]:
        """What the slot may hold, by the rules of nesting per device."""
        held = {pasid: self.machine.slots.get(Slot(slot.rid, pasid)) for pasid in (None, *PASIDS)}
        own = held.pop(None)
        plain = [Attachment(slot, domain) for domain in self.domains]
        if slot.pasid is not None:
            if own and own.domain.nest_parent:
                return [None, *self.bindings(slot, own.domain)]
            return [None, *plain]
        if any(isinstance(each, Binding) for each in held.values()):
            assert own is not None
            return [Attachment(slot, own.domain), *self.bindings(slot, own.domain)]
        if any(held.values()):
            return [None, *plain]
        bound = self.bindings(slot, own.domain) if own and own.domain.nest_parent else []
        return [None, *plain, *(Attachment(slot, parent) for parent in self.parents), *bound]

    def bindings(self, slot: Slot, parent: Domain) -> list[Binding]:
        return [Binding(slot, parent, root, "smmuv3.stage-1-4k-48") for root in self.tables[parent.id]]

    def map(self) -> None:
        domain, iova = self.chance.choice(self.domains), self.chance.choice(IOVAS)
        if iova not in self.maps[domain.id]:
            self.pages += 1
            self.maps[domain.id][iova] = 0x50_0000 + 0x1000 * self.pages
            self.machine.map(domain, iova, self.maps[domain.id][iova])

    def unmap(self) -> None:
        domain = self.chance.choice([*self.domains, *self.parents])
        if domain.nest_parent:
            (mapping,) = (m for m in self.machine.mappings[domain.id] if m.iova == ELSEWHERE)
            self.machine.unmap(domain, mapping)
            self.look()
            self.machine.map(domain, mapping.iova, mapping.pa)
        elif self.maps[domain.id]:
            iova = self.chance.choice(list(self.maps[domain.id]))
            del self.maps[domain.id][iova]
            mapping = next(m for m in self.machine.mappings[domain.id] if m.iova == iova)
            self.machine.unmap(domain, mapping)

    def invalidate(self) -> None:
        """The guest moves a page of a page table, and says so."""
        parent = self.chance.choice(self.parents)
        root = self.chance.choice(list(self.tables[parent.id]))
        table = self.tables[parent.id][root]
        bound = [
            each for each in self.machine.slots.values() if isinstance(each, Binding) and each.root == root
            and each.domain == parent
        ]  # fmt: skip
        iova = self.chance.choice(list(table))
        guest, form = self.machine.guests[parent.id], self.machine.driver.stage1_format("smmuv3.stage-1-4k-48")
        gone = radix.unmap_range(form, guest, root, iova, 4096)
        table[iova] = self.chance.randrange(0x40, 0x80) << 12
        for run in gone.freed:
            guest.free(run)
        if bound:
            span = (iova, iova + 4095) if self.chance.random() < 0.7 else None
            self.machine.driver.invalidate(bound, span, leaf=not gone.freed)
        radix.map_range(form, guest, root, iova, 4096, table[iova], "rw", form.page_sizes)


@pytest.mark.parametrize(
    "options",
    [{}, {"idr3": 0x14}, without("IDR0", "CD2L"), without("IDR0", "ASID16", "VMID16", "ATS", "PRI", STALL_MODEL=0)],
    ids=["rich", "no ranges", "linear CDs", "small"],
)
@pytest.mark.parametrize("seed", range(2))
def test_random_changes(seed: int, options: dict[str, int]) -> None:
    model = Model(seed, **options)
    for _ in range(60):
        model.step()
        model.look()

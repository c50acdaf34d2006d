# SPDX-License-Identifier: Apache-2.0
"""What each invalidation takes out of the paging-structure caches, and what the hint IH leaves in them."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.model import Slot
from iommuctl_vtd.paging_cache import PagingCache, Pointer
from iommuctl_vtd.walk import Tag
from tests.machine import DictRows
from tests.vtd.handmade import (
    BASE,
    ENTRY_FIRST,
    ENTRY_SECOND,
    FIRST,
    FS1,
    FS2,
    FS3,
    FS4,
    GPA2,
    GPA3,
    GPA4,
    IN_1G,
    IN_2M,
    NESTED,
    PAGE_RO,
    PAGE_RW,
    SECOND,
    SS1,
    SS2,
    SS3,
    SS4,
    WORDS,
    handmade,
)
from tests.vtd.machine import Machine
from tests.vtd.test_iotlb import MASKS, Drop, addresses
from tests.vtd.test_queue import Words, run, with_queue

IH = 0x40
SS, FS, GPA = {SS4, SS3, SS2}, {FS4, FS3, FS2}, {GPA4, GPA3, GPA2}
"""Entries that point to tables: of the second stage alone, of the first stage, of the one that nested walks go through.

The first-stage ones are cached twice: for the first stage alone and for the nested one.
"""
ALL = {"SS": SS, "FS": FS, "nested": FS | GPA}
SLOTS = {"SS": SECOND, "FS": FIRST, "nested": NESTED}


def full() -> Machine:
    """A machine that has them all, and a page of each kind."""
    machine = with_queue()
    for slot in SLOTS.values():
        machine.request(slot, PAGE_RW)
    assert machine.unit.caches()["paging"] == sum(map(len, ALL.values()))
    return machine


def recalled(machine: Machine, slot: Slot, iova: int = PAGE_RO) -> set[int]:
    """Which entries a request for another page of the same tables found in the caches."""
    answer = machine.unit.request(slot, iova, "r", privileged=False)
    assert answer.translation.pa
    assert not answer.hit
    return {entry.steps[-1].address for entry in answer.recalled if entry.cache == "paging"}


def left(machine: Machine) -> dict[str, set[int]]:
    return {kind: recalled(machine, slot) for kind, slot in SLOTS.items()}


def without(**gone: set[int]) -> dict[str, set[int]]:
    return {kind: entries - gone.get(kind, set()) for kind, entries in ALL.items()}


def pages(did: int, address: int, order: int = 0, hint: int = 0) -> Words:
    return (did << 16 | 0xF2, address | hint | order)


def pasid_pages(did: int, pasid: int, address: int, order: int = 0, hint: int = 0) -> Words:
    return (pasid << 32 | did << 16 | 0x36, address | hint | order)


@pytest.mark.parametrize(
    ("descriptor", "stays"),
    [
        ((0xD2,), without(**ALL)),
        ((0x4200E2,), without(SS=SS)),
        ((0x700E2,), without(FS=FS)),
        ((0x4300E2,), without(nested=FS | GPA)),
        ((0x4400E2,), ALL),
        # Pages: entries whose addresses meet them, unless only leaf entries changed.
        (pages(0x42, PAGE_RW), without(SS=SS)),
        (pages(0x42, PAGE_RW, hint=IH), ALL),
        (pages(0x42, BASE + 0x1FF000), without(SS=SS)),
        (pages(0x42, BASE + 0x1FF000, hint=IH), ALL),
        (pages(0x42, IN_2M), without(SS={SS4, SS3})),
        (pages(0x42, BASE - 0x1000), without(SS={SS4, SS3})),
        (pages(0x42, IN_1G), without(SS={SS4})),
        (pages(0x42, 0), ALL),
        (pages(0x42, 1 << 40), ALL),
        (pages(0x42, (1 << 39) - 0x1000), ALL),
        (pages(0x42, BASE, 9), without(SS=SS)),
        (pages(0x42, IN_2M, 9), without(SS={SS4, SS3})),
        (pages(0x42, 2 << 30 | 1 << 39, 18), without(SS=SS)),
        (pages(0x42, 2 << 30 | 1 << 39, 18, IH), ALL),
        (pages(0x44, PAGE_RW), ALL),
        # The PASID's: not those of the second stage that nested walks go through.
        ((0x41_00070026,), without(FS=FS)),
        ((0x42_00430026,), without(nested=FS)),
        ((0x42_00070026,), ALL),
        ((0x41_00430026,), ALL),
        (pasid_pages(7, 0x41, PAGE_RW), without(FS=FS)),
        (pasid_pages(7, 0x41, PAGE_RW, hint=IH), ALL),
        (pasid_pages(7, 0x41, IN_2M), without(FS={FS4, FS3})),
        (pasid_pages(7, 0x41, IN_1G), without(FS={FS4})),
        (pasid_pages(7, 0x41, 0), ALL),
        (pasid_pages(7, 0x41, 0, 52), without(FS=FS)),
        (pasid_pages(7, 0x41, 0, 52, IH), ALL),
        (pasid_pages(7, 0x42, PAGE_RW), ALL),
        (pasid_pages(0x43, 0x42, PAGE_RW), without(nested=FS)),
        (pasid_pages(0x43, 0x42, PAGE_RW, hint=IH), ALL),
        # Others.
        ((0x11,), ALL),
        ((0x37,), ALL),
        ((0x30100000003, 0x7FFFFFFFFFFFF001), ALL),
        ((0x45,), ALL),
    ],
    ids=lambda value: " ".join(f"{word:x}" for word in value) if isinstance(value, tuple) else "",
)
def test_what_stays(descriptor: Words, stays: dict[str, set[int]]) -> None:
    machine = full()
    assert run(machine, descriptor) == 0
    assert left(machine) == stays


@pytest.mark.parametrize("descriptor", [pages(7, PAGE_RW), pages(0x43, 0)])
def test_pages_of_a_domain_with_first_stages(descriptor: Words) -> None:
    """Its addresses are not those of the first stage, so all that the first stage has goes."""
    machine = full()
    assert run(machine, descriptor) == 0
    kind = {7: "FS", 0x43: "nested"}[descriptor[0] >> 16]
    assert recalled(machine, SLOTS[kind]).isdisjoint(FS)


@pytest.mark.parametrize(("hint", "pa"), [(0, 0x77000), (IH, 0x9A000)])
def test_a_second_stage_table_that_was_replaced(hint: int, pa: int) -> None:
    """With the hint the unit goes on using the table that was taken out: this is what IH = 0 is for."""
    machine = full()
    machine.memory.put({SS2: 0x50003, 0x50000 + 8 * 5: 0x77001})
    assert run(machine, pages(0x42, BASE, 9, hint)) == 0
    told, _, stale = machine.request(SECOND, PAGE_RO)
    assert (told.pa, stale) == (pa, hint == IH)


@pytest.mark.parametrize("slot", [FIRST, NESTED])
@pytest.mark.parametrize("hint", [0, IH])
def test_a_first_stage_table_that_was_replaced(slot: Slot, hint: int) -> None:
    machine = full()
    did, pasid = (7, 0x41) if slot is FIRST else (0x43, 0x42)
    machine.memory.put({FS2: 0x22027, 0x22000 + 8 * 5: 0x32065, 0x16000 + 8 * 0x32: 0x96003})
    assert run(machine, pasid_pages(did, pasid, BASE, 9, hint)) == 0
    told, _, stale = machine.request(slot, PAGE_RO)
    old, new = (0x31000, 0x32000) if slot is FIRST else (0x97000, 0x96000)
    assert (told.pa, stale) == ((old, True) if hint else (new, False))


def test_leaves_are_not_in_it() -> None:
    """A hint that only leaf entries changed is enough where only these did."""
    machine = full()
    machine.memory.put({SS1 + 8 * 4: 0x77003})
    assert run(machine, pages(0x42, PAGE_RW, hint=IH)) == 0
    assert machine.request(SECOND, PAGE_RW) == (machine.request(SECOND, PAGE_RW)[0], False, False)
    for slot, iova in ((SECOND, IN_2M), (SECOND, IN_1G), (FIRST, IN_1G)):
        other = with_queue()
        other.request(slot, iova)
        assert other.unit.caches()["paging"] == {IN_2M: 2, IN_1G: 1}[iova]


def test_permissions_of_upper_levels_are_cached() -> None:
    machine = full()
    machine.memory.put({SS4: WORDS[SS4] & ~2})
    assert machine.request(SECOND, PAGE_RO + 0x1000, "w")[0].pa == 0x9B000
    assert run(machine, (0xD2,)) == 0
    assert machine.request(SECOND, PAGE_RO + 0x1000, "w")[0].fault


def test_refused_requests_leave_nothing() -> None:
    machine = handmade()
    for slot, iova in ((SECOND, BASE), (FIRST, BASE), (NESTED, BASE), (SECOND, 1 << 47), (FIRST, BASE + 0x3000)):
        assert machine.request(slot, iova)[0].fault
    assert machine.unit.caches()["paging"] == 0


@pytest.mark.parametrize(
    ("slot", "changes", "place", "bit"),
    [
        (FIRST, {address: WORDS[address] & ~0x20 for address in FS}, FS2, 0x20),
        (SECOND, {ENTRY_SECOND: 0x10289}, SS2, 0x100),
        (FIRST, {ENTRY_FIRST + 16: 0x20080}, FS2, 0x400),
    ],
)
def test_accessed_bits_of_cached_entries_are_set_once(
    slot: Slot, changes: dict[int, int], place: int, bit: int
) -> None:
    """They are cached as accessed: when software clears the bit without an invalidation, it stays clear."""
    machine = with_queue()
    machine.memory.put(changes)
    machine.request(slot, PAGE_RW)
    assert machine.memory.word(place) & bit
    machine.memory.put({place: machine.memory.word(place) & ~bit})
    assert machine.request(slot, PAGE_RO)[0].pa
    assert not machine.memory.word(place) & bit
    assert run(machine, (0xD2,)) == 0
    assert machine.request(slot, PAGE_RW)[0].pa
    assert machine.memory.word(place) & bit


def test_both_halves_of_a_first_stage_are_apart() -> None:
    machine = with_queue()
    assert machine.request(FIRST, PAGE_RW)[0].pa == 0x30000
    assert machine.request(FIRST, 0xFFFF_FF80_8060_4000)[0].pa == 0x30000
    assert machine.unit.caches()["paging"] == 6
    assert run(machine, pasid_pages(7, 0x41, 0xFFFF_FF80_8060_4000)) == 0
    assert machine.unit.caches()["paging"] == 3
    assert recalled(machine, FIRST) == FS


# A model: a plain list of entries, looked through from end to end.


class Held(NamedTuple):
    """An entry for the addresses of a level from `first` on; those of the second stage have no PASID."""

    did: int
    pasid: int | None
    level: int
    first: int

    @property
    def owner(self) -> str:
        return Tag(self.did, 2 if self.pasid is None else 1, self.pasid or 0).owner


def concerns(drop: Drop, entry: Held) -> bool:
    """Whether the entry goes."""
    first, last = drop.span()
    size = {2: 2 << 20, 3: 1 << 30, 4: 512 << 30}[entry.level]
    meets = not drop.leaf and max(entry.first, first) < min(entry.first + size, last + 1)
    same_pasid = entry.pasid == drop.pasid
    return drop.kind == "g" or (
        entry.did == drop.did
        and {
            "d": True,
            "dp": entry.pasid is not None or meets,
            "p": same_pasid,
            "pp": same_pasid and meets,
        }[drop.kind]
    )


@st.composite
def entries(draw: st.DrawFn) -> Held:
    level = draw(st.sampled_from([2, 3, 4]))
    size = 4096 << 9 * (level - 1)
    pasid = draw(st.sampled_from([None, 0, 1, 0xFFFFF]))
    return Held(draw(st.sampled_from([1, 2, 0xFFFF])), pasid, level, draw(addresses()) // size * size)


DROPS = st.lists(
    st.builds(
        Drop,
        st.sampled_from(["g", "d", "dp", "p", "pp"]),
        st.sampled_from([1, 2, 0xFFFF]),
        st.sampled_from([0, 1, 0xFFFFF]),
        addresses(),
        MASKS,
        st.booleans(),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=100)
@given(st.lists(entries(), min_size=1, max_size=12), DROPS)
def test_the_model(fills: list[Held], drops: list[Drop]) -> None:
    cache = PagingCache(DictRows())
    for number, entry in enumerate(fills):
        cache.fill(entry.owner, entry.level, entry.first, Pointer(8 * number, number, 16 * number))
    model = {entry: Pointer(8 * number, number, 16 * number) for number, entry in enumerate(fills)}
    for drop in drops:
        drop.do(cache, leaf=drop.leaf)
        model = {entry: pointer for entry, pointer in model.items() if not concerns(drop, entry)}
    assert cache.size() == len(model)
    for entry in fills:
        assert cache.find(entry.owner, entry.level, entry.first) == model.get(entry)
    second = sorted(pointer.raw for entry, pointer in model.items() if entry.pasid is None)
    assert sorted(cache.second_stage()) == second


def test_names_of_entries() -> None:
    """Each is found by its own stage, level and address only."""
    machine = full()
    paging = PagingCache(machine.rows)
    owner = Tag(7, 1, 0x41).owner
    found = paging.find(owner, 2, BASE)
    assert found == Pointer(FS2, WORDS[FS2], FS2)
    assert found.raw & -4096 == FS1 & -4096
    for other in (Tag(7, 2, 0).owner, Tag(7, 1, 0x42).owner, Tag(8, 1, 0x41).owner):
        assert paging.find(other, 2, BASE) is None
    assert paging.find(owner, 3, BASE) is None
    assert paging.find(owner, 2, BASE + 0x1000) is None

# SPDX-License-Identifier: Apache-2.0
"""What each invalidation takes out of the IOTLB, and what it leaves."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.model import Slot
from iommuctl_vtd.iotlb import Iotlb, Translated
from iommuctl_vtd.walk import Mapped, Rights, Tag
from tests.machine import DictRows
from tests.vtd.handmade import FIRST, IN_1G, IN_2M, NESTED, PAGE_RW, SECOND, Ask, handmade
from tests.vtd.machine import Machine
from tests.vtd.test_queue import Words, run, with_queue

MIB, GIB = 1 << 20, 1 << 30
PAGES = {"4K": PAGE_RW, "2M": IN_2M, "1G": IN_1G}
# DIDs of the good tables, and the PASIDs of the slots: 7 and 0x41, 0x43 and 0x42, 0x42 and none.
SLOTS = {"FS": FIRST, "nested": NESTED, "SS": SECOND}
ALL = {f"{kind} {size}" for kind in SLOTS for size in PAGES}


def full() -> Machine:
    """A machine whose IOTLB holds pages of each size of each kind of table."""
    machine = with_queue()
    for slot in SLOTS.values():
        for iova in PAGES.values():
            machine.request(slot, iova, "r", privileged=False)
    assert machine.unit.caches()["iotlb"] == 9
    return machine


def left(machine: Machine) -> set[str]:
    """What the IOTLB still holds."""
    return {
        f"{kind} {size}"
        for kind, slot in SLOTS.items()
        for size, iova in PAGES.items()
        if machine.request(slot, iova, "r", privileged=False)[1]
    }


def of(*kinds: str) -> set[str]:
    return {entry for entry in ALL if entry.split()[0] in kinds}


def iotlb(did: int, address: int, order: int) -> Words:
    return (did << 16 | 0xF2, address | order)


def pasid_iotlb(did: int, pasid: int, address: int, order: int) -> Words:
    return (pasid << 32 | did << 16 | 0x36, address | order)


@pytest.mark.parametrize(
    ("descriptor", "gone"),
    [
        # IOTLB: all, a DID.
        ((0xD2,), ALL),
        ((0x700E2,), of("FS")),
        ((0x4300E2,), of("nested")),
        ((0x4200E2,), of("SS")),
        ((0x4400E2,), set()),
        # IOTLB, pages: of the second stage only those, of the first stage the whole DID.
        (iotlb(0x42, PAGE_RW, 0), {"SS 4K"}),
        (iotlb(0x42, PAGE_RW + 0x1000, 0), set()),
        (iotlb(0x42, PAGE_RW - 0x1000, 0), set()),
        (iotlb(0x42, PAGE_RW, 2), {"SS 4K"}),
        (iotlb(0x42, IN_2M + 0x1FF000, 0), {"SS 2M"}),
        (iotlb(0x42, IN_2M - 0x1000, 0), set()),
        (iotlb(0x42, IN_1G + 0x3FFFF000, 0), {"SS 1G"}),
        (iotlb(0x42, IN_1G + 0x40000000, 0), set()),
        (iotlb(0x42, 0x80_8000_0000, 12), {"SS 4K", "SS 2M"}),
        (iotlb(0x42, 0x80_8000_0000, 18), {"SS 4K", "SS 2M"}),
        # Lower address bits than the mask are not looked at.
        (iotlb(0x42, 0x80_8FFF_F000, 18), {"SS 4K", "SS 2M"}),
        (iotlb(7, 0, 0), of("FS")),
        (iotlb(0x43, 0, 0), of("nested")),
        # PASID-based: a DID and PASID, then pages of it.
        ((0x41_00070026,), of("FS")),
        ((0x42_00430026,), of("nested")),
        ((0x42_00070026,), set()),
        ((0x41_00430026,), set()),
        (pasid_iotlb(7, 0x41, PAGE_RW, 0), {"FS 4K"}),
        (pasid_iotlb(7, 0x42, PAGE_RW, 0), set()),
        (pasid_iotlb(0x43, 0x42, IN_2M + 0x1FF000, 0), {"nested 2M"}),
        (pasid_iotlb(0x43, 0x42, IN_1G + 0x40000000, 0), set()),
        (pasid_iotlb(7, 0x41, 0, 40), of("FS")),
        (pasid_iotlb(7, 0x41, 0, 52), of("FS")),
        (pasid_iotlb(7, 0x41, 0xFFFFFFFFFFFFF000, 63), of("FS")),
        # Never the second stage's pages.
        (pasid_iotlb(0x42, 0x44, PAGE_RW, 0), set()),
        (pasid_iotlb(0x42, 0, PAGE_RW, 0), set()),
        # The hint changes nothing here, and other commands are not about the IOTLB.
        ((0x4200F2, PAGE_RW | 0x40), {"SS 4K"}),
        ((0x37,), set()),
        ((0x11,), set()),
        ((0x32100000003, 0x7FFFFFFFFFFFF001), set()),
        ((0x45,), set()),
    ],
    ids=lambda value: " ".join(f"{word:x}" for word in value) if isinstance(value, tuple) else "",
)
def test_what_goes(descriptor: Words, gone: set[str]) -> None:
    machine = full()
    assert run(machine, descriptor) == 0
    assert left(machine) == ALL - gone


@pytest.mark.parametrize("order", [51, 52, 63])
def test_blocks_as_large_as_all_addresses(order: int) -> None:
    """They have no end that is an address, and hold the upper half, too."""
    machine = with_queue()
    machine.request(FIRST, 0xFFFF_FF80_8060_4000)
    held = machine.unit.caches()
    assert (held["iotlb"], held["paging"]) == (1, 3)
    assert run(machine, pasid_iotlb(7, 0x41, 0xFFFF_FF80_8060_4000, order)) == 0
    left = machine.unit.caches()
    assert (left["iotlb"], left["paging"]) == (0, 0)


def test_upper_half() -> None:
    machine = with_queue()
    iova = 0xFFFF_FF80_8060_4000
    machine.request(FIRST, iova, "r", privileged=False)
    assert run(machine, pasid_iotlb(7, 0x41, iova & (1 << 48) - 1, 0)) == 0
    assert machine.unit.caches()["iotlb"] == 1
    other = full()
    other.request(FIRST, iova, "r", privileged=False)
    assert run(other, pasid_iotlb(7, 0x41, iova, 0)) == 0
    assert left(other) == ALL
    assert other.unit.caches()["iotlb"] == 9


@pytest.mark.parametrize("descriptor", [iotlb(0x42, PAGE_RW, 0), pasid_iotlb(7, 0x41, PAGE_RW, 0)])
def test_the_next_page_stays(descriptor: Words) -> None:
    machine = with_queue()
    for slot in (FIRST, SECOND):
        machine.request(slot, PAGE_RW + 0x1000, "r", privileged=False)
    assert run(machine, descriptor) == 0
    assert machine.unit.caches()["iotlb"] == 2


def test_nested_pages_by_both_stages() -> None:
    """A nested page can be smaller than that of the first stage: its own size counts for its input addresses."""
    iova = (1 << 39 | 2 << 30 | 5 << 21) + 0x30000
    machine = with_queue()
    assert Ask(NESTED, iova).of(machine).page_size == 4096
    machine.request(NESTED, iova, "r", privileged=False)
    assert run(machine, pasid_iotlb(0x43, 0x42, iova + 0x1000, 0)) == 0
    assert machine.unit.caches()["iotlb"] == 1


# A model: a plain list of entries, looked through from end to end.


class Held(NamedTuple):
    """An entry. First-stage and nested ones are told apart by their DIDs alone, so here they are one kind."""

    did: int
    pasid: int | None
    first: int
    last: int


class Drop(NamedTuple):
    """An invalidation: global, domain, pages in domain, PASID, pages in PASID. `leaf` is a hint for other caches."""

    kind: str
    did: int
    pasid: int
    address: int
    mask: int
    leaf: bool = False

    def span(self) -> tuple[int, int]:
        size = 4096 << self.mask
        first = self.address // size * size
        return first, first + size - 1

    def do(self, cache: Any, **hints: bool) -> None:
        """Have a cache of translations, or of entries on the way to them, drop what is meant."""
        match self.kind:
            case "g":
                cache.drop_all()
            case "d":
                cache.drop_domain(self.did)
            case "dp":
                cache.drop_domain_pages(self.did, *self.span(), **hints)
            case "p":
                cache.drop_pasid(self.did, self.pasid)
            case "pp":
                cache.drop_pasid_pages(self.did, self.pasid, *self.span(), **hints)

    def concerns(self, entry: Held) -> bool:
        first, last = self.span()
        meets = bool(range(max(entry.first, first), min(entry.last, last) + 1))
        return {
            "g": True,
            "d": entry.did == self.did,
            "dp": entry.did == self.did and (entry.pasid is not None or meets),
            "p": (entry.did, entry.pasid) == (self.did, self.pasid),
            "pp": (entry.did, entry.pasid) == (self.did, self.pasid) and meets,
        }[self.kind]


TOP = 1 << 64
DIDS, PASIDS, PGTTS = st.sampled_from([1, 2, 0xFFFF]), st.sampled_from([0, 1, 0xFFFFF]), st.sampled_from([1, 2, 3])
ORDERS = st.sampled_from([0, 9, 18])
MASKS = st.sampled_from([0, 1, 8, 9, 10, 17, 18, 19, 36, 52, 63])


@st.composite
def addresses(draw: st.DrawFn) -> int:
    """Around boundaries of all page sizes, at both ends and in the middle."""
    base = draw(st.sampled_from([0, GIB, 1 << 47, (1 << 48) - GIB, TOP - GIB, TOP - 2 * MIB]))
    near = draw(st.sampled_from([0, 4096, 2 * MIB, GIB])) + draw(st.integers(-2, 2)) * 4096
    return (base + near) % TOP


FILLS = st.lists(st.tuples(DIDS, PGTTS, PASIDS, addresses(), ORDERS), min_size=1, max_size=12)
DROPS = st.lists(
    st.builds(Drop, st.sampled_from(["g", "d", "dp", "p", "pp"]), DIDS, PASIDS, addresses(), MASKS), max_size=4
)


@settings(deadline=None, max_examples=150)
@given(FILLS, DROPS)
def test_the_model(fills: list[tuple[int, int, int, int, int]], drops: list[Drop]) -> None:
    cache = Iotlb(DictRows())
    model: set[Held] = set()
    for did, pgtt, pasid, address, order in fills:
        size = 4096 << order
        first = address // size * size
        cache.fill(Tag(did, pgtt, pasid), address, Mapped(address ^ size, size, Rights(), True), ())
        model.add(Held(did, None if pgtt == 2 else pasid, first, first + size - 1))
    for action in drops:
        action.do(cache)
        model = {entry for entry in model if not action.concerns(entry)}
    assert cache.size() == len(model)
    for did, pgtt, pasid, address, _ in fills:
        tag = (did, None if pgtt == 2 else pasid)
        sizes = {e.last - e.first + 1 for e in model if e[:2] == tag and e.first <= address <= e.last}
        found = cache.find(Tag(did, pgtt, pasid), address)
        assert (found is not None) == bool(sizes)
        if found:
            assert found.mapped.page_size in sizes


def test_what_was_filled_is_found() -> None:
    cache = Iotlb(DictRows())
    rights = Rights(user=False, fs_write=True, ss_read=False, ss_write=True)
    cache.fill(Tag(5, 3, 7), 0xFFFF_8000_0020_1234, Mapped(0x7_4020_1234, 2 * MIB, rights, False), ())
    found = cache.find(Tag(5, 3, 7), 0xFFFF_8000_003F_FFFF)
    assert found == Translated(Mapped(0x7_403F_FFFF, 2 * MIB, rights, False), [])
    for tag, iova in ((Tag(5, 3, 7), 0xFFFF_8000_0040_0000), (Tag(5, 3, 8), 0xFFFF_8000_0020_1234)):
        assert cache.find(tag, iova) is None
    assert cache.find(Tag(6, 3, 7), 0xFFFF_8000_0020_1234) is None
    assert cache.find(Tag(5, 2, 7), 0xFFFF_8000_0020_1234) is None


def test_two_tags_that_look_alike() -> None:
    """No DID or PASID is the beginning of another."""
    cache = Iotlb(DictRows())
    mapped = Mapped(0x1000, 4096, Rights(), True)
    for did in (0x1, 0x10, 0x100, 0x1000):
        for pasid in (0x1, 0x10, 0x10000):
            cache.fill(Tag(did, 1, pasid), 0, mapped, ())
    cache.drop_pasid(0x1, 0x1)
    assert cache.size() == 11
    cache.drop_domain(0x1)
    assert cache.size() == 9


@pytest.mark.parametrize("slot", [FIRST, SECOND])
def test_an_entry_is_replaced_by_a_walk_that_allows_more(slot: Slot) -> None:
    machine = handmade({0x23000 + 8 * 4: 0x30065, 0x13000 + 8 * 4: 0x99001})
    machine.request(slot, PAGE_RW, "r", privileged=False)
    machine.memory.put({0x23000 + 8 * 4: 0x30067, 0x13000 + 8 * 4: 0x99003})
    assert machine.request(slot, PAGE_RW, "w", privileged=False)[0].pa
    assert machine.request(slot, PAGE_RW, "w", privileged=False)[1]
    assert machine.unit.caches()["iotlb"] == 1

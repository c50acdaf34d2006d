# SPDX-License-Identifier: Apache-2.0
"""What each invalidation takes out of the context cache and the PASID cache: VT-d 4.1 sections 6.5.2.1 and 6.5.2.2."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.model import Rid, Slot
from iommuctl_vtd.config_caches import Cached, ContextCache, PasidCache
from tests.machine import DictRows
from tests.vtd.handmade import (
    CONTEXT,
    DIRECTORY_0,
    DIRECTORY_1,
    ENTRY_FIRST,
    ENTRY_SECOND,
    FIRST,
    PAGE_RO,
    PAGE_RW,
    RID,
    ROOT,
    RTADDR,
    SECOND,
    WORDS,
    Ask,
)
from tests.vtd.machine import Machine
from tests.vtd.test_queue import Words, run, with_queue

LEGACY = 0x1000
ALL_DEVICES = frozenset({*range(0x300, 0x308), 0x309, 0x311, 0x381, 0x401})
"""Source ids: functions of one device, other devices of the bus, one of its upper half, one of another bus."""
DID_7 = frozenset({0x303, 0x309})
"""Those of which legacy mode's context entries have DID 7; the others have 0x42."""
SCALABLE_WORDS = {
    **{0x2000 + 32 * (source & 0xFF): 0x3009 for source in ALL_DEVICES if source < 0x380},
    ROOT + 8: 0x6001,
    0x6020: 0x3009,
    0x1040: 0x7001,
    0x7020: 0x3009,
}
LEGACY_WORDS = {
    **{0x2000 + 16 * (source & 0xFF): 0x10001 for source in ALL_DEVICES},
    **{0x2008 + 16 * (source & 0xFF): 0x702 if source in DID_7 else 0x4202 for source in ALL_DEVICES},
    0x1040: 0x2001,
}


def slot(source: int, pasid: int | None = None) -> Slot:
    return Slot(Rid(0, source >> 8, source >> 3 & 0x1F, source & 7), pasid)


def recalled(machine: Machine, asked: Slot, iova: int = PAGE_RW) -> set[str]:
    """Which structures on the way to its tables a request found in caches."""
    answer = machine.unit.request(asked, iova, "r", privileged=False)
    assert answer.translation.fault is None
    return {entry.steps[-1].structure for entry in answer.recalled if entry.cache in ("context", "pasid")}


# The context cache


def of_devices(rtaddr: int) -> Machine:
    """A machine that has every device's context entry in its cache."""
    machine = with_queue(rtaddr=rtaddr)
    words = SCALABLE_WORDS if rtaddr == RTADDR else LEGACY_WORDS
    if rtaddr == LEGACY:
        machine.memory.put(dict.fromkeys(range(0x2000, 0x3000, 8), 0))
    machine.memory.put(words)
    for source in ALL_DEVICES:
        recalled(machine, slot(source))
    assert machine.unit.caches()["context"] == len(ALL_DEVICES)
    return machine


def cached_devices(machine: Machine) -> set[int]:
    name = {RTADDR: "vtd.scalable-context-entry", LEGACY: "vtd.context-entry"}[machine.unit.read_register("RTADDR")]
    return {source for source in ALL_DEVICES if name in recalled(machine, slot(source))}


def device(source: int, mask: int = 0, did: int = 0) -> Words:
    return (mask << 48 | source << 32 | did << 16 | 0x31,)


OTHERS: list[Words] = [
    (0xD2,), (0x4200E2,), (0x4200F2, PAGE_RW), (0x44_00420026,), (0x30100000003, 0x7FFFFFFFFFFFF001), (0x4,), (0x45,),
]  # fmt: skip


@pytest.mark.parametrize(
    ("descriptor", "gone"),
    [
        ((0x11,), ALL_DEVICES),
        # In scalable mode context entries have no DID, and that of the command is ignored.
        ((0x100021,), ALL_DEVICES),
        (device(0x301), {0x301}),
        (device(0x301, did=0x999), {0x301}),
        (device(0x381), {0x381}),
        (device(0x401), {0x401}),
        (device(0x302, 1), {0x302, 0x306}),
        (device(0x306, 1), {0x302, 0x306}),
        (device(0x300, 2), {0x300, 0x302, 0x304, 0x306}),
        (device(0x305, 2), {0x301, 0x303, 0x305, 0x307}),
        (device(0x300, 3), set(range(0x300, 0x308))),
        (device(0x304, 3), set(range(0x300, 0x308))),
        (device(0x308, 3), {0x309}),
        (device(0x308), set()),
        (device(0x501, 3), set()),
        ((0x420007,), set()),
        ((0x37,), set()),
        *((other, set()) for other in OTHERS),
    ],
)
def test_contexts_of_scalable_mode(descriptor: Words, gone: set[int]) -> None:
    machine = of_devices(RTADDR)
    assert run(machine, descriptor) == 0
    assert cached_devices(machine) == ALL_DEVICES - gone


@pytest.mark.parametrize(
    ("descriptor", "gone"),
    [
        ((0x11,), ALL_DEVICES),
        ((0x420021,), ALL_DEVICES - DID_7),
        ((0x70021,), DID_7),
        ((0x80021,), set()),
        # Of a device, with the right DID and with another one.
        (device(0x301, did=0x42), {0x301}),
        (device(0x301, did=7), set()),
        (device(0x301), set()),
        (device(0x303, did=7), {0x303}),
        (device(0x300, 3, did=0x42), set(range(0x300, 0x308)) - DID_7),
        (device(0x300, 3, did=7), {0x303}),
        (device(0x307, 1, did=7), {0x303}),
        (device(0x381, did=0x42), {0x381}),
        (device(0x401, did=0x42), {0x401}),
        *((other, set()) for other in OTHERS if other[0] & 0xF != 6),
    ],
)
def test_contexts_of_legacy_mode(descriptor: Words, gone: set[int]) -> None:
    machine = of_devices(LEGACY)
    assert run(machine, descriptor) == 0
    assert cached_devices(machine) == ALL_DEVICES - gone


@pytest.mark.parametrize("rtaddr", [RTADDR, LEGACY])
def test_a_changed_root_entry_needs_a_global_invalidation(rtaddr: int) -> None:
    for descriptor, seen in (((0x11,), True), (device(0x301, did=0x42), False)):
        machine = of_devices(rtaddr)
        machine.memory.put({ROOT: 0x2000, ROOT + 8: 0})
        assert run(machine, descriptor) == 0
        answer = machine.unit.request(slot(0x301), PAGE_RW, "r", privileged=False)
        assert bool(answer.translation.fault) == seen


def test_a_changed_context_entry_is_seen_when_its_own_is_gone() -> None:
    for descriptor, code in ((device(0x301), 0x41), (device(0x302), None)):
        machine = of_devices(RTADDR)
        machine.memory.put({CONTEXT: 0x3008})
        assert run(machine, descriptor) == 0
        fault = machine.unit.request(slot(0x301), PAGE_RW, "r", privileged=False).translation.fault
        assert (fault.code if fault else None) == code


# The PASID cache

WITH = {"RID": None, "FS": 0x41, "nested": 0x42, "PT": 0x43, "SS": 0x44}
"""PASIDs of the good tables; their DIDs are 0x42, 7, 0x43, 1, 0x42."""
ENTRIES = {(source, kind) for source in (0x301, 0x302) for kind in WITH}


def of_pasids() -> Machine:
    """A machine that has the PASID entries of two devices, which share their tables."""
    machine = with_queue()
    machine.memory.put({0x2040: 0x3009})
    for source, kind in sorted(ENTRIES):
        recalled(machine, slot(source, WITH[kind]))
    assert machine.unit.caches()["pasid"] == len(ENTRIES)
    return machine


def of(*kinds: str) -> set[tuple[int, str]]:
    return {entry for entry in ENTRIES if entry[1] in kinds}


@pytest.mark.parametrize(
    ("descriptor", "gone"),
    [
        ((0x37,), ENTRIES),
        # A domain, on all devices; no PASID is looked at.
        ((0x420007,), of("RID", "SS")),
        ((0x41_00420007,), of("RID", "SS")),
        ((0x70007,), of("FS")),
        ((0x430007,), of("nested")),
        ((0x10007,), of("PT")),
        ((0x440007,), set()),
        # A PASID within a domain.
        ((0x44_00420017,), of("SS")),
        ((0x00_00420017,), of("RID")),
        ((0x41_00070017,), of("FS")),
        ((0x42_00430017,), of("nested")),
        ((0x43_00010017,), of("PT")),
        ((0x41_00420017,), set()),
        ((0x44_00070017,), set()),
        ((0x84_00420017,), set()),
        ((0x11,), set()),
        (device(0x301), set()),
        *((other, set()) for other in OTHERS),
    ],
)
def test_pasids(descriptor: Words, gone: set[tuple[int, str]]) -> None:
    machine = of_pasids()
    assert run(machine, descriptor) == 0
    left = {
        (source, kind)
        for source, kind in ENTRIES
        if "vtd.pasid-entry" in recalled(machine, slot(source, WITH[kind]))
    }  # fmt: skip
    assert left == ENTRIES - gone


@pytest.mark.parametrize(("descriptor", "seen"), [((0x37,), True), ((0x70007,), True), ((0xD2,), False)])
def test_a_changed_directory_entry(descriptor: Words, seen: bool) -> None:
    """A global and a domain-selective invalidation of PASIDs show it; one of the IOTLB does not."""
    machine = of_pasids()
    machine.memory.put({DIRECTORY_1: 0})
    assert run(machine, descriptor) == 0
    assert bool(machine.unit.request(FIRST, PAGE_RW, "r", privileged=False).translation.fault) == seen


@pytest.mark.parametrize(("descriptor", "pa"), [(device(0x301), 0x99000), (device(0x302), None), ((0x11,), 0x99000)])
def test_no_directory_outlives_its_context_entry(descriptor: Words, pa: int | None) -> None:
    """Where no PASID entry is present, a changed context entry needs no more than its own invalidation."""
    machine = with_queue()
    machine.memory.put({ENTRY_SECOND: 0x10088})
    assert machine.request(SECOND, PAGE_RW)[0].fault
    machine.memory.put({CONTEXT: 0x8009, 0x8008: 0x9001, 0x9100: 0x10089, 0x9108: 0x800042})
    assert run(machine, descriptor) == 0
    assert machine.request(SECOND, PAGE_RW)[0].pa == pa


# Both


def test_what_is_not_valid_is_not_cached() -> None:
    """A unit without CM remembers only what is present, and good."""
    for place, words in (
        (CONTEXT, (0x3008, 0x3029)),
        (DIRECTORY_1, (0x4000, 0x4005)),
        (ENTRY_SECOND, (0x10088, 0x10489, 0x10009)),
        (ROOT, (0x2000, 0x2003)),
    ):
        for word in words:
            machine = with_queue()
            machine.memory.put({place: word})
            assert machine.request(SECOND, PAGE_RW)[0].fault
            machine.memory.put({place: WORDS[place]})
            assert machine.request(SECOND, PAGE_RW)[0].pa == 0x99000


@pytest.mark.parametrize("place", [CONTEXT, DIRECTORY_1, ENTRY_SECOND])
def test_fpd_is_cached_with_what_has_it(place: int) -> None:
    """Faults stay silent until the entry is invalidated, and are recorded from then on."""
    machine = with_queue()
    machine.memory.put({place: WORDS[place] | 2})
    assert machine.request(SECOND, PAGE_RW)[0].pa
    machine.memory.put({place: WORDS[place]})
    ask = Ask(SECOND, PAGE_RO, "w")
    assert ask.sent_to(machine)[0].fault
    assert machine.records() == []
    assert run(machine, (0x11,), (0x37,)) == 0
    assert ask.sent_to(machine)[0].fault
    assert [record >> 96 & 0xFF for record in machine.records()] == [0x85]


def test_what_a_request_found_where() -> None:
    machine = with_queue()
    assert recalled(machine, FIRST) == set()
    assert recalled(machine, FIRST) == {"vtd.scalable-context-entry", "vtd.pasid-entry"}
    # Another PASID of the same table, and one of another device of the bus.
    assert recalled(machine, SECOND) == {"vtd.scalable-context-entry", "vtd.pasid-directory-entry"}
    machine.memory.put({0x2040: 0x3009, ENTRY_FIRST: WORDS[ENTRY_FIRST]})
    assert recalled(machine, slot(0x302, 0x41)) == {"vtd.scalable-root-entry"}
    assert machine.unit.request(Slot(RID, 0x41), PAGE_RW, "r", privileged=False).hit


# Models: plain lists, looked through from end to end.

SOURCES, DIDS = st.sampled_from([0x0, 0x1, 0x4, 0x7, 0x8, 0x100, 0xFFF8, 0xFFFF]), st.sampled_from([0, 1, 2, 0xFFFF])
PASIDS = st.sampled_from([0, 1, 0x3F, 0x40, 0x41, 0xFFFFF])


class Drop(NamedTuple):
    """An invalidation: global, domain, device or PASID; or directory entries of a device."""

    kind: str
    source: int
    mask: int
    did: int
    pasid: int
    legacy: bool

    def means(self, source: int) -> bool:
        """Whether the command's source id, with its mask, names this one."""
        ignored = ["", "2", "21", "210"][self.mask]
        return all(source >> bit & 1 == self.source >> bit & 1 for bit in range(16) if str(bit) not in ignored)


DROPS = st.lists(
    st.builds(
        Drop, st.sampled_from("gdsp"), SOURCES, st.integers(0, 3), DIDS, PASIDS, st.booleans()
    ),
    max_size=4,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(SOURCES, DIDS), max_size=10), DROPS)
def test_the_model_of_contexts(fills: list[tuple[int, int]], drops: list[Drop]) -> None:
    cache, model, roots = ContextCache(DictRows()), dict[int, int](), set[int]()
    for source, did in fills:
        cache.fill(source, Cached(source * 16, 0x10001, did, fpd=True))
        cache.fill_root(source >> 7, Cached(0x1000, 0x2001))
        model[source] = did
        roots.add(source >> 7)
    for drop in drops:
        if drop.kind == "g":
            cache.drop_all()
            model, roots = {}, set()
        elif drop.kind == "d":
            cache.drop_domain(drop.did)
            model = {source: did for source, did in model.items() if did != drop.did}
        else:
            cache.drop_device(drop.source, drop.mask, drop.did if drop.legacy else None)
            model = {s: d for s, d in model.items() if not drop.means(s) or (drop.legacy and d != drop.did)}
    assert cache.size() == len(model)
    for source, _ in fills:
        expected = Cached(source * 16, 0x10001, model[source], fpd=True) if source in model else None
        assert cache.find(source) == expected
        assert (cache.root(source >> 7) is not None) == (source >> 7 in roots)
    assert len([*cache.entries()]) == len(model) + len(roots)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(SOURCES, PASIDS, DIDS), max_size=10), DROPS)
def test_the_model_of_pasids(fills: list[tuple[int, int, int]], drops: list[Drop]) -> None:
    cache, model, directories = PasidCache(DictRows()), dict[tuple[int, int], int](), set[tuple[int, int]]()
    for source, pasid, did in fills:
        cache.fill(source, pasid, Cached(0x4000, 0x49, did))
        cache.fill_directory(source, pasid, Cached(0x3000, 0x4001))
        model[source, pasid] = did
        directories.add((source, pasid // 64))
    for drop in drops:
        if drop.kind == "g":
            cache.drop_all()
            model, directories = {}, set()
        elif drop.kind == "d":
            cache.drop_domain(drop.did)
            model, directories = {key: did for key, did in model.items() if did != drop.did}, set()
        elif drop.kind == "p":
            cache.drop_pasid(drop.did, drop.pasid)
            model = {key: did for key, did in model.items() if (key[1], did) != (drop.pasid, drop.did)}
        else:
            cache.drop_directories(drop.source, drop.mask)
            directories = {key for key in directories if not drop.means(key[0])}
    assert cache.size() == len(model)
    for source, pasid, _ in fills:
        found = cache.find(source, pasid)
        assert (found.did if found else None) == model.get((source, pasid))
        assert (cache.directory(source, pasid) is not None) == ((source, pasid // 64) in directories)
    assert len([*cache.entries()]) == len(model) + len(directories)


def test_reading_a_cache_of_directories_by_itself() -> None:
    """Every PASID of one table shares its directory entry."""
    cache = PasidCache(DictRows())
    cache.fill_directory(0x301, 0x41, Cached(DIRECTORY_0, 0x4001))
    assert cache.directory(0x301, 0x7F) == Cached(DIRECTORY_0, 0x4001)
    assert cache.directory(0x301, 0x80) is None
    assert cache.directory(0x302, 0x41) is None

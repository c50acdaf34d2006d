# SPDX-License-Identifier: Apache-2.0
"""Domain ids: VT-d tags by DID and PASID, not by RID, so what must not alias must not share one."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.errors import NoRoom
from iommuctl.model import Binding, Domain, Rid, Slot
from iommuctl_vtd.tags import Tags
from tests.machine import DictRows
from tests.vtd.driven import Driven, iotlb, pc
from tests.vtd.fault_cases import CAP

A, B = Rid(0, 0, 1, 0), Rid(0, 0, 2, 0)
FOUR, FIVE = "vtd.first-stage-4", "vtd.first-stage-5"


def domain(key: int) -> Domain:
    return Domain(key, f"domain{key}", None, True, 48, (4096,))


def binding(parent: int, root: int, fmt: str = FOUR, slot: Slot | None = None) -> Binding:
    return Binding(slot or Slot(A, 1), domain(parent), root, fmt)


def test_each_second_stage_and_each_pair_has_one() -> None:
    tags = Tags(DictRows(), 65536)
    for key in (1, 2):
        tags.create(domain(key))
    pairs = [binding(1, 0x1000), binding(2, 0x1000), binding(1, 0x2000), binding(1, 0x1000, FIVE), binding(1, 0x10)]
    for pair in pairs:
        tags.acquire(pair)
    dids = [tags.of(domain(1)), tags.of(domain(2)), *(tags.of(pair) for pair in pairs)]
    assert len(set(dids)) == 7
    assert 0 not in dids


def test_slots_with_the_same_tables_share_one() -> None:
    tags = Tags(DictRows(), 65536)
    first, second = binding(1, 0x1000), binding(1, 0x1000, slot=Slot(B, 9))
    for pair in (first, second):
        tags.acquire(pair)
    assert tags.of(first) == tags.of(second)
    tags.release(first)
    other = binding(1, 0x2000)
    tags.acquire(other)
    assert tags.of(other) != tags.of(second)


def test_one_is_used_again_when_it_was_released() -> None:
    tags = Tags(DictRows(), 16)
    pairs = [binding(1, root << 12) for root in range(15)]
    for pair in pairs:
        tags.acquire(pair)
    assert sorted(map(tags.of, pairs)) == list(range(1, 16))
    with pytest.raises(NoRoom, match="no domain id is left"):
        tags.create(domain(7))
    did = tags.of(pairs[4])
    tags.release(pairs[4])
    tags.create(domain(7))
    assert tags.of(domain(7)) == did
    tags.destroy(domain(7))
    tags.acquire(pairs[4])
    assert tags.of(pairs[4]) == did


def test_a_shared_one_is_given_back_with_its_last_slot() -> None:
    tags = Tags(DictRows(), 65536)
    for root in range(0x20):
        tags.acquire(binding(1, root))
    shared = binding(1, 0x1A)
    did = tags.of(shared)
    assert did == 0x1B
    for _ in range(2):
        tags.acquire(shared)
    for root in (0x20, 0x21):
        tags.release(shared)
        tags.acquire(binding(1, root))
        assert tags.of(binding(1, root)) != did
    tags.release(shared)
    tags.acquire(binding(1, 0x22))
    assert tags.of(binding(1, 0x22)) == did


@pytest.mark.parametrize(("nd", "number"), [(0, 16), (1, 64), (6, 65536)])
def test_there_are_as_many_as_the_unit_has(nd: int, number: int) -> None:
    machine = Driven(cap=CAP & ~7 | nd)
    machine.rows.put("vtd", "next did", number - 2)
    slot = Slot(machine.device(str(A)))
    for _ in range(2):
        machine.attach(machine.domain(), slot)
    assert machine.did(slot) == number - 1
    with pytest.raises(NoRoom):
        machine.domain()


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["create", "acquire", "release"]), st.integers(1, 3), st.sampled_from([0x1000, 0x2000])),
    max_size=40,
)


@settings(deadline=None)
@given(ACTIONS)
def test_no_two_holders_share_one(actions: list[tuple[str, int, int]]) -> None:
    """Against counts in a plain dict. `create` destroys what exists."""
    rows = DictRows()
    tags = Tags(rows, 16)
    domains: dict[int, int] = {}
    pairs: dict[tuple[int, int], tuple[int, int]] = {}
    for action, parent, root in actions:
        held = pairs.get((parent, root), (0, 0))
        if action == "create" and parent in domains:
            tags.destroy(domain(parent))
            del domains[parent]
        elif action == "create":
            tags.create(domain(parent))
            domains[parent] = tags.of(domain(parent))
        elif action == "acquire":
            tags.acquire(binding(parent, root))
            pairs[parent, root] = (tags.of(binding(parent, root)), held[1] + 1)
        elif held[1]:
            tags.release(binding(parent, root))
            pairs[parent, root] = (held[0], held[1] - 1)
        pairs = {key: value for key, value in pairs.items() if value[1]}
        dids = [*domains.values(), *(did for did, _ in pairs.values())]
        assert len(set(dids)) == len(dids)
        assert all(0 < did < 16 for did in dids)
        assert all(tags.of(domain(key)) == did for key, did in domains.items())
        assert all(tags.of(binding(*key)) == did for key, (did, _) in pairs.items())
        assert rows.count("vtd.did") == len(dids)


# The same in the tables, and what it is for


def guest(machine: Driven, root: int, page: int) -> None:
    """A guest's table of four levels that maps 0x5000 to a page of its memory."""
    levels = [root + 0x1000 * level for level in range(4)]
    for table, child in pairwise(levels):
        machine.memory.put({table: child | 0x27})
    machine.memory.put({levels[3] + 8 * 5: page | 0x67})


def test_one_pasid_of_two_devices_with_different_tables() -> None:
    """The case that tagging by PASID alone would get wrong."""
    machine = Driven()
    rids = [machine.device(str(rid)) for rid in (A, B)]
    parent = machine.domain(nest_parent=True)
    machine.map(parent, 0x20000, 0x20000, 0x20000)
    for number, rid in enumerate(rids):
        root = 0x20000 + number * 0x10000
        guest(machine, root, root + 0x8000)
        machine.bind(parent, Slot(rid, 5), root)
    for _ in range(2):
        assert [machine.dma(Slot(rid, 5), 0x5000) for rid in rids] == [(0x28000, False), (0x38000, False)]
    assert len({machine.did(Slot(rid, 5)) for rid in rids}) == 2
    # What one of them is told to forget, the other keeps.
    binding = machine.slots[Slot(rids[0], 5)]
    assert isinstance(binding, Binding)
    machine.driver.invalidate([binding], None, leaf=False)
    assert machine.unit.caches()["iotlb"] == 1


def test_one_table_in_two_slots_is_one_tag() -> None:
    machine = Driven()
    rids = [machine.device(str(rid)) for rid in (A, B)]
    parent = machine.domain(nest_parent=True)
    slots = [Slot(rid, 5) for rid in rids]
    for slot in slots:
        machine.bind(parent, slot, 0x20000)
    assert machine.did(slots[0]) == machine.did(slots[1]) == 2
    # One slot goes: the tag stays, and is not given to another table.
    machine.install(slots[0], None)
    assert machine.sent() == [pc(2, 5), iotlb(2), "wait"]
    machine.bind(parent, slots[0], 0x30000)
    assert (machine.did(slots[0]), machine.did(slots[1])) == (3, 2)


def test_a_second_stage_and_what_is_nested_on_it_share_none() -> None:
    machine = Driven()
    rid = machine.device(str(A))
    parents = [machine.domain(nest_parent=True) for _ in range(2)]
    machine.attach(parents[0], Slot(rid))
    machine.attach(parents[1], Slot(rid, 1))
    machine.bind(parents[0], Slot(rid, 2), 0x20000)
    machine.bind(parents[1], Slot(rid, 3), 0x20000)
    assert [machine.did(Slot(rid, pasid)) for pasid in (None, 1, 2, 3)] == [1, 2, 3, 4]


def test_a_tag_is_given_back_when_the_caches_were_told() -> None:
    machine = Driven()
    slot = Slot(machine.device(str(A)), 5)
    parent = machine.domain(nest_parent=True)
    for root in (0x20000, 0x30000):
        machine.bind(parent, slot, root)
        machine.sent()
    # The new pair needed a tag while the old one was still in use.
    assert machine.did(slot) == 3
    machine.install(slot, None)
    machine.bind(parent, slot, 0x40000)
    assert machine.did(slot) == 2

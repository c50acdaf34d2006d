# SPDX-License-Identifier: Apache-2.0
"""The core's rows come back as the values that were put in."""

import sqlite3

import pytest

from iommuctl.errors import NameTaken, NoSuchDomain, NoSuchMemory, NoSuchPgtable
from iommuctl.model import Attachment, Binding, Domain, Mapping, Occupant, Rid, Slot
from iommuctl.state.books import Books

RID = Rid.parse("0000:00:01.0")
LAST = Rid(0xFFFF, 0xFF, 0x1F, 7)


@pytest.fixture
def books(connection: sqlite3.Connection) -> Books:
    return Books(connection)


def domain(books: Books, name: str = "d", *, label: str | None = None) -> Domain:
    return books.add_domain(name, label, nest_parent=True, width=48, page_sizes=[4096, 1 << 21])


def test_domains(books: Books) -> None:
    made = domain(books, label='with "quotes" and \n lines')
    assert books.domains() == [made] == [books.domain("d")] == [books.domain(f"id:{made.id}")]
    assert made.page_sizes == (4096, 1 << 21)
    with pytest.raises(NameTaken):
        domain(books)
    books.remove_domain(made)
    with pytest.raises(NoSuchDomain):
        books.domain("d")
    assert domain(books).id > made.id


@pytest.mark.parametrize(
    "selector", ["", "id:", "id:x", "id:-1", "id:1 ", "id:²", "id:" + "9" * 30, "D", "d\0", "\udcff"]
)
def test_selectors_of_nothing(books: Books, selector: str) -> None:
    domain(books)
    with pytest.raises(NoSuchDomain):
        books.domain(selector)
    with pytest.raises(NoSuchMemory):
        books.memory(selector)
    with pytest.raises(NoSuchPgtable):
        books.pgtable(selector)


def test_mappings_that_meet_a_range(books: Books) -> None:
    made, other = domain(books), domain(books, "other")
    mappings = [Mapping(start, 0x2000, 0x7000 + start, None, 0, "rw") for start in (0x1000, 0x4000, 0x8000)]
    for mapping in reversed(mappings):
        books.add_mapping(made, mapping, None)
    books.add_mapping(other, mappings[0], None)
    assert books.mappings(made) == mappings
    for first, last, found in (
        (0, 0xFFF, []),
        (0, 0x1000, mappings[:1]),
        (0x2FFF, 0x2FFF, mappings[:1]),
        (0x3000, 0x3FFF, []),
        (0x2000, 0x4000, mappings[:2]),
        (0x5FFF, 0x8000, mappings[1:]),
        (0x9FFF, (1 << 63) - 1, mappings[2:]),
        (0xA000, (1 << 63) - 1, []),
    ):
        assert books.mappings_in(made, first, last) == found, (first, last)
    books.remove_mappings(made, 0x1000, 0x4000)
    assert books.mappings(made) == mappings[2:]
    assert books.mappings(other) == mappings[:1]


def test_whether_a_range_is_writable(books: Books) -> None:
    made = domain(books)
    for start, prot in ((0x1000, "rw"), (0x2000, "rwx"), (0x3000, "r"), (0x5000, "rw")):
        books.add_mapping(made, Mapping(start, 0x1000, 0, None, 0, prot), None)
    assert books.maps_writable(made, 0x1000, 0x2000)
    assert books.maps_writable(made, 0x1800, 0x800)
    cut = ((0x1000, 0x3000), (0, 0x2000), (0x2000, 0x1001), (0x4000, 0x2000), (0x5000, 0x1001), (0x7000, 1))
    for start, size in cut:
        assert not books.maps_writable(made, start, size)


def test_memory_and_its_users(books: Books) -> None:
    made = domain(books)
    memory = books.add_memory("m", 0x10_0000, 0x4000)
    mapping = Mapping(0x1000, 0x1000, 0x10_1000, "m", 0x1000, "r")
    books.add_mapping(made, mapping, memory)
    books.add_mapping(made, mapping._replace(iova=0x9000, memory=None), None)
    assert books.mappings(made)[0] == mapping
    assert books.memory_users(memory) == [(made, mapping)]
    assert books.memories() == [memory] == [books.memory("m")]
    books.remove_mappings(made, 0, 0x1000)
    assert books.memory_users(memory) == []
    books.remove_memory(memory)
    assert books.memories() == []


def test_slots(books: Books) -> None:
    made = domain(books)
    table = books.add_pgtable("t", None, parent=made, format_name="f", pool=0x1000, pool_size=0x1000)
    table = books.set_root(table, 0x1000)
    assert books.pgtables(made) == [table] == [books.pgtable("t")]
    through = Binding(Slot(RID, 0xF_FFFF), made, 0x1000, "f", "t", "label", True, None)
    occupants: list[Occupant] = [
        Attachment(Slot(RID), made, "label"),
        Attachment(Slot(RID, 1), made),
        through,
        Binding(Slot(LAST), made, (1 << 63) | 0x1000, "f", None, None, False, "before"),
    ]
    for occupant in reversed(occupants):
        books.put_slot(occupant.slot, occupant)
    assert books.slots() == occupants
    assert [books.slot(occupant.slot) for occupant in occupants] == occupants
    assert books.slots(rid=LAST) == occupants[3:]
    assert books.slots(pgtable=table) == occupants[2:3]
    assert books.slots(domain=made, rid=RID) == occupants[:3]
    assert list(books.pasids(RID)) == [1, 0xF_FFFF]
    assert (books.highest_pasid(RID), books.highest_pasid(LAST)) == (0xF_FFFF, 0)
    books.put_slot(Slot(RID), None)
    books.put_slot(Slot(RID, 2), None)
    books.put_slot(Slot(RID, 1), through._replace(slot=Slot(RID, 1)))
    assert books.slots(rid=RID) == [through._replace(slot=Slot(RID, 1)), occupants[2]]

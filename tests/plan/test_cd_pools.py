# SPDX-License-Identifier: Apache-2.0
"""What becomes of bindings when the pool of their device's CD table changes, or what it lies in."""

from collections.abc import Mapping

from iommuctl.model import Rid, Slot
from iommuctl.plan.diff import changes
from iommuctl.plan.document import BindingEntry, DeviceEntry, Document, DomainEntry, Entry, Key, MappingEntry
from iommuctl.plan.document import PageTableEntry as Table

RID = Rid.parse("0000:00:01.0")
OTHER = Rid.parse("0000:00:02.0")
T, U, MINE = (0x10_0000, 0x4_0000), (0x20_0000, 0x4_0000), (0x30_0000, 0x1000)


def binding(pasid: int, rid: Rid = RID) -> Key:
    return Key("binding", Slot(rid, pasid))


def state(*bindings: BindingEntry, rid: Rid = RID) -> dict[Key, Entry]:
    """Two page tables of `vm`, and bindings of PASIDs 1 and up."""
    return {
        Key("domain", "vm"): DomainEntry(nest_parent=True),
        Key("mapping", ("vm", 0)): MappingEntry(1 << 21, pa=0, prot="rw"),
        Key("mapping", ("vm", 1 << 21)): MappingEntry(1 << 22, pa=1 << 21, prot="rw"),
        Key("pgtable", "t"): Table("vm", T),
        Key("pgtable", "u"): Table("vm", U),
        Key("device", rid): DeviceEntry(),
        **{binding(pasid, rid): entry for pasid, entry in enumerate(bindings, 1)},
    }


def actions(current: Mapping[Key, Entry], wanted: Mapping[Key, Entry], *, prune: bool = False) -> dict[str, str]:
    """What happens to whom."""
    found = changes(Document(None, None, dict(current)), Document(None, None, dict(wanted)), prune=prune)
    return {str(change.key): change.action for change in found}


def entry(pgtable: str | None = "t", pool: tuple[int, int] | None = None) -> BindingEntry:
    return BindingEntry("vm", pgtable, None if pgtable else 0x40_0000, cd_pool=pool)


ONE, TWO = f"binding {RID} PASID 1", f"binding {RID} PASID 2"


def test_a_document_that_does_not_say_it_keeps_it() -> None:
    for pools in ((None, T), (MINE, MINE)):
        current = state(entry("t", pools[0]), entry("u", pools[1]))
        assert actions(current, state(entry("t"), entry("u"))) == {}
        assert actions(current, current) == {}
    # The own pool of a page table is where it is without a word.
    assert actions(state(entry("t")), state(entry("t", T))) == {}


def test_another_pool_is_for_all_bindings_of_the_device() -> None:
    current = state(entry("t"), entry(None, T))
    assert actions(current, {binding(2): entry(None, MINE)}) == {ONE: "replace", TWO: "replace"}
    assert actions(current, state(entry("t", MINE), entry(None))) == {ONE: "replace", TWO: "replace"}
    two = current | state(entry("t"), rid=OTHER)
    assert actions(two, {binding(2): entry(None, MINE)}) == {ONE: "replace", TWO: "replace"}


def test_a_page_table_moves_with_the_cd_tables_in_its_pool() -> None:
    current = state(entry("t"), entry("u", T))
    moved: dict[Key, Entry] = {Key("pgtable", "t"): Table("vm", (0x18_0000, 0x1_0000))}
    assert actions(current, moved) == {"pgtable t": "replace", ONE: "replace", TWO: "replace"}
    found = changes(Document(None, None, current), Document(None, None, moved))
    new = {str(change.key): change.new for change in found}
    assert (new[ONE], new[TWO]) == (entry("t"), entry("u", (0x18_0000, 0x1_0000)))


def test_a_page_table_that_goes() -> None:
    wanted = state(entry("u"))
    del wanted[Key("pgtable", "t")]
    assert actions(state(entry("u", T)), wanted, prune=True) == {"pgtable t": "remove", ONE: "replace"}


def test_the_memory_below_a_pool() -> None:
    current = state(entry("t", MINE))
    wanted: dict[Key, Entry] = {Key("mapping", ("vm", 1 << 21)): MappingEntry(1 << 22, pa=1 << 30)}
    upper = f"mapping {1 << 21:#x} of vm"
    assert actions(current, wanted) == {upper: "replace", ONE: "replace", "pgtable u": "replace"}

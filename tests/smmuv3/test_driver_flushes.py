# SPDX-License-Identifier: Apache-2.0
"""What is invalidated when mappings go, and when a guest says that its page tables changed."""

import pytest

from iommuctl.formats import radix
from iommuctl.formats.memory import write_word
from iommuctl.model import Slot
from iommuctl_smmuv3.stage1 import Stage1Descriptor
from tests.smmuv3.driven import Driven, Sent
from tests.smmuv3.test_driver import A, nh_all, s12_vmall

B = "0000:00:02.0"
F_TRANSLATION = 0x10
LOW = 0x4000_0000


def atc(source: int, address: int, size: int, pasid: int | None = None) -> Sent:
    return source << 32 | (0x40 if pasid is None else pasid << 12 | 0x840), address | size


def test_unmap_a_domain() -> None:
    """One command for the ASID, however many slots have it; one for each that has a TLB of its own."""
    machine = Driven()
    one, other = machine.device(A, ats=True), machine.device(B)
    domain = machine.domain()
    for slot in (Slot(one), Slot(one, 5), Slot(other, 7)):
        machine.attach(domain, slot)
    machine.map(domain, LOW + 0x20_0000, 0x9000)
    mapping = machine.map(domain, LOW, 0x20_0000, 3 * 4096)
    assert [machine.dma(slot, LOW) for slot in machine.slots] == [0x20_0000] * 3
    machine.sent()
    freed = len(machine.memory.freed)
    machine.unmap(domain, mapping)
    # The table of these pages went with them, so tables are meant as well; three pages, of any level.
    assert machine.sent() == [
        (1 << 48 | 2 << 12 | 0x12, LOW | 1 << 10), "sync", atc(8, LOW, 2), atc(8, LOW, 2, 5), "sync",
    ]  # fmt: skip
    assert [machine.dma(slot, LOW) for slot in machine.slots] == [-F_TRANSLATION] * 3
    assert machine.freed_before[-1] == freed < len(machine.memory.freed)


def test_unmap_pages_and_blocks_of_one_level() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    domain = machine.domain()
    machine.attach(domain, slot)
    machine.map(domain, LOW - 4096, 0x9000)
    machine.map(domain, LOW + 0x60_0000, 0x9000)
    block = machine.map(domain, LOW + 0x20_0000, 0x20_0000, 0x20_0000)
    machine.map(domain, LOW, 0x9000)
    page = machine.map(domain, LOW + 0x1000, 0x20_0000, 2 * 4096)
    machine.sent()
    assert machine.dma(slot, LOW + 0x20_0000) == 0x20_0000
    machine.unmap(domain, block)
    assert machine.sent() == [(1 << 48 | 0x12, LOW + 0x20_0000 | 1), "sync"]
    assert machine.dma(slot, LOW + 0x20_0000) == -F_TRANSLATION
    machine.unmap(domain, page)
    assert machine.sent() == [(1 << 48 | 1 << 20 | 0x12, LOW + 0x1000 | 0x701), "sync"]


def test_unmap_a_parent() -> None:
    """Stage 2, then what was made of both stages, then the devices; those on the parent alone lose addresses only."""
    machine = Driven()
    one, other = machine.device(A, ats=True), machine.device(B, ats=True)
    parent = machine.parent()
    moving = machine.map(parent, LOW, 0x60_0000)
    root = machine.page_table(parent, {0x5000: LOW})
    machine.attach(parent, Slot(one))
    machine.attach(parent, Slot(other))
    machine.bind(parent, Slot(one, 5), root)
    assert [machine.dma(Slot(one, 5), 0x5000), machine.dma(Slot(other), LOW)] == [0x60_0000] * 2
    machine.sent()
    machine.unmap(parent, moving)
    assert machine.sent() == [
        (1 << 32 | 0x2A, LOW), "sync",
        nh_all(1), "sync",
        atc(8, LOW, 0), atc(16, LOW, 0), atc(8, 0, 52, 5), "sync",
    ]  # fmt: skip
    assert [machine.dma(Slot(one, 5), 0x5000), machine.dma(Slot(other), LOW)] == [-F_TRANSLATION] * 2
    machine.map(parent, LOW, 0x70_0000)
    assert [machine.dma(Slot(one, 5), 0x5000), machine.dma(Slot(other), LOW)] == [0x70_0000] * 2


@pytest.mark.parametrize("nest_parent", [False, True])
def test_nothing_is_left_of_a_domain_that_nobody_has(nest_parent: bool) -> None:
    """Its tables may change unannounced."""
    machine = Driven()
    slot = Slot(machine.device(A))
    domain = machine.domain(nest_parent=nest_parent)
    mapping = machine.map(domain, LOW, 0x60_0000)
    machine.attach(domain, slot)
    assert machine.dma(slot, LOW) == 0x60_0000
    machine.install(slot, None)
    assert list(machine.unit.cached_tables()) == [machine.entry_address(slot.rid) & -16384]
    machine.sent()
    machine.unmap(domain, mapping)
    assert machine.sent() == []
    machine.map(domain, LOW, 0x70_0000)
    machine.attach(domain, slot)
    assert machine.dma(slot, LOW) == 0x70_0000


def test_a_page_table_bound_twice() -> None:
    machine = Driven()
    one, other = machine.device(A, ats=True), machine.device(B)
    parent = machine.parent()
    root, second = (machine.page_table(parent, {0x5000: gpa}) for gpa in (0x3000, 0x4000))
    for rid in (one, other):
        machine.attach(parent, Slot(rid))
    bindings = [machine.bind(parent, slot, root) for slot in (Slot(one, 5), Slot(other, 5))]
    bindings.append(machine.bind(parent, Slot(one, 6), second))
    machine.sent()
    machine.driver.invalidate(bindings, (0x5000, 0x8FFF), leaf=True)
    pages = 1 << 32 | 2 << 20 | 0x12
    assert machine.sent() == [
        (1 << 48 | pages, 0x5401), (2 << 48 | pages, 0x5401), "sync",
        atc(8, 0, 4, 5), atc(8, 0, 4, 6), "sync",
    ]  # fmt: skip
    machine.driver.invalidate(bindings[:2], None, leaf=False)
    assert machine.sent() == [nh_all(1), "sync", atc(8, 0, 52, 5), "sync"]
    machine.driver.invalidate([bindings[1]], None, leaf=False)
    assert machine.sent() == [nh_all(1), "sync"]


def test_the_same_pasid_of_two_devices() -> None:
    """Different tables, on one parent and on two: nothing of one is found by the other."""
    machine = Driven()
    rids = [machine.device(f"0000:00:0{number}.0") for number in (1, 2, 3)]
    parents = [machine.parent(), machine.parent(base=0xA00_0000)]
    for rid, parent, gpa in zip(rids, (parents[0], parents[0], parents[1]), (0x3000, 0x4000, 0x3000), strict=True):
        machine.attach(parent, Slot(rid))
        machine.bind(parent, Slot(rid, 5), machine.page_table(parent, {0x5000: gpa}))
    domain = machine.domain()
    machine.map(domain, 0x5000, 0x9000)
    stage_1 = Slot(machine.device("0000:00:04.0"), 5)
    machine.attach(domain, stage_1)
    for _ in range(2):
        assert [machine.dma(Slot(rid, 5), 0x5000) for rid in rids] == [0x800_3000, 0x800_4000, 0xA00_3000]
        assert machine.dma(stage_1, 0x5000) == 0x9000


def test_numbers_are_given_out_again() -> None:
    machine = Driven()
    rid = machine.device(A)
    one, other = machine.parent(), machine.parent(base=0xA00_0000)
    machine.attach(other, Slot(rid))
    binding = machine.bind(other, Slot(rid, 5), machine.page_table(other, {0x5000: 0x3000}))
    assert machine.driver.tags.of(binding) == (2, 1)
    machine.install(Slot(rid, 5), None)
    machine.install(Slot(rid), None)
    assert machine.sent()[-2:] == [s12_vmall(2), "sync"]
    machine.driver.domain_destroy(one)
    again = machine.domain(nest_parent=True)
    assert machine.driver.tags.of_domain(again) == (1, None)


def test_global_pages_of_a_guest() -> None:
    """An ASID's invalidation leaves them: they go with the page table that had them, and when all of it has changed."""
    machine = Driven()
    rid, parent = machine.device(A), machine.parent()
    machine.attach(parent, Slot(rid))
    slot, guest, fmt = Slot(rid, 5), machine.guests[parent.id], machine.driver.stage1_format("smmuv3.stage-1-4k-48")
    roots = [machine.page_table(parent, {0x5000: gpa}) for gpa in (0x3000, 0x4000)]
    for root in roots:
        *_, leaf = radix.walk(fmt, guest, root, 0x5000)
        write_word(guest, leaf.address, leaf.raw & ~Stage1Descriptor.nG.mask)
    binding = machine.bind(parent, slot, roots[0])
    assert machine.dma(slot, 0x5000) == 0x800_3000
    machine.install(slot, None)
    machine.bind(parent, slot, roots[1])
    assert machine.dma(slot, 0x5000) == 0x800_4000
    for span in (None, (0, 1 << 47)):
        write_word(guest, leaf.address, leaf.raw & ~Stage1Descriptor.nG.mask)
        assert machine.dma(slot, 0x5000) == 0x800_4000
        write_word(guest, leaf.address, 0)
        machine.driver.invalidate([binding._replace(root=roots[1])], span, leaf=True)
        assert machine.dma(slot, 0x5000) == -F_TRANSLATION, span

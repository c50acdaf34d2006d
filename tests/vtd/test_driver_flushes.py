# SPDX-License-Identifier: Apache-2.0
"""What the driver invalidates when mappings go, and when a guest's own tables change: VT-d 4.1 section 6.5.3.3."""

import pytest

from iommuctl.errors import DamagedTable
from iommuctl.model import Binding, Slot
from tests.vtd.driven import (
    Driven,
    Sent,
    device_tlb,
    iotlb,
    iotlb_pages,
    pasid_device_tlb,
    piotlb,
    piotlb_pages,
)
from tests.vtd.fault_cases import CAP

A, B = "0000:00:01.0", "0000:00:02.0"
SOURCE_A, SOURCE_B = 0x0008, 0x0010
M2, G1 = 1 << 21, 1 << 30
KEEPER = (0x4000_3000, 0x1000)


@pytest.mark.parametrize(
    ("kept", "gone", "flush", "device"),
    [
        # A leaf is gone, and its table stays for the sake of others.
        ([KEEPER], [(0x4000_5000, 0x1000)], iotlb_pages(1, 0x4000_5000, 0, leaf=True), (0x4000_5000, False)),
        ([KEEPER], [(0x4000_4000, 0x2000)], iotlb_pages(1, 0x4000_4000, 1, leaf=True), (0x4000_4000, True)),
        # The smallest block that is aligned.
        ([KEEPER], [(0x4000_5000, 0x2000)], iotlb_pages(1, 0x4000_4000, 2, leaf=True), (0x4000_5000, True)),
        ([KEEPER], [(0x4000_7000, 0x2000)], iotlb_pages(1, 0x4000_0000, 4, leaf=True), (0x4000_7000, True)),
        # The table goes too.
        ([], [(0x4000_5000, 0x1000)], iotlb_pages(1, 0x4000_5000, 0, leaf=False), (0x4000_5000, False)),
        ([(0x4020_0000, M2)], [(0x4000_5000, 0x1000)], iotlb_pages(1, 0x4000_5000, 0, leaf=False),
         (0x4000_5000, False)),
        # Large pages.
        ([(0x4040_0000, M2)], [(0x4020_0000, M2)], iotlb_pages(1, 0x4020_0000, 9, leaf=True), (0x402F_F000, True)),
        ([(0x8000_0000, G1)], [(0x4000_0000, G1)], iotlb_pages(1, 0x4000_0000, 18, leaf=True), (0x5FFF_F000, True)),
        # Several mappings, one range.
        ([KEEPER], [(0x4000_4000, 0x1000), (0x4000_5000, 0x3000)], iotlb_pages(1, 0x4000_4000, 2, leaf=True),
         (0x4000_5000, True)),
        # More than the unit's largest mask.
        ([(0x7FFF_E000, 0x1000), (0x8000_1000, 0x1000)], [(0x7FFF_F000, 0x2000)], iotlb(1), (0x7FFF_F000, True)),
        ([], [(0, 2 * G1)], iotlb(1), (0x3FFF_F000, True)),
    ],
)  # fmt: skip
def test_unmap(kept: list[tuple[int, int]], gone: list[tuple[int, int]], flush: Sent, device: tuple[int, bool]) -> None:
    machine = Driven()
    domain = machine.domain()
    machine.attach(domain, Slot(machine.device(A, ats=True)))
    for iova, size in kept:
        machine.map(domain, iova, iova, size)
    mappings = [machine.map(domain, iova, iova, size) for iova, size in gone]
    assert machine.sent() == []
    machine.unmap(domain, *mappings)
    address, several = device
    assert machine.sent() == [flush, "wait", device_tlb(SOURCE_A, address, several=several), "wait"]
    assert machine.check() == []
    machine.accounts()


def test_the_hint_tells_whether_tables_are_freed() -> None:
    machine = Driven()
    domain = machine.domain()
    machine.attach(domain, Slot(machine.device(A)))
    mappings = [machine.map(domain, iova, 0x7000) for iova in (0x5000, 0x6000)]
    for mapping, freed in zip(mappings, (0, 3), strict=True):
        machine.sent()
        machine.unmap(domain, mapping)
        assert machine.sent() == [iotlb_pages(1, mapping.iova, 0, leaf=not freed), "wait"]
        assert sum(run.pages for run in machine.memory.freed) == freed


def test_tables_are_freed_after_the_caches_were_told() -> None:
    machine = Driven()
    domain = machine.domain()
    machine.attach(domain, Slot(machine.device(A, ats=True)))
    mapping = machine.map(domain, 0x5000, 0x7000)
    machine.unmap(domain, mapping)
    assert machine.freed_before == [0] * 4
    assert machine.memory.freed


def test_a_smaller_mask() -> None:
    machine = Driven(cap=CAP & ~(0x3F << 48) | 3 << 48)
    domain = machine.domain()
    machine.attach(domain, Slot(machine.device(A)))
    machine.map(domain, 0x1_0000, 0x7000)
    for size, flush in ((0x8000, iotlb_pages(1, 0, 3, leaf=True)), (0x9000, iotlb(1))):
        mapping = machine.map(domain, 0, 0, size)
        machine.sent()
        machine.unmap(domain, mapping)
        assert machine.sent() == [flush, "wait"]


def test_unmap_tells_each_tag_and_each_slot_once() -> None:
    machine = Driven()
    a, b = machine.device(A, ats=True), machine.device(B)
    domain, other = machine.domain(), machine.domain()
    for slot in (Slot(a), Slot(a, 9), Slot(b), Slot(b, 9)):
        machine.attach(domain, slot)
    machine.attach(other, Slot(a, 10))
    machine.map(domain, 0x4000, 0x7000)
    mapping = machine.map(domain, 0x5000, 0x7000)
    machine.unmap(domain, mapping)
    assert machine.sent() == [
        iotlb_pages(1, 0x5000, 0, leaf=True),
        "wait",
        device_tlb(SOURCE_A, 0x5000, several=False),
        pasid_device_tlb(SOURCE_A, 9, 0x5000, several=False),
        "wait",
    ]


def test_unmap_without_users_tells_nobody() -> None:
    machine = Driven()
    domain = machine.domain()
    machine.unmap(domain, machine.map(domain, 0x5000, 0x7000))
    assert machine.sent() == []


def test_unmap_under_nested_tables() -> None:
    """Each DID once, and all of the device TLBs: inputs of a nested slot cannot be told from guest addresses."""
    machine = Driven()
    a, b = machine.device(A, ats=True), machine.device(B, ats=True)
    parent = machine.domain(nest_parent=True)
    machine.attach(parent, Slot(a))
    for slot, root in ((Slot(a, 1), 0x1000), (Slot(a, 2), 0x1000), (Slot(a, 3), 0x2000), (Slot(b, 1), 0x2000)):
        machine.bind(parent, slot, root)
    machine.map(parent, 0x4000, 0x7000)
    mapping = machine.map(parent, 0x5000, 0x7000)
    machine.sent()
    machine.unmap(parent, mapping)
    assert machine.sent() == [
        *(iotlb_pages(did, 0x5000, 0, leaf=True) for did in (1, 2, 3)),
        "wait",
        device_tlb(SOURCE_A, 0x5000, several=False),
        *(pasid_device_tlb(SOURCE_A, pasid) for pasid in (1, 2, 3)),
        pasid_device_tlb(SOURCE_B, 1),
        "wait",
    ]


def test_what_was_unmapped_is_no_longer_reached() -> None:
    machine = Driven()
    rid = machine.device(A)
    parent = machine.domain(nest_parent=True)
    machine.map(parent, 0x20000, 0x20000, 0x10000)
    pages = [machine.map(parent, 0x30000 + at, 0x50000 + at) for at in (0, 0x1000)]
    machine.memory.put({0x20000: 0x21027, 0x21000: 0x22027, 0x22000: 0x23027, 0x23028: 0x30067, 0x23030: 0x31067})
    machine.attach(parent, Slot(rid))
    machine.bind(parent, Slot(rid, 1), 0x20000)
    for _ in range(2):
        assert machine.dma(Slot(rid), 0x30000) == (0x50000, False)
        assert machine.dma(Slot(rid, 1), 0x5000) == (0x50000, False)
    machine.unmap(parent, pages[0])
    assert machine.dma(Slot(rid), 0x30000) == (-0x79, False)
    assert machine.dma(Slot(rid, 1), 0x5000) == (-0x79, False)
    assert machine.dma(Slot(rid, 1), 0x6000) == (0x51000, False)


# A guest's tables


@pytest.mark.parametrize(
    ("span", "leaf", "flush", "device"),
    [
        (None, False, piotlb(2, 5), (0x7FFF_FFFF_FFFF_F000, True)),
        (None, True, piotlb(2, 5), (0x7FFF_FFFF_FFFF_F000, True)),
        ((0x5000, 0x5FFF), True, piotlb_pages(2, 5, 0x5000, 0, leaf=True), (0x5000, False)),
        ((0x5000, 0x5FFF), False, piotlb_pages(2, 5, 0x5000, 0, leaf=False), (0x5000, False)),
        ((0x5123, 0x5124), True, piotlb_pages(2, 5, 0x5000, 0, leaf=True), (0x5000, False)),
        ((0x5000, 0x6FFF), True, piotlb_pages(2, 5, 0x4000, 2, leaf=True), (0x5000, True)),
        ((0x4000_0000, 0x401F_FFFF), True, piotlb_pages(2, 5, 0x4000_0000, 9, leaf=True), (0x400F_F000, True)),
        # First-stage masks are not bound by the unit's largest one.
        ((0, (1 << 39) - 1), False, piotlb_pages(2, 5, 0, 27, leaf=False), (0x3F_FFFF_F000, True)),
        ((0xFFFF_8000_0000_5000, 0xFFFF_8000_0000_5FFF), False,
         piotlb_pages(2, 5, 0xFFFF_8000_0000_5000, 0, leaf=False), (0xFFFF_8000_0000_5000, False)),
        # Both halves: all there is.
        ((0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0FFF), False, piotlb(2, 5), (0x7FFF_FFFF_FFFF_F000, True)),
    ],
)  # fmt: skip
def test_invalidate(span: tuple[int, int] | None, leaf: bool, flush: Sent, device: tuple[int, bool]) -> None:
    machine = Driven()
    binding = machine.bind(machine.domain(nest_parent=True), Slot(machine.device(A, ats=True), 5), 0x1000)
    machine.driver.invalidate([binding], span, leaf=leaf)
    address, several = device
    assert machine.sent() == [flush, "wait", pasid_device_tlb(SOURCE_A, 5, address, several=several), "wait"]


def test_invalidate_tells_each_tag_and_each_device_once() -> None:
    machine = Driven()
    a, b = machine.device(A, ats=True), machine.device(B, ats=True)
    parent = machine.domain(nest_parent=True)
    machine.attach(parent, Slot(a))
    bindings = [
        machine.bind(parent, slot, root)
        for slot, root in (
            (Slot(a), 0x1000), (Slot(a, 5), 0x1000), (Slot(b, 5), 0x1000), (Slot(b, 6), 0x2000)
        )
    ]  # fmt: skip
    machine.sent()
    machine.driver.invalidate(bindings, (0x5000, 0x5FFF), leaf=True)
    assert machine.sent() == [
        piotlb_pages(2, 0, 0x5000, 0, leaf=True),
        piotlb_pages(2, 5, 0x5000, 0, leaf=True),
        piotlb_pages(3, 6, 0x5000, 0, leaf=True),
        "wait",
        device_tlb(SOURCE_A, 0x5000, several=False),
        pasid_device_tlb(SOURCE_A, 5, 0x5000, several=False),
        pasid_device_tlb(SOURCE_B, 5, 0x5000, several=False),
        pasid_device_tlb(SOURCE_B, 6, 0x5000, several=False),
        "wait",
    ]


def test_more_commands_than_the_ring_has_room_for() -> None:
    machine = Driven()
    rid = machine.device(A, ats=True)
    parent = machine.domain(nest_parent=True)
    machine.map(parent, 0x20000, 0x20000, 0x20000)
    machine.memory.put({0x20000: 0x21027, 0x21000: 0x22027, 0x22000: 0x23027, 0x23028: 0x30067})
    bindings: list[Binding] = [machine.bind(parent, Slot(rid, pasid), 0x20000) for pasid in range(1, 601)]
    for _ in range(3):
        for binding in bindings:
            machine.dma(binding.slot, 0x5000)
        assert machine.unit.caches()["iotlb"] == 600
        machine.driver.invalidate(bindings, None, leaf=False)
        assert machine.sent() == [
            *(piotlb(2, pasid) for pasid in range(1, 601)),
            "wait",
            *(pasid_device_tlb(SOURCE_A, pasid) for pasid in range(1, 601)),
            "wait",
        ]
        assert machine.unit.caches()["iotlb"] == 0


def test_a_queue_that_stops_is_an_error() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    machine.attach(machine.domain(), slot)
    machine.unit.write_register("IQA", machine.unit.read_register("IQA") & ~(1 << 11))
    with pytest.raises(DamagedTable, match="stopped"):
        machine.install(slot, None)


def test_the_count_of_waits_wraps_around() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    machine.attach(machine.domain(), slot)
    status = machine.rows.get("vtd", "status")
    machine.memory.put({status: 0xFFFF_FFFF})
    machine.install(slot, None)
    assert [command.fields["STDATA"] for command in machine.commands if "STDATA" in command.fields] == [0]
    assert machine.memory.word(status) == 0

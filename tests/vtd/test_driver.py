# SPDX-License-Identifier: Apache-2.0
"""What the driver writes and sends for each change, by VT-d 4.1 section 6.5.3.3, and in which order."""

from itertools import pairwise

import pytest

from iommuctl.errors import DamagedTable, Unsupported
from iommuctl.hookspecs import SlotChange
from iommuctl.model import Attachment, Device, Rid, Slot
from iommuctl_vtd import ARCHITECTURE
from tests.machine import SparseMemory
from tests.vtd.driven import (
    CC_GLOBAL,
    IOTLB_GLOBAL,
    PC_GLOBAL,
    Driven,
    device_tlb,
    iotlb,
    pasid_device_tlb,
    pc,
)
from tests.vtd.fault_cases import CAP, ECAP
from tests.vtd.machine import QIE, SRTP, TE, Machine

A = "0000:00:01.0"
SOURCE_A = 0x0008
ESRTPS = 1 << 63
DATA = 0x5000


# Switching on


def test_start() -> None:
    machine = Driven()
    read = machine.unit.read_register
    assert read("GSTS") == TE | SRTP | QIE
    assert read("RTADDR") & 0xFFF == 0x400
    assert read("IQA") & 0xFFF == 0x801
    assert machine.memory.read(read("RTADDR") & -4096, 4096) == bytes(4096)
    assert machine.sent() == []
    assert machine.pa(Slot(Rid.parse(A)), DATA) == -0x39


def test_start_flushes_where_latching_does_not() -> None:
    machine = Driven(cap=CAP & ~ESRTPS)
    assert machine.sent() == [CC_GLOBAL, PC_GLOBAL, IOTLB_GLOBAL, "wait"]
    assert machine.unit.read_register("GSTS") == TE | SRTP | QIE


@pytest.mark.parametrize(
    "options",
    [
        {"ecap": ECAP & ~(1 << 43)},  # SMTS
        {"ecap": ECAP & ~(1 << 46)},  # SSTS
        {"ecap": ECAP & ~(1 << 1)},  # QI
        {"cap": CAP | 1 << 7},  # CM
        {"cap": CAP | 1 << 4},  # RWBF
        {"cap": CAP & ~(0x1F << 8)},  # SAGAW
        {"cap": CAP & ~(0x3F << 16)},  # MGAW 1
    ],
)
def test_units_that_cannot_be_driven(options: dict[str, int]) -> None:
    with pytest.raises(Unsupported, match="cannot be driven"):
        Driven(**options)


def test_tables_beyond_the_host_address_width() -> None:
    machine = Machine(SparseMemory((1 << 32, 1 << 20), tables=(1 << 32, 1 << 20)), haw=32)
    with pytest.raises(Unsupported, match="beyond its 32 address bits"):
        ARCHITECTURE.driver(machine, machine.unit).start()


def test_units_of_little_ability_can_be_driven() -> None:
    """The least: a second stage of 39 bits, 4 KiB pages, no PASIDs, nothing that is optional."""
    machine = Driven(cap=1 << 9 | 47 << 16 | 2, ecap=1 << 1 | 1 << 43 | 1 << 46)
    capabilities = machine.driver.capabilities()
    assert (capabilities.nesting, capabilities.pasid_bits, capabilities.pgtable_formats) == ("none", 0, ())
    assert (capabilities.widths, capabilities.page_sizes) == ((39,), (4096,))
    rid = machine.device(A, pasid_bits=0)
    domain = machine.domain(width=39, sizes=(4096,))
    mapping = machine.map(domain, DATA, 0x7000)
    machine.attach(domain, Slot(rid))
    assert machine.entry(Slot(rid))[1] == 1
    machine.sent()
    machine.unmap(domain, mapping)
    # No page-selective invalidation and no draining.
    assert machine.sent() == [(1 << 16 | 0x22, 0), "wait"]


# Devices


@pytest.mark.parametrize("bits", range(21))
def test_every_size_of_directory(bits: int) -> None:
    machine = Driven()
    rid = machine.device(A, pasid_bits=bits)
    pdts = max(0, bits - 13)
    context = machine.memory.word(machine.unit.read_register("RTADDR") & -4096) & -4096
    words = [machine.memory.word(context + 32 * 8 + 8 * number) for number in range(4)]
    directory = words[0] & -4096
    assert words == [directory | pdts << 9 | (8 if bits else 0) | 1, 0, 0, 0]
    size = 8 << pdts + 7
    assert machine.memory.read(directory, size) == bytes(size)
    assert machine.sent() == []
    domain = machine.domain()
    machine.map(domain, DATA, 0x7000)
    for pasid in {1, (1 << bits) - 1} if bits else ():
        if pasid:
            machine.attach(domain, Slot(rid, pasid))
            assert machine.pa(Slot(rid, pasid), DATA) == 0x7000
    machine.attach(domain, Slot(rid))
    assert machine.pa(Slot(rid), DATA) == 0x7000
    assert machine.pa(Slot(rid, 1 << max(bits, 13)), DATA) == (-0x46 if bits else -0x45)
    assert machine.check() == []


def test_flags_of_a_device() -> None:
    machine = Driven()
    machine.device(A, ats=True, pri=True, pasid_bits=15)
    context = machine.memory.word(machine.unit.read_register("RTADDR") & -4096) & -4096
    assert machine.memory.word(context + 32 * 8) & 0xFFF == 0x41D


def test_devices_in_both_halves_of_several_buses() -> None:
    machine = Driven()
    domain = machine.domain()
    machine.map(domain, DATA, 0x7000)
    texts = ["00:00.0", "00:0f.7", "00:10.0", "00:1f.7", "7f:0f.7", "ff:00.0", "ff:1f.7"]
    rids = [machine.device(text, pasid_bits=8) for text in texts]
    for number, rid in enumerate(rids):
        assert [machine.pa(Slot(other), DATA) for other in rids] == [0x7000] * number + [-0x51] * (len(rids) - number)
        machine.attach(domain, Slot(rid))
    assert machine.check() == []
    machine.accounts()
    for number, rid in enumerate(rids):
        machine.install(Slot(rid), None)
        machine.driver.device_remove(machine.devices.pop(0))
        assert [machine.pa(Slot(other), DATA) for other in rids] == [-0x41] * (number + 1) + [0x7000] * (
            len(rids) - number - 1
        )
        machine.accounts()
    assert machine.check() == []


@pytest.mark.parametrize(
    ("device", "ecap", "because"),
    [
        (Device(Rid(1, 0, 1, 0)), ECAP, "it serves PCI segment 0000"),
        (Device(Rid(0, 0, 1, 0), ats=True), ECAP & ~(1 << 2), "its ECAP lacks DT"),
        (Device(Rid(0, 0, 1, 0), ats=True, pri=True), ECAP & ~(1 << 29), "its ECAP lacks PRS"),
        (Device(Rid(0, 0, 1, 0), ats=True, pri=True), ECAP & ~(1 << 29 | 1 << 2), "its ECAP lacks DT, PRS"),
        (Device(Rid(0, 0, 1, 0), pasid_bits=1), ECAP & ~(1 << 40), "it takes PASIDs of up to 0 bits"),
        (Device(Rid(0, 0, 1, 0), pasid_bits=16), ECAP & ~(0x1F << 35) | 14 << 35, "it takes PASIDs of up to 15 bits"),
    ],
)
def test_devices_that_the_unit_cannot_serve(device: Device, ecap: int, because: str) -> None:
    with pytest.raises(Unsupported, match="cannot serve") as error:
        Driven(ecap=ecap).driver.device_add(device)
    assert error.value.because == because


@pytest.mark.parametrize("ats", [False, True])
def test_device_remove(ats: bool) -> None:
    machine = Driven()
    rid = machine.device(A, ats=ats)
    domain = machine.domain()
    slot = Slot(rid, 0xFFFFF)
    machine.attach(domain, slot)
    machine.install(slot, None)
    context = (machine.memory.word(machine.unit.read_register("RTADDR") & -4096) & -4096) + 32 * 8
    entry = machine.memory.word(context)
    table = machine.entry_address(slot) & -4096
    machine.sent()
    machine.watched = context
    machine.driver.device_remove(machine.devices.pop())
    # All slots were empty before, so its device TLB is, too.
    assert machine.sent() == [(SOURCE_A << 32 | 0x31, 0), "wait"]
    # Present goes first; the rest of the entry, and what it points to, when the caches have been told.
    assert set(machine.states) == {entry & ~1}
    assert machine.memory.read(context, 32) == bytes(32)
    assert sum(run.pages for run in machine.memory.freed) == 33
    assert {entry & -4096, table} <= {run.address for run in machine.memory.freed}
    assert machine.check() == []
    machine.device(A, ats=ats)
    assert machine.check() == []


# Domains


def test_domain_destroy() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    domain = machine.domain()
    for iova in (0x5000, 0x4000_0000, 1 << 40):
        machine.map(domain, iova, 0x7000)
    machine.accounts()
    machine.driver.domain_destroy(machine.domains.pop())
    machine.accounts()
    # Its id can come again, and its tag does.
    again = machine.domain()
    assert again.id == domain.id
    machine.attach(again, slot)
    assert machine.did(slot) == 1
    assert machine.pa(slot, DATA) == -0x79


# Slots


def test_attach() -> None:
    machine = Driven()
    rid = machine.device(A, ats=True)
    domain = machine.domain()
    for slot in (Slot(rid), Slot(rid, 5)):
        machine.attach(domain, slot)
        assert machine.sent() == []
        assert machine.entry(slot) == (machine.driver.domain_root(domain) | 0x89, 0x800001, 0, 0, 0, 0, 0, 0)
        *_, before, last = machine.memory.writes
        assert (before[0], len(before[1])) == (machine.entry_address(slot) + 8, 56)
        assert (last[0], len(last[1])) == (machine.entry_address(slot), 8)


@pytest.mark.parametrize(("width", "aw"), [(39, 1), (48, 2), (57, 3)])
def test_widths(width: int, aw: int) -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    domain = machine.domain(width=width)
    machine.map(domain, (1 << width) - 4096, 0x7000)
    machine.attach(domain, slot)
    assert machine.entry(slot)[0] & 0xFFF == 0x81 | aw << 2
    assert machine.pa(slot, (1 << width) - 1) == 0x7FFF


@pytest.mark.parametrize(("pasid", "ats"), [(None, False), (None, True), (5, False), (5, True)])
def test_detach(pasid: int | None, ats: bool) -> None:
    machine = Driven()
    slot = Slot(machine.device(A, ats=ats), pasid)
    machine.domain()
    machine.attach(machine.domain(), slot)
    machine.watched = machine.entry_address(slot)
    entry = machine.memory.word(machine.watched)
    machine.install(slot, None)
    expected = [pc(2, pasid or 0), iotlb(2), "wait"]
    if ats:
        expected += [device_tlb(SOURCE_A) if pasid is None else pasid_device_tlb(SOURCE_A, pasid), "wait"]
    assert machine.sent() == expected
    assert set(machine.states) == {entry & ~1}
    assert machine.entry(slot) == (0,) * 8


@pytest.mark.parametrize("pasid", [None, 5])
def test_bind_and_unbind(pasid: int | None) -> None:
    machine = Driven()
    slot = Slot(machine.device(A, ats=True), pasid)
    parent = machine.domain(nest_parent=True)
    flush = device_tlb(SOURCE_A) if pasid is None else pasid_device_tlb(SOURCE_A, pasid)
    root = machine.driver.domain_root(parent)
    machine.attach(parent, slot)
    machine.bind(parent, slot, 0x67890000)
    assert machine.entry(slot) == (root | 0xC9, 0x800002, 0x67890011, 0, 0, 0, 0, 0)
    assert machine.sent() == [PC_GLOBAL, iotlb(1), "wait", flush, "wait"]
    machine.attach(parent, slot)
    assert machine.entry(slot) == (root | 0x89, 0x800001, 0, 0, 0, 0, 0, 0)
    assert machine.sent() == [PC_GLOBAL, iotlb(2), "wait", flush, "wait"]
    machine.install(slot, None)
    machine.sent()
    machine.bind(parent, slot, 0x67890000, "vtd.first-stage-5")
    assert machine.sent() == []
    assert machine.entry(slot)[2] == 0x67890015
    machine.install(slot, None)
    assert machine.sent() == [pc(2, pasid or 0), iotlb(2), "wait", flush, "wait"]


def test_a_unit_without_privileged_requests_or_snooping() -> None:
    machine = Driven(ecap=ECAP & ~(1 << 31) & ~(1 << 48))
    slot = Slot(machine.device(A))
    machine.bind(machine.domain(nest_parent=True), slot, 0x67890000)
    assert machine.entry(slot)[1:3] == (2, 0x67890000)
    assert machine.pa(slot, 0) == -0x79


def test_a_format_that_there_is_not() -> None:
    machine = Driven(cap=CAP & ~(1 << 60))
    parent = machine.domain(nest_parent=True)
    with pytest.raises(Unsupported, match="first-stage-5"):
        machine.bind(parent, Slot(machine.device(A)), 0x5000, "vtd.first-stage-5")


# The order of stores


def words_of(writes: list[tuple[int, bytes]]) -> list[tuple[int, int]]:
    return [
        (address + at, int.from_bytes(data[at : at + 8], "little"))
        for address, data in writes
        for at in range(0, len(data), 8)
    ]


def test_present_is_stored_last() -> None:
    """While an entry is filled, and its table made, a request finds nothing or the whole."""
    machine = Driven()
    slot = Slot(machine.device(A), 0xABCDE)
    seen: set[int] = set()
    parent = machine.domain(nest_parent=True)
    machine.map(parent, 0, 0, 0x10_0000)
    machine.memory.put({0x20008: 0x21027, 0x21010: 0x22027, 0x22018: 0x23027, 0x23020: 0x30067})
    machine.memory.on_write = lambda: seen.add(machine.pa(slot, 0x80_8060_4000))
    machine.bind(parent, slot, 0x20000)
    assert seen == {-0x51, -0x59, 0x30000}
    seen.clear()
    machine.install(slot, None)
    assert seen == {-0x59}


def test_a_context_entry_is_stored_with_present_last() -> None:
    machine = Driven()
    seen: set[int] = set()
    machine.memory.on_write = lambda: seen.add(machine.pa(Slot(Rid.parse(A)), DATA))
    machine.device(A)
    assert seen == {-0x39, -0x41, -0x51}
    seen.clear()
    machine.driver.device_remove(machine.devices[0])
    assert seen == {-0x41}


def test_replace_is_one_store() -> None:
    """Each state that memory goes through leads to the old page or to the new one, for this slot and its neighbour."""
    machine = Driven()
    rid = machine.device(A)
    slot, neighbour = Slot(rid, 5), Slot(rid, 6)
    domains = [machine.domain(nest_parent=True) for _ in range(2)]
    for number, domain in enumerate(domains):
        machine.map(domain, DATA, 0x7000 + number * 0x1000)
        machine.attach(domain, (slot, neighbour)[number])
    seen: list[tuple[int, int]] = []
    machine.memory.on_write = lambda: seen.append((machine.pa(slot, DATA), machine.pa(neighbour, DATA)))
    old = machine.entry_address(slot) & -4096
    machine.memory.writes.clear()
    machine.attach(domains[1], slot)
    assert set(seen) == {(0x7000, 0x8000), (0x8000, 0x8000)}
    assert sum(before != after for before, after in pairwise(seen)) == 1
    new = machine.entry_address(slot) & -4096
    assert new != old
    # Among the stores outside the new table and the queue, one changed the tables: 64 bits of the directory.
    ring = machine.unit.read_register("IQA") & -4096
    status = machine.rows.get("vtd", "status")
    others = [
        (address, len(data))
        for address, data in machine.memory.writes
        if address & -4096 not in (new, ring, ring + 4096, status)
    ]
    assert [size for _, size in others] == [8]
    assert [run for run in machine.memory.freed if run.address == old]
    assert machine.check() == []


def test_an_old_table_is_given_back_after_the_caches_were_told() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    domains = [machine.domain() for _ in range(2)]
    machine.attach(domains[0], slot)
    machine.attach(domains[1], slot)
    assert machine.freed_before == [0, 0, 0]
    assert len(machine.memory.freed) == 1


def test_after_each_change_no_cache_is_stale() -> None:
    machine = Driven()
    rid = machine.device(A)
    slot = Slot(rid, 7)
    first, second = machine.domain(nest_parent=True), machine.domain()
    for number, domain in enumerate((first, second)):
        machine.map(domain, 0, number * 0x10_0000, 0x10_0000)
    machine.memory.put({0x20000: 0x21027, 0x21000: 0x22027, 0x22000: 0x23027, 0x23000 + 8 * 5: 0x30067})
    for change, pa in (
        (lambda: machine.attach(first, slot), 0x5000),
        (lambda: machine.attach(second, slot), 0x105000),
        (lambda: machine.attach(first, slot), 0x5000),
        (lambda: machine.bind(first, slot, 0x20000), 0x30000),
        (lambda: machine.attach(first, slot), 0x5000),
        (lambda: machine.install(slot, None), -0x59),
    ):
        change()
        for _ in range(2):
            assert machine.dma(slot, DATA) == (pa, False)


# Tables that something else damaged


def test_what_is_not_there_cannot_be_changed() -> None:
    """Least of all by way of whatever lies at address 0."""
    machine = Driven()
    slot = Slot(machine.device(A), 5)
    domains = [machine.domain() for _ in range(2)]
    machine.attach(domains[0], slot)
    root = machine.unit.read_register("RTADDR") & -4096
    context = machine.memory.word(root) & -4096
    directory = machine.memory.word(context + 32 * 8) & -4096
    for word in (directory, context + 32 * 8, root):
        machine.memory.put({word: 0})
        for new in (Attachment(slot, domains[1]), None):
            with pytest.raises(DamagedTable):
                machine.driver.install(SlotChange(slot, machine.slots[slot], new))
        if word != directory:
            with pytest.raises(DamagedTable):
                machine.driver.device_remove(machine.devices[0])
    assert machine.sent() == []
    assert machine.memory.freed == []

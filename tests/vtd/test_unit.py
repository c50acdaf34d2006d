# SPDX-License-Identifier: Apache-2.0
"""The unit's registers: enabling, fault records, and requests that the IOTLB answers."""

import pytest

from iommuctl.errors import Unsupported, Usage
from iommuctl.model import Access, Rid, Slot
from tests.machine import SparseMemory
from tests.vtd.handmade import (
    BY_RID,
    CONTEXT,
    ENTRY_SECOND,
    FIRST,
    FS1,
    IN_1G,
    IN_2M,
    NESTED,
    PAGE_RO,
    PAGE_RW,
    PAGE_WO,
    SECOND,
    SS1,
    SS2,
    THROUGH,
    Ask,
    handmade,
)
from tests.vtd.machine import QIE, RECORD_FREE, SRTP, TE, Machine

ESRTPS = 1 << 63
PFO, PPF = 1, 2
RW4 = 8 * 4


def request(machine: Machine, slot: Slot, iova: int = PAGE_RW, access: Access = "r", **how: bool) -> int | None:
    """The physical address, or None."""
    return machine.request(slot, iova, access, privileged=how.get("privileged", False))[0].pa


def hit(machine: Machine, slot: Slot, iova: int = PAGE_RW, access: Access = "r") -> tuple[bool, bool]:
    """Whether a cache answered, and whether that was stale."""
    return machine.request(slot, iova, access, privileged=False)[1:]


# Enabling


def test_power_on() -> None:
    registers = Machine(SparseMemory()).unit.registers()
    capabilities = {name: registers.pop(name) for name in ("CAP", "ECAP")}
    assert all(capabilities.values())
    assert registers == dict.fromkeys(
        (
            "GSTS",
            "RTADDR",
            "IQA",
            "IQH",
            "IQT",
            "FSTS",
            "IQERCD",
            "ICS",
            "PQH",
            "PQT",
            "PQA",
            "PRS",
            *(f"FRCD{n}" for n in range(8)),
        ),
        0,
    ) | {"FECTL": 1 << 31}


def test_options() -> None:
    machine = Machine(SparseMemory(), haw=39, cap=0x00D2008C222F0606, ecap=0x480080000F42)
    assert machine.unit.read_register("CAP") == 0x00D2008C222F0606
    assert machine.unit.read_register("ECAP") == 0x480080000F42
    assert [name for name in machine.unit.registers() if name.startswith("FRCD")] == ["FRCD0"]
    assert (machine.unit.capability.haw, machine.unit.capability.widths) == (39, (39, 48))


@pytest.mark.parametrize(
    "option",
    [{"haw": 31}, {"haw": 53}, {"haw": -1}, {"cap": 1 << 64}, {"ecap": 1 << 64}, {"ecap": -1}, {"cap": -1, "ecap": -1}],
)
def test_options_out_of_range(option: dict[str, int]) -> None:
    with pytest.raises(Usage, match="out of range"):
        Machine(SparseMemory(), **option)


@pytest.mark.parametrize("haw", [32, 52])
def test_host_address_widths(haw: int) -> None:
    assert Ask(THROUGH, (1 << haw) - 1).of(handmade(haw=haw)).pa == (1 << haw) - 1
    assert Ask(THROUGH, 1 << haw).of(handmade(haw=haw)).pa is None


@pytest.mark.parametrize(("name", "text"), [("width", "48"), ("haw", "wide"), ("cap", ""), ("ecap", "0x")])
def test_options_that_are_none(name: str, text: str) -> None:
    machine = Machine(SparseMemory())
    with pytest.raises(Usage):
        machine.unit.reset(machine, {name: text})


def test_a_unit_that_is_off_changes_no_address() -> None:
    machine = handmade()
    machine.unit.write_register("GCMD", 0)
    for slot in (BY_RID, NESTED, Slot(Rid(0, 9, 9, 0), 77)):
        answer = Ask(slot, (1 << 64) - 1, "w").of(machine)
        assert (answer.pa, answer.page_size, answer.prot, answer.steps) == ((1 << 64) - 1, 4096, "rw", ())
        answer, *flags = machine.request(slot, 0x1234, "w", privileged=False)
        assert (answer.pa, answer.page_size, answer.prot, flags) == (0x1234, 4096, "rw", [False, False])
    assert machine.unit.caches()["iotlb"] == 0


def test_one_bit_after_the_other() -> None:
    """As software does: what GSTS shows, without the bits that act once, and one more."""
    unit = Machine(SparseMemory()).unit
    for bit, status in ((QIE, QIE), (SRTP, QIE | SRTP), (TE, QIE | SRTP | TE)):
        unit.write_register("GCMD", unit.read_register("GSTS") & 0x96FFFFFF | bit)
        assert unit.read_register("GSTS") == status
    unit.write_register("GCMD", TE)
    assert unit.read_register("GSTS") == SRTP | TE


def test_a_root_table_counts_once_it_is_latched() -> None:
    machine = handmade()
    machine.unit.write_register("RTADDR", 0x9000 | 0x400)
    machine.unit.write_register("GCMD", TE)
    assert request(machine, BY_RID) == 0x99000
    machine.unit.write_register("GCMD", TE | SRTP)
    assert request(machine, BY_RID) is None


@pytest.mark.parametrize(("flags", "entries"), [(ESRTPS, 0), (0, 1)])
def test_latching_flushes_where_the_unit_says_so(flags: int, entries: int) -> None:
    cap = handmade().unit.read_register("CAP") & ~ESRTPS | flags
    machine = handmade(cap=cap)
    request(machine, BY_RID)
    machine.unit.write_register("GCMD", TE | SRTP)
    assert machine.unit.caches()["iotlb"] == entries


@pytest.mark.parametrize("name", ["CAP", "ECAP", "GSTS", "IQH", "IQERCD", "NONSENSE", "FRCD8"])
def test_registers_that_software_does_not_write(name: str) -> None:
    with pytest.raises(Unsupported):
        Machine(SparseMemory()).unit.write_register(name, RECORD_FREE)


def test_interrupts_are_not_translated() -> None:
    machine = handmade()
    for iova in (0xFEE00000, 0xFEEFFFFF):
        with pytest.raises(Unsupported, match="interrupt"):
            request(machine, BY_RID, iova)
        with pytest.raises(Unsupported, match="interrupt"):
            Ask(BY_RID, iova).of(machine)
    for iova in (0xFEDFFFFF, 0xFEF00000):
        assert request(machine, BY_RID, iova) is None


# Fault records


def test_a_record_without_pasid() -> None:
    machine = handmade({0x2420: 0x3001})
    assert request(machine, Slot(Rid(0, 3, 4, 1)), 0xDEADBEEF) is None
    assert machine.records() == [0xC000007900000321_00000000DEADB000]


def test_a_record_with_pasid() -> None:
    machine = handmade({
        0x2420: 0x40809, 0x42468: 0x6001, 0x6140: 0x49, 0x6148: 0x800007, 0x6150: 0x20001,
    })  # fmt: skip
    slot = Slot(Rid(0, 3, 4, 1), 0x12345)
    assert request(machine, slot, 0x7F0000001000, "w", privileged=True) is None
    assert machine.records() == [0x81234571A0000321_00007F0000001000]


def test_a_record_without_pasid_is_never_privileged() -> None:
    machine = handmade({0x2420: 0x3001})
    request(machine, Slot(Rid(0, 3, 4, 1)), 0xDEADBEEF, privileged=True)
    assert machine.records() == [0xC000007900000321_00000000DEADB000]


def test_records_fill_up_and_are_freed() -> None:
    machine = handmade()
    unit = machine.unit
    for number in range(8):
        assert unit.read_register("FSTS") == (PPF if number else 0)
        request(machine, SECOND, number << 12)
        assert unit.read_register(f"FRCD{number}") & (1 << 64) - 1 == number << 12
    assert len(machine.records()) == 8
    assert unit.read_register("FSTS") == PPF
    full = machine.records()
    for _ in range(2):
        request(machine, SECOND, 8 << 12)
        assert (machine.records(), unit.read_register("FSTS")) == (full, PPF | PFO)
    # One is free, but nothing is recorded before software has seen the overflow.
    unit.write_register("FRCD0", RECORD_FREE)
    request(machine, SECOND, 9 << 12)
    assert len(machine.records()) == 7
    unit.write_register("FSTS", 0xFFFFFFFF)
    assert unit.read_register("FSTS") == PPF
    request(machine, SECOND, 10 << 12)
    assert unit.read_register("FRCD0") & (1 << 64) - 1 == 10 << 12
    # The next one is taken, so this overflows although there will be free ones behind it.
    unit.write_register("FRCD2", RECORD_FREE)
    request(machine, SECOND, 11 << 12)
    assert unit.read_register("FSTS") == PPF | PFO
    for number in range(8):
        assert unit.read_register("FSTS") == PPF | PFO
        unit.write_register(f"FRCD{number}", RECORD_FREE)
    assert unit.read_register("FSTS") == PFO
    unit.write_register("FSTS", PFO)
    request(machine, SECOND, 12 << 12)
    assert unit.read_register("FSTS") == PPF | 1 << 8
    assert unit.read_register("FRCD1") & (1 << 64) - 1 == 12 << 12


def test_a_record_is_freed_by_writing_one() -> None:
    machine = handmade()
    request(machine, SECOND, 0x5000)
    machine.unit.write_register("FRCD0", 0)
    assert len(machine.records()) == 1
    machine.unit.write_register("FRCD0", RECORD_FREE)
    assert machine.records() == []


def test_one_record_is_enough() -> None:
    cap = handmade().unit.read_register("CAP") & ~(0xFF << 40)
    machine = handmade(cap=cap)
    for iova in (0x5000, 0x6000):
        request(machine, SECOND, iova)
    assert machine.unit.read_register("FSTS") == PPF | PFO
    assert machine.unit.read_register("FRCD0") & (1 << 64) - 1 == 0x5000


# What the IOTLB answers


@pytest.mark.parametrize("slot", [BY_RID, FIRST, NESTED, SECOND])
@pytest.mark.parametrize(("iova", "size"), [(PAGE_RW, 1 << 12), (IN_2M, 1 << 21), (IN_1G, 1 << 30)])
def test_an_entry_serves_its_whole_page(slot: Slot, iova: int, size: int) -> None:
    machine = handmade()
    expected = Ask(slot, iova).of(machine).pa
    assert expected is not None
    assert hit(machine, slot, iova + size // 2) == (False, False)
    machine.memory.put({ENTRY + 16: 0x23000 for ENTRY in (0x4040, 0x4080)} | {SS1 + RW4: 0, SS2 + 8: 0, 0x11018: 0})
    for offset in (0, size - 1):
        answer, cached, stale = machine.request(slot, iova + offset, "w", privileged=False)
        assert (answer.pa, answer.prot, answer.page_size) == (expected + offset, "rw", size)
        assert (cached, stale) == (True, True)
    for outside in (iova - 1, iova + size):
        assert not hit(machine, slot, outside)[0]


def test_an_entry_that_the_tables_still_hold_is_not_stale() -> None:
    machine = handmade()
    hit(machine, SECOND)
    assert hit(machine, SECOND) == (True, False)
    machine.memory.put({SS1 + RW4: 0x98003})
    assert hit(machine, SECOND) == (True, True)
    machine.memory.put({SS1 + RW4: 0x99001})
    assert hit(machine, SECOND, access="r") == (True, False)
    assert hit(machine, SECOND, access="w") == (True, True)


@pytest.mark.parametrize(
    ("iova", "access", "leaf"), [(PAGE_RW + 0x10000, "r", SS1 + 8 * 0x14), (PAGE_RO, "w", SS1 + 8 * 5)]
)
def test_refusals_are_not_cached(iova: int, access: Access, leaf: int) -> None:
    machine = handmade()
    assert request(machine, SECOND, iova, access) is None
    machine.memory.put({leaf: 0x77003})
    assert request(machine, SECOND, iova, access) == 0x77000


def test_permissions_are_cached_with_the_page() -> None:
    machine = handmade()
    assert request(machine, SECOND, PAGE_RO) == 0x9A000
    assert request(machine, SECOND, PAGE_RO, "w") is None
    assert hit(machine, SECOND, PAGE_RO) == (True, False)
    assert request(machine, NESTED, PAGE_WO, "w") == 0x96000
    assert request(machine, NESTED, PAGE_WO) is None
    assert machine.records()[-1] >> 96 & 0xFF == 0x86


def test_pass_through_is_not_cached() -> None:
    machine = handmade()
    assert hit(machine, THROUGH) == (False, False)
    assert machine.unit.caches()["iotlb"] == 0


def test_the_way_to_the_tables_is_cached() -> None:
    machine = handmade()
    assert request(machine, SECOND) == 0x99000
    machine.memory.put({ENTRY_SECOND: 0x10088, CONTEXT: 0x3008})
    assert machine.request(SECOND, PAGE_RW)[1:] == (True, True)
    assert machine.unit.caches() == {"iotlb": 1, "paging": 3, "pasid": 1, "context": 1}


def test_tags() -> None:
    """The second stage's entries have a DID; those of the first stage have a PASID as well."""
    machine = handmade({0x4140: 0x49, 0x4148: 0x800007, 0x4150: 0x20000})
    assert [hit(machine, slot)[0] for slot in (BY_RID, SECOND)] == [False, True]
    assert [hit(machine, slot)[0] for slot in (FIRST, Slot(FIRST.rid, 0x45))] == [False, False]
    assert machine.unit.caches()["iotlb"] == 3


def test_two_rids_with_one_pasid_alias_under_one_did() -> None:
    """This is what the driver has to prevent: the unit does not tag by RID."""
    words = {0x2040: 0x6009, 0x6008: 0x7001, 0x7040: 0x49, 0x7050: 0x23000, 0x23008: 0x24027}
    for did, pa in ((7, 0x30000), (8, None)):
        machine = handmade(words | {0x7048: 0x800000 | did})
        assert request(machine, FIRST) == 0x30000
        assert request(machine, Slot(Rid(0, 3, 0, 2), 0x41)) == pa


def test_what_the_cache_has_serves_privilege_by_its_rights() -> None:
    machine = handmade({0x4050: 0x20001, FS1 + RW4: 0x30063})
    assert request(machine, FIRST, privileged=True) == 0x30000
    assert request(machine, FIRST) is None
    assert machine.records()[-1] >> 96 & 0xFF == 0x81

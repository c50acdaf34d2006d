# SPDX-License-Identifier: Apache-2.0
"""Where requests go, by tables that were made by hand: the worked walks, permissions, page sizes, both halves."""

import pytest

from iommuctl.model import Rid, Slot
from tests.machine import SparseMemory
from tests.vtd.handmade import (
    BASE,
    BY_RID,
    CONTEXT,
    DIRECTORY_0,
    DIRECTORY_1,
    ENTRY_FIRST,
    ENTRY_NESTED,
    ENTRY_OF_RID,
    FIRST,
    FS4,
    FS_IN_2M,
    FS_PRIVILEGED,
    FS_PRIVILEGED_RO,
    FS_RO,
    IN_1G,
    IN_2M,
    IN_2M_OVER_4K,
    NESTED,
    PAGE_RO,
    PAGE_RW,
    PAGE_WO,
    ROOT,
    SECOND,
    SS1,
    SS2,
    THROUGH,
    UPPER_HALF,
    Ask,
    handmade,
)
from tests.vtd.machine import SCALABLE, Machine

GIB = 1 << 30
RPRIVS = 1 << 53


def walk_machine(words: dict[int, int]) -> Machine:
    """The worked walks have their tables at 0x1000: the way to them lies elsewhere. DID 1, RID 0000:00:01.0."""
    memory = SparseMemory((0, 0x10_0000), (4 * GIB, 0x10_0000))
    memory.put({0x80000: 0x81001, 0x81100: 0x82001, 0x82000: 0x83001} | words)
    machine = Machine(memory)
    machine.switch_on(0x80000 | SCALABLE)
    return machine


def test_walk_a() -> None:
    """A second stage of 4 levels."""
    machine = walk_machine({
        0x83000: 0x1089, 0x83008: 1,
        0x17F0: 0x2003, 0x2240: 0x3003, 0x3D10: 0x4003, 0x4B38: 0xABCDE803,
    })  # fmt: skip
    answer = machine.unit.walk(Slot(Rid(0, 0, 1, 0)), 0x7F1234567ABC, "r", privileged=False)
    assert (answer.pa, answer.page_size, answer.prot, answer.fault) == (0xABCDEABC, 4096, "rw", None)
    assert [(step.structure, step.address, *step.raw) for step in answer.steps] == [
        ("vtd.scalable-root-entry", 0x80000, 0x81001, 0),
        ("vtd.scalable-context-entry", 0x81100, 0x82001, 0, 0, 0),
        ("vtd.pasid-directory-entry", 0x82000, 0x83001),
        ("vtd.pasid-entry", 0x83000, 0x1089, 1, 0, 0, 0, 0, 0, 0),
        ("vtd.second-stage-entry", 0x17F0, 0x2003),
        ("vtd.second-stage-entry", 0x2240, 0x3003),
        ("vtd.second-stage-entry", 0x3D10, 0x4003),
        ("vtd.second-stage-entry", 0x4B38, 0xABCDE803),
    ]
    assert answer.steps[3].fields["SSPTPTR"] == 0x1000


def test_walk_b() -> None:
    """A first stage of 4 levels nested on a second stage of 3 levels that moves all by 4 GiB."""
    high = 4 * GIB
    machine = walk_machine({
        0x83000: 0x10C5, 0x83008: 0x800001, 0x83010: 0x10000,
        0x1000: high | 0x83,
        high + 0x10550: 0x11027, high + 0x11AA0: 0x12027, high + 0x12008: 0x13027, high + 0x13008: 0x7654067,
    })  # fmt: skip
    answer = machine.unit.walk(Slot(Rid(0, 0, 1, 0)), 0x555500201234, "w", privileged=False)
    assert (answer.pa, answer.page_size, answer.prot, answer.fault) == (0x107654234, 4096, "rw", None)
    steps = [(step.structure, step.address) for step in answer.steps[4:]]
    second = ("vtd.second-stage-entry", 0x1000)
    assert steps == [
        second, ("vtd.first-stage-entry", 0x100010550),
        second, ("vtd.first-stage-entry", 0x100011AA0),
        second, ("vtd.first-stage-entry", 0x100012008),
        second, ("vtd.first-stage-entry", 0x100013008),
        second,
    ]  # fmt: skip
    assert steps.count(second) == 5


def test_a_nested_walk_of_four_and_four_levels_reads_24_entries() -> None:
    answer = Ask(NESTED).of(handmade())
    assert answer.pa == 0x98123
    assert len(answer.steps) == 4 + 24


@pytest.mark.parametrize(
    ("slot", "iova", "pa", "size", "prot"),
    [
        (SECOND, PAGE_RW + 0xABC, 0x99ABC, 4096, "rw"),
        (SECOND, PAGE_RO, 0x9A000, 4096, "r"),
        (SECOND, IN_2M + 0x12345, 0x212345, 2 << 20, "rw"),
        (SECOND, IN_1G + 0x12345678, 0x52345678, GIB, "rw"),
        (FIRST, PAGE_RW + 0xABC, 0x30ABC, 4096, "rw"),
        (FIRST, FS_RO, 0x30000, 4096, "r"),
        (FIRST, IN_2M + 0x12345, 0x212345, 2 << 20, "rw"),
        (FIRST, IN_1G + 0x12345678, 0x52345678, GIB, "rw"),
        (FIRST, UPPER_HALF + 0xABC, 0x30ABC, 4096, "rw"),
        (NESTED, PAGE_RW + 0xABC, 0x98ABC, 4096, "rw"),
        (NESTED, PAGE_RO, 0x97000, 4096, "r"),
        (NESTED, FS_RO, 0x98000, 4096, "r"),
        (NESTED, UPPER_HALF + 0xABC, 0x98ABC, 4096, "rw"),
        # The smaller page of both stages.
        (NESTED, IN_2M + 0x12345, 0x612345, 2 << 20, "rw"),
        (NESTED, IN_1G + 0x12345678, 0x92345678, GIB, "rw"),
        (NESTED, IN_2M_OVER_4K + 0x30ABC, 0x98ABC, 4096, "rw"),
        (NESTED, FS_IN_2M + 0xABC, 0x601ABC, 4096, "rw"),
        (THROUGH, 0, 0, 4096, "rw"),
        (THROUGH, (1 << 48) - 1, (1 << 48) - 1, 4096, "rw"),
        (BY_RID, PAGE_RW + 0xABC, 0x99ABC, 4096, "rw"),
    ],
)
def test_where_it_goes(slot: Slot, iova: int, pa: int, size: int, prot: str) -> None:
    answer = Ask(slot, iova).of(handmade())
    assert (answer.pa, answer.page_size, answer.prot, answer.fault) == (pa, size, prot, None)
    assert (answer.slot, answer.iova) == (slot, iova)


@pytest.mark.parametrize("slot", [SECOND, NESTED])
def test_a_page_that_can_only_be_written(slot: Slot) -> None:
    answer = Ask(slot, PAGE_WO, "w").of(handmade())
    assert answer.prot == "w"
    assert answer.pa == {SECOND: 0x9B000, NESTED: 0x96000}[slot]


@pytest.mark.parametrize(("level4", "level1", "prot"), [(3, 1, "r"), (1, 3, "r"), (3, 2, "w"), (2, 3, "w")])
def test_second_stage_permissions_are_those_of_all_levels(level4: int, level1: int, prot: str) -> None:
    machine = handmade({0x10008: 0x11000 | level4, SS1 + 8 * 4: 0x99000 | level1})
    access = "r" if prot == "r" else "w"
    assert Ask(SECOND, PAGE_RW, access).of(machine).prot == prot  # type: ignore[arg-type]


@pytest.mark.parametrize("table", [0x21027 & ~2, 0x21027 & ~4], ids=["RW", "US"])
def test_first_stage_permissions_are_those_of_all_levels(table: int) -> None:
    machine = handmade({FS4: table})
    answer = Ask(FIRST, PAGE_RW, "w").of(machine)
    assert answer.fault
    assert answer.fault.code == (0x81 if table & 2 else 0x85)


SRE, WPE = 1, 0x10


@pytest.mark.parametrize("slot", [FIRST, NESTED])
@pytest.mark.parametrize(
    ("iova", "privileged", "flags", "prot"),
    [
        (PAGE_RW, True, SRE, "rw"),
        (FS_PRIVILEGED, True, SRE, "rw"),
        (FS_PRIVILEGED, True, SRE | WPE, "rw"),
        # Without write protection, privileged writes go to read-only pages.
        (FS_RO, True, SRE, "rw"),
        (FS_PRIVILEGED_RO, True, SRE, "rw"),
        (FS_RO, True, SRE | WPE, "r"),
        (FS_PRIVILEGED_RO, True, SRE | WPE, "r"),
        (FS_RO, False, SRE, "r"),
        (FS_RO, False, WPE, "r"),
    ],
)
def test_privileged_requests(slot: Slot, iova: int, privileged: bool, flags: int, prot: str) -> None:
    entry = {FIRST: ENTRY_FIRST, NESTED: ENTRY_NESTED}[slot]
    answer = Ask(slot, iova, "r", privileged).of(handmade({entry + 16: 0x20000 | flags}))
    assert answer.prot == prot


def test_the_second_stage_binds_privileged_writes() -> None:
    """WPE is the first stage's; no privilege writes to what the second stage has read-only."""
    answer = Ask(NESTED, PAGE_RO, "r", privileged=True).of(handmade({ENTRY_NESTED + 16: 0x20000 | SRE}))
    assert answer.prot == "r"


def test_rid_priv_makes_requests_without_pasid_privileged() -> None:
    first_stage = {ENTRY_OF_RID: 0x49, ENTRY_OF_RID + 8: 0x800007, ENTRY_OF_RID + 16: 0x20000 | SRE}
    changes = {CONTEXT + 8: 1 << 20} | first_stage
    ecap = handmade().unit.read_register("ECAP") | RPRIVS
    assert Ask(BY_RID, FS_PRIVILEGED).of(handmade(changes, ecap=ecap)).prot == "rw"
    changes[CONTEXT + 8] = 0
    answer = Ask(BY_RID, FS_PRIVILEGED, privileged=True).of(handmade(changes, ecap=ecap))
    assert answer.fault
    assert answer.fault.code == 0x81


def test_rid_pasid_counts_where_the_unit_has_rps() -> None:
    changes = {CONTEXT + 8: 0x43}
    assert Ask(BY_RID, 0x5678).of(handmade(changes)).pa == 0x5678
    ecap = handmade().unit.read_register("ECAP") & ~(1 << 49)
    assert Ask(BY_RID, PAGE_RW).of(handmade(ecap=ecap)).pa == 0x99000


def test_each_half_of_a_bus_has_a_table_of_its_own() -> None:
    upper = {ROOT + 8: 0x6001, 0x6000 + 32 * 0x7F: 0x7001, 0x7000: 0x8001, 0x8000: 0x109, 0x8008: 1}
    machine = handmade(upper)
    assert Ask(Slot(Rid(0, 3, 31, 7)), 0x5678).of(machine).pa == 0x5678
    assert Ask(BY_RID).of(machine).pa == 0x99123
    # The half that is not used may hold anything.
    assert Ask(BY_RID).of(handmade({ROOT + 8: (1 << 64) - 1})).pa == 0x99123
    assert Ask(Slot(Rid(0, 3, 31, 7)), 0x5678).of(handmade(upper | {ROOT: (1 << 64) - 2})).pa == 0x5678


def test_the_last_pasid() -> None:
    """PDTS 7: a directory of 16384 entries, 32 pages."""
    words = {
        CONTEXT: 0x40E09,
        0x40000: 0x5001,
        0x40000 + 8 * 0x3FFF: 0x8001,
        0x8000 + 64 * 63: 0x109,
        0x8000 + 64 * 63 + 8: 1,
    }
    machine = handmade(words)
    assert Ask(Slot(BY_RID.rid, 0xFFFFF), 0x5678).of(machine).pa == 0x5678
    assert Ask(BY_RID).of(machine).pa == 0x99123


def test_five_levels() -> None:
    """FSPM 1 and AW 3: the tables of four levels, one level deeper."""
    first = {ENTRY_FIRST + 16: 0x40004, 0x40000 + 8 * 5: 0x20027, 0x40000 + 8 * 0x1FF: 0x20027}
    machine = handmade(first | {ENTRY_OF_RID: 0x4108D, 0x41000 + 8 * 5: 0x10003})
    assert Ask(FIRST, (5 << 48) + PAGE_RW).of(machine).pa == 0x30000
    assert Ask(FIRST, (0xFFFF << 48) + PAGE_RW).of(machine).pa == 0x30000
    assert Ask(BY_RID, (5 << 48) + PAGE_RW).of(machine).pa == 0x99000


def test_bits_that_hardware_ignores() -> None:
    machine = handmade({
        DIRECTORY_0: 0x5001, DIRECTORY_1: 0x4001,
        ENTRY_FIRST + 16: 0x20060,  # NXE and SMEP
        FS4: 0xFFF0_0000_0002_1B27,  # bits 63:52, 11, 9, 8
        0x10008: 0xBFF0_0000_0001_177F,  # bits 63, 61:52, 10, 9, 8, 6 to 2
        SS2 + 8: 0xBFF0_0000_0020_07FF,
    })  # fmt: skip
    assert Ask(FIRST, PAGE_RW).of(machine).pa == 0x30000
    assert Ask(SECOND, PAGE_RW).of(machine).pa == 0x99000
    assert Ask(SECOND, IN_2M).of(machine).pa == 0x200000


@pytest.mark.parametrize("slot", [FIRST, SECOND, NESTED])
def test_a_request_with_pasid_is_translated_in_the_interrupt_range(slot: Slot) -> None:
    answer = Ask(slot, 0xFEE0_0000).of(handmade())
    assert answer.fault
    assert answer.fault.code == (0x79 if slot is SECOND else 0x71)


def test_an_instruction_fetch_is_a_read() -> None:
    assert Ask(FIRST, PAGE_RW, "x").of(handmade()).pa == 0x30000
    assert Ask(SECOND, BASE + 0x5000, "x").of(handmade()).pa == 0x9A000

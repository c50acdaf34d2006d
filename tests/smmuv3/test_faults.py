# SPDX-License-Identifier: Apache-2.0
"""Every event of a request, with its record, and the order in which what is wrong is told: IHI0070 G.b section 7.3."""

import pytest

from iommuctl.model import Access, Fault, Slot
from iommuctl_smmuv3.refused import REASONS
from tests.smmuv3.fault_cases import AT, CASES, ORDER, UPDATES, Case, machine_of, with_bits
from tests.smmuv3.handmade import ABORTED, ABSENT, BOTH, L3, NOWHERE, ONE, ONE_5, PRIV_RO, RO, RW, Ask, handmade, ste
from tests.smmuv3.machine import Words, idr0_with, slot
from tests.smmuv3.test_walk import worked


@pytest.mark.parametrize("name", CASES | UPDATES)
def test_records(name: str) -> None:
    case = (CASES | UPDATES)[name]
    machine = machine_of(case)
    assert case.ask.of(machine) == case.name
    assert machine.records() == ([case.record] if case.record else [])


@pytest.mark.parametrize("name", CASES)
def test_a_walk_says_the_same(name: str) -> None:
    case = CASES[name]
    told = machine_of(case).unit.walk(
        case.ask.slot, case.ask.iova, case.ask.access, privileged=case.ask.privileged, kind=case.ask.kind
    )
    assert told.fault
    assert told.fault.name == case.name


@pytest.mark.parametrize("name", CASES | UPDATES)
def test_a_refused_request_leaves_nothing_behind(name: str) -> None:
    """No bits in the tables, and no translation that a later request could use without them."""
    case = (CASES | UPDATES)[name]
    machine = machine_of(case)
    before = machine.memory.words()
    for _ in range(2):
        assert case.ask.of(machine) == case.name
    records = range(0xE8000, 0xEA000)
    assert {place: word for place, word in machine.memory.words().items() if place not in records} == before
    assert (machine.unit.caches()["tlb"], machine.unit.caches()["walk"]) == (0, 0)


def test_every_event_has_a_case() -> None:
    """But for those of stream tables that have two levels, of requests of other kinds, and of what caches hold."""
    elsewhere = {"F_UUT", "F_STE_FETCH", "F_TRANSL_FORBIDDEN", "F_TLB_CONFLICT", "F_CFG_CONFLICT"}
    assert {case.name for case in CASES.values()} == {reason.name for reason in REASONS.values()} - elsewhere


@pytest.mark.parametrize("name", ORDER)
def test_order(name: str) -> None:
    case: Case = ORDER[name]
    assert case.ask.of(machine_of(case)) == case.name


# Transactions that are not supported: IHI0070 G.b sections 7.3.2 and 16.7.1


@pytest.mark.parametrize(
    ("where", "iova", "access", "privileged", "record"),
    [
        (ONE, RO + 0xFFF, "r", False, (0x08_0000_0001, 0x8_0000_0000, RO + 0xFFF, 0)),
        (ONE_5, RO + 0xFFF, "w", True, (0x08_0000_5801, 0x2_0000_0000, RO + 0xFFF, 0)),
        # Before the stream is looked up.
        (slot(0xFFFF), (1 << 64) - 1, "x", False, (0xFFFF_0000_0001, 0xC_0000_0000, (1 << 64) - 1, 0)),
    ],
)
def test_a_request_for_bytes_of_two_pages(
    where: Slot, iova: int, access: Access, privileged: bool, record: Words
) -> None:
    """A transaction has one translation, so it must not cross 4 KB. Also of a unit that is off."""
    for cr0 in (0xD, 0xC):
        machine = handmade(cr0=cr0)
        answer = machine.unit.request(where, iova, access, privileged=privileged, size=2)
        assert answer.translation.fault
        assert answer.translation.fault.name == "F_UUT"
        assert machine.records() == [record]
        assert machine.unit.caches() == {"tlb": 0, "walk": 0, "ste": 0, "cd": 0}


def test_what_the_ste_overrules_is_not_told() -> None:
    """PRIVCFG and INSTCFG are those of a privileged instruction; the record has what came in."""
    machine = handmade(with_bits(ste(ONE) + 8, 0xF << 48))
    assert machine.goes(ONE, ABSENT) == "F_TRANSLATION"
    assert machine.records() == [(0x08_0000_0010, 0x20E_0000_0000, ABSENT, 0)]
    machine.unit.request(ONE, ABSENT + 0xFFF, "r", privileged=False, size=2)
    assert machine.records() == [(0x08_0000_0001, 0x8_0000_0000, ABSENT + 0xFFF, 0)]


@pytest.mark.parametrize(("iova", "size"), [(RW, 4096), (RW + 0xFFF, 1), (RW + 0x123, 0x1000 - 0x123)])
def test_a_request_for_bytes_of_one_page(iova: int, size: int) -> None:
    machine = handmade()
    assert machine.unit.request(ONE, iova, "r", privileged=False, size=size).translation.pa == 0x30000 + iova - RW
    assert machine.records() == []


def test_requests_of_ats_for_bytes_of_two_pages() -> None:
    """A translated one is aborted, and never told of; a translation request is not about bytes: 3.9.1, 7.3.22."""
    machine = handmade(cr2=1 << 3, cr0=0x1D, idr0=idr0_with(ATSRECERR=1))
    answer = machine.unit.request(ONE, 0x30FFF, "r", privileged=False, kind="translated", size=2)
    assert answer.translation.fault
    assert answer.translation.fault.name == "F_UUT"
    assert machine.unit.request(ONE, RW, "r", privileged=False, kind="translation", size=8192).translation.pa == 0x30000
    assert machine.records() == []


# Stream tables


@pytest.mark.parametrize(
    ("stream", "descriptor", "name", "record"),
    [
        (0x208, NOWHERE | 9, "F_STE_FETCH", (0x208_0000_0003, 0, 0, 0x80_0200)),
        (0x208, 0x40000, "C_BAD_STREAMID", (0x208_0000_0002, 0, 0, 0)),
        (0x208, 0x40000 | 12, "C_BAD_STREAMID", (0x208_0000_0002, 0, 0, 0)),
        (0x208, 0x40000 | 31, "C_BAD_STREAMID", (0x208_0000_0002, 0, 0, 0)),
        # SPLIT is 8: a Span of 9 is the largest, and of 4 leads to eight STEs.
        (0x208, 0x40000 | 10, "C_BAD_STREAMID", (0x208_0000_0002, 0, 0, 0)),
        (0x208, 0x40000 | 4, "C_BAD_STREAMID", (0x208_0000_0002, 0, 0, 0)),
        (0x208, 0x40000 | 5, "C_BAD_STE", (0x208_0000_0004, 0, 0, 0)),
        (0x207, 0x40000 | 4, "C_BAD_STE", (0x207_0000_0004, 0, 0, 0)),
        (0x2FF, 0x40000 | 9, "C_BAD_STE", (0x2FF_0000_0004, 0, 0, 0)),
    ],
)
def test_level_1_descriptors_of_streams(
    stream: int, descriptor: int, name: str, record: tuple[int, int, int, int]
) -> None:
    for recorded in (False, True):
        machine = handmade({0x800 + 8 * 2: descriptor})
        machine.unit.write_register("CR0", 0xC)
        machine.switch_on(0x800, 0x10210 & ~0x3F | 16, cr2=2 if recorded else 0)
        assert machine.goes(slot(stream), 0) == name
        assert machine.records() == ([record] if recorded or name != "C_BAD_STREAMID" else [])


@pytest.mark.parametrize(
    ("base", "config", "address"), [(NOWHERE, 5, 0x80_0200), (NOWHERE, 0x10210, 0x80_0000)], ids=["linear", "2-level"]
)
def test_no_stream_table(base: int, config: int, address: int) -> None:
    machine = handmade()
    machine.unit.write_register("CR0", 0xC)
    machine.switch_on(base, config)
    assert machine.goes(slot(8, 1), 0) == "F_STE_FETCH"
    assert machine.records() == [(0x08_0000_1803, 0, 0, address)]


def test_vectors_of_records() -> None:
    """E1, E2 and E5, of the worked look-up's stream."""
    machine = worked()
    machine.memory.put({0x8_0040_0200: 0})
    assert machine.goes(slot(0x108), 0) == "C_BAD_STE"
    assert machine.records() == [(0x0108_0000_0004, 0, 0, 0)]
    machine = worked()
    machine.memory.put({0x8_8000_0008: 0x8_8002_0001})
    assert machine.goes(slot(0x108, 0x405), 0) == "F_CD_FETCH"
    assert machine.records() == [(0x0108_0040_5809, 0, 0, 0x8_8002_0140)]
    machine = worked()
    machine.memory.put({0x8_8000_0000: 0x8_8001_0001})
    assert machine.goes(slot(0x108, 5), 0xFFFF_F000_1234) == "F_TRANSLATION"
    assert machine.records() == [(0x0108_0000_5810, 0x208_0000_0000, 0xFFFF_F000_1234, 0)]


def test_what_a_fault_says() -> None:
    told = handmade().ask(ONE, RO + 0x10, "w").translation
    assert told.fault == Fault(
        0x13, "F_PERMISSION", "the stage 1 page does not allow unprivileged writes", ONE.rid, None, RO + 0x10, "w"
    )
    assert [step.address for step in told.steps] == [0x1200, 0x3000, 0x20008, 0x21010, 0x22018, 0x23028]


def test_an_abort_says_that_there_is_no_event() -> None:
    machine = handmade()
    told = machine.ask(ABORTED, AT, "r").translation
    assert told.fault
    assert (told.fault.name, told.fault.reason) == ("ABORT", "STE.Config is 0b000, abort, of which no event tells")
    assert machine.records() == []


@pytest.mark.parametrize(
    ("access", "privileged", "words"),
    [("r", False, "unprivileged reads"), ("w", True, "privileged writes"), ("x", True, "privileged execution")],
)
def test_a_fault_says_what_is_not_allowed(access: Access, privileged: bool, words: str) -> None:
    """A page that privileged requests can read, with PXN."""
    machine = handmade({L3 + 8 * 7: 1 << 53 | 0x33F87})
    told = machine.unit.walk(ONE_5, PRIV_RO, access, privileged=privileged)
    assert told.fault
    assert told.fault.reason == f"the stage 1 page does not allow {words}"


def test_the_address_in_a_record_is_whole() -> None:
    """With TBI0 the top byte is ignored, but told."""
    machine = handmade({0x3000: 0x0012_E245_C000_3510})
    assert Ask(ONE, 0xAB << 56 | AT).of(machine) == 0x30123
    assert machine.goes(ONE, 0xAB << 56 | RO, "w") == "F_PERMISSION"
    assert machine.records() == [(0x08_0000_0013, 0x200_0000_0000, 0xAB << 56 | RO, 0)]


def test_the_ipa_in_a_record_is_a_page() -> None:
    machine = handmade({0x23020: 0x31F47})
    assert machine.goes(BOTH, AT, "w") == "F_PERMISSION"
    assert machine.records()[0][2:] == (AT, 0x31000)

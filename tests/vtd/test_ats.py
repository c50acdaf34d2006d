# SPDX-License-Identifier: Apache-2.0
"""Translation requests and translated requests of devices that have a TLB of their own: VT-d 4.1 section 4."""

import pytest

from iommuctl.architecture import Answer
from iommuctl.errors import Unsupported
from iommuctl.model import Access, RequestKind, Slot
from tests.vtd.fault_cases import CAP, CASES, Case, machine_of
from tests.vtd.handmade import (
    BY_RID,
    CONTEXT,
    ENTRY_FIRST,
    ENTRY_NESTED,
    ENTRY_SECOND,
    FIRST,
    FS1,
    FS_PRIVILEGED,
    FS_RO,
    IN_2M,
    NESTED,
    NOWHERE,
    PAGE_RO,
    PAGE_RW,
    PAGE_WO,
    RID,
    SECOND,
    SS1,
    SS2,
    THROUGH,
    UPPER_HALF,
    Ask,
    handmade,
)
from tests.vtd.machine import Machine
from tests.vtd.test_legacy_walk import CASES as LEGACY_CASES
from tests.vtd.test_legacy_walk import made_of

DTE = {CONTEXT: 0x300D}
RW4 = 8 * 4
ESRTPS = 1 << 63
LEGACY = 0x1000


def ats(changes: dict[int, int] | None = None, **options: int) -> Machine:
    """The good tables, of a device that has ATS."""
    return handmade(DTE | (changes or {}), **options)


def answer(machine: Machine, slot: Slot, iova: int, access: Access = "r", kind: RequestKind = "translation") -> Answer:
    return machine.unit.request(slot, iova, access, privileged=False, kind=kind)


# Translation requests


@pytest.mark.parametrize(
    ("slot", "iova", "access", "expected"),
    [
        # What was asked for and no more than that: a read does not give leave to write.
        (SECOND, PAGE_RW, "r", (0x99000, 4096, "r")),
        (SECOND, PAGE_RW, "w", (0x99000, 4096, "rw")),
        (SECOND, PAGE_RO, "r", (0x9A000, 4096, "r")),
        (SECOND, PAGE_WO, "w", (0x9B000, 4096, "w")),
        (SECOND, IN_2M, "r", (0x200000, 2 << 20, "r")),
        (BY_RID, PAGE_RW + 0x123, "w", (0x99123, 4096, "rw")),
        (FIRST, PAGE_RW, "r", (0x30000, 4096, "r")),
        (FIRST, PAGE_RW, "w", (0x30000, 4096, "rw")),
        (FIRST, FS_RO, "r", (0x30000, 4096, "r")),
        (FIRST, UPPER_HALF, "w", (0x30000, 4096, "rw")),
        (NESTED, PAGE_RW, "r", (0x98000, 4096, "r")),
        (NESTED, PAGE_RW, "w", (0x98000, 4096, "rw")),
    ],
)
def test_translation_requests(slot: Slot, iova: int, access: Access, expected: tuple[int, int, str]) -> None:
    machine = ats()
    for expected_hit in (False, True):
        told, hit, stale = machine.request(slot, iova, access, kind="translation")
        assert (told.pa, told.page_size, told.prot, told.fault) == (*expected, None)
        assert (hit, stale) == (expected_hit, False)
    walked = Ask(slot, iova, access, kind="translation").of(machine)
    assert (walked.pa, walked.page_size, walked.prot) == expected


@pytest.mark.parametrize("slot", [BY_RID, FIRST, NESTED, SECOND])
def test_they_share_the_iotlb_with_other_requests(slot: Slot) -> None:
    machine = ats()
    machine.request(slot, PAGE_RW, kind="translation")
    assert machine.request(slot, PAGE_RW)[1]
    other = ats()
    other.request(slot, PAGE_RW)
    told, hit, _ = other.request(slot, PAGE_RW, kind="translation")
    assert (told.prot, hit) == ("r", True)


D, SSD = 0x40, 0x200


@pytest.mark.parametrize(
    ("slot", "changes", "leaf", "bit"),
    [
        (FIRST, {FS1 + RW4: 0x30027}, FS1 + RW4, D),
        (NESTED, {FS1 + RW4: 0x30027}, FS1 + RW4, D),
        (SECOND, {ENTRY_SECOND: 0x10289}, SS1 + RW4, SSD),
    ],
)
def test_who_may_write_makes_dirty(slot: Slot, changes: dict[int, int], leaf: int, bit: int) -> None:
    """The device will not tell when it writes, so the bit is set with the answer; that to a read leaves it."""
    machine = ats(changes)
    assert machine.request(slot, PAGE_RW, "r", kind="translation")[0].prot == "r"
    assert not machine.memory.word(leaf) & bit
    told, hit, _ = machine.request(slot, PAGE_RW, "w", kind="translation")
    assert (told.prot, hit) == ("rw", False)
    assert machine.memory.word(leaf) & bit


@pytest.mark.parametrize(
    ("code", "slot", "iova", "access", "changes"),
    [
        (0x71, FIRST, PAGE_RW, "r", {FS1 + RW4: 0}),
        (0x79, SECOND, PAGE_RW, "w", {SS1 + RW4: 0}),
        (0x79, NESTED, PAGE_RW, "r", {0x16000 + 8 * 0x30: 0}),
        (0x81, FIRST, FS_PRIVILEGED, "r", {}),
        (0x85, FIRST, FS_RO, "w", {}),
        (0x85, SECOND, PAGE_RO, "w", {}),
        (0x86, SECOND, PAGE_WO, "r", {}),
        (0x86, NESTED, PAGE_WO, "r", {}),
    ],
)
def test_faults_that_a_device_may_recover_from(
    code: int, slot: Slot, iova: int, access: Access, changes: dict[int, int]
) -> None:
    """They are answered and not recorded: the device asks for the page and tries again."""
    machine = ats(changes)
    told = answer(machine, slot, iova, access).translation
    assert told.fault
    assert (told.fault.code, told.pa, told.prot, machine.records()) == (code, None, None, [])
    assert machine.unit.read_register("FSTS") == 0
    # Of other requests they are recorded.
    answer(machine, slot, iova, access, "untranslated")
    assert [record >> 96 & 0xFF for record in machine.records()] == [code]


RECOVERABLE = {0x71, 0x79, 0x81, 0x85, 0x86}


BEHIND_THE_CONTEXT_ENTRY = [name for name, case in CASES.items() if case.code >= 0x50 and CONTEXT not in case.changes]


@pytest.mark.parametrize("name", BEHIND_THE_CONTEXT_ENTRY)
def test_other_faults_are_recorded_as_those_of_translation_requests(name: str) -> None:
    case = CASES[name]
    machine = machine_of(case._replace(changes=case.changes | DTE))
    told, _, _ = case.ask._replace(kind="translation").sent_to(machine)
    assert told.fault
    assert told.fault.code == case.code
    if case.code in RECOVERABLE:
        assert machine.records() == []
    else:
        (record,) = machine.records()
        assert (record >> 96 & 0xFF, record >> 124 & 3) == (case.code, 1)


# Translated requests


@pytest.mark.parametrize("slot", [BY_RID, FIRST, THROUGH])
@pytest.mark.parametrize("address", [0, 0x99123, 0xFEDFF000, (1 << 48) - 1])
@pytest.mark.parametrize("access", ["r", "w"])
def test_translated_requests_go_where_they_say(slot: Slot, address: int, access: Access) -> None:
    machine = ats()
    told, hit, stale = machine.request(slot, address, access, kind="translated")
    assert (told.pa, told.fault, hit, stale) == (address, None, False, False)
    assert machine.unit.caches() == {"iotlb": 0, "paging": 0, "pasid": 0, "context": 1}
    walked = Ask(slot, address, access, kind="translated").of(machine)
    assert (walked.pa, walked.fault) == (address, None)


def test_only_the_context_entry_lets_them_in() -> None:
    """What follows from it is not looked at: no directory, no tables."""
    machine = ats({CONTEXT: NOWHERE | 0xD})
    ask = Ask(SECOND, 0x99000, kind="translated")
    for _ in range(2):
        told, _, stale = ask.sent_to(machine)
        assert (told.pa, stale) == (0x99000, False)
        assert [step.structure for step in told.steps][-1] == "vtd.scalable-context-entry"
    assert [step.structure for step in ask.of(machine).steps] == [
        "vtd.scalable-root-entry",
        "vtd.scalable-context-entry",
    ]


def test_the_cached_context_entry_lets_them_in() -> None:
    machine = ats()
    ask = Ask(SECOND, 0x99000, kind="translated")
    ask.sent_to(machine)
    machine.memory.put({CONTEXT: 0x3009})
    told, _, stale = ask.sent_to(machine)
    assert (told.pa, stale) == (0x99000, True)
    recalled = answer(machine, SECOND, 0x99000, kind="translated").recalled
    assert [(entry.cache, entry.steps[-1].structure) for entry in recalled] == [
        ("context", "vtd.scalable-context-entry")
    ]


@pytest.mark.parametrize("kind", ["translation", "translated"])
@pytest.mark.parametrize("slot", [BY_RID, SECOND])
def test_a_device_without_ats(slot: Slot, kind: RequestKind) -> None:
    machine = handmade()
    told = answer(machine, slot, PAGE_RW, "w", kind).translation
    assert told.fault
    assert told.fault.code == 0x44
    (record,) = machine.records()
    pasid = 0 if slot.pasid is None else 1 << 31 | slot.pasid << 40
    address_type = {"translation": 1, "translated": 2}[kind]
    assert record == (1 << 63 | address_type << 60 | pasid | 0x44 << 32 | 0x301) << 64 | PAGE_RW


@pytest.mark.parametrize(
    "case", [case for case in LEGACY_CASES if case.ask.kind != "untranslated"], ids=lambda case: f"{case.code:02x}"
)
def test_legacy_records_tell_the_kind(case: Case) -> None:
    machine = made_of(case)
    case.ask.sent_to(machine)
    (record,) = machine.records()
    assert record >> 124 & 3 == (1 if case.ask.kind == "translation" else 2)


# Interrupts


def test_requests_with_ats_are_no_interrupts() -> None:
    """Only untranslated requests without PASID are; a translation that ends there is refused."""
    machine = ats({SS1 + RW4: 0xFEE00003, ENTRY_FIRST + 8: 0x800007})
    with pytest.raises(Unsupported):
        answer(machine, BY_RID, 0xFEE00000, kind="untranslated")
    told = answer(machine, BY_RID, 0xFEE00000).translation
    assert told.fault
    assert told.fault.code == 0x79
    told = answer(machine, BY_RID, PAGE_RW).translation
    assert told.fault
    assert told.fault.code == 0x87
    assert [record >> 96 & 0xFF for record in machine.records()] == [0x87]


def test_an_address_in_the_interrupt_range_is_translated_like_any_other() -> None:
    mapped = {0x10000: 0x14003, 0x14000 + 8 * 3: 0x17003, 0x17000 + 8 * 0x1F7: 0x200083}
    assert answer(ats(mapped), BY_RID, 0xFEE00000).translation.pa == 0x200000
    assert answer(ats(mapped), SECOND, 0xFEE12345, kind="untranslated").translation.pa == 0x212345


# Modes


@pytest.mark.parametrize("kind", ["untranslated", "translation", "translated"])
def test_what_one_mode_cached_is_nothing_to_another(kind: RequestKind) -> None:
    """On a unit that flushes nothing by itself, whatever software forgets."""
    legacy = {0x2010: 0x10005, 0x2018: 0x4202}
    machine = ats(legacy, cap=CAP & ~ESRTPS)
    slot = Slot(RID)
    for rtaddr in (LEGACY, 0x1400, LEGACY, 0x1800, 0x1C00, 0x1400):
        answer(machine, slot, PAGE_RW, kind=kind)
        machine.switch_on(rtaddr)
        told = answer(machine, slot, PAGE_RW, kind=kind).translation
        assert bool(told.fault) == (rtaddr in (0x1800, 0x1C00))
        if rtaddr in (LEGACY, 0x1400):
            assert told.pa == (PAGE_RW if kind == "translated" else 0x99000)


def test_both_stages_decide() -> None:
    """A page that one stage lets the device only read is answered so, whatever the other allows."""
    for changes in ({FS1 + RW4: 0x30065}, {0x16000 + 8 * 0x30: 0x98001}, {SS2: 0x13003, ENTRY_NESTED: 0x100C9}):
        told = answer(ats(changes), NESTED, PAGE_RW).translation
        assert (told.pa, told.prot) == (0x98000, "r")

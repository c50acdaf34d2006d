# SPDX-License-Identifier: Apache-2.0
"""Translation requests and translated requests of devices with a TLB of their own: IHI0070 G.b section 3.9."""

import pytest

from iommuctl.model import Access, Slot
from tests.smmuv3.fault_cases import AT, CASES, MPAM, NO_VMS, UPDATES, machine_of, with_bits
from tests.smmuv3.handmade import (
    ABORTED,
    ABSENT,
    BOTH,
    CD_0,
    CLEAN,
    I3,
    IN_2M,
    NOWHERE,
    OLD,
    ONE,
    ONE_5,
    RO,
    RW,
    THROUGH,
    TWO,
    UNUSED,
    Ask,
    handmade,
    ste,
)
from tests.smmuv3.machine import Machine, Words, idr0_with, slot

CHECKED, UNCHECKED = 0x1D, 0xD
"""CR0 with ATSCHK, without."""
REC_CFG_ATS, RECINVSID = 1 << 3, 1 << 1
EATS = 3 << 28
TRANSLATED = 0x5678
FORBIDDEN = "F_TRANSL_FORBIDDEN"


def told(machine: Machine, where: Slot, iova: int, access: Access = "r") -> tuple[int, int, str] | str:
    """What a translation request is answered: place, size and rights, or the name of what came in between."""
    answer = machine.ask(where, iova, access, kind="translation").translation
    if answer.fault:
        return answer.fault.name
    return answer.pa or 0, answer.page_size or 0, answer.prot or ""


@pytest.mark.parametrize(
    ("where", "iova", "access", "expected"),
    [
        (ONE, RW, "r", (0x30000, 4096, "rwx")),
        (ONE_5, RW + 0x123, "w", (0x30123, 4096, "rwx")),
        (ONE, RO, "r", (0x31000, 4096, "rx")),
        (ONE, IN_2M + 5, "r", (0x20_0005, 1 << 21, "rwx")),
        (TWO, 0x31000, "r", (0x99000, 4096, "rx")),
        (TWO, 0x38000, "w", (0x9F000, 4096, "wx")),
        # Nested: physical addresses, and what both stages allow.
        (BOTH, RW, "w", (0x98000, 4096, "rwx")),
        (BOTH, RO, "r", (0x99000, 4096, "rx")),
    ],
)
def test_translation_requests(where: Slot, iova: int, access: Access, expected: tuple[int, int, str]) -> None:
    machine = handmade()
    for _ in range(2):
        assert told(machine, where, iova, access) == expected
    assert machine.records() == []


def test_leave_to_write_makes_dirty() -> None:
    """A device that may write does not ask again, so it may not until the page is dirty."""
    machine = handmade(with_bits(CD_0, 3 << 42))
    assert told(machine, ONE, CLEAN) == (0x36000, 4096, "rx")
    assert machine.memory.writes == []
    assert told(machine, ONE, CLEAN, "w") == (0x36000, 4096, "rwx")
    assert machine.memory.word(0x23050) == 0x0008_0000_0003_6F47
    assert told(machine, ONE, CLEAN) == (0x36000, 4096, "rwx")


@pytest.mark.parametrize(
    ("where", "iova", "access", "name"),
    [
        (ONE, ABSENT, "r", "F_TRANSLATION"),
        (ONE, OLD, "r", "F_ACCESS"),
        (ONE, RO, "w", "F_PERMISSION"),
        (ONE, 1 << 48, "r", "F_TRANSLATION"),
        (TWO, 0x39000, "r", "F_TRANSLATION"),
        (TWO, 1 << 48, "r", "F_ADDR_SIZE"),
    ],
)
def test_faults_are_answered_and_not_recorded(where: Slot, iova: int, access: Access, name: str) -> None:
    """Whatever the CD says of recording and stalling, and CR2."""
    stalling = with_bits(CD_0, 1 << 44) | with_bits(ste(ONE) + 8, 1 << 28)
    for changes, idr0 in (({}, idr0_with(ATSRECERR=1)), (stalling, idr0_with(STALL_MODEL=0, ATSRECERR=1))):
        machine = handmade(changes, cr2=REC_CFG_ATS, idr0=idr0)
        assert told(machine, where, iova, access) == name
        assert machine.records() == []
        assert machine.rows.count("smmuv3.stalled") == 0


CONFIGURATION: dict[str, tuple[Slot, dict[int, int], str, Words]] = {
    "VMS": (BOTH, NO_VMS, "F_VMS_FETCH", (0x0A_0000_0025, 0, 0, NOWHERE)),
    "stream": (slot(32), {}, "C_BAD_STREAMID", (0x20_0000_0002, 0, 0, 0)),
    "STE": (UNUSED, {}, "C_BAD_STE", (0x0E_0000_0004, 0, 0, 0)),
    "substream": (slot(8, 8), {}, "C_BAD_SUBSTREAMID", (0x08_0000_8008, 0, 0, 0)),
    "disabled": (ONE, with_bits(ste(ONE) + 8, 0, 3), "F_STREAM_DISABLED", (0x08_0000_0006, 0, 0, 0)),
    "CD": (ONE, {CD_0: 0}, "C_BAD_CD", (0x08_0000_000A, 0, 0, 0)),
    "CD fetch": (ONE, {ste(ONE): 0x1800_0000_0080_000B}, "F_CD_FETCH", (0x08_0000_0009, 0, 0, NOWHERE)),
    "walk": (
        ONE,
        {CD_0 + 8: NOWHERE},
        "F_WALK_EABT",
        (0x08_0000_000B, 0x108_0000_0000, AT, NOWHERE + 8),
    ),
}


@pytest.mark.parametrize("name", CONFIGURATION)
def test_configuration_errors_are_recorded_if_wanted(name: str) -> None:
    """REC_CFG_ATS, where the unit has it. C_BAD_STREAMID needs RECINVSID, too."""
    where, changes, event, record = CONFIGURATION[name]
    able, unable = idr0_with(ATSRECERR=1), idr0_with(ATSRECERR=0)
    for idr0, cr2, recorded in (
        (able, REC_CFG_ATS | RECINVSID, True),
        (able, REC_CFG_ATS, event != "C_BAD_STREAMID"),
        (able, RECINVSID, False),
        (unable, REC_CFG_ATS | RECINVSID, False),
    ):
        machine = handmade(changes, cr2=cr2, idr0=idr0, **MPAM)
        assert told(machine, where, AT) == event
        assert machine.records() == ([record] if recorded else [])


@pytest.mark.parametrize("name", CASES | UPDATES)
def test_what_is_refused_to_a_request_is_refused_to_its_translation(name: str) -> None:
    case = (CASES | UPDATES)[name]
    bypassed = case.ask.slot == THROUGH or (case.ask.slot.rid == THROUGH.rid)
    machine = machine_of(case)
    answer = machine.ask(
        case.ask.slot, case.ask.iova, case.ask.access, privileged=case.ask.privileged, kind="translation"
    )
    assert answer.translation.fault
    assert answer.translation.fault.name == ("F_BAD_ATS_TREQ" if bypassed else case.name)


@pytest.mark.parametrize(
    ("where", "eats", "ats", "allowed"),
    [
        (ONE, 0, 1, False),
        (ONE, 1, 1, True),
        # Of a device permission table, which the unit lacks.
        (ONE, 3, 1, False),
        (ONE, 1, 0, False),
        (TWO, 1, 1, True),
        (BOTH, 0, 1, False),
        (THROUGH, 1, 1, False),
    ],
)
def test_who_has_ats(where: Slot, eats: int, ats: int, allowed: bool) -> None:
    iova = 0x30123 if where == TWO else AT
    changes = with_bits(ste(where) + 8, eats << 28, EATS)
    machine = handmade(changes, cr0=CHECKED, idr0=idr0_with(ATS=ats))
    assert (told(machine, where, iova) == "F_BAD_ATS_TREQ") != allowed
    expected = (where.rid.source_id << 32 | 5, 0, iova, 0)
    assert machine.records() == ([] if allowed else [expected])
    assert (Ask(where, TRANSLATED, kind="translated").of(machine) == FORBIDDEN) != allowed
    assert len(machine.records()) == (not allowed)


@pytest.mark.parametrize(("cr0", "refused"), [(UNCHECKED, False), (CHECKED, True)])
@pytest.mark.parametrize(
    ("where", "name"),
    [(THROUGH, FORBIDDEN), (ABORTED, "ABORT"), (UNUSED, "C_BAD_STE"), (slot(32), "C_BAD_STREAMID")],
)
def test_translated_requests_are_checked(where: Slot, name: str, cr0: int, refused: bool) -> None:
    """With ATSCHK alone; otherwise they pass, whatever the STE."""
    machine = handmade(cr0=cr0, cr2=RECINVSID)
    assert Ask(where, TRANSLATED, kind="translated").of(machine) == (name if refused else TRANSLATED)
    expected = (0x0B_0000_0007, 0x8_0000_0000, TRANSLATED, 0)
    assert machine.records() == ([expected] if refused and name == FORBIDDEN else [])
    machine = handmade(cr0=cr0, cr2=RECINVSID | REC_CFG_ATS, idr0=idr0_with(ATSRECERR=1))
    Ask(where, TRANSLATED, kind="translated").of(machine)
    assert len(machine.records()) == (refused and name != "ABORT")


@pytest.mark.parametrize("where", [ONE, ONE_5, TWO, BOTH])
def test_translated_requests_pass(where: Slot) -> None:
    """Without any table: the address is physical."""
    machine = handmade({CD_0: 0, I3: 0}, cr0=CHECKED)
    for access in ("r", "w"):
        assert Ask(where, TRANSLATED, access, kind="translated").of(machine) == TRANSLATED
    assert Ask(where, 1 << 48, kind="translated").of(machine) == "ABORT"
    assert machine.records() == []
    assert [step.structure for step in machine.ask(where, TRANSLATED, kind="translated").translation.steps] == [
        "smmuv3.ste"
    ]


def test_a_unit_that_is_off() -> None:
    machine = handmade(cr0=0xC)
    assert told(machine, ONE, RW) == "F_BAD_ATS_TREQ"
    assert Ask(ONE, TRANSLATED, kind="translated").of(machine) == FORBIDDEN
    assert machine.records() == [(0x08_0000_0005, 0, RW, 0), (0x08_0000_0007, 0x8_0000_0000, TRANSLATED, 0)]


def test_s1dss_bypass() -> None:
    """Requests without PASID skip stage 1, and there is no stage 2: addresses are answered as they are."""
    machine = handmade(with_bits(ste(ONE) + 8, 1, 3))
    assert told(machine, ONE, 0x1234) == (0x1234, 4096, "rwx")
    assert told(machine, BOTH, RW) == (0x98000, 4096, "rwx")


def test_aborted() -> None:
    """Silently: of translation requests, too."""
    machine = handmade(cr2=REC_CFG_ATS, idr0=idr0_with(ATSRECERR=1))
    assert told(machine, ABORTED, RW) == "ABORT"
    assert machine.records() == []


def test_the_caches_are_those_of_all_requests() -> None:
    """A translation request fills the TLB, so an invalidation of devices comes after that of the unit."""
    machine = handmade()
    assert told(machine, ONE, RW) == (0x30000, 4096, "rwx")
    machine.memory.put({0x23020: 0x3FF47})
    assert told(machine, ONE, RW) == (0x30000, 4096, "rwx")
    assert machine.ask(ONE, RW).hit

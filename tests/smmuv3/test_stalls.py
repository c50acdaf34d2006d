# SPDX-License-Identifier: Apache-2.0
"""What CD.{A,R,S} and STE.{S2R,S2S} make of faults, and stalled transactions: IHI0070 G.b sections 3.12 and 5.5."""

import pytest

from iommuctl_smmuv3 import event_queue
from iommuctl_smmuv3.event_queue import STALLED
from tests.smmuv3.fault_cases import with_bits
from tests.smmuv3.handmade import ABSENT, BOTH, CD_0, I3, ONE, RO, RW, TWO, handmade, ste
from tests.smmuv3.machine import Machine, idr0_with

S, R, A = 1 << 44, 1 << 45, 1 << 46
S2S, S2R = 1 << 57, 1 << 58
NO_ATS = {ste(where) + 8: 0x1000_0000_00D6 for where in (ONE, TWO, BOTH)}
STALLS = idr0_with(STALL_MODEL=0, TERM_MODEL=0)
RECORD = (0x08_0000_0010, 0x208_0000_0000, ABSENT, 0)


def stalled(stag: int, iova: int = ABSENT) -> tuple[int, int, int, int]:
    """The record of a read of the first stream that stage 1 does not translate, and that waits."""
    return (0x08_0000_0010, 0x208_8000_0000 | stag, iova, 0)


def model(changes: dict[int, int] | None = None) -> Machine:
    """A unit that leaves it to software whether faults stall."""
    return handmade(NO_ATS | (changes or {}), idr0=STALLS)


def stalling() -> Machine:
    """Its first stream's faults of stage 1 stall."""
    return model(with_bits(CD_0, S))


def resume(stag: int, stream: int = 8, how: int = 1) -> tuple[int, int]:
    return (stream << 32 | how << 12 | 0x44, stag)


def waiting(machine: Machine) -> list[str]:
    return [key for key, _ in machine.rows.scan(STALLED)]


@pytest.mark.parametrize("ars", range(8))
def test_stage_1(ars: int) -> None:
    bits = A * (ars >> 2) | R * (ars >> 1 & 1) | S * (ars & 1)
    machine = model(with_bits(CD_0, bits, A | R | S))
    assert machine.goes(ONE, ABSENT) == "F_TRANSLATION"
    expected = [stalled(0)] if bits & S else [RECORD] if bits & R else []
    assert machine.records() == expected
    assert waiting(machine) == (["0000"] if bits & S else [])


@pytest.mark.parametrize("rs", range(4))
def test_stage_2(rs: int) -> None:
    bits = S2R * (rs >> 1) | S2S * (rs & 1)
    machine = model(with_bits(ste(TWO) + 16, bits, S2R | S2S))
    assert machine.goes(TWO, 0x39000) == "F_TRANSLATION"
    first, second = 0x09_0000_0010, 0x288_0000_0000
    record = (first, second | (0x8000_0000 if bits & S2S else 0), 0x39000, 0x39000)
    assert machine.records() == ([record] if bits else [])


@pytest.mark.parametrize("stage", [1, 2])
def test_the_stage_that_faults_decides(stage: int) -> None:
    """Nested, one stage records and the other one does not."""
    quiet = with_bits(CD_0, 0, R) if stage == 2 else with_bits(ste(BOTH) + 16, 0, S2R)
    assert model(quiet | {I3 + 8 * 0x30: 0}).goes(BOTH, RW) == "F_TRANSLATION"
    for iova, changes, of_stage in ((ABSENT, {}, 1), (RW, {I3 + 8 * 0x30: 0}, 2), (RW, {I3 + 8 * 3: 0}, 2)):
        machine = model(quiet | changes)
        machine.goes(BOTH, iova)
        assert len(machine.records()) == (of_stage == stage)


@pytest.mark.parametrize(
    ("changes", "iova", "name"),
    [
        ({CD_0: 0}, RW, "C_BAD_CD"),
        ({ste(ONE): 0}, RW, "C_BAD_STE"),
        ({CD_0 + 8: 0x80_0000}, RW, "F_WALK_EABT"),
        (with_bits(ste(ONE) + 8, 1, 3), 1 << 48, "F_ADDR_SIZE"),
    ],
)
def test_others_neither_stall_nor_are_kept_back(changes: dict[int, int], iova: int, name: str) -> None:
    """Whatever the CD says: it is about what its tables say."""
    for bits in (S | A, A):
        machine = model(with_bits(CD_0, bits, A | R | S) | changes)
        assert machine.goes(ONE, iova) == name
        assert [record[1] >> 31 & 1 for record in machine.records()] == [0]
        assert waiting(machine) == []


def test_a_stalled_record() -> None:
    """E4, but for the stream, the tag and privilege: F_PERMISSION of a write."""
    machine = stalling()
    assert machine.goes(ONE, RO, "w") == "F_PERMISSION"
    assert machine.records() == [(0x08_0000_0013, 0x200_8000_0000, RO, 0)]


def test_tags() -> None:
    """Each stalled transaction has its own, until it is answered; also one that was told long ago."""
    machine = stalling()
    for _ in range(3):
        machine.goes(ONE, ABSENT)
    assert machine.records() == [stalled(0), stalled(1), stalled(2)]
    assert machine.send(resume(1)) == 0
    assert waiting(machine) == ["0000", "0002"]
    machine.goes(ONE, ABSENT)
    assert machine.records() == [stalled(1)]


@pytest.mark.parametrize("how", [0, 1, 2, 3])
def test_resume(how: int) -> None:
    """Retry and both ways to end: the tag is free. A retry finds the tables as they are then."""
    machine = stalling()
    machine.goes(ONE, ABSENT)
    machine.memory.put({0x23058: 0x30F47})
    assert machine.send(resume(0, how=how)) == 0
    assert waiting(machine) == []
    assert machine.goes(ONE, ABSENT) == 0x30000


@pytest.mark.parametrize(("stag", "stream"), [(1, 8), (0, 9), (0xFFFF, 8), (0, 0xFFFF_FFFF)])
def test_an_answer_to_nothing(stag: int, stream: int) -> None:
    """A tag that is not in use, or that of another stream: no effect, and no error."""
    machine = stalling()
    machine.goes(ONE, ABSENT)
    assert machine.send(resume(stag, stream)) == 0
    assert waiting(machine) == ["0000"]


def test_stall_term() -> None:
    """All of a stream, and of no other."""
    machine = model(with_bits(CD_0, S) | with_bits(ste(TWO) + 16, S2S))
    for where, iova in ((ONE, ABSENT), (TWO, 0x39000), (ONE, RO)):
        machine.goes(where, iova, "w")
    assert waiting(machine) == ["0000", "0001", "0002"]
    assert machine.send((8 << 32 | 0x45,)) == 0
    assert waiting(machine) == ["0001"]


def test_switching_off_ends_stalls() -> None:
    machine = stalling()
    machine.goes(ONE, ABSENT)
    machine.unit.write_register("CR0", 0xC)
    assert waiting(machine) == []


def full(machine: Machine) -> Machine:
    """Its queue of two records has no room."""
    machine.unit.write_register("CR0", 9)
    machine.unit.write_register("EVENTQ_BASE", 0xE8001)
    machine.unit.write_register("CR0", 0xD)
    for _ in range(2):
        machine.goes(TWO, 0x39000)
    return machine


def test_a_stall_that_finds_the_queue_full() -> None:
    """It is told when there is room, and nothing was lost meanwhile."""
    machine = full(stalling())
    machine.goes(ONE, ABSENT)
    machine.goes(ONE, ABSENT + 8)
    assert machine.get("EVENTQ_PROD") == 2
    assert waiting(machine) == ["0000", "0001"]
    machine.unit.write_register("EVENTQ_CONS", 1)
    assert machine.get("EVENTQ_PROD") == 3
    assert machine.memory.word(0xE8008) == 0x208_8000_0000
    machine.unit.write_register("EVENTQ_CONS", 2)
    assert machine.get("EVENTQ_PROD") == 0
    assert (machine.memory.word(0xE8028), machine.memory.word(0xE8030)) == (0x208_8000_0001, ABSENT + 8)
    # Each was told once.
    machine.unit.write_register("EVENTQ_CONS", 0)
    assert machine.get("EVENTQ_PROD") == 0
    assert waiting(machine) == ["0000", "0001"]


def test_a_stall_that_was_answered_before_it_was_told() -> None:
    machine = full(stalling())
    machine.goes(ONE, ABSENT)
    assert machine.send((8 << 32 | 0x45,)) == 0
    machine.unit.write_register("EVENTQ_CONS", 2)
    assert machine.get("EVENTQ_PROD") == 2


def test_a_stall_that_finds_the_queue_off() -> None:
    machine = stalling()
    machine.unit.write_register("CR0", 9)
    machine.goes(ONE, ABSENT)
    assert machine.records() == []
    machine.unit.write_register("CR0", 0xD)
    assert machine.records() == [stalled(0)]


def test_a_stall_that_finds_no_memory() -> None:
    """It is told once the error is acknowledged, and the queue is somewhere."""
    machine = stalling()
    machine.memory.read_only = (0xE8000, 0x1000)
    machine.goes(ONE, ABSENT)
    assert (machine.get("GERROR"), machine.get("EVENTQ_PROD")) == (4, 0)
    machine.memory.read_only = (0, 0)
    machine.unit.write_register("GERRORN", 4)
    assert machine.records() == [stalled(0)]


def test_more_stalls_than_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit holds the transaction back: it is not told of."""
    monkeypatch.setattr(event_queue, "_STAGS", 3)
    machine = stalling()
    for _ in range(4):
        assert machine.goes(ONE, ABSENT) == "F_TRANSLATION"
    assert machine.records() == [stalled(0), stalled(1), stalled(2)]
    machine.send(resume(1))
    machine.goes(ONE, ABSENT)
    assert machine.records() == [stalled(1)]


def test_structures_that_the_unit_cannot_follow() -> None:
    """A unit that cannot stall, one that always does, one that always aborts; an STE that forbids it."""
    assert handmade(with_bits(CD_0, S)).goes(ONE, RW) == "C_BAD_CD"
    assert handmade(idr0=idr0_with(STALL_MODEL=2)).goes(ONE, RW) == "C_BAD_CD"
    assert handmade(with_bits(CD_0, 0, A)).goes(ONE, RW) == "C_BAD_CD"
    assert model(with_bits(CD_0, S) | with_bits(ste(ONE) + 8, 1 << 27)).goes(ONE, RW) == "C_BAD_CD"
    assert model(with_bits(ste(ONE) + 8, 1 << 27)).goes(ONE, RW) == 0x30000

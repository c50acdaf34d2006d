# SPDX-License-Identifier: Apache-2.0
"""Updates of descriptors by the unit, HTTU: accessed flags and dirty state of both stages. IHI0070 G.b section 3.13."""

import pytest

from iommuctl.model import Access
from tests.smmuv3.fault_cases import with_bits
from tests.smmuv3.handmade import BOTH, CD_0, CLEAN, I3, L3, OLD, ONE, RW, TWO, handmade, ste
from tests.smmuv3.machine import Machine, slot

HD, HA, AFFD = 1 << 42, 1 << 43, 1 << 35
S2AFFD, S2HD, S2HA = 1 << 53, 1 << 55, 1 << 56
AF, RO, DBM = 1 << 10, 1 << 7, 1 << 51
S2_WRITE = 1 << 7
OLD_PAGE, CLEAN_PAGE = L3 + 8 * 9, L3 + 8 * 10
IPA = I3 + 8 * 0x30


def cd(bits: int) -> dict[int, int]:
    return with_bits(CD_0, bits)


def writes(machine: Machine) -> list[tuple[int, int]]:
    """The words that the unit has written, but for its records; and forget them."""
    done = [(place, int.from_bytes(data, "little")) for place, data in machine.memory.writes if place < 0xE0000]
    machine.memory.writes.clear()
    return done


@pytest.mark.parametrize(
    ("bits", "expected", "written"),
    [
        (0, "F_ACCESS", None),
        (HD, "F_ACCESS", None),
        (AFFD, 0x35000, None),
        (HA, 0x35000, 0x35F47),
        # With HA, AFFD does not count.
        (HA | AFFD, 0x35000, 0x35F47),
        (HA | HD, 0x35000, 0x35F47),
    ],
)
@pytest.mark.parametrize("access", ["r", "w", "x"])
def test_accessed_flag_of_stage_1(bits: int, expected: int | str, written: int | None, access: Access) -> None:
    machine = handmade(cd(bits))
    assert machine.goes(ONE, OLD, access) == expected
    assert writes(machine) == ([(OLD_PAGE, written)] if written else [])
    # It is set once.
    assert machine.goes(ONE, OLD, access) == expected
    assert writes(machine) == []


@pytest.mark.parametrize(
    ("bits", "access", "expected", "written"),
    [
        # DBM, and AP[2], which a write clears.
        (HA | HD, "r", 0x36000, None),
        (HA | HD, "x", 0x36000, None),
        (HA | HD, "w", 0x36000, 0x0008_0000_0003_6F47),
        # HD needs HA.
        (HA, "w", "F_PERMISSION", None),
        (HD, "w", "F_PERMISSION", None),
        (0, "w", "F_PERMISSION", None),
    ],
)
def test_dirty_state_of_stage_1(bits: int, access: Access, expected: int | str, written: int | None) -> None:
    machine = handmade(cd(bits))
    assert machine.goes(ONE, CLEAN, access) == expected
    assert writes(machine) == ([(CLEAN_PAGE, written)] if written else [])


def test_a_cached_page_that_was_not_written_becomes_dirty() -> None:
    machine = handmade(cd(HA | HD))
    assert machine.goes(ONE, CLEAN, "r") == 0x36000
    assert machine.ask(ONE, CLEAN, "r").hit
    assert not machine.ask(ONE, CLEAN, "w").hit
    assert writes(machine) == [(CLEAN_PAGE, 0x0008_0000_0003_6F47)]
    assert machine.ask(ONE, CLEAN, "w").hit
    assert writes(machine) == []


def test_both_at_once() -> None:
    """A page that is neither accessed nor dirty is written."""
    machine = handmade(cd(HA | HD) | {CLEAN_PAGE: DBM | 0x36BC7})
    assert machine.goes(ONE, CLEAN, "w") == 0x36000
    assert writes(machine) == [(CLEAN_PAGE, DBM | 0x36F47)]


@pytest.mark.parametrize("table", [1 << 62, 1 << 62 | 1 << 61])
def test_a_table_that_takes_writing_away_wins(table: int) -> None:
    machine = handmade(cd(HA | HD) | with_bits(0x22018, table))
    assert machine.goes(ONE, CLEAN, "w") == "F_PERMISSION"
    assert writes(machine) == []


def test_blocks_are_updated_too() -> None:
    machine = handmade(cd(HA | HD) | {0x22020: DBM | 0x20_0BC5})
    assert machine.goes(ONE, 1 << 39 | 2 << 30 | 4 << 21, "w") == 0x20_0000
    assert writes(machine) == [(0x22020, DBM | 0x20_0F45)]


@pytest.mark.parametrize(
    ("bits", "page", "access", "expected", "written"),
    [
        (0, 0x983FF, "r", "F_ACCESS", None),
        (S2HD, 0x983FF, "r", "F_ACCESS", None),
        (S2AFFD, 0x983FF, "r", 0x98000, None),
        (S2HA, 0x983FF, "r", 0x98000, 0x987FF),
        (S2HA | S2AFFD, 0x983FF, "r", 0x98000, 0x987FF),
        (S2HA | S2HD, DBM | 0x9877F, "r", 0x98000, None),
        (S2HA | S2HD, DBM | 0x9877F, "w", 0x98000, DBM | 0x987FF),
        (S2HA | S2HD, DBM | 0x9837F, "w", 0x98000, DBM | 0x987FF),
        (S2HA | S2HD, 0x9877F, "w", "F_PERMISSION", None),
        (S2HA, DBM | 0x9877F, "w", "F_PERMISSION", None),
        (S2HD, DBM | 0x9877F, "w", "F_PERMISSION", None),
        # Writable and not readable.
        (S2HA | S2HD, DBM | 0x9873F, "r", "F_PERMISSION", None),
        (S2HA | S2HD, DBM | 0x9873F, "w", 0x98000, DBM | 0x987BF),
    ],
)
def test_stage_2(bits: int, page: int, access: Access, expected: int | str, written: int | None) -> None:
    machine = handmade(with_bits(ste(TWO) + 16, bits) | {IPA: page})
    assert machine.goes(TWO, 0x30000, access) == expected
    assert writes(machine) == ([(IPA, written)] if written else [])
    if expected != "F_PERMISSION":
        assert machine.goes(TWO, 0x30000, access) == expected
        assert writes(machine) == []


def nested(bits: int, two: int, changes: dict[int, int]) -> Machine:
    """The nested stream with bits of its CD, bits of its STE, and words changed."""
    return handmade(cd(bits) | with_bits(ste(BOTH) + 16, two) | changes)


def test_an_update_of_stage_1_needs_leave_to_write() -> None:
    """At its place, of stage 2. TTRnW is 0: the access to the table that was not allowed is a write."""
    for access, second in (("r", 0x188_0000_0000), ("w", 0x180_0000_0000)):
        machine = nested(HA, 0, {I3 + 8 * 0x23: 0x2377F})
        assert machine.goes(BOTH, OLD, "r" if access == "r" else "w") == "F_PERMISSION"
        assert machine.records() == [(0x0A_0000_0013, second, OLD, 0x23000)]
        assert writes(machine) == []
        # No update, no write.
        assert machine.goes(BOTH, RW, "r" if access == "r" else "w") == 0x98000


def test_an_update_of_stage_1_makes_its_page_dirty() -> None:
    """The table's page is writable-clean in stage 2: first that is updated, then the descriptor of stage 1."""
    machine = nested(HA, S2HA | S2HD, {I3 + 8 * 0x23: DBM | 0x2377F})
    assert machine.goes(BOTH, OLD) == 0x9D000
    assert writes(machine) == [(I3 + 8 * 0x23, DBM | 0x237FF), (OLD_PAGE, 0x35F47)]


def test_an_update_is_no_step_of_its_own() -> None:
    """What led to the descriptor is shown when it is read, and not again when it is written."""
    machine = nested(HA, 0, {})
    walked = machine.unit.walk(BOTH, OLD, "r", privileged=False)
    for told in (walked, machine.ask(BOTH, OLD).translation):
        assert [step.address for step in told.steps][-6:] == [
            I3 + 8 * 0x23, OLD_PAGE, 0x10000, 0x14000, 0x15000, I3 + 8 * 0x35,
        ]  # fmt: skip


def test_a_table_that_is_read_is_accessed() -> None:
    """And a CD; but they do not become dirty."""
    changes = {I3 + 8 * 3: 0x33FF, I3 + 8 * 0x21: DBM | 0x2137F, I3 + 8 * 0x30: 0x983FF}
    machine = nested(0, S2HA | S2HD, changes)
    assert machine.goes(BOTH, RW, "w") == 0x98000
    expected = [(I3 + 8 * 3, 0x37FF), (I3 + 8 * 0x21, DBM | 0x2177F), (I3 + 8 * 0x30, 0x987FF)]
    assert writes(machine) == expected
    assert machine.goes(BOTH, RW, "w") == 0x98000
    assert writes(machine) == []


def test_a_page_that_is_clean_in_either_stage() -> None:
    """Each write that is not yet told updates what is clean, whichever has been read before."""
    machine = nested(HA | HD, S2HA | S2HD, {I3 + 8 * 0x36: DBM | 0x9E77F})
    assert machine.goes(BOTH, CLEAN, "r") == 0x9E000
    assert writes(machine) == []
    assert machine.goes(BOTH, CLEAN, "w") == 0x9E000
    assert writes(machine) == [(CLEAN_PAGE, DBM | 0x36F47), (I3 + 8 * 0x36, DBM | 0x9E7FF)]
    assert machine.ask(BOTH, CLEAN, "w").hit


def test_a_page_that_is_clean_in_stage_2_alone() -> None:
    """What both stages together are cached as is not dirty because stage 1 is."""
    machine = nested(0, S2HA | S2HD, {I3 + 8 * 0x30: DBM | 0x9877F})
    assert machine.goes(BOTH, RW, "r") == 0x98000
    assert machine.goes(BOTH, RW, "w") == 0x98000
    assert writes(machine) == [(I3 + 8 * 0x30, DBM | 0x987FF)]


def test_rights_come_before_updates() -> None:
    """What is not allowed to the request makes nothing dirty."""
    machine = nested(HA | HD, S2HA | S2HD, {CLEAN_PAGE: DBM | 0x36F87, I3 + 8 * 0x36: DBM | 0x9E77F})
    assert machine.goes(BOTH, CLEAN, "w") == "F_PERMISSION"
    assert writes(machine) == []
    assert handmade(cd(HA | HD)).reaches(slot(8), CLEAN, "w") == 0x36000


def test_a_walk_writes_nothing() -> None:
    machine = nested(HA | HD, S2HA | S2HD, {I3 + 8 * 0x30: 0x983FF})
    for iova in (OLD, CLEAN, RW):
        assert not isinstance(machine.reaches(BOTH, iova, "w"), str)
    assert writes(machine) == []


def test_units_without() -> None:
    """HA and HD of a unit that has no HTTU, or that updates accessed flags alone."""
    idr0 = handmade().get("IDR0") & ~0xC0
    assert handmade(cd(HA), idr0=idr0).goes(ONE, RW) == "C_BAD_CD"
    assert handmade(cd(HA), idr0=idr0 | 0x40).goes(ONE, OLD) == 0x35000
    assert handmade(cd(HA | HD), idr0=idr0 | 0x40).goes(ONE, OLD) == "C_BAD_CD"

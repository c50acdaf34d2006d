# SPDX-License-Identifier: Apache-2.0
"""What descriptors allow, to whom: DDI0487 M.a.a section D8.4, as CDs and STEs bend it."""

import pytest

from iommuctl.model import Access, Slot
from tests.smmuv3.fault_cases import with_bits
from tests.smmuv3.handmade import BOTH_5, CD_5, I3, L0, L1, L2, L3, ONE_5, RW, TWO, handmade, ste
from tests.smmuv3.machine import Machine, idr0_with, slot

PXN, UXN = 1 << 53, 1 << 54
PXN_TABLE, UXN_TABLE = 1 << 59, 1 << 60
NO_EL0, NO_WRITE = 1 << 61, 1 << 62
WXN, PAN = 1 << 36, 1 << 40
DEFAULT_IDR3 = 0xC14
PAGE = L3 + 8 * 4
AP = {0: 0x30F07, 1: 0x30F47, 2: 0x30F87, 3: 0x30FC7}
"""The page by AP[2:1]."""


LETTERS: tuple[Access, ...] = ("r", "w", "x")


def rights(machine: Machine, where: Slot = ONE_5, iova: int = RW, privileged: bool = False) -> str:
    """What works of "rwx", also when a cached page serves what is asked for later."""
    found = {a for a in LETTERS if not isinstance(machine.goes(where, iova, a, privileged=privileged), str)}
    walked = {a for a in LETTERS if not isinstance(machine.reaches(where, iova, a, privileged=privileged), str)}
    assert found == walked
    text = "".join(a for a in LETTERS if a in walked)
    for access in walked:
        assert machine.unit.walk(where, iova, access, privileged=privileged).prot == text
    return text


def both(machine: Machine) -> tuple[str, str]:
    """Rights of unprivileged and of privileged requests."""
    return rights(machine), rights(machine, privileged=True)


@pytest.mark.parametrize(
    ("ap", "xn", "expected"),
    [
        # What EL0 cannot read it may still execute; what EL0 can write is never executed with privilege.
        (0, 0, ("x", "rwx")),
        (1, 0, ("rwx", "rw")),
        (2, 0, ("x", "rx")),
        (3, 0, ("rx", "rx")),
        (0, UXN, ("", "rwx")),
        (0, PXN, ("x", "rw")),
        (1, UXN, ("rw", "rw")),
        (2, PXN | UXN, ("", "r")),
        (3, UXN, ("r", "rx")),
        (3, PXN, ("rx", "r")),
    ],
)
def test_stage_1(ap: int, xn: int, expected: tuple[str, str]) -> None:
    assert both(handmade({PAGE: AP[ap] | xn})) == expected


@pytest.mark.parametrize(
    ("ap", "cd", "expected"),
    [
        (0, WXN, ("x", "rw")),
        (1, WXN, ("rw", "rw")),
        (2, WXN, ("x", "rx")),
        (3, WXN, ("rx", "rx")),
        # PAN is about data that EL0 could access.
        (0, PAN, ("x", "rwx")),
        (1, PAN, ("rwx", "")),
        (2, PAN, ("x", "rx")),
        (3, PAN, ("rx", "x")),
    ],
)
def test_wxn_and_pan(ap: int, cd: int, expected: tuple[str, str]) -> None:
    assert both(handmade({PAGE: AP[ap]} | with_bits(CD_5, cd))) == expected


TABLES = {
    0: ("rwx", "rw"),
    NO_EL0: ("x", "rwx"),
    NO_WRITE: ("rx", "rx"),
    NO_EL0 | NO_WRITE: ("x", "rx"),
    UXN_TABLE: ("rw", "rw"),
    PXN_TABLE: ("rwx", "rw"),
    PXN_TABLE | NO_WRITE: ("rx", "r"),
    UXN_TABLE | NO_EL0: ("", "rwx"),
}


@pytest.mark.parametrize("bits", TABLES)
@pytest.mark.parametrize("table", [L0, L1, L2])
def test_tables_take_away(table: int, bits: int) -> None:
    assert both(handmade(with_bits(table, bits))) == TABLES[bits]


@pytest.mark.parametrize("table", [L0, L1, L2])
def test_had(table: int) -> None:
    """Nothing is taken away with HAD0; on a unit without, or with HAD1, it is."""
    bits = with_bits(table, NO_EL0 | NO_WRITE | UXN_TABLE | PXN_TABLE)
    had0, had1 = with_bits(CD_5 + 8, 2), {CD_5 + 16: 2}
    assert both(handmade(bits | had0)) == ("rwx", "rw")
    assert both(handmade(bits | had1)) == ("", "r")
    assert both(handmade(bits | had0, idr3=DEFAULT_IDR3 & ~4)) == ("", "r")


def test_restrictions_of_all_tables_come_together() -> None:
    changes = with_bits(L0, NO_WRITE) | with_bits(L1, PXN_TABLE) | with_bits(L2, UXN_TABLE)
    assert both(handmade(changes)) == ("r", "r")


@pytest.mark.parametrize(
    ("ap", "bits", "cd", "expected"),
    [
        # One privilege level: AP[1] is taken as 1, and bit 54 is for all.
        (0, 0, 0, "rwx"),
        (1, 0, 0, "rwx"),
        (2, 0, 0, "rx"),
        (0, UXN, 0, "rw"),
        (0, PXN, 0, "rwx"),
        (1, 0, WXN, "rw"),
        (1, 0, PAN, "rwx"),
    ],
)
def test_el2(ap: int, bits: int, cd: int, expected: str) -> None:
    changes = {PAGE: AP[ap] | bits} | with_bits(CD_5, cd)
    for privileged in (False, True):
        assert rights(handmade(changes), slot(13, 5), privileged=privileged) == expected


XN = {0: (True, True), 1: (True, False), 2: (False, False), 3: (False, True)}
"""Who executes: all but privileged requests, all, privileged ones."""


@pytest.mark.parametrize("xn", XN)
@pytest.mark.parametrize("privileged", [False, True])
def test_stage_2_execution(xn: int, privileged: bool) -> None:
    """With XNX the code has two bits, without bit 54 alone counts."""
    page = {I3 + 8 * 0x31: 0x997FF | xn << 53}
    changes = page | with_bits(ste(TWO) + 8, (3 if privileged else 2) << 48)
    machine = handmade(changes)
    assert ("x" in rights(machine, TWO, 0x31000)) == XN[xn][privileged]
    machine = handmade(changes, idr3=DEFAULT_IDR3 & ~0x10)
    assert ("x" in rights(machine, TWO, 0x31000)) == (xn not in (2, 3))


@pytest.mark.parametrize(("s2ap", "expected"), [(0, "x"), (1, "rx"), (2, "wx"), (3, "rwx")])
def test_stage_2_data(s2ap: int, expected: str) -> None:
    """Whoever asks."""
    for privcfg in (2, 3):
        changes = {I3 + 8 * 0x31: 0x9973F | s2ap << 6} | with_bits(ste(TWO) + 8, privcfg << 48)
        assert rights(handmade(changes), TWO, 0x31000) == expected


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (0x30F47, 0x987FF, ("rwx", "rw")),
        (0x30F47, 0x9877F, ("rx", "r")),
        (0x30FC7, 0x987BF, ("x", "x")),
        (0x30FC7, 0x0020_0000_0009_87FF, ("rx", "r")),
        (0x30FC7, 0x0060_0000_0009_87FF, ("r", "rx")),
        (0x30F07, 0x0040_0000_0009_877F, ("", "r")),
    ],
)
def test_both_stages(one: int, two: int, expected: tuple[str, str]) -> None:
    machine = handmade({PAGE: one, I3 + 8 * 0x30: two})
    assert (rights(machine, BOTH_5), rights(machine, BOTH_5, privileged=True)) == expected


def test_a_protected_table_walk() -> None:
    """Without S2PTW, tables may lie in device memory; what is cached of stage 2 changes nothing."""
    device = {I3 + 8 * 0x22: 0x227C3}
    unprotected = {ste(BOTH_5) + 16: 0x040C_3594_0000_002B}
    assert handmade(device | unprotected).goes(BOTH_5, RW) == 0x98000
    machine = handmade(device)
    # Stream 9 has no stage 1, so it reaches the device; VMID 0x2b, as stream 10.
    machine.memory.put({ste(TWO) + 16: 0x044C_3594_0000_002B})
    assert machine.goes(TWO, 0x22000) == 0x22000
    assert machine.goes(BOTH_5, RW) == "F_PERMISSION"


def test_a_unit_of_one_stage() -> None:
    assert both(handmade(idr0=idr0_with(S2P=0))) == ("rwx", "rw")
    assert rights(handmade(idr0=idr0_with(S1P=0)), TWO, 0x30000) == "rwx"

# SPDX-License-Identifier: Apache-2.0
"""Start levels and concatenated start tables, against the widths that tables of each level can translate."""

import pytest

from iommuctl_smmuv3.stage2_geometry import GRANULES, concatenation, start_level

SHIFTS = {1 << 12: 12, 1 << 14: 14, 1 << 16: 16}


def reached(granule: int, level: int) -> int:
    """Bits of addresses that one whole table of a level translates, with those below it."""
    shift = SHIFTS[granule]
    return shift + (4 - level) * (shift - 3)


def expected(granule: int, level: int, t0sz: int, ds: bool, stt: bool) -> int:
    """Start tables: as many as the bits beyond one of them select, where these are not the next level's to select."""
    bits = 64 - t0sz
    needs_ds = granule != 1 << 16 and (bits > 48 or level == -1 or (granule, level) == (1 << 14, 0))
    needs_stt = bits < 25 or (granule, level) == (1 << 12, 3)
    if (needs_ds and not ds) or (needs_stt and not stt) or bits > 52 or bits < (17 if granule == 1 << 16 else 16):
        return 0
    beyond = max(0, bits - reached(granule, level))
    if beyond > 4 or bits <= (reached(granule, level + 1) if level < 3 else SHIFTS[granule]):
        return 0
    return 1 << beyond


@pytest.mark.parametrize("granule", SHIFTS)
@pytest.mark.parametrize("ds", [False, True])
@pytest.mark.parametrize("stt", [False, True])
def test_every_size_at_every_level(granule: int, ds: bool, stt: bool) -> None:
    levels = {1 << 12: (-1, 0, 1, 2, 3), 1 << 14: (0, 1, 2, 3), 1 << 16: (1, 2, 3)}[granule]
    for t0sz in range(64):
        for level in levels:
            found = concatenation(granule, level, t0sz, ds, stt)
            assert found == expected(granule, level, t0sz, ds, stt), (level, t0sz)


@pytest.mark.parametrize(("granule", "level"), [(1 << 14, -1), (1 << 16, 0), (1 << 16, -1), (1 << 12, 4), (1 << 13, 1)])
def test_levels_that_a_granule_does_not_have(granule: int, level: int) -> None:
    assert not any(concatenation(granule, level, t0sz, True, True) for t0sz in range(64))


# Level, T0SZ and start tables out of the specification's table.
ROWS = [
    (1 << 12, -1, 12, 1), (1 << 12, 0, 16, 1), (1 << 12, 0, 12, 16), (1 << 12, 1, 25, 1), (1 << 12, 1, 24, 2),
    (1 << 12, 1, 21, 16), (1 << 12, 2, 30, 16), (1 << 12, 3, 43, 1), (1 << 12, 3, 39, 16), (1 << 14, 0, 16, 1),
    (1 << 14, 1, 16, 2), (1 << 14, 1, 13, 16), (1 << 14, 2, 27, 2), (1 << 14, 3, 35, 16), (1 << 16, 1, 12, 1),
    (1 << 16, 2, 21, 2), (1 << 16, 3, 47, 1), (1 << 16, 3, 31, 16),
]  # fmt: skip


@pytest.mark.parametrize(("granule", "level", "t0sz", "tables"), ROWS)
def test_rows(granule: int, level: int, t0sz: int, tables: int) -> None:
    assert concatenation(granule, level, t0sz, True, True) == tables


def test_start_levels() -> None:
    """By S2TG 0 to 3, which are 4 KB, 64 KB, 16 KB and reserved, and S2SL0 0 to 3."""
    found = [[start_level(tg, sl0, 0, False) for sl0 in range(4)] for tg in range(4)]
    assert found == [[2, 1, 0, 3], [3, 2, 1, None], [3, 2, 1, 0], [None] * 4]
    assert GRANULES == {0: 4096, 1: 65536, 2: 16384}


def test_the_third_bit_of_the_start_level() -> None:
    assert [start_level(0, sl0, 1, True) for sl0 in range(4)] == [-1, None, None, None]
    assert [start_level(0, sl0, 0, True) for sl0 in range(4)] == [2, 1, 0, 3]
    assert [start_level(0, sl0, 1, False) for sl0 in range(4)] == [2, 1, 0, 3]
    assert [start_level(2, sl0, 1, True) for sl0 in range(4)] == [3, 2, 1, 0]

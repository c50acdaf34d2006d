# SPDX-License-Identifier: Apache-2.0
"""Where a stage 2 walk begins: which start levels and sizes go together, and how many start tables lie side by side.

IHI0070 G.b section 5.2 (S2SL0, S2T0SZ, S2TG) and DDI0487 M.a.a section D8.2.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

GRANULES: Mapping[int, int] = MappingProxyType({0: 1 << 12, 1: 1 << 16, 2: 1 << 14})
"""Granules in bytes by the code that S2TG and TG0 have; 3 is reserved. TG1 and the commands have other codes."""

_LEVELS: Mapping[int, tuple[int | None, ...]] = MappingProxyType({
    1 << 12: (2, 1, 0, 3),
    1 << 14: (3, 2, 1, 0),
    1 << 16: (3, 2, 1, None),
})  # fmt: skip
"""By granule, the start levels that SL0 from 0 to 3 selects."""


class _Sizes(NamedTuple):
    """T0SZ from `least` to `most` has one start table; each step below `least`, down to `concatenated`, doubles them.

    T0SZ below `ds_below`, or all where the level itself needs it, exist in the 52-bit formats (DS) only.
    """

    most: int
    least: int
    concatenated: int
    ds_below: int = 16
    stt: bool = False


_SIZES: Mapping[tuple[int, int], _Sizes] = MappingProxyType({
    (1 << 12, -1): _Sizes(15, 12, 12),
    (1 << 12, 0): _Sizes(24, 16, 12),
    (1 << 12, 1): _Sizes(33, 25, 21),
    (1 << 12, 2): _Sizes(42, 34, 30),
    (1 << 12, 3): _Sizes(48, 43, 39, stt=True),
    (1 << 14, 0): _Sizes(16, 12, 12, ds_below=17),
    (1 << 14, 1): _Sizes(27, 17, 13),
    (1 << 14, 2): _Sizes(38, 28, 24),
    (1 << 14, 3): _Sizes(48, 39, 35),
    (1 << 16, 1): _Sizes(21, 12, 12, ds_below=0),
    (1 << 16, 2): _Sizes(34, 22, 18),
    (1 << 16, 3): _Sizes(47, 35, 31),
})  # fmt: skip
"""By granule and start level."""
_MOST_WITHOUT_STT = 39


def start_level(tg: int, sl0: int, sl0_2: int, ds: bool) -> int | None:
    """The level at which a walk begins, from -1 to 3; None for codes that are reserved.

    Arguments are codes of an STE: S2TG, S2SL0, S2SL0_2, and whether S2DS counts. S2SL0_2 counts with S2DS and 4 KB
    only.
    """
    granule = GRANULES.get(tg)
    if granule is None:
        return None
    if sl0_2 and ds and granule == 1 << 12:
        return -1 if sl0 == 0 else None
    return _LEVELS[granule][sl0]


def concatenation(granule: int, level: int, t0sz: int, ds: bool, stt: bool) -> int:
    """How many start tables lie side by side: 1, 2, 4, 8 or 16; 0 where the start level does not go with the size.

    `granule` is in bytes; the input addresses have 64 - t0sz bits. `ds` are the 52-bit formats of 4 and 16 KB, `stt`
    are small translation tables.
    """
    sizes = _SIZES.get((granule, level))
    if sizes is None or not sizes.concatenated <= t0sz <= sizes.most:
        return 0
    if (t0sz < sizes.ds_below and not ds) or ((sizes.stt or t0sz > _MOST_WITHOUT_STT) and not stt):
        return 0
    return 1 << max(0, sizes.least - t0sz)

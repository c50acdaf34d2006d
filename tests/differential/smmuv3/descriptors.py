# SPDX-License-Identifier: Apache-2.0
"""Descriptors of VMSAv8-64 tables written by hand: DDI0487 M.a.a section D8.3, and how an address is split, D8.2."""

from tests.differential.plans import Range

VALID, TABLE_OR_PAGE = 1 << 0, 1 << 1
AP_UNPRIVILEGED, AP_READ_ONLY = 1 << 6, 1 << 7
"""AP[1] and AP[2] of a leaf of stage 1."""
S2AP_READ, S2AP_WRITE = 1 << 6, 1 << 7
AF = 1 << 10
APTABLE_NO_UNPRIVILEGED, APTABLE_NO_WRITE = 1 << 61, 1 << 62
_NOT_GLOBAL, _INNER_SHAREABLE = 1 << 11, 3 << 8
_S2_WRITE_BACK = 0b1111 << 2
LAST = 3
"""The last level."""


def shift(granule: int, level: int) -> int:
    """How many lower bits of an address an entry of that level leaves."""
    bits = granule.bit_length() - 1
    return bits + (LAST - level) * (bits - 3)


def highest(granule: int, bits: int) -> int:
    """The start level for input addresses of so many bits, in one table."""
    level = LAST
    while bits > shift(granule, level - 1):
        level -= 1
    return level


def block_levels(granule: int) -> tuple[int, ...]:
    """The levels at which blocks are allowed, where addresses have at most 48 bits."""
    return (1, 2) if granule == 1 << 12 else (2,)


def table(address: int, *, writable: bool) -> int:
    """A table descriptor."""
    return address | TABLE_OR_PAGE | VALID | (0 if writable else APTABLE_NO_WRITE)


def leaf(stage: int, level: int, address: int, mapping: Range) -> int:
    """A page or block descriptor."""
    raw = address | VALID | (TABLE_OR_PAGE if level == LAST else 0) | _INNER_SHAREABLE
    raw |= 0 if "n" in mapping.prot else AF
    if stage == 1:
        raw |= _NOT_GLOBAL | (AP_UNPRIVILEGED if "u" in mapping.prot else 0)
        return raw | (0 if "w" in mapping.prot else AP_READ_ONLY)
    raw |= _S2_WRITE_BACK | (S2AP_READ if "r" in mapping.prot else 0)
    return raw | (S2AP_WRITE if "w" in mapping.prot else 0)

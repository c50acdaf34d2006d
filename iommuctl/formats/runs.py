# SPDX-License-Identifier: Apache-2.0
"""Runs: entries whose addresses count up, as bytes, and pages that lie side by side."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from iommuctl.formats.memory import PAGE, Run

_SHORT = 32
"""Up to so many words `struct` is faster than patterns."""

_PIECE = 1 << 15
"""Words of a piece: it stays in the processor's second cache while it is made and copied."""


def progression(first: int, step: int, count: int) -> Iterator[bytes]:
    """`count` little-endian 64-bit words in pieces: first, first + step, and so on. `step` is a power of two < 2**56.

    Python needs tens of nanoseconds for each word that it handles by itself, so none is: words are made in blocks
    that lie aligned in the progression. Inside a block the same one or two bytes of each word count up, always in the
    same way; from one block to the next only the bytes above these change, and are the same in all of a block. So one
    buffer of some blocks serves for all, and most of the time one byte of its words changes from piece to piece.
    """
    if count <= _SHORT:
        yield struct.pack(f"<{count}Q", *range(first, first + count * step, step))
        return
    shift = step.bit_length() - 1
    low, below = divmod(shift, 8)
    patterns = _patterns(below, first >> 8 * low & (1 << below) - 1)
    index = (first >> shift) % len(patterns[0])
    if index:
        head = min(count, len(patterns[0]) - index)
        yield bytes(_block(first, low, [pattern[index : index + head] for pattern in patterns]))
        first, count = first + head * step, count - head
    if not count:
        return
    length = min(count, len(patterns[0]))
    blocks = min(max(1, _PIECE // length), -(-count // length))
    buffer = _block(first, low, [pattern[:length] for pattern in patterns]) * blocks
    held = [(byte,) * blocks for byte in first.to_bytes(8, "little")]
    for start in range(0, count, blocks * length):
        starts = range(first + start * step, first + (start + blocks * length) * step, length * step)
        for byte, column in enumerate(zip(*(word.to_bytes(9, "little") for word in starts), strict=True)):
            if low + len(patterns) <= byte < 8 and column != held[byte]:
                buffer[byte::8] = b"".join(bytes([value]) * length for value in column)
                held[byte] = column
        yield bytes(memoryview(buffer)[: 8 * (count - start)])


@lru_cache(64)
def _patterns(below: int, rest: int) -> tuple[bytes, ...]:
    """What the bytes that count hold in the words of a block, when the step is bit `below` of the first of them.

    `rest` is what the bits under that one hold. A block ends where its last byte overflows.
    """
    counting = bytes(range(rest, 256, 1 << below))
    if below == 0:
        return (counting,)
    return counting * 256, b"".join(bytes([carry]) * len(counting) for carry in range(256))


def _block(first: int, low: int, patterns: Sequence[bytes]) -> bytearray:
    """Words like `first`, but for the bytes from `low` on, which hold the patterns."""
    words = bytearray(first.to_bytes(8, "little") * len(patterns[0]))
    for byte, pattern in enumerate(patterns, low):
        words[byte::8] = pattern
    return words


def parts(first: int, end: int, bits: int) -> Iterator[tuple[int, int]]:
    """first..end, cut at the multiples of 2**bits."""
    while first < end:
        stop = min(end, (first >> bits) + 1 << bits)
        yield first, stop
        first = stop


def page_runs(pages: Iterable[int]) -> list[Run]:
    """The pages at these addresses in as few runs as can be, ascending, each page once."""
    runs: list[Run] = []
    for page in sorted(set(pages)):
        if runs and page == runs[-1].address + runs[-1].pages * PAGE:
            runs[-1] = Run(runs[-1].address, runs[-1].pages + 1)
        else:
            runs.append(Run(page, 1))
    return runs

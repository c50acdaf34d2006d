# SPDX-License-Identifier: Apache-2.0
"""Runs: entries whose addresses count up, as bytes, and pages that lie side by side."""

import struct
from collections.abc import Iterable
from functools import lru_cache

from iommuctl.formats.memory import PAGE, Run

_SHORT = 32
"""Up to so many entries `struct` is faster than patterns."""


def progression(first: int, step: int, count: int) -> bytes:
    """`count` little-endian 64-bit words: first, first + step, and so on. `step` is a power of two below 2**56.

    Python needs tens of nanoseconds for each word that it handles by itself, so none is: words are made in blocks
    that lie aligned in the progression. Inside a block the same one or two bytes of each word count up, always in the
    same way; from one block to the next only the bytes above these change, and are the same in all of a block.
    """
    if count <= _SHORT:
        return struct.pack(f"<{count}Q", *range(first, first + count * step, step))
    shift = step.bit_length() - 1
    low, below = divmod(shift, 8)
    patterns = _patterns(below, first >> 8 * low & (1 << below) - 1)
    length = len(patterns[0])
    index = (first >> shift) % length
    done = min(count, length - index)
    head = _block(first, done, low, patterns, index)
    if done == count:
        return bytes(head)
    pieces = [head]
    block = _block(first + done * step, min(count - done, length), low, patterns, 0)
    while done < count:
        word = (first + done * step).to_bytes(8, "little")
        for byte in range(low + len(patterns), 8):
            if block[byte] != word[byte]:
                block[byte::8] = word[byte : byte + 1] * (len(block) // 8)
        piece = block[: 8 * (count - done)]
        pieces.append(piece)
        done += len(piece) // 8
    return b"".join(pieces)


@lru_cache(64)
def _patterns(below: int, rest: int) -> tuple[bytes, ...]:
    """What the bytes that count hold in the words of a block, when the step is bit `below` of the first of them.

    `rest` is what the bits under that one hold. A block ends where its last byte overflows.
    """
    counting = bytes(range(rest, 256, 1 << below))
    if below == 0:
        return (counting,)
    return counting * 256, b"".join(bytes([carry]) * len(counting) for carry in range(256))


def _block(first: int, count: int, low: int, patterns: tuple[bytes, ...], index: int) -> bytearray:
    """`count` words, the first of which is word `index` of its block."""
    words = bytearray(first.to_bytes(8, "little") * count)
    for byte, pattern in enumerate(patterns, low):
        words[byte::8] = pattern[index : index + count]
    return words


def page_runs(pages: Iterable[int]) -> list[Run]:
    """The pages at these addresses in as few runs as can be, ascending, each page once."""
    runs: list[Run] = []
    for page in sorted(set(pages)):
        if runs and page == runs[-1].address + runs[-1].pages * PAGE:
            runs[-1] = Run(runs[-1].address, runs[-1].pages + 1)
        else:
            runs.append(Run(page, 1))
    return runs

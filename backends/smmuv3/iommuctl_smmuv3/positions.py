# SPDX-License-Identifier: Apache-2.0
"""Positions in a queue: an index, and a bit above it that changes with each turn. IHI0070 G.b section 3.5."""


class Ring:
    """A queue of 2**`bits` entries of `size` bytes, of which the unit uses 2**`most` at most.

    Its address is taken to be a multiple of its size. Bits of a position above the wrap bit are not looked at.
    """

    def __init__(self, address: int, bits: int, most: int, size: int) -> None:
        self._bits = min(bits, most)
        self._address = address & -(size << self._bits)
        self._size = size

    def place(self, position: int) -> int:
        """The address of the entry at a position."""
        return self._address + self._size * (position % (1 << self._bits))

    def after(self, position: int) -> int:
        """The next position."""
        return (position + 1) % (2 << self._bits)

    def same(self, one: int, other: int) -> bool:
        """Whether two positions are equal: then the queue is empty."""
        return not (one ^ other) % (2 << self._bits)

    def is_full(self, produced: int, consumed: int) -> bool:
        return (produced ^ consumed) % (2 << self._bits) == 1 << self._bits

# SPDX-License-Identifier: Apache-2.0
"""What became of a DMA, in words that both sides can be put into."""

from typing import NamedTuple, TypeAlias

from iommuctl.model import Piece, Step


class Landed(NamedTuple):
    """All of it went to memory. `pieces` of QEMU are ours where the bytes were found there."""

    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        return "landed at " + ", ".join(f"{piece.pa:#x}+{piece.size:#x}" for piece in self.pieces)


class Faulted(NamedTuple):
    """Refused, with the record of it. `record` is None where none was made."""

    code: int | None
    record: int | None

    def __str__(self) -> str:
        return (
            "refused, nothing recorded" if self.record is None else f"fault {self.code:#04x}, record {self.record:#x}"
        )


class Nowhere(NamedTuple):
    """Translated to an address where there is no memory."""

    pa: int | None

    def __str__(self) -> str:
        return "no memory there"


class Elsewhere(NamedTuple):
    """Taken by the bus, but the bytes are not where they should be."""

    found: tuple[int, ...]

    def __str__(self) -> str:
        return "the bytes are at " + (", ".join(map(hex, self.found)) or "no address of RAM")


Outcome: TypeAlias = Landed | Faulted | Nowhere | Elsewhere


class Ours(NamedTuple):
    """Our answer: the outcome, whether a cache gave it and whether that was stale, and the entries of a fresh walk."""

    outcome: Outcome
    hit: bool
    stale: bool
    steps: tuple[Step, ...]

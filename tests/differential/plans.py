# SPDX-License-Identifier: Apache-2.0
"""What configurations of every architecture have in common: devices, mappings, and what happens to both sides.

Nothing here is an object of the library, so a configuration prints as the expression that makes it again.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

from iommuctl.model import Rid


class Range(NamedTuple):
    """One mapping."""

    iova: int
    size: int
    pa: int
    prot: str


class Dma(NamedTuple):
    """A device's request; `device` and all such numbers are indices."""

    device: int
    access: Literal["r", "w"]
    iova: int
    size: int


class Flip(NamedTuple):
    """One bit of one entry on a device's way to an address changes, and no cache is told.

    `depth` counts the entries on that way from its end: 0 is the last. With `paging`, nothing happens unless it is an
    entry of a page table.
    """

    device: int
    iova: int
    depth: int
    bit: int
    paging: bool = False


class Clear(NamedTuple):
    """The last entry on the way to an address, if one of a page table, becomes zero, and no cache is told."""

    device: int
    iova: int


class Configuration(Protocol):
    """What is built on both sides, for the sort of unit that `kind` names, and what happens then."""

    @property
    def kind(self) -> str: ...

    @property
    def events(self) -> Sequence[Any]: ...


DEVICES: tuple[tuple[Rid, str], ...] = (
    (Rid(0, 0x00, 0x03, 0), "iommu-testdev"),
    (Rid(0, 0x00, 0x03, 1), "edu"),
    (Rid(0, 0x00, 0x10, 0), "edu"),
    (Rid(0, 0x80, 0x00, 0), "edu"),
    (Rid(0, 0x80, 0x00, 7), "iommu-testdev"),
)
"""The devices of every machine: on two buses, in both halves of a bus, several functions of one device."""
BRIDGES: tuple[tuple[Rid, int], ...] = ((Rid(0, 0x00, 0x01, 0), 0x80),)
"""The bridges to the other buses, and the numbers of these."""

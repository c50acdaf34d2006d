# SPDX-License-Identifier: Apache-2.0
"""Configurations as data: what is built on both sides, and what happens then.

Nothing here is an object of the library, so a configuration prints as the expression that makes it again.
"""

from typing import Literal, NamedTuple, TypeAlias

from iommuctl.model import Rid

RAM = 2 << 30
"""Bytes of RAM, from address 0 on."""
TABLES = (0x10_0000, 0x8_0000)
"""Where our driver has its tables."""
POOL = (0x20_0000, 0x10_0000)
"""Where tables are made by hand."""
SCRATCH = 0x8_0000
"""A page that only the harness uses, in QEMU's RAM."""

Stage = Literal["second", "first", "through"]
"""What translates: the second stage, the first stage, or nothing (pass-through)."""


class Range(NamedTuple):
    """One mapping."""

    iova: int
    size: int
    pa: int
    prot: str


class Space(NamedTuple):
    """One set of tables. `used` says of a first stage whether accessed and dirty bits are set from the start."""

    stage: Stage
    width: int
    page_sizes: tuple[int, ...]
    ranges: tuple[Range, ...]
    used: bool = True


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


class Unmap(NamedTuple):
    """A mapping is taken away, and the caches that hold it are told."""

    space: int
    range: int


class Attach(NamedTuple):
    """A device's slot gets another space, or none; caches are told."""

    device: int
    space: int | None


class Queue(NamedTuple):
    """These descriptors (256 bits each) are queued, good or bad."""

    descriptors: tuple[int, ...]


class Tail(NamedTuple):
    """IQT gets a value that is wrong by so much: beyond the end of the queue, or not a multiple of a descriptor."""

    by: int


Event: TypeAlias = Dma | Flip | Clear | Unmap | Attach | Queue | Tail


class Configuration(NamedTuple):
    """All of it. `slots` has the space of each device, or None."""

    kind: str
    spaces: tuple[Space, ...]
    slots: tuple[int | None, ...]
    events: tuple[Event, ...]


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

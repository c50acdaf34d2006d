# SPDX-License-Identifier: Apache-2.0
"""VT-d's configurations as data: spaces and slots, and what our driver and its queue do."""

from typing import Literal, NamedTuple, TypeAlias

from tests.differential.plans import Clear, Dma, Flip, Range

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


class Space(NamedTuple):
    """One set of tables. `used` says of a first stage whether accessed and dirty bits are set from the start."""

    stage: Stage
    width: int
    page_sizes: tuple[int, ...]
    ranges: tuple[Range, ...]
    used: bool = True


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

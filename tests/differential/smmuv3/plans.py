# SPDX-License-Identifier: Apache-2.0
"""SMMUv3's configurations as data: streams, the tables of both stages, and what happens then.

Letters of a range's prot are r and w, and u where unprivileged requests may use it (stage 1), n where the accessed flag
is not set, t where the table above the leaf allows no writes (stage 1).
"""

from typing import Literal, NamedTuple, TypeAlias

from tests.differential.plans import DEVICES, Clear, Dma, Flip, Range

RAM = (0x4000_0000, 2 << 30)
"""First address and size. QEMU puts a device tree at the beginning."""
SCRATCH = 0x4020_0000
"""A page that only the harness uses, in QEMU's RAM."""
COMMANDS_AT, EVENTS_AT = 0x4030_0000, 0x4031_0000
"""The queues, of 2**QUEUE_BITS entries."""
QUEUE_BITS = 8
STAGE_1_AT = (0x4040_0000, 0x20_0000)
"""Where CDs and tables of stage 1 are: with both stages, stage 2 maps all of it, from `Stage2.sees_stage_1` on."""
STAGE_2_AT = (0x4060_0000, 0x20_0000)
"""Where tables of stage 2 are, and two-level stream tables."""
LINEAR_AT = 0x4080_0000
"""Where linear stream tables are, of at most 2**16 STEs."""


class Tree(NamedTuple):
    """A radix tree: granule in bytes, width of input addresses in bits, whether leaves may be blocks.

    `start` is the level of the first table, where that is not the highest that the width needs: then tables lie side
    by side (stage 2).
    """

    granule: int
    bits: int
    blocks: bool
    ranges: tuple[Range, ...]
    start: int | None = None


Values: TypeAlias = tuple[tuple[str, int], ...]
"""Fields of a structure besides those that follow from the rest."""


class Stage1(NamedTuple):
    """A CD: tables of lower and upper addresses, where there are any."""

    lower: Tree | None
    upper: Tree | None
    values: Values


class Stage2(NamedTuple):
    """The stage 2 of STEs."""

    tree: Tree
    values: Values
    sees_stage_1: int
    """The intermediate physical address of STAGE_1_AT."""


Config = Literal["abort", "bypass", "stage 1", "stage 2", "both"]


class Stream(NamedTuple):
    """An STE, with the numbers of its stages."""

    config: Config
    stage_1: int | None = None
    stage_2: int | None = None
    values: Values = ()


class StreamTable(NamedTuple):
    """2**size streams. With a `split`, the table has two levels, whose second ones are whole or just long enough."""

    size: int = 16
    split: int | None = None
    whole: bool = True


class Commands(NamedTuple):
    """These commands (128 bits each) are queued; a CMD_SYNC follows."""

    words: tuple[int, ...]


Event: TypeAlias = Dma | Flip | Clear | Commands


class Configuration(NamedTuple):
    """All of it. `streams` has what each device's STE is, or None where it is not valid."""

    kind: str
    table: StreamTable
    stages_1: tuple[Stage1, ...]
    stages_2: tuple[Stage2, ...]
    streams: tuple[Stream | None, ...]
    events: tuple[Event, ...]
    recinvsid: bool = True

    def ranges(self, device: int) -> tuple[Range, ...]:
        """What a device's request can be for, by its input address."""
        stream = self.streams[device]
        if stream is None or stream.config in ("abort", "bypass"):
            return ()
        if stream.stage_1 is None:
            assert stream.stage_2 is not None
            return self.stages_2[stream.stage_2].tree.ranges
        stage = self.stages_1[stream.stage_1]
        return tuple(one for tree in (stage.lower, stage.upper) if tree for one in tree.ranges)


STREAM_IDS = tuple(rid.source_id for rid, _ in DEVICES)


def is_ram(address: int, size: int) -> bool:
    """Whether all of it is memory."""
    return RAM[0] <= address and address + size <= sum(RAM)

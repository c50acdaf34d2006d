# SPDX-License-Identifier: Apache-2.0
"""Every bit of every structure that both sides read, one at a time.

Random configurations come upon a bit now and then. Here a bit that one side takes for reserved, or for a part of
another field, cannot be missed.
"""

from collections.abc import Iterator

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.commands import COMMANDS
from iommuctl_smmuv3.stage1 import Stage1Descriptor, Stage1Descriptor64K
from iommuctl_smmuv3.stage2 import Stage2Descriptor, Stage2Descriptor64K
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.stream_table import L1Std
from tests.differential.plans import Dma, Flip, Range
from tests.differential.smmuv3.descriptors import shift
from tests.differential.smmuv3.plans import (
    STAGE_1_AT,
    Commands,
    Config,
    Configuration,
    Event,
    Stage1,
    Stage2,
    Stream,
    StreamTable,
    Tree,
)
from tests.differential.smmuv3.unit import FORGET

_EDU = 1
_PAGE, _BLOCK = 0x21_0000, 0x2000_0000
"""Addresses in a page and in a block, of any granule."""
_4K, _16K, _64K = 1 << 12, 1 << 14, 1 << 16
_CHUNK = 32
"""Bits for each configuration, so that a difference shows soon."""

_ENTRIES: tuple[tuple[type[Layout], str, int, int, tuple[int, ...]], ...] = (
    (L1Std, "stage-2-two-level", _4K, _PAGE, (4,)),
    (Ste, "stage-1", _4K, _PAGE, (4,)),
    (Ste, "stage-2", _4K, _PAGE, (3,)),
    (Ste, "nested", _4K, _PAGE, (14,)),
    (Cd, "stage-1", _4K, _PAGE, (3,)),
    (Cd, "nested", _4K, _PAGE, (11,)),
    (Stage1Descriptor, "stage-1", _4K, _PAGE, (0, 1, 2)),
    (Stage1Descriptor, "stage-1", _4K, _BLOCK, (0,)),
    (Stage1Descriptor, "stage-1", _16K, _PAGE, (0, 1, 2)),
    (Stage1Descriptor, "stage-1", _16K, _BLOCK, (0,)),
    (Stage1Descriptor64K, "stage-1", _64K, _PAGE, (0, 1)),
    (Stage1Descriptor64K, "stage-1", _64K, _BLOCK, (0,)),
    (Stage1Descriptor, "nested", _4K, _PAGE, (2, 5, 8)),
    (Stage2Descriptor, "stage-2", _4K, _PAGE, (0, 1, 2)),
    (Stage2Descriptor, "stage-2", _4K, _BLOCK, (0,)),
    (Stage2Descriptor, "stage-2", _16K, _PAGE, (0, 1, 2)),
    (Stage2Descriptor, "stage-2", _16K, _BLOCK, (0,)),
    (Stage2Descriptor64K, "stage-2", _64K, _PAGE, (0, 1)),
    (Stage2Descriptor64K, "stage-2", _64K, _BLOCK, (0,)),
    (Stage2Descriptor, "nested", _4K, _PAGE, (0, 1, 3, 12)),
)
"""With which granule and on whose way to an address, which entries are swept: how far they are from the end."""


def sweeps() -> Iterator[tuple[type[Layout], Configuration]]:
    """Each configuration with the structure that it is about."""
    for layout, kind, granule, iova, depths in _ENTRIES:
        for depth in depths:
            for first in range(0, layout.bits, _CHUNK):
                bits = range(first, min(layout.bits, first + _CHUNK))
                flips = [_flipped(Flip(_EDU, iova, depth, bit)) for bit in bits]
                yield layout, _configuration(kind, granule, tuple(event for events in flips for event in events))


def command_sweeps() -> Iterator[tuple[type[Layout], Configuration]]:
    """Each configuration with the command that it is about."""
    for layout in COMMANDS.values():
        # Ranges say how much.
        values = {"TTL": 3} if "TTL" in layout.values(0) else {}
        raw = layout.encode(**values)
        words = tuple(raw ^ 1 << bit for bit in range(8, layout.bits))
        for kind in ("stage-1", "stage-2", "nested"):
            for first in range(0, len(words), _CHUNK):
                events = (Commands((raw, *words[first : first + _CHUNK])),)
                yield layout, Configuration(kind, StreamTable(), (), (), (Stream("abort"),) * 5, events)


def opcode_sweep() -> Configuration:
    """Every opcode."""
    events = tuple(Commands(tuple(range(first, first + _CHUNK))) for first in range(0, 256, _CHUNK))
    return Configuration("nested", StreamTable(), (), (), (Stream("abort"),) * 5, events)


def _flipped(flip: Flip) -> tuple[Event, ...]:
    """One bit is wrong; then it is mended."""
    forget = Commands(FORGET)
    reads, writes = (Dma(flip.device, access, flip.iova, 8) for access in ("r", "w"))
    return flip, forget, reads, forget, writes, flip


def _configuration(kind: str, granule: int, events: tuple[Event, ...]) -> Configuration:
    """Trees of 39 bits. With both stages, stage 2 maps all that is used as it is."""
    nested = kind == "nested"
    alone: Config = "stage 2" if kind.startswith("stage-2") else "stage 1"
    block = 1 << shift(granule, 2)
    ranges = (Range(_PAGE, granule, 0x5000_0000, "rwu"), Range(_BLOCK, block, 0x6000_0000, "rwu"))
    tree, whole = Tree(granule, 39, True, ranges), (Range(0x5000_0000, 0x100_0000, 0x5000_0000, "rw"),)
    stages_1 = () if alone == "stage 2" else (Stage1(tree, None, ()),)
    stage_2 = Stage2(tree._replace(ranges=whole) if nested else tree, (), STAGE_1_AT[0])
    stages_2 = (stage_2,) if nested or alone == "stage 2" else ()
    stream = Stream("both" if nested else alone, 0 if stages_1 else None, 0 if stages_2 else None)
    table = StreamTable(split=8) if kind.endswith("two-level") else StreamTable()
    return Configuration(kind, table, stages_1, stages_2, (stream,) * 5, events)

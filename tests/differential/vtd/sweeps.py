# SPDX-License-Identifier: Apache-2.0
"""Every bit of every structure that both sides read, one at a time.

Random configurations come upon a bit now and then. Here a bit that one side takes for reserved, or for a part of
another field, cannot be missed.
"""

from collections.abc import Iterator, Mapping

from iommuctl.formats.bits import Layout
from iommuctl_vtd.context_entry import ContextEntry, ScalableContextEntry
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.invalidation import (
    ContextCacheInvalidate,
    DeviceTlbInvalidate,
    IecInvalidate,
    InvalidationWait,
    IotlbInvalidate,
    PageGroupResponse,
    PasidCacheInvalidate,
    PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate,
)
from iommuctl_vtd.pasid_entry import PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.root_entry import RootEntry, ScalableRootEntry
from iommuctl_vtd.second_stage import SecondStageEntry
from tests.differential.plans import Dma, Flip, Range
from tests.differential.vtd.descriptors import global_invalidation
from tests.differential.vtd.kinds import KINDS
from tests.differential.vtd.plans import Configuration, Event, Queue, Space

_EDU, _UPPER = 1, 2
"""Devices, of which the second one is in the upper half of its bus."""
_PAGE, _LARGE = 0x20_1000, 0x40_0000
"""Addresses in pages of 4 KiB and of 2 MiB. One wrong bit of what they map to never leads to tables."""
_RANGES = (Range(_PAGE, 0x1000, 0x1000_0000, "rw"), Range(_LARGE, 0x20_0000, 0x1060_0000, "rw"))
_CHUNK = 32
"""Bits for each configuration, so that a difference shows soon."""

_ENTRIES: tuple[tuple[type[Layout], str, int, int, tuple[int, ...]], ...] = (
    (RootEntry, "legacy", _EDU, _PAGE, (5,)),
    (ContextEntry, "legacy", _EDU, _PAGE, (4,)),
    (ScalableRootEntry, "scalable-39", _EDU, _PAGE, (6,)),
    (ScalableRootEntry, "scalable-39", _UPPER, _PAGE, (6,)),
    (ScalableContextEntry, "scalable-39", _EDU, _PAGE, (5,)),
    (PasidDirectoryEntry, "scalable-39", _EDU, _PAGE, (4,)),
    (PasidEntry, "scalable-39", _EDU, _PAGE, (3,)),
    (PasidEntry, "first-stage", _EDU, _PAGE, (4,)),
    (FirstStageEntry, "first-stage", _EDU, _PAGE, (0, 1, 2, 3)),
    (FirstStageEntry, "first-stage", _EDU, _LARGE, (0,)),
    (SecondStageEntry, "legacy-39", _EDU, _PAGE, (0, 1, 2)),
    (SecondStageEntry, "legacy-snoop", _EDU, _LARGE, (0,)),
)
"""Of which unit and which device's way to an address, which entries are swept: how far they are from the end."""

_DESCRIPTORS: tuple[tuple[type[Layout], Mapping[str, int]], ...] = (
    (ContextCacheInvalidate, {"G": 3}),
    (IotlbInvalidate, {"G": 3}),
    (DeviceTlbInvalidate, {}),
    (IecInvalidate, {}),
    (InvalidationWait, {"SW": 1, "FN": 1, "STADDR": 0x1000_0900}),
    (PasidIotlbInvalidate, {"G": 3}),
    (PasidCacheInvalidate, {"G": 1}),
    (PasidDeviceTlbInvalidate, {}),
    (PageGroupResponse, {"PP": 1}),
)
_LEGACY = (ContextCacheInvalidate, IotlbInvalidate, DeviceTlbInvalidate, IecInvalidate, InvalidationWait)
"""The types that legacy mode has, too."""


def sweeps() -> Iterator[tuple[type[Layout], Configuration]]:
    """Each configuration with the structure that it is about."""
    for layout, kind, device, iova, depths in _ENTRIES:
        for depth in depths:
            for bits in _chunks(layout.bits):
                flips = [_flipped(kind, Flip(device, iova, depth, bit)) for bit in bits]
                yield layout, _configuration(kind, [event for events in flips for event in events])
    for layout, raw in _good():
        for bits in _chunks(layout.bits):
            yield layout, _configuration("scalable-rich", [Queue((raw ^ 1 << bit,)) for bit in bits])


def good_descriptors() -> Iterator[tuple[type[Layout], Configuration]]:
    """A descriptor of each type, as both must take it, where the mode has the type."""
    for layout, raw in _good():
        yield layout, _configuration("scalable-rich", [Queue((raw,))])
        if layout in _LEGACY:
            yield layout, _configuration("legacy", [Queue((raw,))])


def _good() -> Iterator[tuple[type[Layout], int]]:
    return ((layout, layout.encode(**values)) for layout, values in _DESCRIPTORS)


def _chunks(bits: int) -> Iterator[range]:
    return (range(first, min(bits, first + _CHUNK)) for first in range(0, bits, _CHUNK))


def _flipped(kind: str, flip: Flip) -> tuple[Event, ...]:
    """One bit is wrong; then it is mended."""
    forget = Queue(global_invalidation(KINDS[kind]))
    return flip, forget, Dma(flip.device, "w", flip.iova, 8), flip


def _configuration(kind: str, events: list[Event]) -> Configuration:
    unit = KINDS[kind]
    space = Space("first" if unit.first_stage else "second", max(unit.widths), (1 << 12, 1 << 21), _RANGES)
    return Configuration(kind, (space,), (0,) * 5, tuple(events))

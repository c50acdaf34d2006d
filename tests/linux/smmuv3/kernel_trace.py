# SPDX-License-Identifier: Apache-2.0
"""What Linux tells of its SMMUv3 tables: which devices are translated, and each mapping that it made or took away.

The driver prints no tables; mappings are the events of include/trace/events/iommu.h of Linux 7.3, which do not say in
which tables they are. An unknown line is an error, and so is a trace that lost events.
"""

import re
from pathlib import Path
from typing import NamedTuple

from iommuctl.model import Rid
from tests.linux.architecture import UnknownLine

_ENTRIES = re.compile(r"# entries-in-buffer/entries-written: (\d+)/(\d+) +#P:\d+")
_RANGE = r"IOMMU: iova=0x([0-9a-f]{16}) - 0x([0-9a-f]{16})"
_MAP = re.compile(rf" *\S.*-\d+ +\[\d+\] \S+ +\d+\.\d+: map: {_RANGE} paddr=0x([0-9a-f]{{16}}) size=(\d+)")
_UNMAP = re.compile(rf" *\S.*-\d+ +\[\d+\] \S+ +\d+\.\d+: unmap: {_RANGE} size=(\d+) unmapped_size=(\d+)")


class Event(NamedTuple):
    """A range that was mapped to `pa`, or taken away, of which `pa` is None."""

    iova: int
    size: int
    pa: int | None


class Dump(NamedTuple):
    """Everything."""

    devices: dict[Rid, str]
    """The types of the domains that Linux has for the devices behind the unit, as DMA or identity."""
    events: tuple[Event, ...]
    """In their order."""


def parse(folder: Path) -> Dump:
    """Read a copy of the trace, and of the files `iommu_group/type` of devices. Raises UnknownLine."""
    types = sorted(folder.glob("*/iommu_group/type"))
    devices = {Rid.parse(path.parts[-3]): path.read_text().strip() for path in types}
    return Dump(devices, parse_trace((folder / "trace").read_text()))


def parse_trace(text: str) -> tuple[Event, ...]:
    """The events of a trace. Raises UnknownLine."""
    lines = text.splitlines()
    events = tuple(_event(line) for line in lines if not line.startswith("#"))
    counts = [found for line in lines if (found := _ENTRIES.fullmatch(line))]
    if len(counts) != 1 or {int(counts[0][1]), int(counts[0][2])} != {len(events)}:
        raise UnknownLine(f"the trace has {len(events)} events, but {[found[0] for found in counts]} tells of others")
    return events


def _event(line: str) -> Event:
    if found := _MAP.fullmatch(line):
        first, end, pa, size = int(found[1], 16), int(found[2], 16), int(found[3], 16), int(found[4])
    elif found := _UNMAP.fullmatch(line):
        first, end, pa, size = int(found[1], 16), int(found[2], 16), None, int(found[4])
    else:
        raise UnknownLine(f"{line!r} is neither a mapping nor the end of one")
    if end - first != size:
        raise UnknownLine(f"the sizes in {line!r} differ")
    return Event(first, size, pa)

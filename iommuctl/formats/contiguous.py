# SPDX-License-Identifier: Apache-2.0
"""Contiguous runs: leaf entries that say together that they are one page."""

from collections.abc import Iterator
from itertools import groupby

from iommuctl.formats.format import Format, Visit


def page(fmt: Format, found: Visit) -> tuple[int, int]:
    """The first input address and the size of what a leaf entry is a part of: a contiguous run, or itself alone."""
    size = found.size * (fmt.contiguous(found.level) if found.raw & fmt.hint else 1)
    return found.iova // size * size, size


def grouped(fmt: Format, visits: Iterator[Visit]) -> Iterator[tuple[Visit, ...]]:
    """Visits of a tour, adjacent leaf entries of one contiguous run together, all others alone."""
    if not fmt.hint:
        return zip(visits)

    def group(found: Visit) -> object:
        hinted = found.raw & fmt.hint and found.entry.kind == "leaf"
        return (found.level, *page(fmt, found)) if hinted else found.address

    return (tuple(members) for _, members in groupby(visits, group))


def is_run(fmt: Format, members: tuple[Visit, ...]) -> bool:
    """Whether a group with the hint is what it says. What hardware sets by itself may differ."""
    first, told = members[0], fmt.layout.told
    return (
        len(members) == fmt.contiguous(first.level)
        and first.entry.address % (len(members) * first.size) == 0
        and all(told(one.raw) == told(first.raw) + one.iova - first.iova for one in members)
    )

# SPDX-License-Identifier: Apache-2.0
"""Which operation changed an entry last: for those pages of tables that the unit has read into its caches.

A page is followed from the first time that a cached answer was made of it. Changes of bits that hardware sets by
itself, and of entries that were zero, which no cache holds, are not noted.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import PAGE
from iommuctl.hookspecs import Rows, Settled
from iommuctl.model import Step

KIND = "sim.followed"
_KEPT = 32
"""How many changes of one page are kept."""


def is_followed(rows: Rows) -> bool:
    """Whether there is anything to note."""
    return any(rows.scan(KIND, limit=1))


class Journal:
    """Rows by page: the structure that it is made of, and changes as [first byte, last byte, operation]."""

    def __init__(self, rows: Rows, structures: Mapping[str, type[Layout]]) -> None:
        self._rows = rows
        self._structures = structures
        self._known: set[int] = set()

    def follow(self, steps: Iterable[Step]) -> None:
        """From now on note what happens to the pages of these structures."""
        for step in steps:
            page = step.address & -PAGE
            if page not in self._known:
                self._known.add(page)
                row = self._rows.get(KIND, _key(page))
                # A page that held other structures before is another one now.
                if row is None or row[0] != step.structure:
                    self._rows.put(KIND, _key(page), [step.structure, row[1] if row else []])

    def note(self, request: Settled) -> None:
        """An operation wrote to memory. Pages that it took into use are other ones as a whole."""
        operation, writes, fresh = request
        rows: dict[int, Any] = {}
        if fresh:
            for key, row in self._rows.scan(KIND, _key(min(fresh)), _key(max(fresh))):
                if (page := int(key, 16)) in fresh:
                    rows[page] = row
                    row[1].append([0, PAGE - 1, operation])
        for address, old, new in writes:
            page = address & -PAGE
            if page not in rows:
                rows[page] = self._rows.get(KIND, _key(page))
            if rows[page]:
                structure, changes = rows[page]
                spans = [[*span, operation] for span in self._spans(self._structures[structure], address, old, new)]
                changes.extend(spans)
        for page, row in rows.items():
            if row:
                self._rows.put(KIND, _key(page), [row[0], row[1][-_KEPT:]])

    def operation(self, address: int, size: int) -> str | None:
        """The last operation that changed a byte there."""
        row = self._rows.get(KIND, _key(address & -PAGE))
        start = address % PAGE
        for first, last, operation in reversed(row[1] if row else []):
            if first < start + size and start <= last:
                return str(operation)
        return None

    def _spans(self, layout: type[Layout], address: int, old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
        """Where structures of a page differ, as (first byte, last byte), neighbours together."""
        size = layout.bits // 8
        span: tuple[int, int] | None = None
        at = 0
        while at < len(new):
            start = (address + at) % PAGE
            # Up to the end of the word; its place in the structure tells the mask.
            length = min(8 - start % 8, len(new) - at)
            shift = 8 * (start % size)
            before, after = (
                layout.told(int.from_bytes(data[at : at + length], "little") << shift) for data in (old, new)
            )
            at += length
            # A whole entry that was zero is in no cache.
            if before == after or (not before and length == size):
                continue
            end = start + length - 1
            if span and span[1] + 1 == start:
                span = span[0], end
                continue
            if span:
                yield span
            span = start, end
        if span:
            yield span


def _key(page: int) -> str:
    return f"{page:016x}"

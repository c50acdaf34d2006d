# SPDX-License-Identifier: Apache-2.0
"""The context cache and the PASID cache: what the unit remembers between a request and its page tables.

Only valid present structures are cached. As with the IOTLB, nothing is evicted, and the caches keep all that hardware
may: root entries until all contexts are forgotten, PASID directory entries until a whole domain's PASIDs are, or their
device's context. VT-d 4.1 sections 6.2.2, 6.2.3, 6.5.2.1 and 6.5.2.2.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from iommuctl.hookspecs import Rows

ROOTS = "vtd.root-cache"
CONTEXTS = "vtd.context-cache"
DIRECTORY = "vtd.pasid-directory-cache"
PASIDS = "vtd.pasid-cache"
_FUNCTIONS = {0: 0, 1: 0b100, 2: 0b110, 3: 0b111}
"""The bits of a source id that each value of FM has ignored."""


class Cached(NamedTuple):
    """A structure: where it was read, what it was, the DID of its tables, and whether FPD was set on the way to it."""

    address: int
    raw: int
    did: int = 0
    fpd: bool = False


class ContextCache:
    """Root entries by half of a bus, context entries by source id."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def root(self, index: int) -> Cached | None:
        return _get(self._rows, ROOTS, f"{index:03x}")

    def fill_root(self, index: int, entry: Cached) -> None:
        self._rows.put(ROOTS, f"{index:03x}", entry)

    def find(self, source_id: int) -> Cached | None:
        return _get(self._rows, CONTEXTS, f"{source_id:04x}")

    def fill(self, source_id: int, entry: Cached) -> None:
        self._rows.put(CONTEXTS, f"{source_id:04x}", entry)

    def drop_all(self) -> None:
        """Global invalidation."""
        _drop(self._rows, ROOTS, lambda _key, _entry: True)
        _drop(self._rows, CONTEXTS, lambda _key, _entry: True)

    def drop_domain(self, did: int) -> None:
        """Domain-selective invalidation, which legacy mode has."""
        _drop(self._rows, CONTEXTS, lambda _key, entry: entry.did == did)

    def drop_device(self, source_id: int, mask: int, did: int | None) -> None:
        """Device-selective invalidation; in legacy mode the DID must be the entry's, too."""
        _drop(
            self._rows,
            CONTEXTS,
            lambda key, entry: matches(int(key, 16), source_id, mask) and did in (None, entry.did),
        )

    def size(self) -> int:
        return self._rows.count(CONTEXTS)

    def entries(self) -> Iterator[tuple[str, Cached]]:
        """All that is cached, root entries with the kind ROOTS and context entries with CONTEXTS."""
        yield from _all(self._rows, ROOTS, CONTEXTS)


class PasidCache:
    """PASID directory entries and PASID table entries, by source id and PASID."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def directory(self, source_id: int, pasid: int) -> Cached | None:
        return _get(self._rows, DIRECTORY, f"{source_id:04x}.{pasid >> 6:04x}")

    def fill_directory(self, source_id: int, pasid: int, entry: Cached) -> None:
        self._rows.put(DIRECTORY, f"{source_id:04x}.{pasid >> 6:04x}", entry)

    def find(self, source_id: int, pasid: int) -> Cached | None:
        return _get(self._rows, PASIDS, f"{source_id:04x}.{pasid:05x}")

    def fill(self, source_id: int, pasid: int, entry: Cached) -> None:
        self._rows.put(PASIDS, f"{source_id:04x}.{pasid:05x}", entry)

    def drop_all(self) -> None:
        """Global invalidation."""
        _drop(self._rows, DIRECTORY, lambda _key, _entry: True)
        _drop(self._rows, PASIDS, lambda _key, _entry: True)

    def drop_domain(self, did: int) -> None:
        """Domain-selective invalidation. Directory entries have no DID: all of them go."""
        _drop(self._rows, DIRECTORY, lambda _key, _entry: True)
        _drop(self._rows, PASIDS, lambda _key, entry: entry.did == did)

    def drop_pasid(self, did: int, pasid: int) -> None:
        """PASID-selective invalidation within a domain, whatever the device."""
        _drop(self._rows, PASIDS, lambda key, entry: entry.did == did and int(key[5:], 16) == pasid)

    def drop_directories(self, source_id: int | None = None, mask: int = 0) -> None:
        """Context entries have been forgotten: nothing leads to their directories any more."""
        _drop(
            self._rows,
            DIRECTORY,
            lambda key, _entry: source_id is None or matches(int(key[:4], 16), source_id, mask),
        )

    def size(self) -> int:
        return self._rows.count(PASIDS)

    def entries(self) -> Iterator[tuple[str, Cached]]:
        """All that is cached, with the kind DIRECTORY or PASIDS."""
        yield from _all(self._rows, DIRECTORY, PASIDS)


def matches(source_id: int, wanted: int, mask: int) -> bool:
    """Whether a source id is meant by another and a function mask (FM)."""
    return (source_id ^ wanted) & ~_FUNCTIONS[mask] == 0


def _get(rows: Rows, kind: str, key: str) -> Cached | None:
    found: Any = rows.get(kind, key)
    return Cached(*found) if found else None


def _all(rows: Rows, *kinds: str) -> Iterator[tuple[str, Cached]]:
    return ((kind, Cached(*value)) for kind in kinds for _, value in rows.scan(kind))


def _drop(rows: Rows, kind: str, concerns: Callable[[str, Cached], bool]) -> None:
    for key, value in rows.scan(kind):
        if concerns(key, Cached(*value)):
            rows.delete(kind, key)

# SPDX-License-Identifier: Apache-2.0
"""The paging-structure caches: entries that point to tables, by domain id, PASID, level and address.

They are why an invalidation must say whether tables were freed: with IH set they stay. VT-d 4.1 section 6.2.5.
"""

from collections.abc import Iterator
from typing import NamedTuple

from iommuctl.hookspecs import Rows
from iommuctl.model import MAX_ADDRESS

KIND = "vtd.paging-cache"
SECOND_STAGE_PASID = "-----"
"""Stands for the PASID in keys of the second stage, which has none. It comes before all numbers."""
_LEVELS = range(2, 6)
"""Those of entries that point to tables; one of level n is for 2**(3 + 9 * n) bytes."""


class Pointer(NamedTuple):
    """An entry that points to a table: its address as the tables have it, what it was, and its physical address."""

    address: int
    raw: int
    place: int


class PagingCache:
    """The caches of both stages of one unit, in rows. `owner` is "did.pasid." of the tables."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, owner: str, level: int, iova: int) -> Pointer | None:
        """The entry of a level for the addresses from `iova` on."""
        found = self._rows.get(KIND, f"{owner}{level}.{iova:016x}")
        return Pointer(*found) if found else None

    def fill(self, owner: str, level: int, iova: int, pointer: Pointer) -> None:
        self._rows.put(KIND, f"{owner}{level}.{iova:016x}", pointer)

    def drop_all(self) -> None:
        """Global invalidation."""
        self._drop("", "~")

    def drop_domain(self, did: int) -> None:
        """Domain-selective invalidation."""
        self._drop(f"{did:04x}.", f"{did:04x}.~")

    def drop_domain_pages(self, did: int, first: int, last: int, *, leaf: bool) -> None:
        """Page-selective invalidation in a domain.

        First-stage entries of the domain were found through the second stage, so all of them go.
        """
        if not leaf:
            self._drop_pages(f"{did:04x}.{SECOND_STAGE_PASID}.", first, last)
        self._drop(f"{did:04x}.0", f"{did:04x}.~")

    def drop_pasid(self, did: int, pasid: int) -> None:
        """PASID-selective invalidation."""
        self._drop(f"{did:04x}.{pasid:05x}.", f"{did:04x}.{pasid:05x}.~")

    def drop_pasid_pages(self, did: int, pasid: int, first: int, last: int, *, leaf: bool) -> None:
        """Page-selective invalidation of one PASID."""
        if not leaf:
            self._drop_pages(f"{did:04x}.{pasid:05x}.", first, last)

    def size(self) -> int:
        return self._rows.count(KIND)

    def second_stage(self) -> Iterator[int]:
        """The contents of all cached entries of the second stage."""
        return (Pointer(*value).raw for key, value in self._rows.scan(KIND) if SECOND_STAGE_PASID in key)

    def _drop(self, first: str, last: str) -> None:
        for key, _ in self._rows.scan(KIND, first, last):
            self._rows.delete(KIND, key)

    def _drop_pages(self, owner: str, first: int, last: int) -> None:
        """Entries for a range of addresses, level by level."""
        # The largest blocks end beyond all addresses, and keys have 16 digits.
        last = min(last, MAX_ADDRESS)
        for level in _LEVELS:
            start = first & -(1 << 3 + 9 * level)
            self._drop(f"{owner}{level}.{start:016x}", f"{owner}{level}.{last:016x}")

# SPDX-License-Identifier: Apache-2.0
"""The paging-structure caches: entries that point to tables, by domain id, PASID, level and address.

They are why an invalidation must say whether tables were freed: with IH set they stay. VT-d 4.1 section 6.2.5.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from iommuctl.hookspecs import Rows

KIND = "vtd.paging-cache"
SECOND_STAGE_PASID = "-----"
"""Stands for the PASID in keys of the second stage, which has none."""


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
        self._drop("", lambda _pasid, _first, _last: True)

    def drop_domain(self, did: int) -> None:
        """Domain-selective invalidation."""
        self._drop(f"{did:04x}.", lambda _pasid, _first, _last: True)

    def drop_domain_pages(self, did: int, first: int, last: int, *, leaf: bool) -> None:
        """Page-selective invalidation in a domain.

        First-stage entries of the domain were found through the second stage, so all of them go.
        """
        self._drop(
            f"{did:04x}.",
            lambda pasid, start, end: pasid != SECOND_STAGE_PASID or (not leaf and start <= last and first <= end),
        )

    def drop_pasid(self, did: int, pasid: int) -> None:
        """PASID-selective invalidation."""
        self._drop(f"{did:04x}.{pasid:05x}.", lambda _pasid, _first, _last: True)

    def drop_pasid_pages(self, did: int, pasid: int, first: int, last: int, *, leaf: bool) -> None:
        """Page-selective invalidation of one PASID."""
        if not leaf:
            self._drop(f"{did:04x}.{pasid:05x}.", lambda _pasid, start, end: start <= last and first <= end)

    def size(self) -> int:
        return self._rows.count(KIND)

    def second_stage(self) -> Iterator[int]:
        """The contents of all cached entries of the second stage."""
        return (Pointer(*value).raw for key, value in self._rows.scan(KIND) if SECOND_STAGE_PASID in key)

    def _drop(self, prefix: str, concerns: Callable[[str, int, int], bool]) -> None:
        for key, _ in self._rows.scan(KIND, prefix, prefix + "~"):
            _, pasid, level, iova = key.split(".")
            first = int(iova, 16)
            if concerns(pasid, first, first + (1 << 3 + 9 * int(level)) - 1):
                self._rows.delete(KIND, key)

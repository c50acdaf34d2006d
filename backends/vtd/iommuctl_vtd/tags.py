# SPDX-License-Identifier: Apache-2.0
"""Domain ids, which tag what the unit caches.

The unit tags by DID and PASID, not by RID. So every second stage has a DID of its own, and so has every pair of parent
and page table: the same PASID on two RIDs with different tables must not alias. VT-d 4.1 section 6.2.3.1.
"""

from iommuctl.errors import NoRoom
from iommuctl.hookspecs import Rows
from iommuctl.model import Binding, Domain

KIND = "vtd.did"
FREE = "vtd.did-free"
FIRST_DID = 1
"""DID 0 tags entries that are not present on units that cache these."""


class Tags:
    """The DIDs of one unit. A nested one lives as long as some slot holds the pair."""

    def __init__(self, rows: Rows, domain_ids: int) -> None:
        self._rows = rows
        self._domain_ids = domain_ids

    def create(self, domain: Domain) -> None:
        """Take a DID for a second stage. Raises NoRoom."""
        self._rows.put(KIND, _key(domain), [self._take(), 0])

    def destroy(self, domain: Domain) -> None:
        self._give_back(_key(domain))

    def acquire(self, binding: Binding) -> None:
        """Count one more slot that holds the binding's pair. Raises NoRoom."""
        key = _pair(binding)
        did, users = self._rows.get(KIND, key) or (self._take(), 0)
        self._rows.put(KIND, key, [did, users + 1])

    def release(self, binding: Binding) -> None:
        """Count one slot less; the caches have been told."""
        key = _pair(binding)
        did, users = self._rows.get(KIND, key)
        if users > 1:
            self._rows.put(KIND, key, [did, users - 1])
        else:
            self._give_back(key)

    def of(self, holder: Domain | Binding) -> int:
        """The DID of a second stage, or of a pair that some slot holds."""
        key = _pair(holder) if isinstance(holder, Binding) else _key(holder)
        did: int = self._rows.get(KIND, key)[0]
        return did

    def _take(self) -> int:
        for key, _ in self._rows.scan(FREE, limit=1):
            self._rows.delete(FREE, key)
            return int(key, 16)
        did: int = self._rows.get("vtd", "next did") or FIRST_DID
        if did >= self._domain_ids:
            raise NoRoom("no domain id is left", because=f"the unit has {self._domain_ids}", hint="destroy a domain")
        self._rows.put("vtd", "next did", did + 1)
        return did

    def _give_back(self, key: str) -> None:
        did, _ = self._rows.get(KIND, key)
        self._rows.delete(KIND, key)
        self._rows.put(FREE, f"{did:04x}", None)


def _key(domain: Domain) -> str:
    return f"{domain.id}"


def _pair(binding: Binding) -> str:
    return f"{binding.domain.id} {binding.root:x} {binding.format}"

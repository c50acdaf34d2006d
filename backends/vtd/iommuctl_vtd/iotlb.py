# SPDX-License-Identifier: Apache-2.0
"""The IOTLB: translations by domain id, PASID and address, served until a command takes them away.

It never evicts, so that what it still holds depends on the commands alone. VT-d 4.1 section 6.2.4.
"""

from collections.abc import Callable
from typing import NamedTuple

from iommuctl.hookspecs import Rows
from iommuctl_vtd.pasid_entry import FIRST_STAGE, NESTED, SECOND_STAGE
from iommuctl_vtd.walk import Mapped, Rights

KIND = "vtd.iotlb"
_PAGE_ORDERS = (0, 9, 18)
_ANY = "-----"


class Tag(NamedTuple):
    """What an entry is found by besides its address. The second stage's entries have no PASID."""

    did: int
    pgtt: int
    pasid: int

    @property
    def prefix(self) -> str:
        pasid = f"{self.pasid:05x}" if self.pgtt in (FIRST_STAGE, NESTED) else _ANY
        return f"{self.did:04x}.{pasid}."


class Iotlb:
    """The cache of one unit, in rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, tag: Tag, iova: int) -> Mapped | None:
        """The translation of an address, with `pa` for that very address."""
        for order in _PAGE_ORDERS:
            size = 4096 << order
            if found := self._rows.get(KIND, _key(tag.prefix, iova & -size, order)):
                pa, rights, dirty, _ = found
                return Mapped(pa | iova & size - 1, size, Rights(*rights), dirty)
        return None

    def fill(self, tag: Tag, iova: int, mapped: Mapped) -> None:
        """Keep a translation that a walk found."""
        size = mapped.page_size
        order = (size // 4096).bit_length() - 1
        value = [mapped.pa & -size, mapped.rights, mapped.dirty, tag.pgtt]
        self._rows.put(KIND, _key(tag.prefix, iova & -size, order), value)

    def size(self) -> int:
        return self._rows.count(KIND)

    def drop_all(self) -> None:
        """Global invalidation."""
        self._drop("")

    def drop_domain(self, did: int) -> None:
        """Domain-selective invalidation: every stage and PASID."""
        self._drop(f"{did:04x}.")

    def drop_domain_pages(self, did: int, first: int, last: int) -> None:
        """Page-selective invalidation in a domain: addresses of the second stage.

        First-stage and nested entries of the domain all go: their addresses are others.
        """
        self._drop(
            f"{did:04x}.",
            lambda address, size, pgtt: pgtt != SECOND_STAGE or (address <= last and first < address + size),
        )

    def drop_pasid(self, did: int, pasid: int) -> None:
        """PASID-selective invalidation: first-stage and nested entries."""
        self._drop(f"{did:04x}.{pasid:05x}.")

    def drop_pasid_pages(self, did: int, pasid: int, first: int, last: int) -> None:
        """Page-selective invalidation of one PASID: addresses of the first stage."""
        self._drop(f"{did:04x}.{pasid:05x}.", lambda address, size, _: address <= last and first < address + size)

    def _drop(self, prefix: str, concerns: Callable[[int, int, int], bool] | None = None) -> None:
        for key, (_, _, _, pgtt) in self._rows.scan(KIND, prefix, prefix + "~"):
            _, _, address, order = key.split(".")
            if concerns is None or concerns(int(address, 16), 4096 << int(order), pgtt):
                self._rows.delete(KIND, key)


def _key(prefix: str, address: int, order: int) -> str:
    return f"{prefix}{address:016x}.{order:02d}"

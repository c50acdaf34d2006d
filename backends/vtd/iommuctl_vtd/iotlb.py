# SPDX-License-Identifier: Apache-2.0
"""The IOTLB: translations by domain id, PASID and address, served until a command takes them away.

It never evicts, so that what it still holds depends on the commands alone. VT-d 4.1 section 6.2.4.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from iommuctl.hookspecs import Rows
from iommuctl.model import MAX_ADDRESS, Step
from iommuctl_vtd.context_entry import ContextEntry
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.pasid_entry import SECOND_STAGE, PasidEntry
from iommuctl_vtd.second_stage import SecondStageEntry
from iommuctl_vtd.walk import Mapped, Rights, Tag

KIND = "vtd.iotlb"
_PAGE_ORDERS = (0, 9, 18)
_LARGEST = 4096 << _PAGE_ORDERS[-1]
_LAYOUTS = {layout.name: layout for layout in (ContextEntry, PasidEntry, FirstStageEntry, SecondStageEntry)}


class Translated(NamedTuple):
    """A cached translation, with `pa` for the very address that was asked for, and what it was made of."""

    mapped: Mapped
    made_of: list[tuple[str, int, int, int]]
    """Structure, address, contents, stage."""

    def steps(self) -> Iterator[Step]:
        for name, address, raw, stage in self.made_of:
            layout = _LAYOUTS[name]
            yield Step(name, address, layout.to_words(raw), layout.values(raw), stage)


class Iotlb:
    """The cache of one unit, in rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, tag: Tag, iova: int) -> Translated | None:
        """The translation of an address."""
        for order in _PAGE_ORDERS:
            size = 4096 << order
            if found := self._rows.get(KIND, _key(tag.owner, iova & -size, order)):
                pa, rights, dirty, _, made_of = found
                return Translated(Mapped(pa | iova & size - 1, size, Rights(*rights), dirty), made_of)
        return None

    def fill(self, tag: Tag, iova: int, mapped: Mapped, steps: Iterable[Step]) -> None:
        """Keep a translation that a walk found, and the structures that it was made of."""
        size = mapped.page_size
        order = (size // 4096).bit_length() - 1
        made_of = [
            (step.structure, step.address, _LAYOUTS[step.structure].from_words(step.raw), step.stage) for step in steps
        ]
        value = [mapped.pa & -size, mapped.rights, mapped.dirty, tag.pgtt, made_of]
        self._rows.put(KIND, _key(tag.owner, iova & -size, order), value)

    def size(self) -> int:
        return self._rows.count(KIND)

    def drop_all(self) -> None:
        """Global invalidation."""
        self._drop("", "~")

    def drop_domain(self, did: int) -> None:
        """Domain-selective invalidation: every stage and PASID."""
        self._drop(f"{did:04x}.", f"{did:04x}.~")

    def drop_domain_pages(self, did: int, first: int, last: int) -> None:
        """Page-selective invalidation in a domain: addresses of the second stage.

        First-stage and nested entries of the domain all go: their addresses are others.
        """
        self._drop_pages(Tag(did, SECOND_STAGE, 0).owner, first, last)
        # Keys of the first stage have a number where those of the second have a sign that comes before all numbers.
        self._drop(f"{did:04x}.0", f"{did:04x}.~")

    def drop_pasid(self, did: int, pasid: int) -> None:
        """PASID-selective invalidation: first-stage and nested entries."""
        self._drop(f"{did:04x}.{pasid:05x}.", f"{did:04x}.{pasid:05x}.~")

    def drop_pasid_pages(self, did: int, pasid: int, first: int, last: int) -> None:
        """Page-selective invalidation of one PASID: addresses of the first stage."""
        self._drop_pages(f"{did:04x}.{pasid:05x}.", first, last)

    def _drop(self, first: str, last: str) -> None:
        for key, _ in self._rows.scan(KIND, first, last):
            self._rows.delete(KIND, key)

    def _drop_pages(self, owner: str, first: int, last: int) -> None:
        """Pages that reach into an address range: none begins further before it than the largest page is long."""
        # The largest blocks end beyond all addresses, and keys have 16 digits.
        last = min(last, MAX_ADDRESS)
        for key, _ in self._rows.scan(KIND, f"{owner}{first & -_LARGEST:016x}", f"{owner}{last:016x}~"):
            _, _, address, order = key.split(".")
            if first < int(address, 16) + (4096 << int(order)):
                self._rows.delete(KIND, key)


def _key(owner: str, address: int, order: int) -> str:
    return f"{owner}{address:016x}.{order:02d}"

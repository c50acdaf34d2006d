# SPDX-License-Identifier: Apache-2.0
"""VMIDs and ASIDs, which tag what the unit caches: IHI0070 G.b section 3.17.

The TLB knows no StreamID. A VMID stands for one stage 2, and VMID 0 for streams that have none; an ASID stands for one
stage 1 within its VMID: that of a domain, or that of one page table on one parent.
"""

from typing import NamedTuple

from iommuctl.errors import NoRoom
from iommuctl.hookspecs import Rows
from iommuctl.model import Binding, Domain, Occupant
from iommuctl_smmuv3.features import Features

KIND = "smmuv3.tag"
FREE = "smmuv3.tag-free"
NEXT = "smmuv3.tag-next"
NO_STAGE_2 = 0
"""The VMID of streams without stage 2."""
FIRST = 1
"""The first number that is given out: VMID 0 has its meaning, and Linux leaves ASID 0 unused as well."""
_VMIDS = "vmid"


class Tag(NamedTuple):
    """What tags the translations of a slot; `asid` is None for stage 2 alone."""

    vmid: int
    asid: int | None = None


class Tags:
    """The VMIDs and ASIDs of one unit. The ASID of a page table lives as long as some slot holds it."""

    def __init__(self, rows: Rows, features: Features) -> None:
        self._rows = rows
        self._vmid_limit = 1 << (16 if features.vmid16 else 8)
        self._asid_limit = 1 << (16 if features.asid16 else 8)

    def create(self, domain: Domain) -> None:
        """Take a VMID for a stage 2, an ASID for a stage 1. Raises NoRoom."""
        space = _VMIDS if domain.nest_parent else _asids(NO_STAGE_2)
        self._rows.put(KIND, _key(domain), [self._take(space), 0])

    def destroy(self, domain: Domain) -> None:
        self._give_back(_key(domain), _VMIDS if domain.nest_parent else _asids(NO_STAGE_2))

    def acquire(self, binding: Binding) -> None:
        """Count one more slot that holds the binding's page table. Raises NoRoom."""
        key = _pair(binding)
        asid, users = self._rows.get(KIND, key) or (self._take(_asids(self.vmid(binding.domain.id))), 0)
        self._rows.put(KIND, key, [asid, users + 1])

    def release(self, binding: Binding) -> None:
        """Count one slot less; the caches have been told."""
        key = _pair(binding)
        asid, users = self._rows.get(KIND, key)
        if users > 1:
            self._rows.put(KIND, key, [asid, users - 1])
        else:
            self._give_back(key, _asids(self.vmid(binding.domain.id)))

    def of(self, occupant: Occupant) -> Tag:
        """What tags the translations of a slot that is held so."""
        domain = occupant.domain
        if isinstance(occupant, Binding):
            return Tag(self.vmid(domain.id), self._number(_pair(occupant)))
        return self.of_domain(domain)

    def of_domain(self, domain: Domain) -> Tag:
        """What tags the translations of a domain alone."""
        number = self._number(_key(domain))
        return Tag(number) if domain.nest_parent else Tag(NO_STAGE_2, number)

    def vmid(self, parent: int) -> int:
        """The VMID of the nest parent with that id."""
        return self._number(f"{parent}")

    def _number(self, key: str) -> int:
        number: int = self._rows.get(KIND, key)[0]
        return number

    def _take(self, space: str) -> int:
        for key, number in self._rows.scan(FREE, f"{space} ", f"{space} ~", limit=1):
            self._rows.delete(FREE, key)
            taken: int = number
            return taken
        number = self._rows.get(NEXT, space) or FIRST
        limit = self._vmid_limit if space == _VMIDS else self._asid_limit
        if number >= limit:
            what = "VMID" if space == _VMIDS else "ASID"
            raise NoRoom(
                f"no {what} is left", because=f"the unit has {limit - FIRST} to give out", hint="destroy a domain"
            )
        self._rows.put(NEXT, space, number + 1)
        return int(number)

    def _give_back(self, key: str, space: str) -> None:
        number, _ = self._rows.get(KIND, key)
        self._rows.delete(KIND, key)
        self._rows.put(FREE, f"{space} {number:04x}", number)


def _asids(vmid: int) -> str:
    """The ASIDs of a VMID."""
    return f"asid of {vmid:04x}"


def _key(domain: Domain) -> str:
    return f"{domain.id}"


def _pair(binding: Binding) -> str:
    return f"{binding.domain.id} {binding.root:x} {binding.format}"

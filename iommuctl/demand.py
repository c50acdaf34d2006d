# SPDX-License-Identifier: Apache-2.0
"""Pages that are mapped when a device asks for them."""

from typing import Protocol

from iommuctl.errors import NoRoom, OutsideMemory, Overlap, Unsupported, Usage
from iommuctl.handlers import Pages
from iommuctl.mapping import map_range
from iommuctl.model import Attachment, Binding, Domain, Occupant
from iommuctl.page_faults import handler, waiting_group
from iommuctl.pgtables import guest_table_of, map_in_pgtable
from iommuctl.pools import check_no_pool
from iommuctl.session import Operation
from iommuctl.state.handlers import HandlerRows


class _Table(Protocol):
    """What a slot holds, as far as pages are mapped there."""

    granule: int

    def prot(self, iova: int) -> str | None:
        """What is allowed at an address; None where nothing is mapped."""

    def map(self, iova: int, pages: Pages, start: int, prot: str, *, privileged: bool) -> None:
        """Map a page to the one at `start` of `pages`."""


class _OfDomain:
    """The table of a domain. Its mappings are for all requests, privileged or not."""

    def __init__(self, operation: Operation, domain: Domain) -> None:
        self._operation = operation
        self._domain = domain
        self.granule = domain.page_sizes[0]

    def prot(self, iova: int) -> str | None:
        if iova >> self._domain.width:
            return None
        found = self._operation.books.mappings_in(self._domain, iova, iova)
        return found[0].prot if found else None

    def map(self, iova: int, pages: Pages, start: int, prot: str, *, privileged: bool) -> None:  # noqa: ARG002
        memory = None if pages.memory is None else self._operation.books.memory(pages.memory)
        map_range(self._operation, self._domain, iova, self.granule, start, memory, prot)


class _OfGuest:
    """A page table that we build; pages are guest memory, mapped read-write in the parent."""

    def __init__(self, operation: Operation, binding: Binding) -> None:
        if binding.pgtable is None:
            raise Unsupported(
                f"nothing can be mapped for {binding.slot} on demand",
                because=f"the page table at GPA {binding.root:#x} is its guest's",
            )
        self._operation = operation
        self._table = operation.books.pgtable(binding.pgtable)
        self._guest = guest_table_of(operation, self._table)
        self.granule = self._guest.format.page_sizes[0]

    def prot(self, iova: int) -> str | None:
        return self._guest.prot(iova)

    def map(self, iova: int, pages: Pages, start: int, prot: str, *, privileged: bool) -> None:
        parent = self._table.parent
        if pages.memory is not None:
            raise Unsupported(
                f"memory {pages.memory} cannot be mapped in page table {self._table.name}",
                because=f"that leads to addresses of {parent.name}",
                hint="`iommuctl fault handler set … --demand-map --from A+S`",
            )
        if not self._operation.books.maps_writable(parent, start, self.granule):
            raise OutsideMemory(f"GPA {start:#x} is not memory of {parent.name} that can be written")
        check_no_pool(self._operation, parent, start, self.granule)
        if "x" in prot and self._operation.capabilities.execute_permission:
            for mapping in self._operation.books.mappings_in(parent, start, start + self.granule - 1):
                if "x" not in mapping.prot:
                    raise Unsupported(f"GPA {start:#x} is not mapped in {parent.name} to be executed")
        map_in_pgtable(self._operation, self._table, iova, self.granule, start, prot, privileged=privileged)


def page_in(operation: Operation, key: int) -> None:
    """Map what the group of that id asks for, as Iommu.page_in says.

    Not-present entries are cached by none of the architectures' first stages, whatever they do in second stages: VT-d
    4.1 section 6.1 exempts them from Caching Mode, and SMMUv3 never caches translations that fault. So page tables need
    no invalidation here; domains are flushed by `map` itself where they need it.
    """
    group = waiting_group(operation, key)
    held = operation.books.slot(group.slot)
    found = handler(operation, held) if held else None
    if held is None or found is None or found.pages is None:
        raise Usage(f"no pages are mapped on demand for {group.slot}", because="it has no handler that says so")
    table, pages = _table(operation, held), found.pages
    for request in group.requests:
        needed = "r" * request.read + "w" * request.write + "x" * request.execute
        if not needed:
            continue
        iova = request.iova & -table.granule
        prot = table.prot(iova)
        if prot is None:
            start = pages.start + pages.used
            if pages.used + table.granule > pages.size:
                raise NoRoom(
                    "no page is left to map on demand", because=f"all {pages.size:#x} bytes of the handler are in use"
                )
            table.map(iova, pages, start, "rwx" if request.execute else "rw", privileged=request.privileged)
            pages = pages._replace(used=pages.used + table.granule)
        elif not set(needed) <= set(prot) or ("p" in prot and not request.privileged):
            raise Overlap(
                f"{iova:#x} is mapped already, {prot}",
                because=f"the device asks for {needed}{', not privileged' if 'p' in prot else ''}",
            )
    rows = HandlerRows(operation.transaction.connection)
    rows.put(held.slot if rows.get(held.slot) else held.domain, found._replace(pages=pages))


def _table(operation: Operation, held: Occupant) -> _Table:
    if isinstance(held, Attachment):
        return _OfDomain(operation, held.domain)
    return _OfGuest(operation, held)

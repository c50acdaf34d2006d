# SPDX-License-Identifier: Apache-2.0
"""Devices, named memory, domains and their mappings: one method per command."""

from collections.abc import Sequence
from itertools import chain

from iommuctl.errors import (
    BadNumber,
    InUse,
    NameTaken,
    PartialUnmap,
    Unsupported,
    Usage,
)
from iommuctl.formats.memory import PAGE, Run
from iommuctl.labels import Labels
from iommuctl.model import Binding, Device, Domain, Mapping, Memory, PageTable, Rid
from iommuctl.requests import NEW_MEMORY, MemoryRequest, MemorySource, UnmapRequest
from iommuctl.rules import (
    check_aperture,
    check_label,
    check_name,
    check_numbers,
    check_page_sizes,
    check_range,
    check_size,
    check_width,
)
from iommuctl.session import Operation
from iommuctl.slots import in_use, take_off, unbind, user_words
from iommuctl.state.books import CdPool


class Objects(Labels):
    """The part of class Iommu that is about things, before anything is attached to anything."""

    def device_add(self, rid: Rid | str, *, ats: bool = False, pri: bool = False, pasid_bits: int = 0) -> Device:
        """Make a simulated device, all its slots empty. Raises NameTaken, Unsupported on hardware."""
        rid = Rid.parse(str(rid))
        with self._change(f"device add {rid}") as operation:
            if not 0 <= pasid_bits <= 20:
                raise BadNumber(f"{pasid_bits} PASID bits", because="a device has 0 to 20")
            if operation.call("devices", rid=rid):
                raise NameTaken(
                    f"there is a device {rid} already", hint=f"`iommuctl device remove {rid}` takes it away"
                )
            device = Device(rid, ats, pri, pasid_bits)
            operation.call("device_add", device=device)
            return device

    def device_remove(self, rid: Rid | str, *, force: bool = False) -> None:
        """Take a simulated device away; `force` empties its slots first. Raises InUse."""
        from iommuctl.page_faults import end_all_pending
        from iommuctl.state.handlers import HandlerRows

        with self._change(f"device remove {rid}") as operation:
            device = operation.device(rid)
            take_off(operation, f"device {device.rid}", operation.books.slots(rid=device.rid), force=force)
            if device.pri:
                end_all_pending(operation, device.rid)
            operation.call("device_remove", device=device)
            HandlerRows(operation.transaction.connection).drop_device(device.rid)

    def devices(self) -> list[Device]:
        """All devices, ordered by RID."""
        with self._looking() as operation:
            found: list[Device] = operation.call("devices", rid=None) if operation.transaction.meta("backend") else []
            return found

    def device(self, rid: Rid | str) -> Device:
        """Raises NoSuchDevice."""
        with self._looking() as operation:
            return operation.device(rid)

    def memory_create(self, name: str, size: int, *, source: MemorySource = NEW_MEMORY) -> Memory:
        """Name memory of `size` bytes in whole pages: a range of free RAM, on real hardware what `source` says.

        Raises NoRoom, NameTaken, Unsupported for a source that this backend has not.
        """
        check_name(name)
        check_size(size, PAGE)
        with self._change() as operation:
            if source != NEW_MEMORY and not operation.real:
                backend = operation.transaction.meta("backend")
                given = [name for name, value in source._asdict().items() if value not in (None, False)]
                options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
                raise Unsupported(
                    f"{options} needs real hardware",
                    because=f"named memory of the backend {backend!r} is a range of the machine's RAM",
                    hint=f"leave {options} away",
                )
            # Aligned to the largest page that it can fill, so that a mapping of it uses such pages.
            # Named memory of a real machine lies nowhere: any alignment is none.
            pages = () if operation.real else chain(*operation.capabilities.page_sizes_by_granule)
            alignment = max(page for page in (PAGE, *pages) if page <= size)
            pa = operation.transaction.pool("ram").allocate_top(size // PAGE, alignment)
            memory = operation.books.add_memory(name, pa, size)
            if operation.real:
                operation.call("memory_create", request=MemoryRequest(memory, source))
            return memory

    def memory_destroy(self, selector: str, *, force: bool = False) -> Memory:
        """Forget named memory; `force` unmaps it first, with the page tables that lie in it. Raises InUse.

        Fault handlers that take pages of it are its users, too; `force` clears them.
        """
        from iommuctl.page_faults import handlers_of_memory, set_handler

        with self._change(f"memory destroy {selector}") as operation:
            memory = operation.books.memory(selector)
            users = operation.books.memory_users(memory)
            handlers = handlers_of_memory(operation, memory)
            if (users or handlers) and not force:
                raise in_use(
                    f"memory {memory.name}",
                    [
                        *(f"{d.name} maps it at {m.iova:#x}+{m.size:#x}" for d, m in users),
                        *(f"the fault handler of {getattr(of, 'name', of)} takes pages of it" for of in handlers),
                    ],
                )
            for of in handlers:
                set_handler(operation, of, None)
            for domain, mapping in users:
                for table in _pools_in(operation, domain, mapping):
                    forget_pgtable(operation, table)
                for pool in _cd_pools_in(operation, domain, mapping):
                    for binding in reversed(operation.books.bindings(pool.rid)):
                        unbind(operation, binding)
                _unmap(operation, domain, [mapping])
            operation.books.remove_memory(memory)
            if operation.real:
                operation.call("memory_destroy", memory=memory)
            operation.transaction.pool("ram").free(Run(memory.pa, memory.size // PAGE))
            return memory

    def memories(self) -> list[Memory]:
        """All named memory, in the order of its creation."""
        with self._read() as operation:
            return operation.books.memories()

    def memory(self, selector: str) -> Memory:
        """Raises NoSuchMemory."""
        with self._read() as operation:
            return operation.books.memory(selector)

    def domain_create(
        self,
        name: str,
        *,
        nest_parent: bool = False,
        width: int | None = None,
        page_sizes: Sequence[int] | None = None,
        dirty: bool = False,
        label: str | None = None,
    ) -> Domain:
        """Make an empty domain of `width` address bits that uses only these page sizes (bytes).

        Raises NameTaken; Unsupported for what the backend does not declare.
        """
        check_name(name)
        check_label(label)
        with self._change(f"domain create {name}") as operation:
            capabilities = operation.capabilities
            if dirty and not capabilities.dirty_tracking:
                raise Unsupported("the backend has no dirty tracking", hint="leave --dirty away")
            if nest_parent and capabilities.nesting == "none":
                because = capabilities.nesting_obstacle
                raise Unsupported("the backend nests no page tables", because=because, hint="leave --nest-parent away")
            domain = operation.books.add_domain(
                name,
                label,
                nest_parent=nest_parent,
                width=check_width(width, capabilities, nest_parent=nest_parent),
                page_sizes=check_page_sizes(page_sizes, capabilities),
            )
            operation.call("domain_create", domain=domain, dirty=dirty)
            return domain

    def domain_destroy(self, selector: str, *, force: bool = False) -> Domain:
        """Take a domain and its mappings away; `force` takes its users off first. Raises InUse."""
        with self._change(f"domain destroy {selector}") as operation:
            domain = operation.books.domain(selector)
            slots, tables = operation.books.slots(domain=domain), operation.books.pgtables(domain)
            if (slots or tables) and not force:
                raise in_use(
                    f"domain {domain.name}", [*map(user_words, slots), *(f"page table {t.name}" for t in tables)]
                )
            take_off(operation, "", slots, force=True)
            for table in tables:
                forget_pgtable(operation, table)
            operation.call("domain_destroy", domain=domain)
            operation.books.remove_domain(domain)
            return domain

    def domains(self) -> list[Domain]:
        """All domains, in the order of their creation."""
        with self._read() as operation:
            return operation.books.domains()

    def domain(self, selector: str) -> Domain:
        """Raises NoSuchDomain."""
        with self._read() as operation:
            return operation.books.domain(selector)

    def mappings(self, selector: str) -> list[Mapping]:
        """The mappings of a domain, ascending."""
        with self._read() as operation:
            return operation.books.mappings(operation.books.domain(selector))

    def map(
        self,
        domain: str,
        *,
        iova: int,
        size: int,
        pa: int | None = None,
        memory: str | None = None,
        offset: int = 0,
        prot: str = "rw",
    ) -> Mapping:
        """Map `size` bytes at `iova`: to physical address `pa`, or to `offset` of named memory.

        Every slot that uses the domain sees it. Raises Overlap, Misaligned, OutOfAperture, ReservedRange, ZeroSize.
        """
        if (pa is None) == (memory is None):
            raise Usage("a mapping is to a physical address or to named memory", hint="give one of --pa and --memory")
        if offset and memory is None:
            raise Usage("an offset without named memory", hint="add it to --pa")
        check_numbers(iova=iova, size=size, pa=pa, offset=offset)
        from iommuctl.mapping import map_range

        with self._change(f"domain map {domain} --iova {iova:#x} --size {size:#x}") as operation:
            target = operation.books.domain(domain)
            named = None if memory is None else operation.books.memory(memory)
            return map_range(operation, target, iova, size, offset if pa is None else pa, named, prot)

    def unmap(self, domain: str, *, iova: int, size: int) -> list[Mapping]:
        """Take the mappings in a range away and flush every cache that may hold them; returns what was mapped.

        Raises PartialUnmap when the range cuts a mapping or holds none, InUse for the pool of a page table.
        """
        with self._change(f"domain unmap {domain} --iova {iova:#x} --size {size:#x}") as operation:
            target = operation.books.domain(domain)
            check_range("iova", iova, size, target.page_sizes[0])
            check_aperture(iova, size, target.width, ())
            last = iova + size - 1
            found = operation.books.mappings_in(target, iova, last)
            cut = [m for m in found if m.iova < iova or m.iova + m.size - 1 > last]
            if cut or not found:
                beyond = f"{cut[0].iova:#x}+{cut[0].size:#x} reaches beyond it" if cut else ""
                raise PartialUnmap(
                    f"{iova:#x}+{size:#x} is not made of whole mappings of {target.name}",
                    because=beyond or "nothing is mapped there",
                    hint=f"`iommuctl domain show {target.name}` lists its mappings",
                )
            _unmap(operation, target, found)
            return found


def forget_pgtable(operation: Operation, table: PageTable) -> None:
    """Unbind a page table, PASIDs before their RID, and remove it. Its pool belongs to the guest again."""
    for binding in reversed(pgtable_users(operation, table)):
        unbind(operation, binding)
    operation.transaction.drop_pool(f"pgtable-{table.id}")
    operation.books.remove_pgtable(table)


def pgtable_users(operation: Operation, table: PageTable) -> list[Binding]:
    """The bindings that need a page table, or a CD table that lies in its pool."""
    books = operation.books
    found = {held.slot: held for held in books.slots(pgtable=table) if isinstance(held, Binding)}
    for pool in books.cd_pools(table.parent):
        if pool.pgtable == table.id:
            found |= {held.slot: held for held in books.bindings(pool.rid)}
    return sorted(found.values(), key=lambda held: (held.slot.rid, held.slot.pasid or 0))


def _unmap(operation: Operation, domain: Domain, mappings: Sequence[Mapping]) -> None:
    for mapping in mappings:
        for table in _pools_in(operation, domain, mapping):
            raise InUse(
                f"the pool of page table {table.name} would be unmapped from {domain.name}",
                because=f"{table.name} lies at GPA {table.pool:#x}+{table.pool_size:#x}",
                hint=f"`iommuctl pgtable destroy {table.name}` first",
            )
        for pool in _cd_pools_in(operation, domain, mapping):
            raise InUse(
                f"the pool of the CD table of {pool.rid} would be unmapped from {domain.name}",
                because=f"it is GPA {pool.start:#x}+{pool.size:#x}",
                hint=f"unbind the page tables of {pool.rid} first",
            )
    users = operation.books.slots(domain=domain)
    for mapping in mappings:
        operation.books.remove_mappings(domain, mapping.iova, mapping.iova)
    operation.call("unmap", request=UnmapRequest(domain, mappings, users))


def _pools_in(operation: Operation, domain: Domain, mapping: Mapping) -> list[PageTable]:
    """The page tables whose pools lie in a mapping, wholly or in part."""
    end = mapping.iova + mapping.size
    tables = operation.books.pgtables(domain)
    return [table for table in tables if mapping.iova < table.pool + table.pool_size and table.pool < end]


def _cd_pools_in(operation: Operation, domain: Domain, mapping: Mapping) -> list[CdPool]:
    """The same for pools that are for CD tables alone."""
    end = mapping.iova + mapping.size
    pools = [pool for pool in operation.books.cd_pools(domain) if pool.pgtable is None]
    return [pool for pool in pools if mapping.iova < pool.start + pool.size and pool.start < end]

# SPDX-License-Identifier: Apache-2.0
"""class Iommu: the generic layer, one method per operation."""

from typing import Literal

from iommuctl.errors import (
    CannotNest,
    DamagedTable,
    NoRoom,
    NothingBound,
    OutOfAperture,
    OutsideMemory,
    ParentNotAttached,
    SlotBound,
    SlotEmpty,
    SlotOccupied,
    Unsupported,
    Usage,
    ZeroSize,
)
from iommuctl.faulting import Faulting
from iommuctl.formats.memory import PAGE
from iommuctl.model import (
    MAX_ADDRESS,
    Access,
    Attachment,
    Binding,
    Device,
    Domain,
    Occupant,
    Rid,
    Slot,
    Translation,
)
from iommuctl.pgtables import bound_format, check_root, nest_parent
from iommuctl.requests import CheckRequest, InvalidateRequest, SlotChange, TranslateRequest
from iommuctl.rules import check_label, check_numbers, check_pasid, check_pasid_number, check_range
from iommuctl.session import Operation
from iommuctl.slots import install, nested_below, take_off, unbind


class Iommu(Faulting):
    """Linux I/O page tables, over any backend.

    `state` is the state folder (default: $IOMMUCTL_STATE, else the user's), `backend` the backend of a new one.
    Selectors of domains, page tables and memory are names or `id:N`; RIDs are text or `Rid`; addresses and sizes
    are bytes. Every call is one transaction: it takes effect whole, or raises an `iommuctl.errors.IommuError` and
    leaves the state as it was.

        with Iommu("/tmp/state", backend="sim") as iommu:
            iommu.device_add("0000:00:01.0", pasid_bits=20)
            iommu.domain_create("domain1")
            iommu.map("domain1", iova=0x1000, size=0x1000, pa=0x200000)
            iommu.attach("domain1", "0000:00:01.0")
            iommu.dma("0000:00:01.0", 0x1000, data=b"hello")
    """

    def attach(
        self,
        domain: str,
        rid: Rid | str,
        *,
        pasid: int | Literal["auto"] | None = None,
        replace: bool = False,
        label: str | None = None,
    ) -> Attachment:
        """Put a domain into the slot of a RID, or of a RID and PASID ("auto": a free one).

        Raises SlotOccupied unless `replace`, SlotBound for a slot with a binding, PasidZero, NoPasidSupport,
        PasidTooWide; where all nested slots of a device share its parent, also what `check_nesting` raises.
        """
        check_label(label)
        with self._change(f"attach {domain} {_typed(rid, pasid)}{' --replace' if replace else ''}") as operation:
            target = operation.books.domain(domain)
            device = operation.device(rid)
            slot = _slot(operation, device, pasid)
            old = operation.books.slot(slot)
            if isinstance(old, Binding):
                raise SlotBound(
                    f"{slot} holds a page table nested on {old.domain.name}",
                    hint=f"`iommuctl unbind-pgtable {old.domain.name} {_words(slot)}` first",
                )
            if old and not replace:
                raise SlotOccupied(f"{slot} is attached to {old.domain.name}", hint="detach it first, or use --replace")
            new = Attachment(slot, target, label)
            install(operation, SlotChange(slot, old, new))
            return new

    def detach(self, domain: str, rid: Rid | str, *, pasid: int | None = None, force: bool = False) -> None:
        """Empty a slot. Raises SlotEmpty, SlotBound for one with a binding, InUse where PASIDs are nested on it.

        `force` takes all that off first, PASIDs before their RID.
        """
        with self._change(f"detach {domain} {_typed(rid, pasid)}") as operation:
            target = operation.books.domain(domain)
            slot = _slot(operation, operation.device(rid), pasid)
            old = _held(operation, target, slot)
            if isinstance(old, Binding) and not force:
                raise SlotBound(
                    f"{slot} holds a page table nested on {target.name}",
                    hint=f"`iommuctl unbind-pgtable {target.name} {_words(slot)}` first, or use --force",
                )
            take_off(operation, "", [old, *(nested_below(operation, old) if force else ())], force=True)

    def bind_pgtable(
        self,
        domain: str,
        rid: Rid | str,
        *,
        addr: int | None = None,
        pgtable: str | None = None,
        format: str | None = None,
        pasid: int | None = None,
        cd_pool: tuple[int, int] | None = None,
        label: str | None = None,
    ) -> Binding:
        """Nest a stage-1 table on `domain`: the table at GPA `addr`, or one that we built.

        The RID's own slot must be attached to the domain (ParentNotAttached); a PASID's empty slot is attached in
        the same step. Where all nested slots of a device share its parent, a PASID needs that of its RID, too.
        `cd_pool`, (GPA, size), is guest memory for the CD table where the backend keeps one there: the first table at
        an `addr` needs it, and it is the RID's until the last of its tables goes. Raises NotNestParent, SlotOccupied,
        CannotNest, Unsupported.
        """
        if (addr is None) == (pgtable is None):
            raise Usage("one page table is bound", hint="give its address with --addr, or its name with --pgtable")
        check_label(label)
        if cd_pool is not None:
            check_range("cd_pool", *cd_pool, PAGE)
        with self._change(f"bind-pgtable {domain} {_typed(rid, pasid)}") as operation:
            if cd_pool is not None and not operation.capabilities.context_tables_in_guest:
                raise Unsupported(
                    "a pool for a CD table means nothing to this backend",
                    because="it keeps no CD table in guest memory",
                    hint="leave --cd-pool away",
                )
            parent = nest_parent(operation, domain)
            slot = _slot(operation, operation.device(rid), pasid)
            old = _parent_slot(operation, parent, slot)
            if pgtable is not None:
                table = operation.books.pgtable(pgtable)
                if table.parent != parent:
                    raise CannotNest(
                        f"page table {table.name} cannot be nested on {parent.name}",
                        because=f"it was built in the memory of {table.parent.name}",
                    )
                if format is not None and format != table.format:
                    raise Usage(f"page table {table.name} has the format {table.format}, not {format}")
                root, kind, name = table.root, table.format, table.name
            else:
                assert addr is not None
                root, kind, name = addr, bound_format(operation, format, slot), None
                check_root(operation, parent, root, kind)
            attachment_label = old.label if old else None
            new = Binding(slot, parent, root, kind, name, label, old is None, attachment_label, cd_pool)
            made = install(operation, SlotChange(slot, old, new))
            assert isinstance(made, Binding)
            return made

    def unbind_pgtable(self, domain: str, rid: Rid | str, *, pasid: int | None = None) -> Occupant | None:
        """Take a page table off; returns what the slot holds now: the parent alone, or nothing where the bind had
        made the attachment. Raises NothingBound, SlotEmpty.
        """
        with self._change(f"unbind-pgtable {domain} {_typed(rid, pasid)}") as operation:
            parent = operation.books.domain(domain)
            slot = _slot(operation, operation.device(rid), pasid)
            old = _held(operation, parent, slot)
            if not isinstance(old, Binding):
                raise NothingBound(
                    f"no page table is bound in {slot}", because=f"it is attached to {parent.name} alone"
                )
            return unbind(operation, old)

    def invalidate(
        self,
        domain: str,
        *,
        device: Rid | str | None = None,
        pasid: int | None = None,
        iova: int | None = None,
        size: int | None = None,
        leaf: bool = False,
    ) -> list[Binding]:
        """Tell the caches that page tables bound on `domain` changed; returns the bindings that were meant.

        `iova` and `size` are input addresses of these tables; without them everything is invalidated. `leaf` says
        that only leaf entries changed. `last.commands` has what was sent. Raises NothingBound.
        """
        if (iova is None) != (size is None):
            raise Usage("a range has an address and a size", hint="give both --iova and --size, or neither")
        check_numbers(iova=iova, size=size)
        if size == 0:
            raise ZeroSize("the size is zero", hint="leave --iova and --size away to invalidate everything")
        first = last = None
        if iova is not None and size is not None:
            first, last = iova, iova + size - 1
            if last > MAX_ADDRESS:
                raise OutOfAperture(f"{iova:#x}+{size:#x} wraps around the end of the address space")
        with self._change(f"invalidate {domain}") as operation:
            parent = operation.books.domain(domain)
            rid = None if device is None else operation.device(device).rid
            if pasid is not None:
                check_pasid_number(pasid)
                if rid is not None:
                    check_pasid(operation.device(rid), pasid)
            held = [
                occupant
                for occupant in operation.books.slots(domain=parent, rid=rid)
                if pasid in (None, occupant.slot.pasid)
            ]
            bindings = [occupant for occupant in held if isinstance(occupant, Binding)]
            if not bindings:
                raise NothingBound(
                    f"no page table is bound on {parent.name}" + (" there" if rid or pasid is not None else ""),
                    because="plain attachments need no invalidation: map and unmap flush by themselves"
                    if held
                    else f"{parent.name} is in no {'such ' if rid or pasid is not None else ''}slot",
                    hint="" if held else "`iommuctl topology` shows what is where",
                )
            operation.call("invalidate", request=InvalidateRequest(bindings, first, last, leaf))
            return bindings

    def slots(self, *, domain: str | None = None, rid: Rid | str | None = None) -> list[Occupant]:
        """What is attached and bound where, ordered by RID and PASID, the RID's own slot first."""
        with self._read() as operation:
            target = None if domain is None else operation.books.domain(domain)
            device = None if rid is None else operation.device(rid).rid
            return operation.books.slots(domain=target, rid=device)

    def translate(
        self,
        rid: Rid | str,
        iova: int,
        *,
        pasid: int | None = None,
        access: Access = "r",
        privileged: bool = False,
    ) -> Translation:
        """Where a request would go, with every entry that the hardware visits. No cache is asked or filled."""
        check_numbers(iova=iova)
        if access not in ("r", "w", "x"):
            raise Usage(f"{access!r} is not an access", hint="it is r, w or x")
        with self._read() as operation:
            device = operation.device(rid)
            slot = _slot(operation, device, pasid)
            if access == "x" and not operation.capabilities.execute_permission:
                raise Unsupported("these tables have no execute permission", hint="ask for r or w")
            request = TranslateRequest(slot, iova, access, privileged)
            if operation.real:
                from iommuctl.translating import translate

                return translate(operation, request)
            answer: Translation = operation.call("translate", request=request)
            return answer

    def check(self) -> list[str]:
        """Sentences about where tables and rows disagree; an empty list when all is well."""
        from iommuctl.accounts import check_guest_pools, check_guest_tables, check_pages
        from iommuctl.cd_pools import guests

        with self._read() as operation:
            if not operation.transaction.meta("backend"):
                return []
            books, domains = operation.books, operation.books.domains()
            slots = {occupant.slot: occupant for occupant in books.slots()}
            mappings = {domain.id: books.mappings(domain) for domain in domains}
            request = CheckRequest(operation.call("devices", rid=None), domains, mappings, slots, guests(operation))
            audits = (
                lambda: operation.call("check", request=request),
                lambda: check_pages(operation),
                lambda: check_guest_tables(operation),
                lambda: check_guest_pools(operation),
            )
            problems: list[str] = []
            for audit in audits:
                try:
                    problems += audit()
                except (OutsideMemory, DamagedTable) as error:
                    problems.append(f"the tables cannot be followed: {error.what}")
            return problems


def _slot(operation: Operation, device: Device, pasid: int | Literal["auto"] | None) -> Slot:
    if pasid == "auto":
        check_pasid(device, 1)
        return Slot(device.rid, _free_pasid(operation, device))
    if pasid is not None:
        check_pasid(device, pasid)
    return Slot(device.rid, pasid)


def _free_pasid(operation: Operation, device: Device) -> int:
    """One above the highest in use where there is room, else the lowest free one."""
    highest = operation.books.highest_pasid(device.rid)
    if not (highest + 1) >> device.pasid_bits:
        return highest + 1
    candidate = 1
    for pasid in operation.books.pasids(device.rid):
        if pasid != candidate:
            return candidate
        candidate += 1
    raise NoRoom(f"all PASIDs of {device.rid} are in use", because=f"it has {device.pasid_bits} PASID bits")


def _held(operation: Operation, domain: Domain, slot: Slot) -> Occupant:
    """What the slot holds, if that is the domain. Raises SlotEmpty."""
    occupant = operation.books.slot(slot)
    if occupant is None or occupant.domain != domain:
        raise SlotEmpty(
            f"{domain.name} is not in {slot}",
            because=f"it holds {occupant.domain.name}" if occupant else "the slot is empty",
            hint="`iommuctl topology` shows what is where",
        )
    return occupant


def _parent_slot(operation: Operation, parent: Domain, slot: Slot) -> Attachment | None:
    """The attachment that a binding is to be nested on; None for the empty slot of a PASID."""
    occupant = operation.books.slot(slot)
    if isinstance(occupant, Binding):
        raise SlotOccupied(
            f"{slot} holds a page table already",
            because=f"it is nested on {occupant.domain.name}",
            hint=f"`iommuctl unbind-pgtable {occupant.domain.name} {_words(slot)}` first",
        )
    if slot.pasid is None and (occupant is None or occupant.domain != parent):
        raise ParentNotAttached(
            f"{slot} is not attached to {parent.name}",
            because=f"it is attached to {occupant.domain.name}" if occupant else "its slot is empty",
            hint=f"`iommuctl attach {parent.name} {slot.rid}{' --replace' if occupant else ''}` first",
        )
    if occupant and occupant.domain != parent:
        raise SlotOccupied(f"{slot} is attached to {occupant.domain.name}", hint="detach it first")
    return occupant


def _words(slot: Slot) -> str:
    """The slot as it is typed."""
    return _typed(slot.rid, slot.pasid)


def _typed(rid: Rid | str, pasid: int | str | None) -> str:
    return str(rid) if pasid is None else f"{rid} --pasid {pasid}"

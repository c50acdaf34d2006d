# SPDX-License-Identifier: Apache-2.0
"""Page tables that we build: stage-1 tables in the guest memory of a nest parent."""

from typing import TYPE_CHECKING

from iommuctl.errors import (
    CannotNest,
    Misaligned,
    NoSuchDomain,
    NoSuchPgtable,
    NotNestParent,
    OutOfAperture,
    Unsupported,
)
from iommuctl.formats.memory import PAGE
from iommuctl.model import Binding, Domain, PageTable, Placed, Rid, Slot
from iommuctl.objects import Objects, forget_pgtable, pgtable_users
from iommuctl.rules import check_aperture, check_label, check_name, check_numbers, check_prot, check_range
from iommuctl.session import Operation
from iommuctl.slots import in_use, user_words

if TYPE_CHECKING:
    from iommuctl.formats.radix import Format, Leaf, Visit
    from iommuctl.guest import GuestTable


class PageTables(Objects):
    """The part of class Iommu that is about stage-1 tables."""

    def pgtable_create(
        self, name: str, *, parent: str, pool: int, pool_size: int, format: str | None = None, label: str | None = None
    ) -> PageTable:
        """Build an empty stage-1 table in guest memory: `pool_size` bytes at GPA `pool` of `parent`.

        The pool must be mapped read-write there, for accessed and dirty bits, and aligned to the format's granule.
        Raises NotNestParent, OutsideMemory, Overlap with another pool, Unsupported for a format that the backend
        cannot bind.
        """
        check_name(name)
        check_label(label)
        check_range("pool", pool, pool_size, PAGE)
        from iommuctl.pools import check_pool

        with self._change(f"pgtable create {name}") as operation:
            books = operation.books
            domain = nest_parent(operation, parent)
            kind = pgtable_format(operation, format)
            check_range("pool", pool, pool_size, operation.formats.stage1_format(kind).page_sizes[0])
            check_pool(operation, domain, pool, pool_size)
            table = books.add_pgtable(
                name,
                label,
                parent=domain,
                format_name=kind,
                pool=pool,
                pool_size=pool_size,
            )
            operation.transaction.create_pool(f"pgtable-{table.id}", pool, pool_size)
            return books.set_root(table, guest_table_of(operation, table).new_root())

    def pgtable_map(
        self, name: str, *, iova: int, size: int, gpa: int, prot: str = "rw", privileged: bool = False
    ) -> None:
        """Map `size` bytes at `iova` to guest memory at `gpa`; `privileged` keeps user requests out.

        Raises Overlap, Misaligned, OutOfAperture, NoRoom when the pool is full.
        """
        check_numbers(iova=iova, size=size, gpa=gpa)
        with self._change(f"pgtable map {name} --iova {iova:#x} --size {size:#x}") as operation:
            table = operation.books.pgtable(name)
            map_in_pgtable(operation, table, iova, size, gpa, prot, privileged=privileged)

    def pgtable_unmap(self, name: str, *, iova: int, size: int) -> int:
        """Take whole pages away. Caches keep serving them until `invalidate`. Raises PartialUnmap.

        Returns how many pages of tables became empty and went, too. Unless that is 0, caches hold more than leaf
        entries of what is gone.
        """
        with self._change(f"pgtable unmap {name} --iova {iova:#x} --size {size:#x}") as operation:
            table = operation.books.pgtable(name)
            guest_table = guest_table_of(operation, table)
            check_range("iova", iova, size, guest_table.format.page_sizes[0])
            _check_input(table, iova, size, guest_table.format)
            return guest_table.unmap(iova, size)

    def pgtable_destroy(self, name: str, *, force: bool = False) -> PageTable:
        """Forget a page table; `force` unbinds it first. Its pool belongs to the guest again. Raises InUse."""
        with self._change(f"pgtable destroy {name}") as operation:
            table = operation.books.pgtable(name)
            if not force and (users := pgtable_users(operation, table)):
                slots = [user_words(each) for each in users if each.pgtable == table.name]
                elsewhere = dict.fromkeys(each.slot.rid for each in users if each.pgtable != table.name)
                words = [*slots, *(f"the CD table of {rid} in its pool" for rid in elsewhere)]
                raise in_use(f"page table {table.name}", words)
            forget_pgtable(operation, table)
            return table

    def pgtables(self) -> list[PageTable]:
        """All page tables, in the order of their creation."""
        with self._read() as operation:
            return operation.books.pgtables()

    def pgtable(self, name: str) -> PageTable:
        """Raises NoSuchPgtable."""
        with self._read() as operation:
            return operation.books.pgtable(name)

    def table_entries(self, name: str) -> "list[Visit]":
        """Every present entry of the tables of a domain or page table, with the address where it lies.

        Raises NoSuchDomain when there is neither.
        """
        from iommuctl.formats import radix

        with self._read() as operation:
            found = _domain_or_pgtable(operation, name)
            if isinstance(found, PageTable):
                return list(guest_table_of(operation, found).entries())
            driver = operation.driver
            fmt, root = driver.domain_format(found), driver.domain_root(found)
            return list(radix.entries(fmt, operation.transaction.memory, root))

    def table_format(self, name: str) -> "Format":
        """The format of these tables. Raises NoSuchDomain."""
        with self._read() as operation:
            found = _domain_or_pgtable(operation, name)
            if isinstance(found, PageTable):
                return operation.formats.stage1_format(found.format)
            return operation.formats.domain_format(found)

    def device_structures(self, rid: Rid | str) -> list[Placed]:
        """Every structure of a device that is present, from the root to what points to page tables.

        Raises NoSuchDevice.
        """
        with self._read() as operation:
            device = operation.device(rid)
            return list(operation.driver.structures(device.rid))

    def bindings_of(self, name: str) -> list[Binding]:
        """The slots in which a page table is bound. Raises NoSuchPgtable."""
        with self._read() as operation:
            held = operation.books.slots(pgtable=operation.books.pgtable(name))
            return [occupant for occupant in held if isinstance(occupant, Binding)]

    def pgtable_mappings(self, name: str) -> "list[Leaf]":
        """What the table maps, read from guest memory."""
        with self._read() as operation:
            return list(guest_table_of(operation, operation.books.pgtable(name)).leaves())


def _domain_or_pgtable(operation: Operation, name: str) -> Domain | PageTable:
    try:
        return operation.books.domain(name)
    except NoSuchDomain:
        try:
            return operation.books.pgtable(name)
        except NoSuchPgtable:
            raise NoSuchDomain(
                f"no domain and no page table {name!r}",
                hint="`iommuctl domain list` and `iommuctl pgtable list` name them all",
            ) from None


def map_in_pgtable(  # noqa: PLR0917 - they are what iommu_map takes, in its order
    operation: Operation, table: PageTable, iova: int, size: int, gpa: int, prot: str, *, privileged: bool
) -> None:
    """Map `size` bytes at `iova` to guest memory at `gpa`; `privileged` keeps user requests out.

    Raises Overlap, Misaligned, OutOfAperture, Unsupported, NoRoom.
    """
    guest_table = guest_table_of(operation, table)
    fmt = guest_table.format
    check_range("iova", iova, size, fmt.page_sizes[0])
    check_range("gpa", gpa, size, fmt.page_sizes[0])
    _check_input(table, iova, size, fmt)
    check_aperture(gpa, size, table.parent.width, ())
    check_prot(prot, fmt)
    guest_table.map(iova, size, gpa, prot + "p" if privileged else prot)


def nest_parent(operation: Operation, selector: str) -> Domain:
    """The domain, when it can be a parent. Raises CannotNest, NotNestParent."""
    domain = operation.books.domain(selector)
    if operation.capabilities.nesting == "none":
        raise CannotNest("this backend nests no page tables", because=operation.capabilities.nesting_obstacle)
    if not domain.nest_parent:
        raise NotNestParent(
            f"nothing can be nested on {domain.name}",
            because="it was not created as a nest parent",
            hint="`iommuctl domain create NAME --nest-parent`",
        )
    return domain


def pgtable_format(operation: Operation, wanted: str | None) -> str:
    """The format's name, or the default. Raises Unsupported."""
    formats = operation.capabilities.pgtable_formats
    if wanted is None and formats:
        return formats[0]
    if wanted is None or wanted not in formats:
        raise Unsupported(
            f"no page tables of format {wanted}",
            because=f"the backend binds {', '.join(formats) or 'none'}",
        )
    return wanted


def bound_format(operation: Operation, wanted: str | None, slot: Slot) -> str:
    """The format of what a guest owns and a slot is to be bound to: a page table, or a table of contexts for a RID.

    Raises Unsupported.
    """
    if wanted is None or wanted not in operation.capabilities.context_formats:
        return pgtable_format(operation, wanted)
    if slot.pasid is not None:
        raise Unsupported(
            f"no {wanted} can be bound to {slot}",
            because="it is the table of all PASIDs, and belongs to the device",
            hint="leave --pasid away; the guest that owns the table puts its PASIDs into it",
        )
    return wanted


def check_root(operation: Operation, domain: Domain, root: int, kind: str) -> None:
    """A root given by its GPA is aligned to its size, inside the parent. What it holds is the guest's affair."""
    from iommuctl.formats.format import WORD

    check_numbers(addr=root)
    if root >> domain.width:
        raise OutOfAperture(
            f"the page table's address {root:#x} is outside {domain.name}",
            because=f"the domain has {domain.width} address bits",
        )
    if kind in operation.capabilities.context_formats:
        # How long such a table is depends on the device: the backend knows.
        return
    fmt = operation.formats.stage1_format(kind)
    size = WORD * fmt.entries(fmt.levels)
    if root % size:
        raise Misaligned(
            f"the page table's address {root:#x} is not a multiple of {size:#x}",
            because=f"that is the size of a {kind} root table",
        )


def _check_input(table: PageTable, iova: int, size: int, fmt: "Format") -> None:
    """The tables that we build are for lower addresses; the upper half of a canonical space is the guest kernel's."""
    limit = 1 << fmt.width - fmt.canonical
    if iova + size > limit:
        raise OutOfAperture(
            f"{iova:#x}..{iova + size - 1:#x} is outside page table {table.name}",
            because=f"tables of {table.format} translate 0x0..{limit - 1:#x}",
            hint="use lower addresses, or a format for wider ones",
        )


def guest_table_of(operation: Operation, table: PageTable) -> "GuestTable":
    """The tables of a page table that we build."""
    # The engine is imported only where tables are read or written.
    from iommuctl.guest import GuestTable

    return GuestTable(operation, table)

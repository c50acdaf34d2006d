# SPDX-License-Identifier: Apache-2.0
"""What a handler of page requests must be before it is stored: a program that can be run, pages that are there."""

import os
import shutil

from iommuctl.errors import Misaligned, OutsideMemory, PermissionRefused, SystemFailed, Unsupported, Usage
from iommuctl.formats.memory import PAGE
from iommuctl.handlers import Handler, Pages
from iommuctl.mapping import check_hidden
from iommuctl.model import Binding, Domain, Occupant, Slot
from iommuctl.pools import check_no_pool
from iommuctl.rules import check_aperture, check_range
from iommuctl.session import Operation


def checked(operation: Operation, owner: Slot | Domain, held: Occupant | None, handler: Handler) -> Handler:
    """The handler with its program by an absolute path, and its memory by name. `held` is what a slot holds.

    Raises Usage where program or pages are missing, or there and not its own; what `_program` and `_pages` raise.
    """
    for kind, what, given in (
        ("exec", "a program", bool(handler.program)),
        ("demand-map", "pages", handler.pages is not None),
    ):
        if given != (handler.kind == kind):
            raise Usage(f"a handler of kind {handler.kind} {'has' if given else 'without'} {what}")
    if handler.program:
        return handler._replace(program=(_program(handler.program[0]), *handler.program[1:]))
    if handler.pages:
        return handler._replace(pages=_pages(operation, owner, held, handler.pages))
    return handler


def _program(name: str) -> str:
    """The program by its path. Raises SystemFailed where there is none, PermissionRefused for one that is no program.

    It is looked up now, so that what runs does not depend on the PATH of who serves.
    """
    found = shutil.which(name)
    if found:
        return os.path.abspath(found)
    if os.path.exists(name):
        raise PermissionRefused(f"{name} cannot be run", because="it is no file that this user may execute")
    raise SystemFailed(
        f"{name} cannot be run",
        because="there is no such file" if "/" in name else "it is in no directory of PATH",
        hint="give its path",
    )


def _pages(operation: Operation, owner: Slot | Domain, held: Occupant | None, pages: Pages) -> Pages:
    """Raises NoSuchMemory, OutsideMemory, Misaligned, ReservedRange; Unsupported where pages cannot be mapped so."""
    check_range("from", pages.start, pages.size, PAGE)
    if not 0 <= pages.used <= pages.size or pages.used % PAGE:
        raise Misaligned(f"{pages.used:#x} bytes in use are no pages of {pages.size:#x} bytes")
    if pages.memory is not None:
        memory = operation.books.memory(pages.memory)
        if pages.start + pages.size > memory.size:
            raise OutsideMemory(
                f"{pages.start:#x}+{pages.size:#x} is not in memory {memory.name}",
                because=f"it has {memory.size:#x} bytes",
            )
        pages = pages._replace(memory=memory.name)
    if isinstance(held, Binding) and held.pgtable is None:
        raise Unsupported(
            f"nothing can be mapped for {held.slot} on demand",
            because=f"the page table at GPA {held.root:#x} is its guest's",
            hint="let a program answer, with --exec",
        )
    domain = owner if isinstance(owner, Domain) else held and held.domain
    if domain and domain.nest_parent:
        _check_guest(operation, domain, pages)
    elif domain and pages.memory is None:
        _check_physical(operation, pages)
    return pages


def _check_guest(operation: Operation, parent: Domain, pages: Pages) -> None:
    if pages.memory is not None:
        raise Usage(
            f"page tables on {parent.name} lead to its addresses, and not to memory {pages.memory}",
            hint=f"map {pages.memory} there, and give the addresses: --from A+S",
        )
    check_aperture(pages.start, pages.size, parent.width, ())
    if not operation.books.maps_writable(parent, pages.start, pages.size):
        raise OutsideMemory(
            f"{pages.start:#x}+{pages.size:#x} is not memory of {parent.name} that can be written",
            because="it is not mapped read-write as a whole",
            hint=f"`iommuctl domain show {parent.name}` lists its mappings",
        )
    check_no_pool(operation, parent, pages.start, pages.size)


def _check_physical(operation: Operation, pages: Pages) -> None:
    plan = operation.transaction.memory_plan()
    if plan is None or not operation.capabilities.physical_addresses:
        raise Unsupported("this backend maps named memory only", hint="`iommuctl memory create`, then --from its name")
    base, size = plan.ram
    if pages.start < base or pages.start + pages.size > base + size:
        raise OutsideMemory(
            f"{pages.start:#x}+{pages.size:#x} is not in RAM", because=f"RAM is {base:#x}..{base + size - 1:#x}"
        )
    check_hidden(operation, pages.start, pages.size)

# SPDX-License-Identifier: Apache-2.0
"""`translate` on real hardware: the rows stand for the kernel's tables, and page tables in named memory are walked.

Nobody can read the tables that the kernel manages, so a domain answers with the mapping that it holds. A page table
that we or a guest built lies in memory that we can read, and is walked entry by entry.
"""

from typing import TYPE_CHECKING, cast

from iommuctl.errors import Lost, OutsideMemory
from iommuctl.formats import radix
from iommuctl.guest import GuestReader
from iommuctl.model import Binding, Domain, Fault, Slot, Step, Translation
from iommuctl.requests import TranslateRequest
from iommuctl.session import Operation

if TYPE_CHECKING:
    from iommuctl.architecture import GuestWalk

EMPTY, NO_MAPPING, NO_PERMISSION, NO_ENTRY, NOT_READABLE = range(1, 6)
"""Codes of the faults that are told here. They are not the hardware's: nobody asked it."""
_NAMES = {
    EMPTY: "EMPTY_SLOT",
    NO_MAPPING: "NO_MAPPING",
    NO_PERMISSION: "NO_PERMISSION",
    NO_ENTRY: "NOT_PRESENT",
    NOT_READABLE: "NOT_READABLE",
}


def translate(operation: Operation, request: TranslateRequest) -> Translation:
    """Where a request would go, by the rows and by what named memory holds. Raises Lost: devices do not act by rows."""
    if because := operation.call("lost"):
        raise Lost.all_of_it(because)
    held = operation.books.slot(request.slot) or _owner_of_contexts(operation, request.slot)
    if held is None:
        return _fault(request, EMPTY, f"{request.slot} holds nothing that iommuctl put there", ())
    if isinstance(held, Binding):
        return _nested(operation, request, held)
    return _domain(operation, request, held.domain, request.iova, ())


def _owner_of_contexts(operation: Operation, slot: Slot) -> Binding | None:
    """What a RID holds, where that is a table of contexts in which a guest has the PASID's."""
    held = operation.books.slot(Slot(slot.rid))
    owns = isinstance(held, Binding) and held.format in operation.capabilities.context_formats
    return held if isinstance(held, Binding) and owns else None


def _nested(operation: Operation, request: TranslateRequest, held: Binding) -> Translation:
    memory = GuestReader(operation.books, operation.transaction.overlay, held.domain)
    if operation.capabilities.context_tables_in_guest:
        found = cast("GuestWalk", operation.formats).translate_in_guest(request, memory)
        return found if found.pa is None else _through(operation, request, held, found)
    fmt = operation.formats.stage1_format(held.format)
    upper = request.iova >> fmt.width - fmt.canonical
    if upper not in (0, (1 << 64 - fmt.width + fmt.canonical) - 1 if fmt.canonical else 0):
        return _fault(request, NO_ENTRY, f"stage 1: a table of {held.format} has no such address", ())
    steps: list[Step] = []
    prot, last = "rwx", None
    try:
        for visit in radix.walk(fmt, memory, held.root, request.iova):
            values = fmt.layout.values(visit.raw)
            steps.append(Step(fmt.layout.name, visit.address, (visit.raw,), values, 1))
            prot, last = radix.combine(prot, visit.entry.prot), visit
    except OutsideMemory as error:
        return _fault(request, NOT_READABLE, f"stage 1: {error.what}", tuple(steps))
    assert last
    if last.entry.kind != "leaf":
        return _fault(request, NO_ENTRY, f"stage 1: {last.called(fmt)} leads to no page", tuple(steps))
    if request.access not in prot or ("p" in prot and not request.privileged):
        return _fault(request, NO_PERMISSION, f"stage 1: the page allows {prot or 'nothing'}", tuple(steps))
    gpa = last.entry.address + request.iova % last.size
    found = Translation(request.slot, request.iova, gpa, last.size, prot, None, tuple(steps))
    return _through(operation, request, held, found)


def _through(operation: Operation, request: TranslateRequest, held: Binding, first: Translation) -> Translation:
    """What comes of stage 1's answer, a GPA, by the rows of the parent."""
    assert first.pa is not None
    found = _domain(operation, request, held.domain, first.pa, first.steps)
    if found.prot is None:
        return found
    return found._replace(prot=radix.combine(first.prot or "", found.prot), page_size=first.page_size)


def _domain(
    operation: Operation, request: TranslateRequest, domain: Domain, address: int, steps: tuple[Step, ...]
) -> Translation:
    mappings = operation.books.mappings_in(domain, address, address) if address >> 63 == 0 else []
    what = f"{domain.name} maps" if not steps else f"stage 2: {domain.name} maps"
    if not mappings:
        return _fault(request, NO_MAPPING, f"{what} nothing at {address:#x}", steps)
    mapping = mappings[0]
    if request.access not in mapping.prot:
        return _fault(request, NO_PERMISSION, f"{what} {address:#x} as {mapping.prot}", steps)
    pa = mapping.pa + address - mapping.iova
    return Translation(request.slot, request.iova, pa, None, mapping.prot, None, steps)


def _fault(request: TranslateRequest, code: int, reason: str, steps: tuple[Step, ...]) -> Translation:
    slot: Slot = request.slot
    fault = Fault(code, _NAMES[code], reason, slot.rid, slot.pasid, request.iova, request.access)
    return Translation(slot, request.iova, None, None, None, fault, steps)

# SPDX-License-Identifier: Apache-2.0
"""What every change of a slot passes: its rules, the backend, the row."""

from collections.abc import Sequence

from iommuctl.errors import InUse
from iommuctl.model import Attachment, Binding, Occupant
from iommuctl.requests import SlotChange
from iommuctl.session import Operation


def install(operation: Operation, change: SlotChange) -> Occupant | None:
    """Have the backend make the change, and the row say so; returns what the slot holds now.

    Raises what check_nesting raises where all nested slots of a device share its parent, and what with_guest raises
    where its CD table is in guest memory. Page requests that wait in the slot are answered invalid.
    """
    nesting, in_guest = operation.capabilities.nesting, operation.capabilities.context_tables_in_guest
    asking = operation.capabilities.page_responses and operation.device(change.slot.rid).pri
    # Imported where it applies: most commands change no slot, and most backends need none.
    if nesting == "device":
        from iommuctl.nesting import check_nesting

        check_nesting(operation, change)
    if in_guest:
        from iommuctl.cd_pools import with_guest

        change = with_guest(operation, change)
    if asking:
        from iommuctl.page_faults import collect, end_pending, is_served

        if change.old:
            collect(operation)
        if change.new and is_served(operation, change.new):
            change = change._replace(page_requests=True)
    operation.call("install", change=change)
    operation.books.put_slot(change.slot, change.new)
    if asking and change.old:
        end_pending(operation, change.slot)
    if in_guest and isinstance(change.old, Binding):
        from iommuctl.cd_pools import release_unused

        release_unused(operation, change.slot.rid)
    return change.new


def unbind(operation: Operation, binding: Binding) -> Attachment | None:
    """Take a page table off; returns what the slot holds now."""
    slot, domain = binding.slot, binding.domain
    left = None if binding.implicit else Attachment(slot, domain, binding.attachment_label)
    install(operation, SlotChange(slot, binding, left))
    return left


def take_off(operation: Operation, what: str, slots: Sequence[Occupant], *, force: bool) -> None:
    """Empty these slots, PASIDs before their RID; without `force` raise InUse that lists them."""
    if slots and not force:
        raise in_use(what, [user_words(occupant) for occupant in slots])
    for occupant in reversed(slots):
        install(operation, SlotChange(occupant.slot, occupant, None))


def nested_below(operation: Operation, held: Occupant) -> list[Binding]:
    """The bindings that need what a RID's own slot holds to stay there: those of its PASIDs, ascending."""
    if operation.capabilities.nesting != "device" or held.slot.pasid is not None:
        return []
    found = operation.books.bindings(held.slot.rid)
    return [each for each in found if each.slot.pasid is not None]


def user_words(occupant: Occupant) -> str:
    """A slot as the user of something."""
    return f"{occupant.slot} ({type(occupant).__name__.lower()})"


def in_use(what: str, users: Sequence[str]) -> InUse:
    """The refusal to take away what has users."""
    shown = ", ".join(users[:10]) + (f" and {len(users) - 10} more" if len(users) > 10 else "")
    return InUse(f"{what} is in use", because=f"its users: {shown}", hint="take them off first, or use --force")

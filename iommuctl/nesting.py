# SPDX-License-Identifier: Apache-2.0
"""The rules of nesting per device (`nesting: "device"`): one stage 2 for a RID, and for whatever its PASIDs nest on it.

There a domain is a stage 1, or as a nest parent a stage 2. A stage 2 belongs to the device; a PASID selects a stage 1,
whose addresses go through the device's stage 2 where it has one. So PASIDs can have stage-1 domains as long as the RID
is on no nest parent, and page tables as soon as it is.
"""

from iommuctl.errors import CannotNest, InUse, ParentNotAttached, Unsupported
from iommuctl.model import Attachment, Binding, Slot
from iommuctl.requests import SlotChange
from iommuctl.session import Operation
from iommuctl.slots import nested_below

SHOWN = 10
"""How many PASIDs a refusal lists."""


def check_nesting(operation: Operation, change: SlotChange) -> None:
    """Raise CannotNest, Unsupported, InUse or ParentNotAttached for what one stage 2 per device rules out."""
    if change.slot.pasid is None:
        _check_device(operation, change)
    elif isinstance(change.new, Binding):
        _check_binding(operation, change.new)
    elif change.new:
        _check_attachment(operation, change.new)


def _check_device(operation: Operation, change: SlotChange) -> None:
    """The slot of the RID itself: what PASIDs are nested on stays, and nothing slips below what they have."""
    rid, old, new = change.slot.rid, change.old, change.new
    owned = isinstance(new, Binding) and new.format in operation.capabilities.context_formats
    if old and owned and (nested := nested_below(operation, old)):
        raise InUse(
            f"{rid} cannot have a CD table of the guest's own",
            because=f"page tables of its {_pasids(nested)} are bound in the one that iommuctl keeps",
            hint="unbind them first",
        )
    if old and (new is None or new.domain != old.domain) and (nested := nested_below(operation, old)):
        raise InUse(
            f"{rid} cannot leave {old.domain.name}",
            because=f"a device has one stage 2, and page tables of {_pasids(nested)} are nested on this one",
            hint=f"unbind them first; `iommuctl detach {old.domain.name} {rid} --force` does both",
        )
    if new and new.domain.nest_parent:
        found = operation.books.slots(rid=rid)
        if plain := [each for each in found if isinstance(each, Attachment) and each.slot.pasid is not None]:
            raise CannotNest(
                f"{rid} cannot go to {new.domain.name}",
                because=f"its {_pasids(plain)} {'is' if len(plain) == 1 else 'are'} attached to stage-1 domains,"
                f" whose addresses would go through {new.domain.name}, the stage 2 of the whole device",
                hint="detach the PASIDs first",
            )


def _check_attachment(operation: Operation, new: Attachment) -> None:
    slot, domain = new.slot, new.domain
    if domain.nest_parent:
        raise Unsupported(
            f"{domain.name} cannot be attached to {slot}",
            because="a nest parent is a stage 2, which belongs to the whole device; a PASID selects a stage 1 only",
            hint=f"attach it to {slot.rid} and bind a page table to the PASID, or use a domain that is no nest parent",
        )
    own = operation.books.slot(Slot(slot.rid))
    if own and own.domain.nest_parent:
        raise CannotNest(
            f"{domain.name} cannot be attached to {slot}",
            because=f"{slot.rid} is on {own.domain.name}, and the addresses of {domain.name} would go through that"
            " stage 2",
            hint=f"bind a page table there, or take {slot.rid} off {own.domain.name} first",
        )


def _check_binding(operation: Operation, new: Binding) -> None:
    slot, parent = new.slot, new.domain
    own = operation.books.slot(Slot(slot.rid))
    if own is None:
        raise ParentNotAttached(
            f"{slot.rid} is not attached to {parent.name}",
            because="its slot is empty, and a PASID nests on the stage 2 of its device",
            hint=f"`iommuctl attach {parent.name} {slot.rid}` first",
        )
    if isinstance(own, Binding) and own.format in operation.capabilities.context_formats:
        raise CannotNest(
            f"no page table can be bound to {slot}",
            because=f"the CD table of {slot.rid}, in which its PASIDs are, is the guest's own",
            hint=f"the guest can enter it there; or `iommuctl unbind-pgtable {parent.name} {slot.rid}` first",
        )
    if own.domain != parent:
        raise CannotNest(
            f"nothing of {slot} can be nested on {parent.name}",
            because=f"a device has one stage 2 for all its PASIDs, and {slot.rid} is on {own.domain.name}",
            hint=f"`iommuctl attach {parent.name} {slot.rid} --replace` first, when nothing else is nested there",
        )


def _pasids(held: list[Binding] | list[Attachment]) -> str:
    """`PASID 3`, or `PASIDs 3, 4 and 20 more`."""
    numbers = [str(each.slot.pasid) for each in held]
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"PASID{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:SHOWN])}{more}"

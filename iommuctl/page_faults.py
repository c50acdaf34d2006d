# SPDX-License-Identifier: Apache-2.0
"""Page requests: read from queues, kept until they are answered, and answered each exactly once."""

import time
from typing import TYPE_CHECKING

from iommuctl.errors import NoSuchFault, NotWaiting, Unsupported
from iommuctl.handlers import Handler
from iommuctl.model import Attachment, Domain, Memory, Occupant, Rid, Slot
from iommuctl.page_requests import AskedPages, PageAnswer, PageGroup
from iommuctl.requests import SlotChange
from iommuctl.session import Operation
from iommuctl.state.faults import FaultRows
from iommuctl.state.handlers import HandlerRows
from iommuctl.state.page_groups import PageGroupRows, note_answer, store

if TYPE_CHECKING:
    from iommuctl.architecture import PageResponse


def collect(operation: Operation) -> None:
    """Take out of the queues what they hold, and keep it."""
    pages: AskedPages = operation.call("page_requests")
    store(operation.transaction, pages, note=operation.real)


def respond(operation: Operation, key: int, response: "PageResponse", by: str) -> PageGroup:
    """Answer the group of that id; returns it. Raises NoSuchFault, NotWaiting, Unsupported."""
    group = waiting_group(operation, key)
    declared = operation.capabilities.page_responses
    if response not in declared:
        raise Unsupported(
            f"a page request cannot be answered {response} here",
            because=f"this backend knows {' and '.join(declared) or 'no answer'}",
        )
    _answer(operation, group, response, by)
    return group


def waiting_group(operation: Operation, key: int) -> PageGroup:
    """The group of that id, which waits. Raises NoSuchFault, NotWaiting."""
    rows, faults = PageGroupRows(operation.transaction.connection), FaultRows(operation.transaction.connection)
    group = rows.find(key)
    if group is None:
        if faults.has(key):
            raise NotWaiting(
                f"fault {key} waits for no answer",
                because="it was recorded when the request was refused, and that is over",
                hint="`iommuctl fault list` shows the page requests that wait",
            )
        if rows.had(key):
            raise NotWaiting(f"{key} was answered", because="it is so long ago that nothing else is known of it")
        raise NoSuchFault(f"no fault {key}", hint="`iommuctl fault list` names them all")
    if group.answer:
        raise NotWaiting(
            f"page request group {key} was answered {group.answer}",
            because=f"by {group.by}; a group is answered once",
            hint="the device asks again where that did not help it",
        )
    return group


def end_pending(operation: Operation, slot: Slot) -> None:
    """The slot has changed: what waits there is answered invalid, in its order."""
    rows = PageGroupRows(operation.transaction.connection)
    rows.forget_begun(slot)
    for group in rows.waiting(slot):
        _answer(operation, group, "invalid", "a change of the slot", over=True)


def end_all_pending(operation: Operation, rid: Rid) -> None:
    """A device goes: what waits in its slots, which are empty, is answered invalid."""
    collect(operation)
    rows = PageGroupRows(operation.transaction.connection)
    for slot in dict.fromkeys(group.slot for group in (*rows.waiting(), *rows.begun()) if group.slot.rid == rid):
        end_pending(operation, slot)


def end_lost(operation: Operation) -> None:
    """The tables of all slots are gone: the kernel has answered what waited there."""
    rows = PageGroupRows(operation.transaction.connection)
    for slot in dict.fromkeys(group.slot for group in rows.waiting()):
        end_pending(operation, slot)


def is_served(operation: Operation, held: Occupant) -> bool:
    """Whether page requests of a slot are to be queued: it has a handler, or its domain, and a table that can.

    A nest parent alone cannot: iommufd refuses fault queues for it.
    """
    if isinstance(held, Attachment) and held.domain.nest_parent:
        return False
    return handler(operation, held) is not None


def set_handler(operation: Operation, owner: Slot | Domain, new: Handler | None) -> list[Occupant]:
    """Say who answers, or that nobody does; returns the slots that got a new table for that, on real hardware."""
    rows = HandlerRows(operation.transaction.connection)
    if not operation.real:
        rows.put(owner, new)
        return []
    # Here, as every change of a slot looks for what waits in it.
    from iommuctl.slots import install

    if isinstance(owner, Slot):
        if not operation.device(owner.rid).pri:
            raise Unsupported(
                f"{owner.rid} asks for no pages", because="the device has no page request interface (PRI)"
            )
        held = operation.books.slot(owner)
        slots = [held] if held else []
    else:
        slots = [each for each in operation.books.slots(domain=owner) if operation.device(each.slot.rid).pri]
    before = [is_served(operation, each) for each in slots]
    rows.put(owner, new)
    changed = [each for each, was in zip(slots, before, strict=True) if is_served(operation, each) != was]
    for each in changed:
        install(operation, SlotChange(each.slot, each, each))
    return changed


def handlers_of_memory(operation: Operation, memory: Memory) -> list[Slot | Domain]:
    """Whose handlers take pages of named memory."""
    found = HandlerRows(operation.transaction.connection).all()
    return [
        of if isinstance(of, Slot) else operation.books.domain(f"id:{of}")
        for of, each in found
        if each.pages and each.pages.memory == memory.name
    ]


def handler(operation: Operation, held: Occupant) -> Handler | None:
    """Who answers the page requests of what a slot holds: the slot's own handler, else that of its domain."""
    rows = HandlerRows(operation.transaction.connection)
    return rows.get(held.slot) or rows.get(held.domain)


def _answer(operation: Operation, group: PageGroup, response: "PageResponse", by: str, *, over: bool = False) -> None:
    transaction = operation.transaction
    if operation.real and not transaction.dry_run:
        note_answer(transaction, group, response, by)
    operation.call("respond", request=PageAnswer(group.slot, group.token, response, over))
    PageGroupRows(transaction.connection).answer(group, response, by, int(time.time()))

# SPDX-License-Identifier: Apache-2.0
"""Faults and page requests, one method per operation, and who answers page requests."""

from typing import TYPE_CHECKING

from iommuctl.errors import Unsupported, Usage
from iommuctl.hardware import Hardware
from iommuctl.model import Slot
from iommuctl.rules import check_pasid
from iommuctl.session import Operation

if TYPE_CHECKING:
    from iommuctl.architecture import PageResponse
    from iommuctl.handlers import Handler, HandlerOf, Waiting
    from iommuctl.model import Domain, Occupant
    from iommuctl.page_requests import PageGroup
    from iommuctl.recorded import FaultList, Mark, News


class Faulting(Hardware):
    """The part of class Iommu that is about faults."""

    def faults(self) -> "FaultList":
        """The faults that hardware recorded, and the page requests that wait for an answer.

        What the hardware's queues hold is taken out of them, and listed with what is stored. In a dry run and in a
        block of reading, the queues are left as they are. Raises Unsupported where the backend is told of no faults.
        """
        from iommuctl.faults import collect, known

        with self._read() as operation:
            found = known(operation)
            if self._leaves_queues(operation):
                return found
        with self._change() as operation:
            collect(operation)
            return known(operation)

    def fault_news(self, since: "Mark") -> "News":
        """The same, but only what has happened since that mark, and of page requests also how they were answered."""
        from iommuctl import faults

        with self._read() as operation:
            faults.check_told(operation)
            if self._leaves_queues(operation):
                return faults.since(operation, since)
        with self._change() as operation:
            faults.collect(operation)
            return faults.since(operation, since)

    def _leaves_queues(self, operation: Operation) -> bool:
        transaction = operation.transaction
        return self.dry_run or self.in_reading or transaction.dry_run or not transaction.meta("backend")

    def respond(self, key: int, response: "PageResponse", *, by: str = "fault respond") -> "PageGroup":
        """Answer a group of page requests, which is done once; returns the group as it was. `by` is kept with it.

        Raises NoSuchFault, NotWaiting for one that was answered, Unsupported for a response that is not declared.
        """
        from iommuctl.page_faults import respond

        with self._change(f"fault respond {key} {response}") as operation:
            return respond(operation, key, response, by)

    def page_group(self, key: int) -> "PageGroup | None":
        """The group of that id, answered or not; None for one that is not known, or not any more."""
        from iommuctl.state.page_groups import PageGroupRows

        with self._read() as operation:
            return PageGroupRows(operation.transaction.connection).find(key)

    def page_requests(self) -> "list[Waiting]":
        """The groups that wait for an answer, the oldest first, each with who is to give it.

        What the hardware's queues hold is taken out of them. Raises Unsupported where nobody is told of page requests.
        """
        from iommuctl.handlers import Waiting
        from iommuctl.page_faults import collect, handler
        from iommuctl.state.page_groups import PageGroupRows

        with self._read() as operation:
            if not operation.transaction.meta("backend"):
                return []
        with self._change() as operation:
            _check_told(operation)
            collect(operation)
            groups = PageGroupRows(operation.transaction.connection).waiting()
            slots = {slot: operation.books.slot(slot) for slot in {group.slot for group in groups}}
            handlers = {slot: handler(operation, held) if held else None for slot, held in slots.items()}
            return [Waiting(group, slots[group.slot], handlers[group.slot]) for group in groups]

    def page_in(self, key: int) -> None:
        """Map the pages that a group asks for, as the handler of its slot says; the group goes on waiting.

        Those that are mapped are left as they are. Raises NoSuchFault, NotWaiting; Usage for a slot whose handler maps
        nothing; Unsupported for a page table that its guest owns; NoRoom where no page is left; Overlap where a page is
        mapped and does not allow the access; what mapping a page raises.
        """
        from iommuctl.demand import page_in

        with self._change("fault run") as operation:
            page_in(operation, key)

    def handler_set(self, owner: str, handler: "Handler", *, pasid: int | None = None) -> "list[Occupant]":
        """Say who answers page requests of a slot, or of all slots of a domain that have no handler of their own.

        `owner` is a RID or a domain. On real hardware, a slot whose requests nobody was told of so far gets a new
        table in place of the one that it has: returns what these slots hold. Raises NoSuchDevice, NoSuchDomain,
        Unsupported where nobody is told of page requests, and on real hardware for a device without PRI, and what
        `handler_rules.checked` raises.
        """
        return self._handler(owner, pasid, handler)

    def handler_clear(self, owner: str, *, pasid: int | None = None) -> "list[Occupant]":
        """Have nobody answer them any more; returns what `handler_set` returns. Nothing happens where there is none."""
        return self._handler(owner, pasid, None)

    def handlers(self) -> "list[HandlerOf]":
        """Every handler: those of domains, then those of slots."""
        from iommuctl.handlers import HandlerOf
        from iommuctl.state.handlers import HandlerRows

        with self._read() as operation:
            names = {domain.id: domain.name for domain in operation.books.domains()}
            found = HandlerRows(operation.transaction.connection).all()
            return [
                HandlerOf(None, of, handler) if isinstance(of, Slot) else HandlerOf(names[of], None, handler)
                for of, handler in found
            ]

    def _handler(self, owner: str, pasid: int | None, handler: "Handler | None") -> "list[Occupant]":
        from iommuctl.page_faults import set_handler

        with self._change(f"fault handler {owner}") as operation:
            _check_told(operation)
            of = _owner(operation, owner, pasid)
            if handler:
                from iommuctl.handler_rules import checked

                held = operation.books.slot(of) if isinstance(of, Slot) else None
                handler = checked(operation, of, held, handler)
            return set_handler(operation, of, handler)


def _check_told(operation: Operation) -> None:
    if not operation.capabilities.page_responses:
        raise Unsupported(
            "nobody is told of page requests here",
            because=operation.capabilities.page_request_obstacle
            or f"the backend {operation.transaction.meta('backend')} has no queue for them",
        )


def _owner(operation: Operation, owner: str, pasid: int | None) -> "Slot | Domain":
    """The slot or domain that is meant. The name of a domain has no colon."""
    if ":" in owner and not owner.startswith("id:"):
        device = operation.device(owner)
        if pasid is not None:
            check_pasid(device, pasid)
        return Slot(device.rid, pasid)
    if pasid is not None:
        raise Usage(f"a PASID is one of a device, and {owner!r} is no RID", hint="leave --pasid away")
    return operation.books.domain(owner)

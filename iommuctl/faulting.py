# SPDX-License-Identifier: Apache-2.0
"""Faults and page requests, one method per operation, and who answers page requests."""

from typing import TYPE_CHECKING

from iommuctl.errors import Unsupported, Usage
from iommuctl.hardware import Hardware
from iommuctl.model import Slot
from iommuctl.requests import SlotChange
from iommuctl.rules import check_pasid
from iommuctl.session import Operation

if TYPE_CHECKING:
    from iommuctl.architecture import PageResponse
    from iommuctl.handlers import Handler, HandlerOf
    from iommuctl.model import Domain, Occupant
    from iommuctl.page_requests import PageGroup
    from iommuctl.recorded import FaultList


class Faulting(Hardware):
    """The part of class Iommu that is about faults."""

    def faults(self) -> "FaultList":
        """The faults that hardware recorded, and the page requests that wait for an answer.

        What the hardware's queues hold is taken out of them, and listed with what is stored. In a dry run and in a
        block of reading, the queues are left as they are. Raises Unsupported where the backend is told of no faults.
        """
        from iommuctl.faults import collect, known

        with self._read() as operation:
            transaction, found = operation.transaction, known(operation)
            if self.dry_run or self.in_reading or transaction.dry_run or not transaction.meta("backend"):
                return found
        with self._change() as operation:
            return collect(operation)

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

    def handler_set(self, owner: str, handler: "Handler", *, pasid: int | None = None) -> "list[Occupant]":
        """Say who answers page requests of a slot, or of all slots of a domain that have no handler of their own.

        `owner` is a RID or a domain. On real hardware, a slot whose requests nobody was told of so far gets a new
        table in place of the one that it has: returns what these slots hold. Raises NoSuchDevice, NoSuchDomain,
        Unsupported where nobody is told of page requests, and on real hardware for a device without PRI.
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
        from iommuctl.page_faults import is_served
        from iommuctl.slots import install
        from iommuctl.state.handlers import HandlerRows

        with self._change(f"fault handler {owner}") as operation:
            if not operation.capabilities.page_responses:
                raise Unsupported(
                    "nobody is told of page requests here",
                    because=operation.capabilities.page_request_obstacle
                    or f"the backend {operation.transaction.meta('backend')} has no queue for them",
                )
            of = _owner(operation, owner, pasid)
            rows = HandlerRows(operation.transaction.connection)
            if not operation.real:
                rows.put(of, handler)
                return []
            if isinstance(of, Slot) and not operation.device(of.rid).pri:
                raise Unsupported(
                    f"{of.rid} asks for no pages", because="the device has no page request interface (PRI)"
                )
            slots = [held for held in _slots(operation, of) if operation.device(held.slot.rid).pri]
            before = [is_served(operation, held) for held in slots]
            rows.put(of, handler)
            changed = [held for held, was in zip(slots, before, strict=True) if is_served(operation, held) != was]
            for held in changed:
                install(operation, SlotChange(held.slot, held, held))
            return changed


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


def _slots(operation: Operation, owner: "Slot | Domain") -> "list[Occupant]":
    """What holds it now, RIDs before their PASIDs."""
    if isinstance(owner, Slot):
        held = operation.books.slot(owner)
        return [held] if held else []
    return operation.books.slots(domain=owner)

# SPDX-License-Identifier: Apache-2.0
"""Faults: read from the hardware's queues, stored, and only then shown."""

from iommuctl import page_faults
from iommuctl.errors import Unsupported
from iommuctl.recorded import Events, FaultList, Mark, News
from iommuctl.requests import FaultsRequest
from iommuctl.session import Operation
from iommuctl.state.faults import FaultRows, store
from iommuctl.state.page_groups import PageGroupRows


def known(operation: Operation) -> FaultList:
    """The faults that are stored. Raises Unsupported where the backend is told of none."""
    check_told(operation)
    connection = operation.transaction.connection
    found = FaultRows(connection).all()
    return found._replace(waiting=tuple(PageGroupRows(connection).waiting()))


def since(operation: Operation, mark: Mark) -> News:
    """What is stored and has happened since the mark."""
    connection = operation.transaction.connection
    faults, groups = FaultRows(connection), PageGroupRows(connection)
    states = groups.states()
    changed = (groups.find(key) for key in sorted(states) if mark.groups.get(key) != states[key])
    return News(faults.since(mark.faults), [each for each in changed if each], Mark(faults.mark(), states))


def check_told(operation: Operation) -> None:
    """Raises Unsupported where the backend is told of no faults."""
    transaction = operation.transaction
    name = transaction.meta("backend")
    if name and not (operation.capabilities.fault_records or operation.capabilities.page_responses):
        raise Unsupported(
            f"the backend {name} is told of no faults",
            because="it has no queue to read them from",
            hint="the kernel's log tells of those of real hardware: `journalctl -k`" if operation.real else "",
        )


def collect(operation: Operation) -> None:
    """Take out of the queues what they hold, and add it to what is stored."""
    transaction = operation.transaction
    if operation.capabilities.fault_records:
        rows = FaultRows(transaction.connection)
        request = FaultsRequest(rows.positions())
        events: list[Events] = operation.call("faults", request=request)
        store(transaction, request, events, note=operation.real)
    if operation.capabilities.page_responses:
        page_faults.collect(operation)

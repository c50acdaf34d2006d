# SPDX-License-Identifier: Apache-2.0
"""Faults: read from the hardware's queues, stored, and only then shown."""

from iommuctl import page_faults
from iommuctl.errors import Unsupported
from iommuctl.recorded import Events, FaultList
from iommuctl.requests import FaultsRequest
from iommuctl.session import Operation
from iommuctl.state.faults import FaultRows, store
from iommuctl.state.page_groups import PageGroupRows


def known(operation: Operation) -> FaultList:
    """The faults that are stored. Raises Unsupported where the backend is told of none."""
    transaction = operation.transaction
    name = transaction.meta("backend")
    if name and not (operation.capabilities.fault_records or operation.capabilities.page_responses):
        raise Unsupported(
            f"the backend {name} is told of no faults",
            because="it has no queue to read them from",
            hint="the kernel's log tells of those of real hardware: `journalctl -k`" if operation.real else "",
        )
    found = FaultRows(transaction.connection).all()
    return found._replace(waiting=tuple(PageGroupRows(transaction.connection).waiting()))


def collect(operation: Operation) -> FaultList:
    """Take out of the queues what they hold, and add it to what is stored."""
    transaction = operation.transaction
    if operation.capabilities.fault_records:
        rows = FaultRows(transaction.connection)
        request = FaultsRequest(rows.positions())
        events: list[Events] = operation.call("faults", request=request)
        store(transaction, request, events, note=operation.real)
    if operation.capabilities.page_responses:
        page_faults.collect(operation)
    return known(operation)

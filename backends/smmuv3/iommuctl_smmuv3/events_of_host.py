# SPDX-License-Identifier: Apache-2.0
"""Where faults of real hardware are told: the event queue of each vIOMMU, and the kernel's log for all others."""

from collections.abc import Iterator, Mapping
from typing import Any

from iommuctl.iommufd import kernel_log
from iommuctl.iommufd.veventq import NEVER, drain
from iommuctl.kernel.machine import Machine
from iommuctl.recorded import Events
from iommuctl_smmuv3 import kernel_log as patterns
from iommuctl_smmuv3 import vevents

LOG = "the kernel's log"


def taken(machine: Machine, positions: Mapping[str, Any]) -> Iterator[Events]:
    """What each of them holds that was not told before. What cannot be read is warned of."""
    if not machine.lost():
        yield from _of_viommus(machine, positions)
    if events := _of_log(machine, positions.get(LOG)):
        yield events


def _of_viommus(machine: Machine, positions: Mapping[str, Any]) -> Iterator[Events]:
    for domain_id, unit, record in machine.records.viommus():
        source = f"the vIOMMU of {record['parent']} on {unit}"
        held = machine.kept(record["kept"])
        if held is None:
            continue
        # Of another queue the numbers begin anew.
        queue = [machine.records.boot, domain_id]
        before = positions.get(source)
        last = before[2] if before and before[:2] == queue else NEVER
        try:
            found = drain(held, vevents.SIZE, last)
        except OSError as error:
            machine.context.warn(f"{source} cannot be asked for events: {error.strerror}")
            continue
        if found.events or found.lost:
            position = [*queue, found.last_sequence]
            yield Events(source, vevents.faults(found.events), found.lost, position=position)


def _of_log(machine: Machine, before: Any) -> Events | None:
    boot = kernel_log.boot_id()
    last = before[1] if before and before[0] == boot else -1
    try:
        records = kernel_log.records_after(last)
    except OSError as error:
        machine.context.warn(f"the kernel's log, which tells of faults, cannot be read: {error.strerror}")
        return None
    found = patterns.faults(records)
    if not found.faults and not found.lost:
        return None
    return Events(LOG, found.faults, found.lost, found.exact, [boot, found.last])

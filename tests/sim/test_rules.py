# SPDX-License-Identifier: Apache-2.0
"""The table of rules, change by change: each command of it is needed, and no more than these."""

from pathlib import Path

import pytest

from iommuctl.model import Slot
from iommuctl_vtd import driver
from iommuctl_vtd.registers import CAP
from iommuctl_vtd.rules import INVALIDATIONS, Change, Scope
from tests.sim.playing import play, without_scope
from tests.sim.sabotage import nothing
from tests.sim.test_omissions import SCENARIOS
from tests.vtd.driven import Driven
from tests.vtd.fault_cases import CAP as DEFAULT_CAP

WHERE = {
    Change.CONTEXT_ENTRY_REMOVED: ["remove a device"],
    Change.LEGACY_CONTEXT_ENTRY_REMOVED: ["detach, legacy", "detach, then its DID is used again, legacy"],
    Change.LEGACY_CONTEXT_TABLE_REPLACED: ["replace, legacy", "replace, then its DID is used again, legacy"],
    Change.PASID_ENTRY_REMOVED: ["detach", "detach, RID", "detach, then its DID is used again"],
    Change.PASID_TABLE_REPLACED: ["replace", "replace, then its DID is used again"],
    Change.SECOND_STAGE_REMOVED: ["unmap pages", "unmap a table", "unmap, RID", "unmap, legacy"],
    Change.PARENT_REMOVED: ["unmap the parent"],
    Change.FIRST_STAGE_REMOVED: ["guest unmaps pages", "guest unmaps a table"],
}
"""Scenarios in which each change happens. A root table is set in none: see the last test."""


def leave_out(patch: pytest.MonkeyPatch, change: Change, scope: Scope) -> None:
    patch.setattr(driver, "INVALIDATIONS", without_scope(INVALIDATIONS, change, scope))


@pytest.mark.parametrize(
    ("change", "scope"),
    [(change, scope) for change, scopes in INVALIDATIONS.items() for scope in scopes if change in WHERE],
    ids=lambda value: value.name,
)
def test_each_command_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, scope: Scope) -> None:
    leave_out(monkeypatch, change, scope)
    found = [play(tmp_path / name, SCENARIOS[name], nothing) for name in WHERE[change]]
    assert any(seen.stale or seen.warnings for seen in found)


def test_every_change_is_tried() -> None:
    assert set(WHERE) | {Change.ROOT_TABLE_SET} == set(Change)


@pytest.mark.parametrize("scope", [None, *INVALIDATIONS[Change.ROOT_TABLE_SET]])
def test_a_second_root_table(monkeypatch: pytest.MonkeyPatch, scope: Scope | None) -> None:
    """As after kexec: a driver begins anew on a unit that has cached what another one had built."""
    machine = Driven(cap=DEFAULT_CAP & ~CAP.ESRTPS.mask)
    slots = [Slot(machine.device("0000:00:01.0"), pasid) for pasid in (1, 2)]

    def build(pa: int) -> None:
        domain = machine.domain()
        machine.map(domain, 0x5000, pa)
        for slot in slots:
            machine.attach(domain, slot)

    build(0x10_0000)
    assert machine.dma(slots[0], 0x5000) == (0x10_0000, False)
    if scope:
        leave_out(monkeypatch, Change.ROOT_TABLE_SET, scope)
    # The old queue is switched off first.
    machine.unit.write_register("GCMD", 0)
    machine.slots.clear()
    machine.rows.delete("vtd", "next did")
    machine.driver.start()
    machine.driver.device_add(machine.devices[0])
    machine.domains.clear()
    build(0x20_0000)
    assert any(machine.dma(slot, 0x5000) != (0x20_0000, False) for slot in slots) == bool(scope)

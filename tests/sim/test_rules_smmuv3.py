# SPDX-License-Identifier: Apache-2.0
"""SMMUv3's table of rules, change by change: each command of it is needed, and no more than these."""

from pathlib import Path

import pytest

from iommuctl.model import Slot
from iommuctl_smmuv3 import cd_tables, driver, streams, tags
from iommuctl_smmuv3.rules import INVALIDATIONS, Change, Scope
from tests.sim.playing import play, without_scope
from tests.sim.sabotage import nothing
from tests.sim.test_omissions_smmuv3 import SCENARIOS
from tests.smmuv3.driven import Driven

WHERE = {
    Change.STREAM_TABLE_CHANGED: ["remove a bus"],
    Change.STE_WRITTEN: ["detach, RID"],
    Change.CD_WRITTEN: ["replace"],
    Change.CD_LEAF_ADDED: ["add a leaf of CDs"],
    Change.CD_LEAF_REMOVED: ["remove a leaf of CDs"],
    Change.STAGE_1_LEFT: ["detach", "detach, then its ASID is used again"],
    Change.PAGE_TABLE_LEFT: ["unbind, then its ASID is used again"],
    Change.STAGE_2_LEFT: ["detach, stage 2", "detach, then its VMID is used again"],
    Change.STAGE_2_COVERED: ["bind, RID"],
    Change.STAGE_1_REMOVED: ["unmap pages"],
    Change.STAGE_2_REMOVED: ["unmap pages of stage 2"],
    Change.PARENT_REMOVED: ["unmap the parent", "unmap the parent of a RID"],
}
"""Scenarios in which each change happens. A stream table is set in none: see the last test."""


OF_THE_DRIVER = (driver.DOMAINS, streams.KIND, cd_tables.LEAVES, tags.KIND, tags.FREE, tags.NEXT)
"""The rows that a new driver does not find."""


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
    assert set(WHERE) | {Change.STREAM_TABLE_SET} == set(Change)


@pytest.mark.parametrize("scope", [None, *INVALIDATIONS[Change.STREAM_TABLE_SET]])
def test_a_second_stream_table(monkeypatch: pytest.MonkeyPatch, scope: Scope | None) -> None:
    """As after kexec: a driver begins anew on a unit that has cached what another one had built."""
    machine = Driven()
    slots = [Slot(machine.device("0000:00:01.0"), pasid) for pasid in (1, 2)]

    def build(pa: int) -> None:
        domain = machine.domain()
        machine.map(domain, 0x5000, pa)
        for slot in slots:
            machine.attach(domain, slot)

    def asked(slot: Slot) -> int | None:
        return machine.unit.request(slot, 0x5000, "r", privileged=False).translation.pa

    build(0x10_0000)
    assert [asked(slot) for slot in slots] == [0x10_0000] * 2
    if scope:
        leave_out(monkeypatch, Change.STREAM_TABLE_SET, scope)
    machine.unit.write_register("CR0", 0)
    machine.slots.clear()
    machine.domains.clear()
    for kind in OF_THE_DRIVER:
        for key, _ in machine.rows.scan(kind):
            machine.rows.delete(kind, key)
    machine.driver.start()
    before = [asked(slot) for slot in slots]
    machine.driver.device_add(machine.devices[0])
    build(0x20_0000)
    after = [asked(slot) for slot in slots]
    assert ((before, after) != ([None, None], [0x20_0000, 0x20_0000])) == bool(scope)

# SPDX-License-Identifier: Apache-2.0
"""From what a cache should not have had any more to the command that was left out."""

from collections.abc import Callable

import pytest

from iommuctl.architecture import Stale
from iommuctl.model import Slot
from iommuctl_smmuv3.rules import INVALIDATIONS, Change, Scope
from iommuctl_smmuv3.structures import STRUCTURES
from tests.smmuv3.driven import Driven, Sent
from tests.smmuv3.machine import Machine
from tests.smmuv3.test_driver import CFGI_BUS, CFGI_STE, SID, A, cfgi_cd, nh_all, nh_asid, s12_vmall

DATA = 0x4000_0000


def stale(machine: Driven | Machine, slot: Slot, iova: int) -> list[Stale]:
    """What a request rests on that is no longer so: as the simulator's sanitizer finds it."""
    answer = machine.unit.request(slot, iova, "r", privileged=False)
    now = {
        (step.structure, STRUCTURES[step.structure].told(STRUCTURES[step.structure].from_words(step.raw)))
        for step in machine.unit.walk(slot, iova, "r", privileged=False).steps
    }
    found = []
    for cache, tag, steps in answer.recalled:
        changed = tuple(
            step for step in steps
            if (step.structure, STRUCTURES[step.structure].told(STRUCTURES[step.structure].from_words(step.raw)))
            not in now
        )  # fmt: skip
        if changed:
            ends = {step.stage: step for step in steps}
            leaf = all(step is ends[step.stage] for step in changed)
            found.append(Stale(cache, tag, iova, 4096, changed, leaf))
    return found


def attach(machine: Driven, slot: Slot) -> None:
    domain = machine.domain()
    machine.map(domain, DATA, 0x7000)
    machine.attach(domain, slot)


def attach_stage_2(machine: Driven, slot: Slot) -> None:
    parent = machine.parent()
    machine.map(parent, DATA, 0x7000)
    machine.attach(parent, slot)


def attach_nested(machine: Driven, slot: Slot) -> None:
    attach_stage_2(machine, slot)
    machine.bind(machine.domains[-1], slot, machine.page_table(machine.domains[-1], {DATA: DATA}))


def detach(machine: Driven, slot: Slot) -> None:
    machine.install(slot, None)


def unmap(machine: Driven, _slot: Slot) -> None:
    domain = machine.domains[-1]
    machine.unmap(domain, next(m for m in machine.mappings[domain.id] if m.iova == DATA))


def other_domain(machine: Driven, slot: Slot) -> None:
    domain = machine.domain()
    machine.map(domain, DATA, 0x8000)
    machine.attach(domain, slot)


@pytest.mark.parametrize(
    ("prepare", "do", "left_out", "expected"),
    [
        (attach, detach, {Change.STE_WRITTEN}, [CFGI_STE]),
        (attach, other_domain, {Change.CD_WRITTEN}, [cfgi_cd(0)]),
        (attach, unmap, {Change.STAGE_1_REMOVED}, [(1 << 48 | 0x12, DATA)]),
        (attach_stage_2, unmap, {Change.STAGE_2_REMOVED}, [(1 << 32 | 0x2A, DATA)]),
        (attach_nested, unmap, {Change.PARENT_REMOVED}, [s12_vmall(1)]),
        (attach_stage_2, detach, {Change.STE_WRITTEN}, [CFGI_STE]),
    ],
)
def test_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Driven, Slot], None],
    do: Callable[[Driven, Slot], None],
    left_out: set[Change],
    expected: list[Sent],
) -> None:
    """Without the command the request goes where it must not; with what is missing it goes right."""
    machine = Driven()
    slot = Slot(machine.device(A))
    prepare(machine, slot)
    machine.dma(slot, DATA)
    rules: dict[Change, tuple[Scope, ...]] = {
        change: () if change in left_out else scopes for change, scopes in INVALIDATIONS.items()
    }
    with monkeypatch.context() as patch:
        patch.setattr("iommuctl_smmuv3.driver.INVALIDATIONS", rules)
        do(machine, slot)
    found = stale(machine, slot, DATA)
    missing = machine.driver.missing(slot, found)
    words = [tuple(int.from_bytes(each.raw[at : at + 8], "little") for at in (0, 8)) for each in missing]
    assert words == expected
    from iommuctl_smmuv3.submission import submit

    submit(machine, machine.unit, machine.driver.features, [int.from_bytes(each.raw, "little") for each in missing])
    machine.dma(slot, DATA)


def test_an_entry_of_every_cache() -> None:
    """What the table of rules has for each structure, by itself."""
    machine = Driven()
    slot = Slot(machine.device(A, ats=True), 69)
    attach(machine, slot)
    machine.dma(slot, DATA)
    trace = {step.structure: step for step in machine.unit.walk(slot, DATA, "r", privileged=False).steps}
    l1std, ste, l1cd, cd, page = (
        trace[f"smmuv3.{name}"] for name in ("l1std", "ste", "l1cd", "cd", "stage-1-descriptor")
    )
    va, ipa = (0, 0, 1, 1), (1, 3, -1, 0)
    cases: list[tuple[list[Stale], list[Sent]]] = [
        ([Stale("ste", (8,), DATA, 4, (l1std,), True)], [CFGI_BUS]),
        ([Stale("ste", (8,), DATA, 4, (ste,), True)], [CFGI_STE]),
        ([Stale("cd", (8, 69), DATA, 4, (l1cd,), True)], [(SID | 0x06, 0)]),
        ([Stale("cd", (8, 69), DATA, 4, (cd,), True)], [cfgi_cd(69)]),
        # CDs are forgotten with the STE.
        ([Stale("ste", (8,), DATA, 4, (ste,), True), Stale("cd", (8, 69), DATA, 4, (cd,), True)], [CFGI_STE]),
        ([Stale("tlb", va, DATA, 4, (page,), True)], [(1 << 48 | 0x12, DATA | 1)]),
        # Tables go with all levels.
        ([Stale("walk", va, DATA, 4, (page,), True)], [(1 << 48 | 0x12, DATA)]),
        ([Stale("tlb", va, DATA, 4, (cd,), True)], [nh_asid(1)]),
        ([Stale("tlb", (0, 3, 1, 1), DATA, 4, (cd,), True)], [nh_all(3)]),
        # The slot has a stage 1, so that its address is not the intermediate one.
        ([Stale("tlb", ipa, DATA, 4, (page._replace(stage=2),), True)], [s12_vmall(3)]),
        # What comes behind an entry that is not true tells nothing.
        (
            [Stale("walk", va, DATA, 4, (page,), True), Stale("tlb", ipa, DATA, 4, (page._replace(stage=2),), True)],
            [(1 << 48 | 0x12, DATA)],
        ),
        ([Stale("cd", (8, 69), DATA, 4, (cd,), True), Stale("tlb", va, DATA, 4, (page,), True)], [cfgi_cd(69)]),
        # The table that was missing then is there now.
        ([Stale("cd", (8, 69), DATA, 4, (l1cd._replace(raw=(0,)),), True)], [(SID | 69 << 12 | 0x05, 0)]),
        ([Stale("tlb", (0, 3, 1, 1), DATA, 4, (page._replace(stage=2),), True)], [s12_vmall(3)]),
        ([Stale("device_tlb", va, DATA, 4, (page,), True)], [(SID | 69 << 12 | 0x840, DATA)]),
        ([Stale("device_tlb", va, DATA, 4, (cd,), True)], [(SID | 69 << 12 | 0x840, 52)]),
        ([Stale("device_tlb", (0, 3, 1, 1), DATA, 4, (page._replace(stage=2),), True)], [(SID | 69 << 12 | 0x840, 52)]),
    ]
    for entries, expected in cases:
        missing = machine.driver.missing(slot, entries)
        words = [tuple(int.from_bytes(each.raw[at : at + 8], "little") for at in (0, 8)) for each in missing]
        assert words == expected, entries


def test_an_ste_with_stage_2_that_the_tlb_knew() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    attach_stage_2(machine, slot)
    (ste,) = (s for s in machine.unit.walk(slot, DATA, "r", privileged=False).steps if s.structure == "smmuv3.ste")
    (missing,) = machine.driver.missing(slot, [Stale("tlb", (1, 1, -1, 0), DATA, 4, (ste,), True)])
    assert missing.raw == s12_vmall(1)[0].to_bytes(16, "little")  # type: ignore[union-attr]

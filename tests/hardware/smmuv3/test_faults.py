# SPDX-License-Identifier: Apache-2.0
"""Holes that DMA meets, as `fault list` tells of them: out of the vIOMMU's queue, and out of the kernel's log."""

import time
from pathlib import Path
from typing import Any

from tests.hardware.held import held
from tests.hardware.shell import Shell
from tests.hardware.smmuv3.nest import OTHER, RID

MIB = 1 << 20
HOLE, LEADS_NOWHERE, OUTSIDE = 0x7BA_D000, 0x7C5_0000, 0x7D1_1000
"""Addresses that no other test has used: the log tells of all, and the same fault again is counted."""
SETUP = f"""
device bind {RID}
device bind {OTHER}
memory create ram --size 16M
domain create vm --nest-parent
domain map vm --iova 0 --size 16M --memory ram
domain create plain
attach vm {RID}
attach plain {OTHER}
pgtable create t --parent vm --pool 8M+64K
pgtable map t --iova 64M --size 64K --gpa 2M
pgtable map t --iova {LEADS_NOWHERE:#x} --size 64K --gpa 256M
bind-pgtable vm {RID} --pgtable t
"""
_SECONDS = 10


def listed(shell: Shell, count: int) -> list[dict[str, Any]]:
    """The faults, as soon as there are so many: the kernel takes its time to tell."""
    end = time.monotonic() + _SECONDS
    while len(found := shell.json("fault", "list")["faults"]) < count:
        assert time.monotonic() < end, found
        time.sleep(0.2)
    assert len(found) == count
    return list(found)


def test_each_hole_is_told_of_once_and_by_whom_it_concerns(shell: Shell, state: Path) -> None:
    shell.batch(SETUP)
    before = len(shell.json("fault", "list")["faults"])
    # The kernel logs ten at most in five seconds, also of those that other tests brought about.
    time.sleep(6)
    with held(state) as machine:
        nested, plain = machine.edu(RID), machine.edu(OTHER)
        nested.load(HOLE, 4)
        nested.store(HOLE + 0x1000, 4)
    first, second = listed(shell, before + 2)[before:]
    assert [(each["rid"], each["name"], each["access"], int(each["iova"], 16) >> 12) for each in (first, second)] == [
        (RID, "F_TRANSLATION", "r", HOLE >> 12),
        (RID, "F_TRANSLATION", "w", (HOLE >> 12) + 1),
    ]
    assert {each["source"].partition(" on ")[0] for each in (first, second)} == {"the vIOMMU of vm"}
    assert first["reason"].endswith("(stage 1)")
    with held(state) as machine:
        nested, plain = machine.edu(RID), machine.edu(OTHER)
        nested.load(LEADS_NOWHERE, 4)
        plain.load(OUTSIDE, 4)
    stage_2, of_domain = listed(shell, before + 4)[before + 2 :]
    assert (stage_2["rid"], stage_2["source"]) == (RID, "the kernel's log")
    assert int(stage_2["iova"], 16) >> 12 == LEADS_NOWHERE >> 12
    assert stage_2["reason"].endswith("(stage 2)")
    # The fourth word of the record is the guest's address: IHI0070 G.b section 7.3.
    assert int(stage_2["raw"][3], 16) >> 12 == 256 * MIB >> 12
    assert (of_domain["rid"], int(of_domain["iova"], 16) >> 12) == (OTHER, OUTSIDE >> 12)
    again = listed(shell, before + 4)
    assert [each["count"] for each in again[before:]] == [each["count"] for each in (first, second, stage_2, of_domain)]

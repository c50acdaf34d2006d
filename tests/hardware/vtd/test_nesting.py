# SPDX-License-Identifier: Apache-2.0
"""Nesting and PASIDs on a unit that says that it has both: the whole reference topology, accepted by the kernel.

Where the capabilities are pretended, no DMA goes through PASIDs or nested tables. What the kernel wrote into its tables
is read in debugfs, and slots of RIDs are proved by DMA before they are bound.
"""

from pathlib import Path

import pytest

from iommuctl_vtd.pasid_entry import FIRST_STAGE, NESTED, SECOND_STAGE
from iommuctl_vtd.registers import ECAP
from tests.hardware.held import held
from tests.hardware.reference import machines
from tests.hardware.shell import Shell
from tests.hardware.vtd.kernel_tables import entries, slot

pytestmark = pytest.mark.nesting

RID1, RID2 = "0000:00:10.0", "0000:00:11.0"
IOVA = 0x7F0000000000
TOPOLOGY = f"""{machines(RID1, RID2, memory="32M")}
attach domain1 {RID1}
attach domain2 {RID1} --pasid 1
attach domain3 {RID1} --pasid 2
attach domain3 {RID2}
pgtable create a1 --parent domain2 --pool 0x1000000+64K
pgtable map a1 --iova {IOVA:#x} --size 16K --gpa 0x200000
pgtable create b1 --parent domain2 --pool 0x1100000+64K
pgtable map b1 --iova {IOVA:#x} --size 16K --gpa 0x300000
pgtable create c1 --parent domain3 --pool 0x1000000+64K
pgtable map c1 --iova {IOVA:#x} --size 16K --gpa 0x200000
pgtable create a2 --parent domain3 --pool 0x1100000+64K
pgtable map a2 --iova {IOVA:#x} --size 16K --gpa 0x300000
"""
BINDINGS = {
    ("domain2", RID1, 3): "a1",
    ("domain2", RID1, 4): "b1",
    ("domain3", RID1, 5): "c1",
    ("domain3", RID2, 3): "a2",
}


@pytest.fixture
def built(shell: Shell) -> Shell:
    for line in TOPOLOGY.split("\n"):
        if line:
            shell(*line.split())
    return shell


def bind(shell: Shell) -> None:
    for (parent, rid, pasid), table in BINDINGS.items():
        shell("bind-pgtable", parent, rid, "--pgtable", table, "--pasid", pasid)


def test_the_whole_reference_topology(built: Shell, state: Path) -> None:
    with held(state) as machine:
        machine.write(1, 0, b"host")
        machine.edu(RID1).load(0x10000, 4)
        machine.edu(RID1).store(0x18000, 4)
        assert machine.read(1, 0x8000, 4) == b"host"
        machine.write(3, 0x5000, b"vm2")
        machine.edu(RID2).load(0x5000, 3)
        machine.edu(RID2).store(0x6000, 3)
        assert machine.read(3, 0x6000, 3) == b"vm2"
    bind(built)
    seen = entries()
    # Linux builds a first stage for a plain domain where the unit walks one.
    ecap = int(built.json("unit", "show", "dmar0")["registers"]["ECAP"]["value"], 16)
    assert seen[slot(RID1)]["PGTT"] == (FIRST_STAGE if ECAP.FSTS.get(ecap) else SECOND_STAGE)
    for rid, pasid in ((RID1, 1), (RID1, 2), (RID2, None)):
        assert seen[slot(rid, pasid)]["PGTT"] == SECOND_STAGE
    roots = {each["name"]: int(each["root"], 16) for each in built.json("pgtable", "list")["pgtables"]}
    for (_, rid, pasid), table in BINDINGS.items():
        entry = seen[slot(rid, pasid)]
        assert (entry["PGTT"], entry["FSPTPTR"], entry["FSPM"]) == (NESTED, roots[table], 0)
    # Each page table on its parent has a tag of its own, and so has each parent.
    assert len({seen[slot(rid, pasid)]["DID"] for _, rid, pasid in BINDINGS}) == len(BINDINGS)
    shown = built.json("topology")
    assert {each["name"]: len(each["slots"]) for each in shown["domains"]} == {"domain1": 1, "domain2": 3, "domain3": 4}
    assert built("check").startswith("ok")


def test_where_a_guest_s_addresses_go(built: Shell) -> None:
    bind(built)
    for (_, rid, pasid), table in BINDINGS.items():
        answer = built.json("translate", rid, f"{IOVA + 0x1010:#x}", "--pasid", pasid)
        memory, gpa = {"a1": ("vm1", 0x200000), "b1": ("vm1", 0x300000)}.get(table) or (
            "vm2", {"c1": 0x200000, "a2": 0x300000}[table]
        )  # fmt: skip
        assert (answer["memory"], answer["offset"]) == (memory, gpa + 0x1010)
        assert [step["structure"] for step in answer["steps"]] == ["vtd.first-stage-entry"] * 4


def test_unbinding_goes_back_to_what_was(built: Shell) -> None:
    built("bind-pgtable", "domain3", RID2, "--pgtable", "c1")
    assert entries()[slot(RID2)]["PGTT"] == NESTED
    built("unbind-pgtable", "domain3", RID2)
    assert entries()[slot(RID2)]["PGTT"] == SECOND_STAGE
    built("bind-pgtable", "domain2", RID1, "--pgtable", "a1", "--pasid", 9)
    assert entries()[slot(RID1, 9)]["PGTT"] == NESTED
    built("unbind-pgtable", "domain2", RID1, "--pasid", 9)
    assert slot(RID1, 9) not in entries()


def test_a_guest_s_own_table_and_its_invalidation(built: Shell) -> None:
    built("bind-pgtable", "domain2", RID1, "--addr", "0x400000", "--pasid", 7)
    assert entries()[slot(RID1, 7)]["FSPTPTR"] == 0x400000
    answer = built.json("invalidate", "domain2", "--pasid", 7, "--iova", "0x1000", "--size", "8K", "--leaf")
    (command,) = answer["commands"]
    assert command["name"] == "vtd.hwpt-vtd-s1-invalidate"
    assert command["fields"] == {"addr": "0x1000", "npages": "0x2", "flags": "0x1"}
    assert bytes.fromhex(command["raw"]) == (0x1000).to_bytes(8, "little") + (2).to_bytes(8, "little") + bytes(
        (1,)
    ) + bytes(7)
    assert "IOMMU_HWPT_INVALIDATE" in [call["ioctl"] for call in answer["calls"]]
    answer = built.json("invalidate", "domain2")
    assert [command["fields"]["npages"] for command in answer["commands"]] == ["0xffffffffffffffff"]


def test_what_linux_refuses_is_refused_before(built: Shell) -> None:
    error = built.refused(
        *["domain", "map", "domain2", "--iova", "64M", "--size", "4K", "--memory", "vm1", "--prot", "r"]
    )
    assert (error["id"], "erratum" in error["because"]) == ("unsupported", True)


def test_dirty_tracking_is_accepted(built: Shell) -> None:
    built("domain", "create", "tracked", "--dirty")
    built("attach", "tracked", RID1, "--replace")
    built("domain", "dirty", "tracked", "on")
    assert built.json("domain", "dirty", "tracked", "read")["ranges"] == []
    built("domain", "dirty", "tracked", "off")

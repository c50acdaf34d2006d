# SPDX-License-Identifier: Apache-2.0
"""The reference topology on an SMMUv3, in the part that one stage 2 for each StreamID allows; and why not the rest."""

import pytest

from tests.acceptance.conftest import RID1, RID2, Shell

SVA = 0x7F0000000000
COMMANDS = f"""
device add {RID1} --pasid-bits 20 --ats
device add {RID2} --pasid-bits 16
domain create domain1 --label host
domain map domain1 --iova 0x10000 --size 64K --pa 0x100000
memory create vm1 --size 64M
memory create vm2 --size 64M
domain create domain2 --label vm1
domain map domain2 --iova 0 --size 64M --memory vm1
domain create domain3 --nest-parent --label vm2
domain map domain3 --iova 0 --size 64M --memory vm2
domain create parent1 --nest-parent
domain map parent1 --iova 0 --size 64M --memory vm1
attach domain1 {RID1}
attach domain2 {RID1} --pasid 1
attach domain3 {RID2}
pgtable create a2 --parent domain3 --pool 0x1100000+64K
pgtable map a2 --iova {SVA:#x} --size 16K --gpa 0x300000
bind-pgtable domain3 {RID2} --pgtable a2 --pasid 3
pgtable create a1 --parent parent1 --pool 0x1000000+64K
pgtable create c1 --parent domain3 --pool 0x1000000+64K
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("smmuv3") / "state")
    shell("sim", "init", "--arch", "smmuv3")
    shell("batch", "-", "--quiet", stdin=COMMANDS)
    return shell


def test_the_part_that_holds(machine: Shell) -> None:
    domains = {domain["name"]: domain["slots"] for domain in machine.json("topology")["domains"]}
    assert {
        name: [(slot["rid"], slot["pasid"], slot["kind"], slot["implicit"]) for slot in slots]
        for name, slots in domains.items()
    } == {
        "domain1": [(RID1, None, "attach", False)],
        "domain2": [(RID1, 1, "attach", False)],
        "domain3": [(RID2, None, "attach", False), (RID2, 3, "bind", True)],
        "parent1": [],
    }
    base = {memory["name"]: int(memory["pa"], 16) for memory in machine.json("memory", "list")["memories"]}
    for rid, pasid, iova, pa in (
        (RID1, None, 0x10000, 0x100000),
        (RID1, 1, 0x5000, base["vm1"] + 0x5000),
        (RID2, None, 0x6000, base["vm2"] + 0x6000),
        (RID2, 3, SVA, base["vm2"] + 0x300000),
    ):
        slot = [] if pasid is None else ["--pasid", str(pasid)]
        done = machine.json("sim", "dma", rid, hex(iova), "--write", "--data", "c0ffee", *slot)
        assert done["pieces"] == [{"iova": hex(iova), "pa": hex(pa), "size": 3}]
        assert (done["stale"], done["missing"]) == (False, [])
        assert machine.json("sim", "read", hex(pa), "3")["data"] == "c0ffee"
    assert machine.json("check") == {"schema": 1, "ok": True, "problems": []}


@pytest.mark.parametrize(
    ("command", "error", "because"),
    [
        (
            f"attach domain3 {RID1} --pasid 2",
            "unsupported",
            "a nest parent is a stage 2, which belongs to the whole device; a PASID selects a stage 1 only",
        ),
        (
            f"bind-pgtable parent1 {RID1} --pgtable a1 --pasid 3",
            "cannot-nest",
            f"a device has one stage 2 for all its PASIDs, and {RID1} is on domain1",
        ),
        (
            f"bind-pgtable domain3 {RID1} --pgtable c1 --pasid 5",
            "cannot-nest",
            f"a device has one stage 2 for all its PASIDs, and {RID1} is on domain1",
        ),
        (
            f"attach parent1 {RID1} --replace",
            "cannot-nest",
            "its PASID 1 is attached to stage-1 domains, whose addresses would go through parent1, the stage 2 of the"
            " whole device",
        ),
        (
            f"attach domain2 {RID2} --pasid 7",
            "cannot-nest",
            f"{RID2} is on domain3, and the addresses of domain2 would go through that stage 2",
        ),
        (
            f"bind-pgtable parent1 {RID2} --pgtable a1 --pasid 4",
            "cannot-nest",
            f"a device has one stage 2 for all its PASIDs, and {RID2} is on domain3",
        ),
    ],
)
def test_each_refusal_of_the_rest(machine: Shell, command: str, error: str, because: str) -> None:
    before = machine.json("export")
    answer = machine.refused(*command.split())
    assert (answer["id"], answer["exit"], answer["because"]) == (error, 3, because)
    assert machine.json("export") == before


def test_demo(shell: Shell) -> None:
    told = shell.json("demo", "--arch", "smmuv3")
    assert [(refusal["id"], refusal["exit"]) for refusal in told["refused"]] == [
        ("unsupported", 3),
        *[("cannot-nest", 3)] * 3,
    ]
    assert [(dma["rid"], dma["pasid"], dma["memory"], dma["ok"]) for dma in told["dma"]] == [
        (RID1, None, "host", True),
        (RID1, 1, "vm1", True),
        (RID2, None, "vm2", True),
        (RID2, 3, "vm2", True),
    ]
    assert told["without_invalidation"]["stale"]
    assert [command["name"] for command in told["commands"]] == [
        "smmuv3.tlbi-nh-va",
        "smmuv3.sync",
        "smmuv3.atc-inv",
        "smmuv3.sync",
    ]
    assert told["with_invalidation"]["fault"]["name"] == "F_TRANSLATION"

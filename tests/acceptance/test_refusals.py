# SPDX-License-Identifier: Apache-2.0
"""Every refusal of the generic layer, with its exit code and id, and the state as before."""

import pytest

from tests.acceptance.conftest import RID1, RID2, Shell

RID3 = "0000:00:03.0"
SETUP = f"""
    device add {RID1} --pasid-bits 8 --ats
    device add {RID2}
    device add {RID3} --pasid-bits 8
    domain create plain --page-sizes 4K
    domain create other
    domain create vm --nest-parent
    domain create vm2 --nest-parent
    domain map plain --iova 64K --size 64K --pa 0x100000
    domain map vm --iova 0 --size 16M --pa 0x10000000
    domain map vm2 --iova 0 --size 16M --pa 0x20000000
    domain map vm2 --iova 32M --size 1M --pa 0x30000000 --prot r
    memory create mem --size 64K
    domain map other --iova 0 --size 64K --memory mem
    pgtable create table --parent vm --pool 0x100000+64K
    pgtable create foreign --parent vm2 --pool 0x100000+64K
    pgtable map table --iova 0 --size 2M --gpa 2M
    attach plain {RID1}
    attach vm {RID1} --pasid 1
    attach vm {RID3}
    bind-pgtable vm {RID1} --pgtable table --pasid 2
"""

REFUSALS = [
    # A rule refuses it: exit 1.
    ("overlap", 1, "domain map plain --iova 0x1f000 --size 8K --pa 0x300000"),
    ("overlap", 1, "pgtable map table --iova 4K --size 4K --gpa 0x200000"),
    ("overlap", 1, "pgtable create clash --parent vm --pool 0x10f000+8K"),
    ("partial-unmap", 1, "domain unmap plain --iova 64K --size 4K"),
    ("partial-unmap", 1, "domain unmap plain --iova 0x1f000 --size 8K"),
    ("partial-unmap", 1, "domain unmap plain --iova 1M --size 4K"),
    ("partial-unmap", 1, "pgtable unmap table --iova 0 --size 4K"),
    ("misaligned", 1, "domain map plain --iova 0x800 --size 4K --pa 0x300000"),
    ("misaligned", 1, "domain map plain --iova 0 --size 0x1800 --pa 0x300000"),
    ("misaligned", 1, "domain map plain --iova 0 --size 4K --pa 0x300010"),
    ("misaligned", 1, f"bind-pgtable vm {RID1} --addr 0x100010 --pasid 3"),
    ("out-of-aperture", 1, "domain map plain --iova 0x1000000000000 --size 4K --pa 0x300000"),
    ("out-of-aperture", 1, "domain map plain --iova 0xfffffffff000 --size 8K --pa 0x300000"),
    ("out-of-aperture", 1, "domain map plain --iova 0xfffffffffffff000 --size 8K --pa 0x300000"),
    ("out-of-aperture", 1, "domain map plain --iova 0x1000 --size 4K --pa 0x1000000000000"),
    ("out-of-aperture", 1, f"bind-pgtable vm {RID1} --addr 0x1000000000000 --pasid 3"),
    ("reserved-range", 1, "domain map plain --iova 0xfee00000 --size 4K --pa 0x300000"),
    ("reserved-range", 1, "domain map plain --iova 0x1000 --size 4K --pa 0x1f0000000"),
    ("slot-occupied", 1, f"attach other {RID1}"),
    ("slot-occupied", 1, f"attach other {RID1} --pasid 1"),
    ("slot-occupied", 1, f"bind-pgtable vm2 {RID1} --pgtable foreign --pasid 1"),
    ("slot-occupied", 1, f"bind-pgtable vm {RID1} --pgtable table --pasid 2"),
    ("slot-empty", 1, f"detach plain {RID2}"),
    ("slot-empty", 1, f"detach other {RID1}"),
    ("slot-empty", 1, f"unbind-pgtable vm {RID1} --pasid 9"),
    ("slot-bound", 1, f"detach vm {RID1} --pasid 2"),
    ("slot-bound", 1, f"attach other {RID1} --pasid 2 --replace"),
    ("name-taken", 1, "domain create plain"),
    ("name-taken", 1, "memory create mem --size 4K"),
    ("name-taken", 1, "pgtable create table --parent vm --pool 0x200000+64K"),
    ("in-use", 1, "domain destroy plain"),
    ("in-use", 1, "domain destroy vm"),
    ("in-use", 1, "pgtable destroy table"),
    ("in-use", 1, "memory destroy mem"),
    ("in-use", 1, f"device remove {RID1}"),
    ("name-taken", 1, f"device add {RID1}"),
    ("in-use", 1, "domain unmap vm --iova 0 --size 16M"),
    ("in-use", 1, "sim init"),
    ("parent-not-attached", 1, f"bind-pgtable vm {RID2} --pgtable table"),
    ("parent-not-attached", 1, f"bind-pgtable vm {RID1} --addr 0x100000"),
    ("not-nest-parent", 1, f"bind-pgtable plain {RID1} --addr 0x100000"),
    ("not-nest-parent", 1, "pgtable create new --parent plain --pool 64K+64K"),
    ("nothing-bound", 1, "invalidate plain"),
    ("nothing-bound", 1, "invalidate vm2"),
    ("nothing-bound", 1, f"invalidate vm --device {RID3}"),
    ("nothing-bound", 1, f"unbind-pgtable vm {RID3}"),
    ("outside-memory", 1, "pgtable create new --parent vm --pool 32M+64K"),
    ("outside-memory", 1, "pgtable create new --parent vm2 --pool 32M+64K"),
    ("outside-memory", 1, "sim read 0x200000000 4"),
    ("outside-memory", 1, "domain map other --iova 1M --size 64K --memory mem+4K"),
    ("no-room", 1, "memory create huge --size 1T"),
    # Malformed input: exit 2.
    ("usage", 2, "domain map plain --iova 0 --size 4K"),
    ("usage", 2, "domain create"),
    ("usage", 2, "no-such-command"),
    ("usage", 2, "domain create bad/name"),
    ("usage", 2, f"attach plain {RID2} --no-such-option"),
    ("usage", 2, "domain map plain --iova 0 --size 4K --pa 0 --prot wx"),
    ("usage", 2, "invalidate vm --iova 0"),
    ("usage", 2, f"bind-pgtable vm {RID1} --pasid 3"),
    ("bad-number", 2, "domain map plain --iova zero --size 4K --pa 0"),
    ("bad-number", 2, "domain map plain --iova 0x10000000000000000 --size 4K --pa 0"),
    ("bad-number", 2, "domain map plain --iova -1 --size 4K --pa 0"),
    ("bad-number", 2, f"attach plain {RID3} --pasid many"),
    ("bad-number", 2, f"device add {RID1} --pasid-bits 21"),
    ("bad-rid", 2, "device add 00:01"),
    ("bad-rid", 2, "device add 0000:00:20.0"),
    ("bad-rid", 2, "attach plain 0000:00:01.8"),
    ("zero-size", 2, "domain map plain --iova 0 --size 0 --pa 0"),
    ("zero-size", 2, "domain unmap plain --iova 0 --size 0"),
    ("zero-size", 2, "invalidate vm --iova 0 --size 0"),
    ("zero-size", 2, f"sim dma {RID1} 0 --read --size 0"),
    ("pasid-zero", 2, f"attach other {RID1} --pasid 0"),
    ("pasid-zero", 2, f"bind-pgtable vm {RID1} --pgtable table --pasid 0"),
    ("other-backend", 2, "--backend vtd domain list"),
    # It cannot be done here: exit 3.
    ("unsupported", 3, "domain create new --dirty"),
    ("unsupported", 3, "domain create new --width 40"),
    ("unsupported", 3, "domain create new --page-sizes 16K"),
    ("unsupported", 3, "domain map plain --iova 0 --size 4K --pa 0 --prot rx"),
    ("unsupported", 3, "memory create new --size 4K --path /dev/null"),
    ("unsupported", 3, "pgtable create new --parent vm --pool 0x200000+64K --format smmuv3.4k"),
    ("unsupported", 3, "device add 0001:00:01.0"),
    ("unsupported", 3, f"translate {RID1} 64K --access x"),
    ("unsupported", 3, "batch - --dry-run"),
    ("no-pasid-support", 3, f"attach other {RID2} --pasid 1"),
    ("no-pasid-support", 3, f"attach other {RID2} --pasid auto"),
    ("no-pasid-support", 3, f"translate {RID2} 0 --pasid 1"),
    ("pasid-too-wide", 3, f"attach other {RID1} --pasid 256"),
    ("cannot-nest", 3, f"bind-pgtable vm {RID1} --pgtable foreign --pasid 3"),
    # No such object: exit 4.
    ("no-such-domain", 4, f"attach nothing {RID2}"),
    ("no-such-domain", 4, "domain show id:99"),
    ("no-such-device", 4, "attach plain 0000:00:1f.0"),
    ("no-such-device", 4, "device show 0000:00:1f.0"),
    ("no-such-pgtable", 4, f"bind-pgtable vm {RID1} --pgtable nothing --pasid 3"),
    ("no-such-memory", 4, "domain map other --iova 1M --size 4K --memory nothing"),
    ("no-such-structure", 4, "table decode vtd.nothing 0x0"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """One folder for all refusals: they leave it as it was."""
    shell = Shell(tmp_path_factory.mktemp("refusals") / "state")
    shell.batch(SETUP)
    return shell


@pytest.mark.parametrize(("identity", "code", "command"), REFUSALS, ids=[row[2] for row in REFUSALS])
def test_refusal(folder: Shell, identity: str, code: int, command: str) -> None:
    before = folder.everything()
    error = folder.refused(*command.split())
    assert (error["id"], error["exit"]) == (identity, code)
    assert folder.everything() == before


def test_a_refusal_lists_the_users(folder: Shell) -> None:
    error = folder.refused("domain", "destroy", "vm")
    for user in (f"{RID1} PASID 1", f"{RID1} PASID 2", RID3, "page table table"):
        assert user in error["because"]


def test_force_takes_users_off_in_order(shell: Shell) -> None:
    shell.batch(SETUP)
    shell("domain", "destroy", "vm", "--force")
    shell("memory", "destroy", "mem", "--force")
    shell.batch(
        f"""
        memory create guest --size 16M
        domain create vm3 --nest-parent
        domain map vm3 --iova 0 --size 16M --memory guest
        pgtable create inside --parent vm3 --pool 0+64K
        bind-pgtable vm3 {RID1} --pgtable inside --pasid 5
        """
    )
    assert shell.refused("memory", "destroy", "guest")["id"] == "in-use"
    shell("memory", "destroy", "guest", "--force")
    assert [table["name"] for table in shell.json("pgtable", "list")["pgtables"]] == ["foreign"]
    shell("domain", "destroy", "vm3")
    shell("device", "remove", RID1, "--force")
    document = shell.json("topology")
    assert [(domain["name"], domain["slots"]) for domain in document["domains"]] == [
        ("plain", []),
        ("other", []),
        ("vm2", []),
    ]
    assert shell.json("check")["ok"]

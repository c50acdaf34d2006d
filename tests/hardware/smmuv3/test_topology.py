# SPDX-License-Identifier: Apache-2.0
"""The reference topology as far as an SMMUv3 carries it: one stage 2 for each device, and on this unit no PASIDs.

RID1 carries the host's own DMA on domain1, RID2 is vm2's on domain3, where its guest's page table nests.
"""

import json
from pathlib import Path

import pytest

from iommuctl.formats.memory import FileMemory
from iommuctl_smmuv3.cd import Cd
from tests.differential.plans import Range
from tests.differential.smmuv3.build import Pool, context
from tests.differential.smmuv3.plans import Stage1, Tree
from tests.hardware.held import held
from tests.hardware.reference import machines
from tests.hardware.shell import Shell
from tests.hardware.smmuv3.nest import MIB
from tests.hardware.smmuv3.nest import OTHER as RID2
from tests.hardware.smmuv3.nest import RID as RID1

IOVA = 0x700_0000
TOPOLOGY = f"""{machines(RID1, RID2, memory="4M")}
attach domain1 {RID1}
attach domain3 {RID2}
pgtable create a1 --parent domain2 --pool 0x100000+64K
pgtable map a1 --iova {IOVA:#x} --size 16K --gpa 0x200000
pgtable create a2 --parent domain3 --pool 0x100000+64K
pgtable map a2 --iova {IOVA:#x} --size 16K --gpa 0x200000
"""
HOST, VM1, VM2 = 1, 2, 3
"""Ids of named memory."""


@pytest.fixture
def built(shell: Shell) -> Shell:
    shell.batch(TOPOLOGY)
    return shell


def moves(state: Path, rid: str, iova: int, memory: int, offset: int) -> None:
    """A device reads at an address what is in the memory, and writes behind it."""
    word = f"{memory}@{offset:#x}".encode()
    with held(state) as machine:
        machine.write(memory, offset, word + bytes(0x100))
        machine.edu(rid).load(iova, len(word))
        machine.edu(rid).store(iova + 0x80, len(word))
        assert machine.read(memory, offset + 0x80, len(word)) == word


def test_each_device_on_a_domain_of_its_own(built: Shell, state: Path) -> None:
    moves(state, RID1, 0x1_0000, HOST, 0)
    moves(state, RID2, 0x30_0000, VM2, 0x30_0000)
    built("bind-pgtable", "domain3", RID2, "--pgtable", "a2", "--label", "guest")
    moves(state, RID1, 0x1_0000, HOST, 0)
    moves(state, RID2, IOVA, VM2, 0x20_0000)
    told = built.json("translate", RID2, hex(IOVA + 0x1010))
    assert (told["memory"], told["offset"]) == ("vm2", 0x20_1010)
    assert [step["structure"] for step in told["steps"]] == ["smmuv3.cd"] + ["smmuv3.stage-1-descriptor"] * 4
    shown = built.json("topology")
    assert {each["name"]: len(each["slots"]) for each in shown["domains"]} == {"domain1": 1, "domain2": 0, "domain3": 1}
    built("unbind-pgtable", "domain3", RID2)
    moves(state, RID2, 0x30_0000, VM2, 0x30_0000)
    assert built("check").startswith("ok")


def test_two_guests_with_equal_addresses(built: Shell, state: Path) -> None:
    """Page tables at equal GPAs, equal input addresses: what differs is the parent."""
    built("attach", "domain2", RID1, "--replace")
    built("bind-pgtable", "domain2", RID1, "--pgtable", "a1")
    built("bind-pgtable", "domain3", RID2, "--pgtable", "a2")
    roots = {each["name"]: each["root"] for each in built.json("pgtable", "list")["pgtables"]}
    assert roots["a1"] == roots["a2"]
    for _ in range(2):
        moves(state, RID1, IOVA, VM1, 0x20_0000)
        moves(state, RID2, IOVA, VM2, 0x20_0000)
    built("invalidate", "domain2")
    moves(state, RID2, IOVA, VM2, 0x20_0000)


def test_two_guests_with_equal_asids(built: Shell, state: Path) -> None:
    """The VMID keeps apart what guests call by the same ASID, also in an invalidation."""
    built("attach", "domain2", RID1, "--replace")
    places = ((VM1, "domain2", RID1, 0x20_0000), (VM2, "domain3", RID2, 0x30_0000))
    with held(state) as machine:
        for memory, _, _, gpa in places:
            guest = FileMemory(machine.memory(memory), 0, 4 * MIB)
            tree = Tree(4096, 39, False, (Range(IOVA, 0x4000, gpa, "rwu"),))
            guest.write(0, Cd.to_bytes(context(guest, Pool((0x1000, MIB)), Stage1(tree, None, ()), asid=5)))
    for _, parent, rid, _ in places:
        built("bind-pgtable", parent, rid, "--addr", "0", "--format", "cd-table")
    for _ in range(2):
        for memory, _, rid, gpa in places:
            moves(state, rid, IOVA, memory, gpa)
    built("invalidate", "domain3")
    for memory, _, rid, gpa in places:
        moves(state, rid, IOVA, memory, gpa)


REFUSED = [
    # No PASIDs on this unit: neither those of the host's device, nor those of the guest's.
    (f"attach domain2 {RID1} --pasid 1", 3, "no-pasid-support", "the IOMMU that it is behind has none"),
    (f"attach domain3 {RID1} --pasid auto", 3, "no-pasid-support", "the IOMMU that it is behind has none"),
    (f"bind-pgtable domain2 {RID1} --pgtable a1 --pasid 3", 3, "no-pasid-support", "behind has none"),
    (f"bind-pgtable domain3 {RID2} --pgtable a2 --pasid 3", 3, "no-pasid-support", "behind has none"),
    (f"bind-pgtable domain3 {RID2} --addr 0x200000 --format cd-table --pasid 1", 3, "no-pasid-support", "has none"),
    (f"attach domain1 {RID1} --pasid 0", 2, "pasid-zero", "the slot of the RID itself"),
    # What nests, and on what.
    (f"bind-pgtable domain1 {RID1} --addr 0x10000", 1, "not-nest-parent", "not created as a nest parent"),
    (f"bind-pgtable domain2 {RID1} --pgtable a1", 1, "parent-not-attached", "attached to domain1"),
    (f"bind-pgtable domain3 {RID2} --pgtable a1", 3, "cannot-nest", "built in the memory of domain2"),
    (
        f"bind-pgtable domain3 {RID2} --addr 0x200000 --format vtd.first-stage-4",
        3,
        "unsupported",
        "smmuv3.stage-1-4k-48",
    ),
    (f"bind-pgtable domain3 {RID2} --addr 0x200010 --cd-pool 0x300000+64K", 1, "misaligned", "root table"),
    # CDs are in guest memory: ours in a pool, a guest's own where they are.
    (f"bind-pgtable domain3 {RID2} --addr 0x200000", 2, "usage", "lies in guest memory"),
    (f"bind-pgtable domain3 {RID2} --addr 0x200000 --cd-pool 8M+64K", 1, "outside-memory", "does not map all of it"),
    (f"bind-pgtable domain3 {RID2} --addr 0x200010 --format cd-table", 1, "misaligned", "linear table"),
    (f"bind-pgtable domain3 {RID2} --addr 2M --format cd-table --cd-pool 3M+64K", 2, "usage", "the guest's own"),
    # What the unit, or Linux, does not do at all.
    ("domain create d --nest-parent --dirty", 3, "unsupported", ""),
    ("domain create d --page-sizes 16K", 3, "unsupported", "4K,2M,1G"),
    ("domain create d --width 45", 3, "unsupported", "39, 44, 48 bits"),
    ("domain create d --nest-parent --width 48", 3, "unsupported", "39, 44 bits"),
    ("domain map domain3 --iova 0x8000000 --size 64K --memory vm2", 1, "reserved-range", "interrupts"),
    (f"domain map domain3 --iova {1 << 44:#x} --size 64K --memory vm2", 1, "out-of-aperture", "44 address bits"),
    ("invalidate domain3", 1, "nothing-bound", "need no invalidation"),
]


def test_what_cannot_be_is_refused_with_the_reason(built: Shell) -> None:
    before = built("topology")
    for line, exit_code, error_id, because in REFUSED:
        error = json.loads(built.run(*line.split(), "-j").stderr)["error"]
        assert (error["exit"], error["id"]) == (exit_code, error_id), line
        assert because in error["because"], line
    assert built("topology") == before
    assert built("check").startswith("ok")


def test_what_is_bound_stays_until_it_is_taken_off(built: Shell, state: Path) -> None:
    """In order: the binding, the attachment, then the rest; or all at once, by force."""
    built("bind-pgtable", "domain3", RID2, "--pgtable", "a2")
    for line, error_id, hint in (
        (f"bind-pgtable domain3 {RID2} --pgtable a2", "slot-occupied", "unbind-pgtable"),
        (f"attach domain1 {RID2} --replace", "slot-bound", "unbind-pgtable"),
        (f"detach domain3 {RID2}", "slot-bound", "--force"),
        ("pgtable destroy a2", "in-use", "--force"),
        ("domain destroy domain3", "in-use", "--force"),
        ("domain unmap domain3 --iova 0 --size 4M", "in-use", "pgtable destroy a2"),
        (f"device unbind {RID2}", "in-use", "--force"),
        ("memory destroy vm2", "in-use", "--force"),
    ):
        error = built.refused(*line.split())
        assert (error["exit"], error["id"]) == (1, error_id), line
        assert hint in error["hint"], line
    moves(state, RID2, IOVA, VM2, 0x20_0000)
    built("domain", "destroy", "domain3", "--force")
    built("memory", "destroy", "vm2")
    moves(state, RID1, 0x1_0000, HOST, 0)
    for line in (f"detach domain1 {RID1}", "domain destroy domain2 --force", "domain destroy domain1"):
        built(*line.split())
    with held(state) as machine:
        assert machine.objects() == 2, "only the devices are left"
    assert built("check").startswith("ok")

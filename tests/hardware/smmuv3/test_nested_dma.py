# SPDX-License-Identifier: Apache-2.0
"""DMA through page tables that commands have built or bound, and through the kernel's stage 2."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from iommuctl_smmuv3.cd import Cd
from tests.differential.plans import Range
from tests.differential.smmuv3.build import Pool, context
from tests.differential.smmuv3.plans import Stage1, Tree
from tests.hardware.shell import Shell
from tests.hardware.smmuv3.nest import FORMATS, GIB, KIB, MIB, NEAR, OWN, POOL, RID, at_work, huge_pages, make

FROM_MEMORY = b"bytes that the device reads"
_BYTES = {"4k": 1 << 12, "16k": 1 << 14, "64k": 1 << 16}


@pytest.fixture
def vm(shell: Shell) -> Iterator[Shell]:
    with huge_pages():
        make(shell)
        yield shell


class Case(NamedTuple):
    """A mapping, an address in it that leads to memory, and the size of the page that it is in."""

    granule: str
    iova: int
    size: int
    gpa: int
    inside: int
    page: int


CASES = {
    "4K": Case("4k", 0x300_3000, 32 * KIB, NEAR + 0x5000, 0x300_4000, 4 * KIB),
    "2M": Case("4k", 0x420_0000, 4 * MIB, NEAR + 4 * MIB, 0x430_1000, 2 * MIB),
    "4K beside 2M": Case("4k", 0x43F_F000, 2 * MIB + 8 * KIB, NEAR + 2 * MIB - 4 * KIB, 0x43F_F100, 4 * KIB),
    "1G": Case("4k", 0, GIB, GIB, NEAR + 0x1_2000, GIB),
    "16K": Case("16k", 0x300_4000, 64 * KIB, NEAR + 0x8000, 0x300_8000, 16 * KIB),
    "32M": Case("16k", 0x400_0000, 32 * MIB, 96 * MIB, 0x402_0000, 32 * MIB),
    "64K": Case("64k", 0x301_0000, 256 * KIB, NEAR + 0x4_0000, 0x302_0000, 64 * KIB),
    "512M": Case("64k", 0, 512 * MIB, 512 * MIB, NEAR + 0x2_1000, 512 * MIB),
}
"""Of blocks beyond 2 MiB, the parent has memory for a part alone."""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_stages(vm: Shell, state: Path, case: Case) -> None:
    vm.batch(f"""
    pgtable create t --parent vm --pool {POOL} --format {FORMATS[case.granule]}
    pgtable map t --iova {case.iova:#x} --size {case.size} --gpa {case.gpa:#x}
    bind-pgtable vm {RID} --pgtable t
    """)
    told = vm.json("translate", RID, hex(case.inside))
    assert told["page_size"] == case.page
    source, destination = (case.gpa + case.inside - case.iova + step for step in (0, 0x1F00))
    outside = case.iova - 0x1000 if case.iova else 64 * MIB
    with at_work(state) as guest:
        guest.write(source, FROM_MEMORY)
        guest.copy(case.inside, case.inside + 0x1F00, len(FROM_MEMORY))
        assert guest.read(destination, len(FROM_MEMORY)) == FROM_MEMORY
        assert guest.read(source, len(FROM_MEMORY)) == FROM_MEMORY
        guest.write(destination, b"\xff" * 8)
        guest.copy(outside, case.inside + 0x1F00, 8)
        assert guest.read(destination, 8) == bytes(8), "what it may not read are zeros"
        guest.copy(case.inside, outside, 8)
        assert guest.read(source, len(FROM_MEMORY)) == FROM_MEMORY


def test_between_binding_and_unbinding(vm: Shell, state: Path) -> None:
    """Before and after, the device's addresses are GPAs; once it is detached, they lead nowhere."""
    data, iova, gpa = b"at a GPA", 0x400_0000, NEAR + 2 * MIB
    vm("pgtable", "create", "t", "--parent", "vm", "--pool", POOL)
    vm(*f"pgtable map t --iova {iova:#x} --size 64K --gpa {gpa:#x}".split())
    with at_work(state) as guest:
        guest.write(gpa, data)
        guest.copy(gpa, gpa + 0x100, 8)
        assert guest.read(gpa + 0x100, 8) == data
    for _ in range(2):
        vm("bind-pgtable", "vm", RID, "--pgtable", "t")
        with at_work(state) as guest:
            guest.write(gpa + 0x100, bytes(0x300))
            guest.copy(gpa, iova + 0x100, 8)
            guest.copy(iova, iova + 0x200, 8)
            guest.store(gpa + 0x300, 8)
            assert [guest.read(gpa + at, 8) for at in (0x100, 0x200, 0x300)] == [bytes(8), data, bytes(8)]
        vm("unbind-pgtable", "vm", RID)
        with at_work(state) as guest:
            guest.copy(gpa, gpa + 0x300, 8)
            guest.store(iova + 0x400, 8)
            assert [guest.read(gpa + at, 8) for at in (0x300, 0x400)] == [data, bytes(8)]
    vm("detach", "vm", RID)
    with at_work(state) as guest:
        guest.write(gpa + 0x300, bytes(8))
        guest.store(gpa + 0x300, 8)
        assert guest.read(gpa + 0x300, 8) == bytes(8)
        assert guest.read(gpa, 8) == data


def test_a_bound_slot_that_is_detached_by_force(vm: Shell, state: Path) -> None:
    vm("pgtable", "create", "t", "--parent", "vm", "--pool", POOL)
    vm(*f"pgtable map t --iova 64M --size 64K --gpa {NEAR:#x}".split())
    vm("bind-pgtable", "vm", RID, "--pgtable", "t")
    error = vm.refused("detach", "vm", RID)
    assert (error["id"], "unbind-pgtable" in error["hint"]) == ("slot-bound", True)
    with at_work(state) as guest:
        guest.write(NEAR, b"here")
        guest.copy(64 * MIB, 64 * MIB + 16, 4)
        assert guest.read(NEAR + 16, 4) == b"here"
    vm("detach", "vm", RID, "--force")
    with at_work(state) as guest:
        guest.store(64 * MIB + 32, 4)
        guest.store(NEAR + 32, 4)
        assert guest.read(NEAR + 32, 4) == bytes(4)
    assert vm("check").startswith("ok")


def test_rights_of_both_stages(vm: Shell, state: Path) -> None:
    """A page that may only be read, and one that the parent has for reading alone."""
    vm(*f"domain map vm --iova 8M --size 64K --memory ram+{NEAR:#x} --prot r".split())
    vm("pgtable", "create", "t", "--parent", "vm", "--pool", POOL)
    for line in (
        f"pgtable map t --iova 64M --size 64K --gpa {NEAR:#x}",
        f"pgtable map t --iova 65M --size 64K --gpa {NEAR + 64 * KIB:#x} --prot r",
        "pgtable map t --iova 66M --size 64K --gpa 8M",
    ):
        vm(*line.split())
    vm("bind-pgtable", "vm", RID, "--pgtable", "t")
    assert [vm.json("translate", RID, f"{at}M")["prot"] for at in (64, 65, 66)] == ["rw", "r", "r"]
    with at_work(state) as guest:
        for iova, gpa in ((65 * MIB, NEAR + 64 * KIB), (66 * MIB, 96 * MIB)):
            guest.write(gpa, b"read me")
            guest.copy(iova, iova + 0x100, 7)
            assert guest.read(gpa + 0x100, 7) == bytes(7)
            guest.store(64 * MIB, 7)
            assert guest.read(NEAR, 7) == b"read me"


CONTEXT, ROOM = OWN, (OWN + 0x1_0000, MIB - 0x1_0000)
"""Where guests put a CD, and tables."""


@pytest.mark.parametrize("granule", FORMATS)
def test_a_page_table_that_the_guest_owns(vm: Shell, state: Path, granule: str) -> None:
    """Its format says what is at the address; the CD is ours, in the pool."""
    tree = Tree(_BYTES[granule], 48, True, (Range(64 * MIB, 256 * KIB, NEAR + 4 * MIB, "rwu"),))
    with at_work(state) as guest:
        root = Cd.TTB0.get(context(guest, Pool(ROOM), Stage1(tree, None, ()), 0))
        guest.write(NEAR + 4 * MIB, FROM_MEMORY)
    bind = f"bind-pgtable vm {RID} --addr {root:#x} --format {FORMATS[granule]}"
    error = vm.refused(*bind.split())
    assert "--cd-pool" in error["hint"]
    vm(*bind.split(), "--cd-pool", f"{CONTEXT:#x}+64K")
    with at_work(state) as guest:
        guest.copy(64 * MIB, 64 * MIB + 0x1_0000, len(FROM_MEMORY))
        assert guest.read(NEAR + 4 * MIB + 0x1_0000, len(FROM_MEMORY)) == FROM_MEMORY
        guest.store(NEAR + 5 * MIB, 4)
        assert guest.read(NEAR + 5 * MIB, 4) == bytes(4)
    assert vm.json("translate", RID, hex(64 * MIB))["offset"] == 4 * MIB


def test_a_cd_table_that_the_guest_owns(vm: Shell, state: Path) -> None:
    """The guest changes the CD, and with that the page table: seen after an invalidation."""
    stages = [
        Stage1(Tree(size, 48, True, (Range(64 * MIB, 64 * KIB, gpa, "rwu"),)), None, ())
        for size, gpa in ((1 << 12, NEAR), (1 << 16, NEAR + MIB))
    ]
    pool = Pool(ROOM)
    with at_work(state) as guest:
        contexts = [context(guest, pool, stage, asid=7) for stage in stages]
        guest.write(NEAR, b"first")
        guest.write(NEAR + MIB, b"other")
        guest.write(CONTEXT, Cd.to_bytes(contexts[0]))
    vm("bind-pgtable", "vm", RID, "--addr", hex(CONTEXT), "--format", "cd-table")
    for number, (gpa, word) in enumerate(((NEAR, b"first"), (NEAR + MIB, b"other"))):
        with at_work(state) as guest:
            guest.write(CONTEXT, Cd.to_bytes(contexts[number]))
        vm("invalidate", "vm")
        assert vm.json("translate", RID, hex(64 * MIB))["offset"] == gpa - NEAR
        with at_work(state) as guest:
            guest.copy(64 * MIB, 64 * MIB + 0x100, 5)
            assert guest.read(gpa + 0x100, 5) == word

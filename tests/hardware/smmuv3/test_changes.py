# SPDX-License-Identifier: Apache-2.0
"""Caches of the unit: what changes in a guest's page table counts from its invalidation on, and from no other.

QEMU's unit keeps what it has until it is told to forget it, so that what a missing invalidation leaves can be seen.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.hardware.shell import Shell
from tests.hardware.smmuv3.nest import FORMATS, KIB, MIB, NEAR, OTHER, POOL, POOL_2, RID, at_work, huge_pages, make

IOVA, REPORT = 64 * MIB, 80 * MIB
"""Input addresses: what changes, and where a device says what it has read."""
OLD, NEW, ANSWER = NEAR, NEAR + MIB, NEAR + 2 * MIB
"""GPAs. Each page has words of its own."""
STEP, STEPS = 64 * KIB, 4
"""A page of the largest granule, and how many there are at IOVA."""
_WORD = 4
SIZE = hex(STEPS * STEP)


def table(shell: Shell, name: str, pool: str = POOL, *, granule: str = "4k", rids: Sequence[str] = (RID,)) -> None:
    """A page table that leads to OLD, in the slots of these devices."""
    shell.batch(f"""
    pgtable create {name} --parent vm --pool {pool} --format {FORMATS[granule]}
    pgtable map {name} --iova {IOVA:#x} --size {SIZE} --gpa {OLD:#x}
    pgtable map {name} --iova {REPORT:#x} --size 64K --gpa {ANSWER:#x}
    """)
    for rid in rids:
        shell("bind-pgtable", "vm", rid, "--pgtable", name)


def redirect(shell: Shell, name: str = "t") -> None:
    """Change it so that it leads to NEW."""
    shell.batch(f"""
    pgtable unmap {name} --iova {IOVA:#x} --size {SIZE}
    pgtable map {name} --iova {IOVA:#x} --size {SIZE} --gpa {NEW:#x}
    """)


def second(shell: Shell) -> None:
    """Another device on the parent."""
    shell.batch(f"device bind {OTHER}\nattach vm {OTHER}")


def seen(state: Path, rid: str = RID, *, gpas: tuple[int, ...] = (OLD, NEW)) -> list[str]:
    """What a device finds at the pages of IOVA: "old", "new", "" where it is refused, or what must not be."""
    with at_work(state, rid) as guest:
        for page in range(STEPS):
            for gpa, word in zip(gpas, ("old", "new"), strict=True):
                guest.write(gpa + page * STEP, f"{word}{page}".encode())
            guest.load(IOVA + page * STEP, _WORD, page * _WORD)
        guest.store(REPORT, STEPS * _WORD)
        data = guest.read(ANSWER, STEPS * _WORD)
    found = [data[at : at + _WORD].rstrip(b"\0").decode() for at in range(0, len(data), _WORD)]
    assert all(word in ("", f"old{page}", f"new{page}") for page, word in enumerate(found)), found
    return [word[:3] for word in found]


def commands(answer: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """Names and fields, without those that are zero."""
    return [
        (one["name"], {name: int(value, 16) for name, value in one["fields"].items() if int(value, 16)})
        for one in answer["commands"]
    ]


@pytest.fixture
def vm(shell: Shell) -> Iterator[Shell]:
    with huge_pages():
        make(shell)
        yield shell


@pytest.fixture
def stale(vm: Shell, state: Path) -> Shell:
    """The unit has OLD in its caches, where the tables lead to NEW."""
    table(vm, "t")
    assert seen(state) == ["old"] * STEPS
    redirect(vm)
    assert seen(state) == ["old"] * STEPS
    return vm


@pytest.mark.parametrize(
    ("words", "name", "fields"),
    [
        ("", "smmuv3.tlbi-nh-all", {}),
        (f"--device {RID}", "smmuv3.tlbi-nh-all", {}),
        (f"--iova {IOVA:#x} --size {SIZE}", "smmuv3.tlbi-nh-va", {}),
        (f"--iova {IOVA:#x} --size {SIZE} --leaf", "smmuv3.tlbi-nh-va", {"Leaf": 1}),
        (f"--device {RID} --iova {IOVA - MIB:#x} --size 8M", "smmuv3.tlbi-nh-va", {}),
    ],
)
def test_an_invalidation_has_the_new_translation_seen(
    stale: Shell, state: Path, words: str, name: str, fields: dict[str, int]
) -> None:
    """Of a whole table it is one of the VMID's stage 1: a command for the ASID would leave a guest's global pages."""
    sent = commands(stale.json("invalidate", "vm", *words.split()))
    assert {one for one, _ in sent} == {name}
    assert all(one.get("Leaf", 0) == fields.get("Leaf", 0) for _, one in sent)
    assert seen(state) == ["new"] * STEPS


def test_of_other_pages_it_does_not_help(stale: Shell, state: Path) -> None:
    for first, size in ((IOVA - STEP, STEP), (IOVA + STEPS * STEP, 8 * STEP), (REPORT, STEP)):
        stale("invalidate", "vm", "--iova", hex(first), "--size", hex(size))
        assert seen(state) == ["old"] * STEPS
    stale("invalidate", "vm", "--iova", hex(IOVA + STEP), "--size", hex(2 * STEP))
    assert seen(state) == ["old", "new", "new", "old"]


def test_ranges_are_exact(stale: Shell, state: Path) -> None:
    """This unit has range commands: one covers three pages of 4 KiB, and nothing beside them."""
    ((name, fields),) = commands(stale.json("invalidate", "vm", "--iova", hex(IOVA + STEP), "--size", "12K"))
    assert name == "smmuv3.tlbi-nh-va"
    assert (fields["Addr"], fields["TG"], fields["NUM"]) == (IOVA + STEP, 1, 2)
    assert seen(state) == ["old", "new", "old", "old"]


def test_a_dry_run_sends_nothing(stale: Shell, state: Path) -> None:
    assert commands(stale.json("invalidate", "vm", "--dry-run"))
    assert seen(state) == ["old"] * STEPS


@pytest.mark.parametrize("granule", ["16k", "64k"])
def test_other_granules(vm: Shell, state: Path, granule: str) -> None:
    table(vm, "t", granule=granule)
    assert seen(state) == ["old"] * STEPS
    redirect(vm)
    vm("invalidate", "vm", "--iova", hex(IOVA + STEP), "--size", hex(STEP))
    assert seen(state) == ["old", "new", "old", "old"]
    vm("invalidate", "vm", "--iova", hex(IOVA), "--size", SIZE)
    assert seen(state) == ["new"] * STEPS


def test_what_is_taken_away_and_what_comes(vm: Shell, state: Path) -> None:
    """A mapping that goes is used until an invalidation; one that comes needs none."""
    table(vm, "t")
    assert seen(state) == ["old"] * STEPS
    vm("pgtable", "unmap", "t", "--iova", hex(IOVA), "--size", SIZE)
    assert seen(state) == ["old"] * STEPS
    vm("invalidate", "vm", "--iova", hex(IOVA), "--size", hex(STEP))
    assert seen(state) == ["", "old", "old", "old"]
    vm("invalidate", "vm")
    assert seen(state) == [""] * STEPS
    vm("pgtable", "map", "t", "--iova", hex(IOVA), "--size", SIZE, "--gpa", hex(NEW))
    assert seen(state) == ["new"] * STEPS


@pytest.fixture
def two(vm: Shell, state: Path) -> Shell:
    """Two devices on one parent, each with a page table of its own at the same addresses, both stale."""
    second(vm)
    for name, pool, rid in (("t", POOL, RID), ("u", POOL_2, OTHER)):
        table(vm, name, pool, rids=(rid,))
        assert seen(state, rid) == ["old"] * STEPS
        redirect(vm, name)
        assert seen(state, rid) == ["old"] * STEPS
    return vm


def test_each_page_table_has_a_tag_of_its_own(two: Shell, state: Path) -> None:
    where = ["--iova", hex(IOVA), "--size", SIZE]
    sent = [commands(two.json("invalidate", "vm", "--device", rid, *where, "--dry-run")) for rid in (RID, OTHER)]
    assert sent[0][0][1]["ASID"] != sent[1][0][1]["ASID"]
    two("invalidate", "vm", "--device", OTHER, *where)
    assert (seen(state), seen(state, OTHER)) == (["old"] * STEPS, ["new"] * STEPS)
    two("invalidate", "vm", "--device", RID, *where)
    assert seen(state) == ["new"] * STEPS


def test_one_invalidation_reaches_all_of_a_parent(two: Shell, state: Path) -> None:
    assert [name for name, _ in commands(two.json("invalidate", "vm"))] == ["smmuv3.tlbi-nh-all"]
    assert (seen(state), seen(state, OTHER)) == (["new"] * STEPS, ["new"] * STEPS)


def test_one_page_table_of_two_devices(vm: Shell, state: Path) -> None:
    second(vm)
    table(vm, "t", rids=(RID, OTHER))
    assert (seen(state), seen(state, OTHER)) == (["old"] * STEPS, ["old"] * STEPS)
    redirect(vm)
    assert (seen(state), seen(state, OTHER)) == (["old"] * STEPS, ["old"] * STEPS)
    vm("invalidate", "vm")
    assert (seen(state), seen(state, OTHER)) == (["new"] * STEPS, ["new"] * STEPS)


def test_another_table_in_the_slot_needs_no_invalidation(stale: Shell, state: Path) -> None:
    """The unit forgets what came of a page table when it is unbound, and its tag may be another one's."""
    stale("unbind-pgtable", "vm", RID)
    stale("bind-pgtable", "vm", RID, "--pgtable", "t")
    assert seen(state) == ["new"] * STEPS
    stale("unbind-pgtable", "vm", RID)
    stale("pgtable", "destroy", "t")
    table(stale, "u")
    assert seen(state) == ["old"] * STEPS


def test_memory_that_the_parent_loses(vm: Shell, state: Path) -> None:
    """The kernel has the unit forget what came of both stages."""
    gpa = 8 * MIB
    vm("domain", "map", "vm", "--iova", hex(gpa), "--size", "1M", "--memory", "ram")
    vm("pgtable", "create", "t", "--parent", "vm", "--pool", POOL)
    vm("pgtable", "map", "t", "--iova", hex(IOVA), "--size", "64K", "--gpa", hex(gpa))
    vm("bind-pgtable", "vm", RID, "--pgtable", "t")
    with at_work(state) as guest:
        guest.write(NEAR, b"known")
        guest.copy(IOVA, IOVA + 8, 5)
        assert guest.read(NEAR + 8, 5) == b"known"
    vm("domain", "unmap", "vm", "--iova", hex(gpa), "--size", "1M")
    with at_work(state) as guest:
        guest.store(IOVA + 16, 5)
        assert guest.read(NEAR + 16, 5) == bytes(5)

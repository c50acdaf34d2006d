# SPDX-License-Identifier: Apache-2.0
"""The program on the real core of iommufd: every command is a process, and the kernel's objects outlive it."""

import mmap
from ctypes import addressof, c_char
from pathlib import Path

import pytest

from iommuctl.iommufd.keeper_client import Keeper
from tests.hardware.held import held
from tests.hardware.mock.driver import Mock
from tests.hardware.shell import Shell

RID1, RID2 = "0000:00:01.0", "0000:00:02.0"
BUILD = f"""
memory create ram --size 1M --path {{file}}
device bind {RID1}
device bind {RID2}
domain create d
domain create p --nest-parent
domain map d --iova 32M --size 64K --memory ram+4K
domain map p --iova 32M --size 1M --memory ram
attach d {RID1}
attach d {RID1} --pasid 5
attach p {RID2}
pgtable create t --parent p --pool 0x2080000+64K
pgtable map t --iova 0x7f0000000000 --size 16K --gpa 32M
bind-pgtable p {RID2} --pgtable t --pasid 7
"""


@pytest.fixture
def built(shell: Shell, tmp_path: Path) -> Shell:
    """The memory is a file, so that the tables in it survive the kernel's objects."""
    shell("--backend", "mock", "memory", "create", "first", "--size", "4K")
    for line in BUILD.format(file=tmp_path / "ram").strip().split("\n"):
        shell(*line.split())
    return shell


def objects(folder: Path) -> int:
    with held(folder) as keeper:
        return keeper.objects()


def test_the_backend_is_found_as_a_plugin(program: Shell) -> None:
    (found,) = [each for each in program.json("backend", "list")["backends"] if each["name"] == "mock"]
    assert found["available"]


def test_the_kernel_maps_what_the_rows_say(built: Shell, state: Path) -> None:
    """The mock driver tells which page is mapped where, by the memory of the process that asks."""
    keeper = Keeper.connect(state)
    assert keeper
    iommufd = keeper.get("iommufd")
    ram = keeper.get("memory-2")
    assert iommufd is not None
    assert ram is not None
    told = built.json("topology")
    assert [(slot["domain"], slot["pasid"]) for device in told["devices"] for slot in device["slots"]] == [
        ("d", None),
        ("d", 5),
        ("p", None),
        ("p", 7),
    ]
    with mmap.mmap(ram, 1 << 20) as view:
        first = c_char.from_buffer(view)
        start = addressof(first)
        tables = [table for table in range(1, 32) if _maps(Mock(iommufd), table, 32 << 20, start + 4096)]
        del first
    # The domain has one table for both of its slots.
    assert len(tables) == 1
    keeper.close()


def test_what_is_taken_down_leaves_no_object(built: Shell, state: Path) -> None:
    before = objects(state)
    for line in (
        f"unbind-pgtable p {RID2} --pasid 7",
        "domain destroy p --force",
        "domain destroy d --force",
        f"device unbind {RID1}",
        f"device unbind {RID2}",
    ):
        built(*line.split())
    assert before > 0
    assert objects(state) == 0
    assert built.json("check")["ok"]


def test_without_its_keeper_all_is_lost_and_comes_back(built: Shell, state: Path) -> None:
    told = built.json("topology")
    keeper = Keeper.connect(state)
    assert keeper
    keeper.stop()
    assert built.refused("attach", "d", RID2, "--pasid", "3")["id"] == "lost"
    built("recover")
    assert built.json("check")["ok"]
    assert built.json("topology")["devices"] == told["devices"]
    built("attach", "d", RID2, "--pasid", "3")


def _maps(mock: Mock, table: int, iova: int, address: int) -> bool:
    from iommuctl.errors import KernelRefused

    try:
        return mock.maps(table, iova, 4096, address)
    except KernelRefused:
        # No page table has that number.
        return False

# SPDX-License-Identifier: Apache-2.0
"""Bindings and invalidations at the shell: implicit attachments, undo, shared tables, what caches still serve."""

import pytest

from tests.acceptance.conftest import RID1, RID2, Shell

SETUP = f"""
    device add {RID1} --pasid-bits 8 --ats
    device add {RID2} --pasid-bits 8
    domain create vm --nest-parent
    domain map vm --iova 0 --size 16M --pa 0x10000000
    pgtable create table --parent vm --pool 0x100000+64K
    pgtable map table --iova 0x40000000 --size 64K --gpa 0x200000
"""


@pytest.fixture
def vm(shell: Shell) -> Shell:
    """One virtual machine with one page table that nobody uses yet."""
    shell.batch(SETUP)
    return shell


def slots(shell: Shell) -> list[tuple[str, int | None, str, bool]]:
    return [
        (slot["rid"], slot["pasid"], slot["kind"], slot["implicit"])
        for domain in shell.json("topology")["domains"]
        for slot in domain["slots"]
    ]


def test_bind_with_pasid_attaches_in_the_same_step(vm: Shell) -> None:
    vm("bind-pgtable", "vm", RID1, "--pgtable", "table", "--pasid", 7)
    assert slots(vm) == [(RID1, 7, "bind", True)]
    vm("unbind-pgtable", "vm", RID1, "--pasid", 7)
    assert slots(vm) == []
    vm("attach", "vm", RID1, "--pasid", 7)
    vm("bind-pgtable", "vm", RID1, "--pgtable", "table", "--pasid", 7)
    assert slots(vm) == [(RID1, 7, "bind", False)]
    vm("unbind-pgtable", "vm", RID1, "--pasid", 7)
    assert slots(vm) == [(RID1, 7, "attach", False)]


def test_a_binding_that_fails_leaves_no_attachment(shell: Shell) -> None:
    """The slot needs a PASID table, and table memory has no page left for it: each domain took one."""
    shell.batch("sim init --ram 0+1G --tables 512M+64K" + SETUP)
    full = shell.run("batch", "-", stdin="".join(f"domain create hog{n}\n" for n in range(16)))
    assert "error[no-room]" in full.stderr
    before = shell.everything()
    error = shell.refused("bind-pgtable", "vm", RID1, "--pgtable", "table", "--pasid", 7)
    assert (error["id"], error["exit"]) == ("no-room", 1)
    assert shell.everything() == before
    assert shell.json("check")["ok"]
    shell("domain", "destroy", "hog0")
    shell("bind-pgtable", "vm", RID1, "--pgtable", "table", "--pasid", 7)


def test_one_table_in_two_slots_is_reached_by_one_invalidation(vm: Shell) -> None:
    for rid in (RID1, RID2):
        vm("bind-pgtable", "vm", rid, "--pgtable", "table", "--pasid", 7)
        vm("sim", "dma", rid, "0x40000000", "--read", "--size", 4, "--pasid", 7)
    vm("pgtable", "unmap", "table", "--iova", "0x40000000", "--size", "64K")
    for rid in (RID1, RID2):
        assert vm.json("sim", "dma", rid, "0x40000000", "--read", "--size", 4, "--pasid", 7)["stale"] is True
    done = vm.json("invalidate", "vm")
    # Both slots hold the same pair of tables under the same PASID: one tag, and one device that has ATS on.
    assert [command["name"] for command in done["commands"]] == [
        "vtd.pasid-iotlb-invalidate",
        "vtd.invalidation-wait",
        "vtd.pasid-device-tlb-invalidate",
        "vtd.invalidation-wait",
    ]
    for rid in (RID1, RID2):
        fault = vm.json("sim", "dma", rid, "0x40000000", "--read", "--size", 4, "--pasid", 7, exit_code=1)["fault"]
        assert (fault["code"], fault["rid"], fault["pasid"]) == ("0x71", rid, 7)


def test_unmap_of_a_parent_leaves_nothing_behind(vm: Shell) -> None:
    vm.batch(
        f"""
        attach vm {RID2}
        attach vm {RID1} --pasid 1
        bind-pgtable vm {RID1} --pgtable table --pasid 7
        domain map vm --iova 16M --size 2M --pa 0x20000000
        pgtable map table --iova 0x50000000 --size 64K --gpa 16M
        sim dma {RID2} 16M --read --size 4
        sim dma {RID1} 0x1001000 --read --size 4 --pasid 1
        sim dma {RID1} 0x50003000 --read --size 4 --pasid 7
        """
    )
    # Both plain attachments share one entry: the domain's tag, and one page of 2 MiB.
    assert vm.json("sim", "show")["caches"]["iotlb"] == 2
    vm("domain", "unmap", "vm", "--iova", "16M", "--size", "2M")
    assert vm.json("sim", "show")["caches"]["iotlb"] == 0
    for rid, iova, words in (
        (RID2, "16M", []),
        (RID1, "0x1001000", ["--pasid", 1]),
        (RID1, "0x50003000", ["--pasid", 7]),
    ):
        done = vm.json("sim", "dma", rid, iova, "--read", "--size", 4, *words, exit_code=1)
        assert (done["ok"], done["fault"]["code"], done["stale"]) == (False, "0x79", False)


def test_unmap_of_a_page_table_waits_for_invalidate(vm: Shell) -> None:
    read = ("sim", "dma", RID1, "0x40001000", "--read", "--size", 4, "--pasid", 7)
    vm("bind-pgtable", "vm", RID1, "--pgtable", "table", "--pasid", 7)
    vm(*read)
    vm("pgtable", "unmap", "table", "--iova", "0x40000000", "--size", "64K")
    served = vm.json(*read)
    assert (served["ok"], served["stale"], served["iotlb"]["hits"]) == (True, True, 1)
    vm("invalidate", "vm", "--iova", "0x40000000", "--size", "64K")
    assert vm.json(*read, exit_code=1)["fault"]["name"] == "SFS.2"

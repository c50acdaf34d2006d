# SPDX-License-Identifier: Apache-2.0
"""The reference topology, typed command by command, and the DMAs that prove it."""

from typing import Any

import pytest

from tests.acceptance.conftest import RID1, RID2, Shell

SVA = 0x7F0000000000


def test_topology_by_domain_shows_each_slot_under_its_domain_and_rid(reference: Shell) -> None:
    assert reference("topology").split("\n")[:16] == [
        'domain1  "host"',
        '└── 0000:00:01.0  attached  "host driver"',
        'domain2  nest parent  "vm1"',
        "└── 0000:00:01.0",
        '    ├── PASID 1  attached  "vm1 queue"',
        '    ├── PASID 3  bound to page table a1 at 0x1000000  "process a1"',
        '    └── PASID 4  bound to page table b1 at 0x1100000  "process b1"',
        'domain3  nest parent  "vm2"',
        "├── 0000:00:01.0",
        '│   ├── PASID 2  attached  "vm2 queue"',
        '│   └── PASID 5  bound to page table c1 at 0x1000000  "process c1"',
        '└── 0000:00:02.0  attached  "vm2 device"',
        '    └── PASID 3  bound to page table a2 at 0x1100000  "process a2"',
        "",
    ]


def test_topology_by_device_shows_each_domain_under_its_slot(reference: Shell) -> None:
    lines = reference("topology", "--by", "device").splitlines()
    assert lines[0] == RID1
    assert [line.split("  ")[0][4:] for line in lines[1:7]] == ["RID", *(f"PASID {n}" for n in (1, 2, 3, 4, 5))]
    assert lines[7] == RID2
    assert [line.split("  ")[0][4:] for line in lines[8:]] == ["RID", "PASID 3"]


def test_topology_json_has_one_row_for_each_slot(reference: Shell) -> None:
    document = reference.json("topology")

    def row(slot: dict[str, Any]) -> tuple[Any, ...]:
        return (slot["rid"], slot["pasid"], slot["kind"], slot["pgtable"], slot["label"], slot["implicit"])

    found = {domain["name"]: [row(slot) for slot in domain["slots"]] for domain in document["domains"]}
    assert found == {
        "domain1": [(RID1, None, "attach", None, "host driver", False)],
        "domain2": [
            (RID1, 1, "attach", None, "vm1 queue", False),
            (RID1, 3, "bind", "0x1000000", "process a1", True),
            (RID1, 4, "bind", "0x1100000", "process b1", True),
        ],
        "domain3": [
            (RID1, 2, "attach", None, "vm2 queue", False),
            (RID1, 5, "bind", "0x1000000", "process c1", True),
            (RID2, None, "attach", None, "vm2 device", False),
            (RID2, 3, "bind", "0x1100000", "process a2", True),
        ],
    }
    domains = {domain["name"]: domain for domain in document["domains"]}
    assert [domains[name]["nest_parent"] for name in sorted(domains)] == [False, True, True]
    assert {domain["backend"] for domain in domains.values()} == {"sim"}
    by_device = {device["rid"]: [(s["domain"], s["pasid"]) for s in device["slots"]] for device in document["devices"]}
    assert by_device == {
        RID1: [("domain1", None), ("domain2", 1), ("domain3", 2), ("domain2", 3), ("domain2", 4), ("domain3", 5)],
        RID2: [("domain3", None), ("domain3", 3)],
    }


def test_every_slot_reaches_its_own_memory(reference: Shell) -> None:
    base = {memory["name"]: int(memory["pa"], 16) for memory in reference.json("memory", "list")["memories"]}
    slots = [
        (RID1, None, 0x10000, 0x100000),
        (RID1, 1, 0x5000, base["vm1"] + 0x5000),
        (RID1, 2, 0x5000, base["vm2"] + 0x5000),
        (RID2, None, 0x6000, base["vm2"] + 0x6000),
        (RID1, 3, SVA, base["vm1"] + 0x200000),
        (RID1, 4, SVA, base["vm1"] + 0x300000),
        (RID1, 5, SVA, base["vm2"] + 0x200000),
        (RID2, 3, SVA, base["vm2"] + 0x300000),
    ]
    for number, (rid, pasid, iova, pa) in enumerate(slots):
        words = [] if pasid is None else ["--pasid", pasid]
        data = f"{0xA0 + number:02x}" * 8
        written = reference.json("sim", "dma", rid, hex(iova), "--write", "--data", data, *words)
        assert [(piece["iova"], piece["pa"], piece["size"]) for piece in written["pieces"]] == [(hex(iova), hex(pa), 8)]
        assert reference.json("sim", "read", hex(pa), 8)["data"] == data
    # Now that all of them are cached, each slot still reads what it wrote: nothing aliases.
    for number, (rid, pasid, iova, _) in enumerate(slots):
        words = [] if pasid is None else ["--pasid", pasid]
        read = reference.json("sim", "dma", rid, hex(iova), "--read", "--size", 8, *words)
        assert read["data"] == f"{0xA0 + number:02x}" * 8
        assert read["iotlb"] == {"hits": 1, "misses": 0}
        assert read["stale"] is False


@pytest.mark.parametrize("parents", [("parent1", "parent1"), ("parent1", "parent2")], ids=["one parent", "two parents"])
def test_one_pasid_on_two_rids_is_two_slots(shell: Shell, parents: tuple[str, str]) -> None:
    shell.batch(
        f"""
        device add {RID1} --pasid-bits 8
        device add {RID2} --pasid-bits 8
        domain create parent1 --nest-parent
        domain create parent2 --nest-parent
        domain map parent1 --iova 0 --size 16M --pa 0x10000000
        domain map parent2 --iova 0 --size 16M --pa 0x20000000
        pgtable create t1 --parent {parents[0]} --pool 0x100000+64K
        pgtable create t2 --parent {parents[1]} --pool 0x200000+64K
        pgtable map t1 --iova 0x7000 --size 4K --gpa 0x300000
        pgtable map t2 --iova 0x7000 --size 4K --gpa 0x400000
        bind-pgtable {parents[0]} {RID1} --pgtable t1 --pasid 9
        bind-pgtable {parents[1]} {RID2} --pgtable t2 --pasid 9
        sim dma {RID1} 0x7000 --write --data 1111 --pasid 9
        sim dma {RID2} 0x7000 --write --data 2222 --pasid 9
        """
    )
    expected = {RID1: (0x10300000, "1111"), RID2: ((0x10400000 if parents[1] == "parent1" else 0x20400000), "2222")}
    for rid, (pa, data) in expected.items():
        assert shell.json("translate", rid, "0x7000", "--pasid", 9)["pa"] == hex(pa)
        read = shell.json("sim", "dma", rid, "0x7000", "--read", "--size", 2, "--pasid", 9)
        assert (read["data"], read["iotlb"]["hits"], read["stale"]) == (data, 1, False)
    assert shell.json("sim", "show")["caches"]["iotlb"] == 2


def test_nothing_is_wrong_with_the_tables(reference: Shell) -> None:
    assert reference.json("check") == {"schema": 1, "ok": True, "problems": []}

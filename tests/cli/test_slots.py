# SPDX-License-Identifier: Apache-2.0
"""The verbs and the topology: what the commands print, as text and as JSON."""

import pytest

from .conftest import Run

TREE = """\
domain1  "the host's own DMA"
└── 0000:00:01.0  attached
domain2  nest parent
└── 0000:00:01.0
    ├── PASID 1  attached  "vm1"
    ├── PASID 3  bound to page table a1 at 0x800000  "sva-a"
    └── PASID 4  bound to page table b1 at 0x900000
domain3  nest parent
├── 0000:00:01.0
│   ├── PASID 2  attached  "vm2"
│   └── PASID 5  bound to page table c1 at 0x800000
└── 0000:00:02.0  attached  "vm2"
    └── PASID 3  bound to page table a2 at 0x900000
"""


def test_the_tree(reference: Run) -> None:
    assert reference("topology").out == TREE
    by_device = reference("topology --by device").out.splitlines()
    assert by_device[0] == "0000:00:01.0"
    assert by_device[1] == "├── RID  attached domain1"
    assert by_device[-1] == "└── PASID 3  bound to page table a2 at 0x900000 nested on domain3"


def test_devices_without_attachment_are_shown(ok: Run) -> None:
    assert ok("topology").out == "no domains and no devices\n"
    ok("device add 00:01.0")
    assert ok("topology").out == "attached to nothing\n└── 0000:00:01.0\n"
    assert ok("topology --by device").out == "0000:00:01.0\n└── attached to nothing\n"


def test_topology_as_json(reference: Run) -> None:
    document = reference("topology -j").json
    domain2 = document["domains"][1]
    assert {key: domain2[key] for key in ("name", "id", "backend", "label", "nest_parent")} == {
        "name": "domain2",
        "id": 2,
        "backend": "sim",
        "label": None,
        "nest_parent": True,
    }
    assert domain2["slots"][1] == {
        "rid": "0000:00:01.0",
        "pasid": 3,
        "kind": "bind",
        "pgtable": "0x800000",
        "pgtable_name": "a1",
        "format": "vtd.first-stage-4",
        "cd_pool": None,
        "cd_pool_size": None,
        "label": "sva-a",
        "implicit": True,
    }
    device = document["devices"][1]
    assert device["rid"] == "0000:00:02.0"
    assert [(slot["domain"], slot["pasid"], slot["kind"]) for slot in device["slots"]] == [
        ("domain3", None, "attach"),
        ("domain3", 3, "bind"),
    ]
    assert "rid" not in device["slots"][0]
    assert sum(len(each["slots"]) for each in document["domains"]) == 8
    assert sum(len(each["slots"]) for each in document["devices"]) == 8
    assert reference("topology --by device -j").json == document


def test_shows_list_the_same_slots(reference: Run) -> None:
    document = reference("topology -j").json
    assert reference("domain show domain2 -j").json["slots"] == document["domains"][1]["slots"]
    assert reference("device show 00:01.0 -j").json["slots"] == document["devices"][0]["slots"]
    assert "PASID 3  bound to page table a1 at 0x800000 nested on domain2" in reference("device show 00:01.0").out


def test_attach_and_detach(reference: Run, run: Run) -> None:
    auto = reference("attach domain1 00:02.0 --pasid auto -j").json
    assert (auto["rid"], auto["pasid"], auto["domain"], auto["kind"]) == ("0000:00:02.0", 4, "domain1", "attach")
    assert "hitless" not in auto
    assert reference("detach domain1 00:02.0 --pasid 4").out == "0000:00:02.0 PASID 4: detached from domain1\n"
    assert run("attach domain1 00:02.0 --pasid 3 -j").error["id"] in ("slot-occupied", "slot-bound")
    assert run("detach domain1 00:02.0 -j").error["id"] == "slot-empty"
    assert run("detach domain3 00:02.0 --pasid 3 -j").error["id"] == "slot-bound"
    assert reference("detach domain3 00:02.0 --pasid 3 --force -j").json["pasid"] == 3


def test_replace_says_whether_it_was_hitless(reference: Run) -> None:
    document = reference("attach domain1 00:01.0 --pasid 1 --replace -j").json
    assert document["hitless"] is True
    line = reference("attach domain2 00:01.0 --pasid 1 --replace").out
    assert line == "0000:00:01.0 PASID 1: attached to domain2, replaced without a gap\n"


@pytest.mark.parametrize(
    ("line", "code", "id_"),
    [
        ("attach nothing 00:01.0", 4, "no-such-domain"),
        ("attach domain1 00:07.0", 4, "no-such-device"),
        ("attach domain1 01.0", 2, "bad-rid"),
        ("attach domain1 00:02.0 --pasid 0", 2, "pasid-zero"),
        ("attach domain1 00:02.0 --pasid 65536", 3, "pasid-too-wide"),
        ("attach domain1 00:02.0 --pasid -1", 2, "bad-number"),
        ("attach domain1 00:02.0 --pasid automatic", 2, "bad-number"),
        ("attach domain1 00:02.0", 1, "slot-occupied"),
        ("bind-pgtable domain2 00:02.0 --pasid 9", 2, "usage"),
        ("bind-pgtable domain2 00:02.0 --pasid 9 --addr 0 --pgtable a1", 2, "usage"),
        ("bind-pgtable domain2 00:02.0 --pasid 9 --addr 0 --cd-pool 1M+4K", 3, "unsupported"),
        ("bind-pgtable domain2 00:02.0 --addr 4K", 1, "parent-not-attached"),
        ("bind-pgtable domain1 00:01.0 --addr 4K", 1, "not-nest-parent"),
        ("bind-pgtable domain2 00:02.0 --pasid 9 --pgtable none", 4, "no-such-pgtable"),
        ("unbind-pgtable domain2 00:01.0 --pasid 1", 1, "nothing-bound"),
        ("invalidate domain1", 1, "nothing-bound"),
        ("invalidate domain2 --iova 4K", 2, "usage"),
        ("invalidate domain2 --size 4K", 2, "usage"),
    ],
)
def test_refusals(reference: Run, run: Run, line: str, code: int, id_: str) -> None:
    result = run(f"{line} -j")
    assert (result.code, result.out) == (code, "")
    assert (result.error["id"], result.error["exit"]) == (id_, code)
    assert reference("topology").out == TREE


def test_bind_by_address_and_unbind(reference: Run) -> None:
    bound = reference("bind-pgtable domain2 00:02.0 --pasid 9 --addr 0x400000 --label mine -j").json
    assert (bound["domain"], bound["pgtable"], bound["pgtable_name"]) == ("domain2", "0x400000", None)
    assert (bound["implicit"], bound["label"]) == (True, "mine")
    assert reference("unbind-pgtable domain2 00:02.0 --pasid 9").out == "0000:00:02.0 PASID 9: unbound, now empty\n"
    reference("bind-pgtable domain3 00:02.0 --addr 0x400000")
    unbound = reference("unbind-pgtable domain3 00:02.0 -j").json
    assert unbound["now"]["kind"] == "attach"
    assert unbound["now"]["label"] == "vm2"


def test_invalidate_reports_decoded_commands(reference: Run) -> None:
    document = reference("invalidate domain2 --pasid 3 --iova 0x7f0000000000 --size 64K --leaf -j").json
    assert [(row["rid"], row["pasid"]) for row in document["bindings"]] == [("0000:00:01.0", 3)]
    first = document["commands"][0]
    assert first["name"] == "vtd.pasid-iotlb-invalidate"
    assert first["fields"]["PASID"] == "0x3"
    assert document["writes"] == []
    decoded = reference("table", "decode", first["name"], first["raw"], "-j").json
    assert decoded["fields"] == first["fields"]
    assert decoded["problems"] == []
    text = reference("invalidate domain2").out.splitlines()
    assert text[0].startswith("domain2: invalidated everything of 0000:00:01.0 PASID 3, 0000:00:01.0 PASID 4 with ")
    assert text[1].startswith("  command  vtd.")


def test_a_dry_run_changes_nothing_and_shows_what_would_be_written(reference: Run) -> None:
    document = reference("domain unmap domain1 --iova 1M --size 1M --dry-run -j").json
    assert document["dry_run"] is True
    assert {"name", "raw", "fields"} == set(document["commands"][0])
    assert {"address", "old", "new"} == set(document["writes"][0])
    assert reference("topology").out == TREE
    assert len(reference("domain show domain1 -j").json["mappings"]) == 1
    text = reference("--dry-run detach domain1 00:01.0").out.splitlines()
    assert text[0] == "dry run: 0000:00:01.0: detached from domain1"
    assert any(line.startswith("  write    0x") for line in text)
    assert reference("topology").out == TREE


def test_arguments_the_wrong_way_round(run: Run) -> None:
    refused = run("attach 3b:00.0 domain1 -j")
    assert (refused.code, refused.error["id"]) == (4, "no-such-domain")
    assert refused.error["hint"] == "a RID stands where the domain should: see --help"

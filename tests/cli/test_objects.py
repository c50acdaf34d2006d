# SPDX-License-Identifier: Apache-2.0
"""Devices, domains, memory and page tables: what the commands print, as text and as JSON."""

from typing import Any

import pytest

from .conftest import Run


def test_devices(ok: Run, run: Run) -> None:
    assert ok("device list").out.split() == ["RID", "ATS", "PRI", "PASID", "BITS"]
    added = ok("device add 00:02.0 --ats --pasid-bits 16")
    assert added.out == "0000:00:02.0: added, ATS yes, PRI no, 16 PASID bits\n"
    ok("device add 0000:00:01.0")
    assert ok("device list").out.splitlines()[1:] == [
        "0000:00:01.0  no   no   0",
        "0000:00:02.0  yes  no   16",
    ]
    assert ok("device list --brief").out == "0000:00:01.0\n0000:00:02.0\n"
    # What only devices of a real machine have is there, and says nothing.
    plain: dict[str, Any] = {"bound": True, "driver": None, "owner": None, "siblings": []}
    assert ok("device list -j").json == {
        "schema": 1,
        "devices": [
            {"rid": "0000:00:01.0", "ats": False, "pri": False, "pasid_bits": 0, **plain},
            {"rid": "0000:00:02.0", "ats": True, "pri": False, "pasid_bits": 16, **plain},
        ],
    }
    assert ok("device show 00:02.0 -j").json["slots"] == []
    assert ok("device remove 00:02.0").out == "0000:00:02.0: removed\n"
    assert run("device show 00:02.0 -j").error["id"] == "no-such-device"
    assert run("device show 00:2x.0 -j").error["id"] == "bad-rid"


def test_create_and_show_a_domain(ok: Run) -> None:
    document = ok("domain", "create", "guest", "--nest-parent", "--width", "39", "--page-sizes", "4K,2M", "-j").json
    assert document == {
        "schema": 1,
        "name": "guest",
        "id": 1,
        "label": None,
        "nest_parent": True,
        "width": 39,
        "page_sizes": [4096, 2 << 20],
        "backend": "sim",
    }
    ok("domain map id:1 --iova 0x200000 --size 2M --pa 64M --prot r")
    shown = ok("domain show guest -j").json
    assert shown["aperture"] == ["0x0", "0x7fffffffff"]
    assert ["0xfee00000", "0xfeefffff"] in shown["reserved"]
    assert shown["slots"] == []
    assert shown["mappings"] == [
        {"iova": "0x200000", "size": 2 << 20, "pa": "0x4000000", "memory": None, "offset": 0, "prot": "r"}
    ]
    text = ok("domain show guest").out
    assert text.startswith("guest  id 1, nest parent\n")
    assert "0x200000  0x3fffff  2M    0x4000000  r" in text
    assert ok("domain list").out.splitlines()[1].split() == ["guest", "1", "yes", "39", "4K,2M"]
    assert ok("domain list --brief").out == "guest\n"


def test_a_change_prints_one_line_and_with_quiet_none(ok: Run) -> None:
    assert ok("domain create d").out == "d: created, id 1\n"
    assert ok("domain map d --iova 4K --size 8K --pa 1M --prot r").out == "d: mapped 0x1000..0x2fff -> 0x100000 r\n"
    assert ok("domain unmap d --iova 4K --size 8K").out == "d: unmapped 0x1000..0x2fff, 1 mapping\n"
    assert ok("domain destroy d").out == "d: destroyed\n"
    assert not ok("domain create d --quiet").out
    assert not ok("domain destroy d --quiet").out


def test_quiet_does_not_silence_what_was_asked_for(ok: Run) -> None:
    ok("domain create d --quiet")
    assert "d" in ok("domain list --quiet").out
    assert ok("domain create e --quiet -j").json["name"] == "e"


@pytest.mark.parametrize(
    ("line", "code", "id_"),
    [
        ("domain create d", 1, "name-taken"),
        ("domain create d/e", 2, "usage"),
        ("domain create e --width 40", 3, "unsupported"),
        ("domain create e --dirty", 3, "unsupported"),
        ("domain create e --page-sizes 3000", 3, "unsupported"),
        ("domain show e", 4, "no-such-domain"),
        ("domain show id:7", 4, "no-such-domain"),
        ("domain destroy e", 4, "no-such-domain"),
        ("domain map d --iova 0x1800 --size 4K --pa 0", 1, "misaligned"),
        ("domain map d --iova 1M --size 4K --pa 0", 1, "overlap"),
        ("domain map d --iova 0 --size 4K --pa 4K --memory m", 2, "usage"),
        ("domain map d --iova 0 --size 4K", 2, "usage"),
        ("domain map d --iova 0 --size 4K --memory m", 4, "no-such-memory"),
        ("domain map d --iova 256T --size 4K --pa 0", 1, "out-of-aperture"),
        ("domain map d --iova 0xfee00000 --size 4K --pa 0", 1, "reserved-range"),
        ("domain map d --iova 0 --size 4K --pa 0 --prot wr", 2, "usage"),
        ("domain unmap d --iova 1M --size 4K", 1, "partial-unmap"),
        ("domain unmap d --iova 2M --size 4K", 1, "partial-unmap"),
    ],
)
def test_refusals(ok: Run, run: Run, line: str, code: int, id_: str) -> None:
    ok("domain create d")
    ok("domain map d --iova 1M --size 8K --pa 1M")
    before = ok("domain show d -j").out
    result = run(f"{line} -j")
    assert (result.code, result.out) == (code, "")
    assert (result.error["id"], result.error["exit"]) == (id_, code)
    assert result.error["what"]
    assert ok("domain show d -j").out == before
    assert ok("domain list --brief").out == "d\n"


def test_named_memory(ok: Run, run: Run) -> None:
    created = ok("memory create buffers --size 1M -j").json
    assert (created["name"], created["size"]) == ("buffers", 1 << 20)
    ok("domain create d")
    mapped = ok("domain map d --iova 0 --size 4K --memory buffers+8K -j").json
    assert (mapped["domain"], mapped["memory"], mapped["offset"]) == ("d", "buffers", 8192)
    assert int(mapped["pa"], 16) == int(created["pa"], 16) + 8192
    assert "buffers+0x2000" in ok("domain show d").out
    assert ok("memory list").out.splitlines()[1].split() == ["buffers", "1", created["pa"], "1M"]
    assert ok("memory list --brief").out == "buffers\n"
    assert run("memory destroy buffers -j").error["id"] == "in-use"
    ok("memory destroy buffers --force")
    assert ok("memory list -j").json["memories"] == []
    assert ok("domain show d -j").json["mappings"] == []


@pytest.mark.parametrize("option", ["--path /tmp/x", "--fd 1:2", "--dma-buf 00:01.0:0", "--hugepages"])
def test_memory_of_real_hardware(run: Run, option: str) -> None:
    result = run(f"memory create m --size 4K {option} -j")
    assert (result.code, result.error["id"]) == (3, "unsupported")
    assert option.partition(" ")[0] in result.error["what"]


def test_page_tables(reference: Run, run: Run) -> None:
    rows = reference("pgtable list -j").json["pgtables"]
    assert [row["name"] for row in rows] == ["a1", "b1", "c1", "a2"]
    assert rows[0] == {
        "name": "a1",
        "id": 1,
        "label": None,
        "parent": "domain2",
        "format": "vtd.first-stage-4",
        "pool": "0x800000",
        "pool_size": 256 << 10,
        "root": "0x800000",
    }
    shown = reference("pgtable show a1 -j").json
    assert shown["mappings"] == [
        {"iova": "0x7f0000000000", "size": 65536, "gpa": "0x400000", "prot": "rw", "privileged": False}
    ]
    assert [(slot["rid"], slot["pasid"]) for slot in shown["slots"]] == [("0000:00:01.0", 3)]
    reference("pgtable map a1 --iova 0 --size 4K --gpa 0 --prot r --privileged")
    text = reference("pgtable show a1").out
    assert "0x0             4K    0x0       r privileged" in text
    assert '0000:00:01.0 PASID 3  "sva-a"' in text
    assert reference("pgtable list --brief").out.split() == ["a1", "b1", "c1", "a2"]
    # A page beside others, and then one whose tables go with it.
    text = reference("pgtable unmap a1 --iova 0x7f0000000000 --size 4K").out
    assert text.endswith("until `iommuctl invalidate domain2 --iova 0x7f0000000000 --size 0x1000 --leaf`\n")
    text = reference("pgtable unmap a1 --iova 0 --size 4K").out
    assert text.endswith(
        "until `iommuctl invalidate domain2 --iova 0x0 --size 0x1000`; not --leaf, as 3 tables went, too\n"
    )
    assert run("pgtable destroy a1 -j").error["id"] == "in-use"
    reference("pgtable destroy a1 --force")
    assert run("pgtable show a1 -j").error["id"] == "no-such-pgtable"


def test_a_pool_must_be_a_range(reference: Run, run: Run) -> None:
    result = run("pgtable create d1 --parent domain2 --pool 8M -j")
    assert (result.code, result.error["id"]) == (2, "bad-number")
    assert run("pgtable create d1 --parent domain1 --pool 8M+4K -j").error["id"] == "not-nest-parent"

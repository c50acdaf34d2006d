# SPDX-License-Identifier: Apache-2.0
"""`table dump`: the entries of a domain or page table, and the structures that lead to a device's tables."""

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, python

ROOT, CONTEXT = "vtd.scalable-root-entry", "vtd.scalable-context-entry"
DIRECTORY, ENTRY = "vtd.pasid-directory-entry", "vtd.pasid-entry"


def entries(run: Run, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(f"table dump {what} -j").json["entries"]
    return found


def test_tables(reference: Run) -> None:
    found = entries(reference, "domain1")
    assert {entry["structure"] for entry in found} == {"vtd.second-stage-entry"}
    assert {entry["kind"] for entry in found} == {"table", "leaf"}
    assert sum(entry["size"] for entry in found if entry["kind"] == "leaf") == 1 << 20
    lines = reference("table dump domain1").out.splitlines()
    assert len(lines) == len(found)
    assert "level 4" in lines[0]
    own = entries(reference, "a1")
    assert own[0]["structure"] == "vtd.first-stage-entry"
    assert own[0]["address"] == "0x8007f0"
    assert [entry["to"] for entry in own if entry["kind"] == "leaf"][:2] == ["0x400000", "0x401000"]


def test_an_entry_with_reserved_bits(reference: Run) -> None:
    leaf = next(entry for entry in entries(reference, "domain1") if entry["kind"] == "leaf")
    reference(f"sim write {leaf['address']} {(int(leaf['raw'], 16) | 1 << 62).to_bytes(8, 'little').hex()}")
    broken = next(entry for entry in entries(reference, "domain1") if entry["address"] == leaf["address"])
    assert broken["kind"] == "reserved"
    assert broken["problems"] == ["reserved bit 62 set: VT-d 4.1 section 9.8"]
    (line,) = (text for text in reference("table dump domain1").out.splitlines() if leaf["address"] in text)
    assert line.endswith("  reserved bit 62 set: VT-d 4.1 section 9.8")


def test_the_structures_of_a_device(reference: Run) -> None:
    found = entries(reference, "00:01.0")
    shape = [(entry["structure"], entry["depth"], entry["pasids"]) for entry in found]
    pasids = [(ENTRY, 3, [pasid, pasid]) for pasid in range(6)]
    assert shape == [(ROOT, 0, None), (CONTEXT, 1, None), (DIRECTORY, 2, [0, 63]), *pasids]
    assert not any(entry["problems"] for entry in found)
    # A walk reads the same.
    for pasid, entry in zip([None, 1, 2, 3, 4, 5], found[3:], strict=True):
        option = "" if pasid is None else f"--pasid {pasid}"
        steps = reference(f"translate 00:01.0 0 {option} -j").json["steps"][:4]
        for step, dumped in zip(steps, [*found[:3], entry], strict=True):
            assert (step["address"], step["raw"]) == (dumped["address"], dumped["raw"])
            assert step["fields"].items() >= dumped["fields"].items()


def test_the_structures_of_a_device_as_text(reference: Run) -> None:
    lines = reference("table dump 0000:00:02.0").out.splitlines()
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 4, 6, 6]
    assert " vtd.scalable-root-entry  LP=1 LCTP=0x" in lines[0]
    assert " vtd.pasid-directory-entry  PASIDs 0..63  P=1 SMPTBLPTR=0x" in lines[2]
    assert " vtd.pasid-entry  PASID 3  P=1 AW=2 PGTT=3 " in lines[4]


def test_the_upper_half_and_far_pasids(ok: Run) -> None:
    ok("device add 00:1f.7 --pasid-bits 20")
    ok("device add 00:01.0")
    ok("domain create d")
    ok("attach d 00:1f.7 --pasid 0xfffff")
    root, context, directory, entry = entries(ok, "00:1f.7")
    assert set(root["fields"]) == {"UP", "UCTP"}
    assert set(entries(ok, "00:01.0")[0]["fields"]) == {"LP", "LCTP"}
    assert entries(ok, "00:01.0")[0]["raw"] == root["raw"]
    assert int(context["address"], 16) == int(root["fields"]["UCTP"], 16) + 32 * 0x7F
    assert (directory["pasids"], entry["pasids"]) == ([0xFFFC0, 0xFFFFF], [0xFFFFF, 0xFFFFF])
    assert int(entry["address"], 16) == int(directory["fields"]["SMPTBLPTR"], 16) + 64 * 63


def test_what_is_not_present_is_not_there(ok: Run) -> None:
    ok("device add 00:01.0 --pasid-bits 8")
    ok("domain create d")
    ok("attach d 00:01.0")
    ok("attach d 00:01.0 --pasid 1")
    assert [entry["structure"] for entry in entries(ok, "00:01.0")] == [ROOT, CONTEXT, DIRECTORY, ENTRY, ENTRY]
    ok("detach d 00:01.0")
    assert [entry["pasids"] for entry in entries(ok, "00:01.0")[3:]] == [[1, 1]]
    for cleared in (2, 1, 0):
        word = entries(ok, "00:01.0")[cleared]
        ok(f"sim write {word['address']} {(int(word['raw'][0], 16) & ~1).to_bytes(8, 'little').hex()}")
        assert len(entries(ok, "00:01.0")) == cleared


def test_legacy_mode(ok: Run) -> None:
    ok("sim init --option mode=legacy")
    ok("device add 03:00.1")
    ok("domain create d")
    assert entries(ok, "03:00.1") == []
    ok("attach d 03:00.1")
    root, context = entries(ok, "03:00.1")
    assert (root["structure"], context["structure"]) == ("vtd.root-entry", "vtd.context-entry")
    steps = ok("translate 03:00.1 0 -j").json["steps"][:2]
    for step, entry in zip(steps, (root, context), strict=True):
        assert {name: entry[name] for name in step} == step
    ok(f"sim write {context['address']} 0d")
    text = ok("table dump 03:00.1").out.splitlines()
    assert text[-1] == "  problem: TT is 0x3 but must be 0x0, 0x1 or 0x2: VT-d 4.1 section 9.3"
    # Its neighbour shares the context table and has no entry in it; a table that is not in memory has none at all.
    ok("device add 03:00.2")
    assert [entry["structure"] for entry in entries(ok, "03:00.2")] == ["vtd.root-entry"]
    ok(f"sim write {root['address']} {(1 << 40 | 1).to_bytes(8, 'little').hex()}")
    assert [entry["structure"] for entry in entries(ok, "03:00.1")] == ["vtd.root-entry"]


def test_bad_bits_and_combinations_are_called_out(reference: Run) -> None:
    broken = entries(reference, "00:02.0")[4]
    # PGTT 5, and bit 10, which is reserved.
    reference(f"sim write {broken['address']} 4105")
    problems = [
        "reserved bit 10 set: VT-d 4.1 section 9.6",
        "PGTT is 0x5 but must be 0x1, 0x2, 0x3 or 0x4: VT-d 4.1 section 9.6",
    ]
    assert [entry["problems"] for entry in entries(reference, "00:02.0")] == [[], [], [], [], problems]
    lines = reference("table dump 00:02.0").out.splitlines()
    assert lines[5:] == [f"      problem: {problem}" for problem in problems]


def test_commands_of_the_driver_are_good_ones(reference: Run) -> None:
    """What the checks call out is not what we do."""
    sent = [
        command
        for change in (
            "invalidate domain2 --iova 0x7f0000000000 --size 12K",
            "invalidate domain3 --device 00:02.0",
            "domain unmap domain1 --iova 1M --size 1M",
            "attach domain2 00:01.0 --replace",
            "detach domain3 00:01.0 --pasid 5 --force",
            "device remove 00:02.0 --force",
        )
        for command in reference("-j", "--dry-run", *change.split()).json["commands"]
    ]
    assert len({command["name"] for command in sent}) >= 6
    for command in sent:
        assert reference(f"table decode {command['name']} {command['raw']} -j").json["problems"] == []


@pytest.mark.parametrize(
    ("what", "code", "error"),
    [
        ("00:03.0", 4, "no-such-device"),
        ("0000:00:01.9", 2, "bad-rid"),
        ("00:01", 2, "bad-rid"),
        ("domain9", 4, "no-such-domain"),
        ("id:9", 4, "no-such-domain"),
    ],
)
def test_what_is_not_there(reference: Run, run: Run, what: str, code: int, error: str) -> None:
    result = run(f"table dump {what} -j")
    assert (result.code, result.error["id"]) == (code, error)


def test_looking_makes_no_state_folder(run: Run, state: Path) -> None:
    assert run("table dump 00:01.0 -j").error["id"] == "no-such-device"
    assert not state.exists()


def test_the_program_itself(reference: Run) -> None:
    result = python("-m", "iommuctl", "table", "dump", "00:02.0", "-j")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(json.loads(result.stdout)["entries"]) == 5
    missing = python("-m", "iommuctl", "table", "dump", "00:03.0")
    assert (missing.returncode, missing.stderr.splitlines()[0]) == (4, "error[no-such-device]: no device 0000:00:03.0")

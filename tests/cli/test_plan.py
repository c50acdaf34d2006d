# SPDX-License-Identifier: Apache-2.0
"""plan, apply, export and recover: what they print, their exit codes, and their refusals."""

import os
import sys
import tomllib
from io import StringIO
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.testing.probes import snapshot

from .conftest import DOCUMENT, Run

OTHER = DOCUMENT.replace('"a [label]"', '"other"').replace("= 8", "= 4").replace(
    "[device", "[domain.new]\nmappings = [{ iova = 0, size = 4096, pa = 0, prot = \"r\" }]\n[device"
)  # fmt: skip


def test_text_of_plan_and_apply(ok: Run, file: Path) -> None:
    changes = (
        "+ memory ram  size 4M\n"
        "+ domain vm  label a [label], nest_parent yes\n"
        "+ mapping 0x0 of vm  size 4M, memory ram, prot rw\n"
        "+ device 0000:00:01.0  pasid_bits 8\n"
        "+ attachment 0000:00:01.0  domain vm\n"
    )
    assert ok("plan", str(file)).out == changes + "5 to add, 0 to change, 0 to replace, 0 to remove\n"
    assert ok("apply", str(file)).out == changes + "5 added, 0 changed, 0 replaced, 0 removed\n"
    assert ok("apply", str(file)).out == "nothing to do: all is as the document says\n"
    file.write_text(OTHER, "utf-8")
    assert ok("plan", str(file)).out == (
        "~ domain vm  label a [label] -> other\n"
        "+ domain new\n"
        "+ mapping 0x0 of new  size 4K, pa 0x0, prot r\n"
        "-/+ device 0000:00:01.0  pasid_bits 8 -> 4; pasid bits cannot change in place\n"
        "-/+ attachment 0000:00:01.0  device 0000:00:01.0 is replaced\n"
        "2 to add, 1 to change, 2 to replace, 0 to remove\n"
    )
    assert ok("apply", str(file), "--quiet").out == ""
    file.write_text(DOCUMENT.replace('label = "a [label]"\n', ""), "utf-8")
    pruned = ok("apply", str(file), "--prune").out.splitlines()
    assert pruned[:3] == [
        "~ domain vm  label other -> none",
        "- domain new  the document does not name it",
        "- mapping 0x0 of new  the document does not name it",
    ]
    assert pruned[-1] == "0 added, 1 changed, 2 replaced, 2 removed"


def test_numbers_are_not_taken_for_yes_and_no(ok: Run, tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text("schema = 1\n[device.'00:01.0']\nats = true\npasid_bits = 1\n", "utf-8")
    assert ok("plan", str(file)).out.startswith("+ device 0000:00:01.0  ats yes, pasid_bits 1\n")
    ok("device add 00:01.0")
    assert ok("plan", str(file)).out.startswith("-/+ device 0000:00:01.0  ats no -> yes, pasid_bits 0 -> 1;")


def test_json_of_plan_and_apply(applied: Run, file: Path) -> None:
    file.write_text(OTHER, "utf-8")
    plan = applied("plan", str(file), "-j").json
    assert {key: plan[key] for key in ("schema", "add", "change", "replace", "remove")} == {
        "schema": 1, "add": 2, "change": 1, "replace": 2, "remove": 0,
    }  # fmt: skip
    assert plan["changes"][0] == {
        "action": "change",
        "kind": "domain",
        "name": "vm",
        "because": "it differs",
        "old": {"label": "a [label]", "nest_parent": True, "width": 48, "page_sizes": "4K,2M,1G"},
        "new": {"label": "other", "nest_parent": True, "width": 48, "page_sizes": "4K,2M,1G"},
    }
    mapping, slot = plan["changes"][2], plan["changes"][4]
    assert (mapping["domain"], mapping["iova"], mapping["old"]) == ("new", "0x0", None)
    assert (slot["rid"], slot["pasid"], slot["kind"]) == ("0000:00:01.0", None, "attachment")
    dry = applied("apply", str(file), "-j", "--dry-run").json
    assert (dry["dry_run"], dry["changed"], dry["changes"]) == (True, False, plan["changes"])
    assert dry["commands"]
    assert dry["writes"]
    done = applied("apply", str(file), "-j").json
    assert (done["changed"], done["changes"], done["failed"]) == (True, plan["changes"], [])
    again = applied("apply", str(file), "-j").json
    assert (again["changed"], again["changes"]) == (False, [])


def test_a_machine_is_among_the_changes(ok: Run, file: Path) -> None:
    file.write_text(DOCUMENT + '[machine]\narchitecture = "vtd"\nram = "0+1G"\n', "utf-8")
    assert ok("plan", str(file)).out.startswith("+ machine vtd\n+ memory")
    plan = ok("plan", str(file), "-j").json
    machine = {"because": "it is not there yet", "old": None, "new": {"architecture": "vtd", "ram": "0x0+1G"}}
    assert plan["changes"][0] == {"action": "add", "kind": "machine", "name": "vtd", **machine}
    assert ok("plan", str(file), "--quiet").out == ""
    assert plan["add"] == 6
    assert ok("apply", str(file)).out.endswith("6 added, 0 changed, 0 replaced, 0 removed\n")
    assert 'ram = "0x0+1G"' in ok("export").out


def test_detailed_exit_codes(run: Run, file: Path) -> None:
    assert run("plan", str(file), "--detailed-exitcode").code == 6
    assert run("plan", str(file), "--detailed-exitcode", "-j").code == 6
    assert run("plan", str(file)).code == 0
    assert run("apply", str(file)).code == 0
    assert run("plan", str(file), "--detailed-exitcode").code == 0


def test_a_dry_run_shows_what_would_be_written(applied: Run, file: Path, state: Path) -> None:
    file.write_text(OTHER, "utf-8")
    with Iommu(state) as iommu:
        before = snapshot(iommu)
        printed = applied("apply", str(file), "--dry-run").out
        assert "2 to add, 1 to change, 2 to replace, 0 to remove\n" in printed
        assert "context-cache" in printed
        assert snapshot(iommu) == before


def test_export_is_toml_or_json(applied: Run) -> None:
    text, document = applied("export").out, applied("export -j").json
    assert tomllib.loads(text) == document
    assert document["domain"]["vm"]["label"] == "a [label]"


def test_a_new_folder_is_exported_as_nothing(ok: Run, state: Path) -> None:
    assert ok("export").out == "schema = 1\n"
    assert not state.exists()


def test_stdin(ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("plan -", "apply -"):
        monkeypatch.setattr(sys, "stdin", StringIO(DOCUMENT))
        assert ok(command).out.splitlines()[-1].startswith("5 ")


def test_keep_going(run: Run, file: Path) -> None:
    file.write_text(DOCUMENT.replace('domain = "vm"', 'domain = "nope"').replace('4M", memory', '8M", memory'), "utf-8")
    stopped = run("apply", str(file))
    assert (stopped.code, stopped.out) == (1, "")
    assert run("domain list --brief").out == ""
    kept = run("apply", str(file), "--keep-going")
    assert kept.code == 4  # the highest of 1 and 4
    assert kept.out.endswith("3 added, 0 changed, 0 replaced, 0 removed\n")
    assert [line for line in kept.err.splitlines() if line.startswith("error")] == [
        f"error[outside-memory]: {file}:7: domain.vm.mappings[0]: 0x0+0x800000 is not in memory ram",
        f"error[no-such-domain]: {file}:10: device.\"0000:00:01.0\".attachments[0]: no domain 'nope'",
    ]
    again = run("apply", str(file), "--keep-going", "-j")
    assert (again.code, again.err) == (4, "")
    document = again.json
    assert [failed["error"]["id"] for failed in document["failed"]] == ["outside-memory", "no-such-domain"]
    assert document["changed"] is False
    assert [failed["kind"] for failed in document["failed"]] == ["mapping", "attachment"]


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_files_that_cannot_be_read(run: Run, tmp_path: Path, command: str) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"schema = 1\n\xff")
    for path, words in ((tmp_path, "is a directory"), (tmp_path / "none", "no such file"), (noise, "not UTF-8")):
        refused = run(command, str(path), "-j")
        assert (refused.code, refused.error["id"]) == (2, "bad-document")
        assert words in refused.error["because"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_one_may_not_read(run: Run, file: Path) -> None:
    file.chmod(0)
    assert run("apply", str(file), "-j").error["id"] == "permission"


def test_a_document_of_another_backend(applied: Run, run: Run, file: Path) -> None:
    file.write_text(DOCUMENT.replace("= 1\n", '= 1\nbackend = "vtd"\n', 1), "utf-8")
    for command in ("plan", "apply"):
        refused = run(command, str(file), "-j")
        assert (refused.code, refused.error["id"]) == (2, "other-backend")
        assert refused.error["what"].startswith(f"{file}:2: backend: ")
    file.write_text(DOCUMENT.replace("= 1\n", '= 1\nbackend = "nope"\n', 1), "utf-8")
    assert run("apply", str(file), "-j").code in (2, 3)
    assert run("apply", str(file), "--backend", "sim", "-j").error["id"] == "other-backend"


def test_a_document_of_another_machine(applied: Run, run: Run, file: Path) -> None:
    file.write_text(DOCUMENT + '[machine]\nram = "0+1G"\n', "utf-8")
    refused = run("apply", str(file), "-j")
    assert (refused.code, refused.error["id"]) == (1, "in-use")
    assert refused.error["what"].startswith(f"{file}:11: machine: ")


def test_a_dry_run_of_keep_going(run: Run, file: Path) -> None:
    assert run("apply", str(file), "--keep-going", "--dry-run", "-j").error["what"] == "--keep-going has no dry run"


def test_recover(reference: Run, run: Run) -> None:
    before = reference("export").out
    assert reference("recover").out == "nothing is lost: the tables hold what they should\n"
    root = reference("translate 00:01.0 1M -j").json["steps"][0]["address"]
    reference("sim", "write", root, "ff" * 16)
    assert run("check").code == 1
    assert reference("recover --dry-run -j").json["dry_run"]
    assert run("check").code == 1
    assert reference("recover").out == "the machine is made anew with its 20 objects; its memory is zero\n"
    assert run("check").code == 0
    assert reference("export").out == before


def test_a_damaged_machine_can_be_forgotten(reference: Run, run: Run, state: Path) -> None:
    before = reference("export").out
    assert reference("recover --forget -j").json == {"schema": 1, "changed": False}
    assert reference("export").out == before
    root = reference("translate 00:01.0 1M -j").json["steps"][0]["address"]
    reference("sim", "write", root, "ff" * 16)
    reference("recover --forget --dry-run")
    assert reference("export").out == before
    assert reference("recover --forget").out == "every object is forgotten; the machine is as it was made\n"
    assert reference("check -j").json["ok"]
    assert reference("topology -j").json["domains"] == []


def test_a_machine_without_its_memory_can_be_forgotten_and_not_be_recovered(
    reference: Run, run: Run, state: Path
) -> None:
    (memory,) = state.glob("memory-*")
    memory.unlink()
    assert run("recover -j").error["id"] == "state-damaged"
    assert reference("recover --forget -j").json["changed"]
    assert reference("check -j").json["ok"]


def test_a_plan_is_not_written_over_its_document(run: Run, file: Path) -> None:
    before = file.read_text("utf-8")
    refused = run("plan", str(file), "--out", str(file), "-j")
    assert (refused.code, refused.error["what"]) == (2, f"--out would overwrite {file}")
    assert file.read_text("utf-8") == before


def test_a_plan_shows_which_ranges_of_a_page_table_change(ok: Run, file: Path) -> None:
    table = """
[domain.guest]
nest_parent = true
mappings = [{ iova = 0, size = "16M", pa = "0x40000000" }]
[pgtable.p]
parent = "guest"
pool = "8M+64K"
mappings = [{ iova = "1G", size = "8K", gpa = "1M" }]
"""
    file.write_text(DOCUMENT + table, "utf-8")
    ok("apply", str(file), "--quiet")
    file.write_text(DOCUMENT + table.replace('gpa = "1M"', 'gpa = "2M"'), "utf-8")
    assert "~ pgtable p  mappings -0x40000000+8K +0x40000000+8K -> 0x200000\n" in ok("plan", str(file)).out


def test_a_rid_that_is_not_quoted(run: Run, file: Path) -> None:
    file.write_text("schema = 1\n[device.3b:00.0]\n", "utf-8")
    assert run("plan", str(file), "-j").error["hint"] == 'quote the RID: [device."3b:00.0"]'


def test_a_document_that_is_missing_beside_an_output_that_is_there(run: Run, file: Path) -> None:
    refused = run("plan", str(file.with_name("missing.toml")), "--out", str(file), "-j")
    assert (refused.code, refused.error["id"]) == (2, "bad-document")


def test_a_dry_run_of_plan_writes_no_plan(ok: Run, file: Path) -> None:
    out = file.with_name("out.plan")
    assert "written" not in ok("plan", str(file), "--out", str(out), "--dry-run").out
    assert not out.exists()

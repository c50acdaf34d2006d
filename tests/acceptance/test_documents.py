# SPDX-License-Identifier: Apache-2.0
"""Topology documents, as a user writes, plans, applies and exports them."""

from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.testing.probes import Snapshot, snapshot
from tests.acceptance.conftest import RID1, RID2, ROOT, Shell

DOCUMENT = ROOT / "examples" / "reference-topology.toml"
TARGETS = [
    *((RID1, pasid, iova) for pasid, iova in ((None, 0x10000), (1, 0x5000), (2, 0x5000))),
    *((rid, pasid, 0x7F00_0000_0000) for rid, pasid in ((RID1, 3), (RID1, 4), (RID1, 5), (RID2, 3))),
    (RID2, None, 0x6000),
]


def whole(shell: Shell) -> Snapshot:
    with Iommu(shell.state) as iommu:
        return snapshot(iommu)


def walks(shell: Shell) -> list[int | None]:
    """Where an address of each slot goes."""
    with Iommu(shell.state) as iommu:
        return [iommu.translate(rid, iova, pasid=pasid).pa for rid, pasid, iova in TARGETS]


@pytest.fixture
def applied(shell: Shell) -> Shell:
    shell("apply", DOCUMENT, "--quiet")
    return shell


def test_the_reference_topology_as_one_document(shell: Shell, typed: Path, tmp_path: Path) -> None:
    """Plan, apply, apply again, export, and the export in a fresh folder."""
    plan = shell.run("plan", DOCUMENT, "--detailed-exitcode")
    assert (plan.returncode, plan.stderr) == (6, "")
    assert "+ attachment 0000:00:01.0 PASID 1  domain domain2, label vm1 queue\n" in plan.stdout
    assert plan.stdout.endswith("22 to add, 0 to change, 0 to replace, 0 to remove\n")
    assert shell("domain", "list", "--brief") == ""

    assert shell("apply", DOCUMENT).endswith("22 added, 0 changed, 0 replaced, 0 removed\n")
    before = whole(shell)
    assert shell("apply", DOCUMENT) == "nothing to do: all is as the document says\n"
    assert shell("plan", DOCUMENT, "--detailed-exitcode", "--prune") == "nothing to do: all is as the document says\n"
    assert whole(shell) == before
    assert shell.json("check")["ok"]

    by_hand = Shell(typed)
    exported = shell("export")
    assert exported == by_hand("export")
    assert walks(shell) == walks(by_hand)

    fresh = Shell(tmp_path / "fresh")
    fresh("apply", "-", stdin=exported)
    assert fresh("export") == exported
    assert walks(fresh) == walks(shell)
    assert fresh.json("check")["ok"]


IMPOSSIBLE = {"a table that is not there": ("9", "nope"), "a PASID that is too wide": ("0x1ffff", "new")}
MORE = """
[pgtable.new]
parent = "domain3"
pool = "0x1200000+64K"

[device."0000:00:03.0"]
pasid_bits = 8
bindings = [
    { pasid = PASID, domain = "domain3", pgtable = "TABLE" },
]
"""


@pytest.mark.parametrize("last", IMPOSSIBLE)
@pytest.mark.parametrize("used", [False, True], ids=["new folder", "used folder"])
def test_a_document_whose_last_step_is_impossible_changes_nothing(
    shell: Shell, tmp_path: Path, last: str, used: bool
) -> None:
    """Everything of it but one binding could be done, and bindings come last."""
    if used:
        shell("apply", DOCUMENT, "--quiet")
    text = DOCUMENT.read_text("utf-8").replace('label = "vm1 queue"', 'label = "another"').replace("16K", "32K")
    text = text.replace('{ domain = "domain1", label', '{ domain = "domain2", label')
    pasid, table = IMPOSSIBLE[last]
    text += MORE.replace("PASID", pasid, 1).replace("TABLE", table)
    document = tmp_path / "impossible.toml"
    document.write_text(text, "utf-8")
    before = whole(shell)
    for command in ("plan", "apply"):
        error = shell.refused(command, document)
        place = f'{document}:{text.count(chr(10)) - 1}: device."0000:00:03.0".bindings[0]: '
        assert error["what"].startswith(place)
        assert whole(shell) == before
    if used:
        assert shell.json("check")["ok"]


def test_a_plan_is_carried_out_as_it_was_shown_or_not_at_all(applied: Shell, tmp_path: Path) -> None:
    document, plan = tmp_path / "topology.toml", tmp_path / "today.plan"
    document.write_text(applied("export").replace('label = "host driver"', 'label = "driver"'), "utf-8")
    shown = applied("plan", document, "--out", plan)
    assert shown.splitlines()[:2] == [
        f"~ attachment {RID1}  label host driver -> driver",
        "0 to add, 1 to change, 0 to replace, 0 to remove",
    ]
    applied("memory", "create", "between", "--size", "4K")
    before = whole(applied)
    assert applied.refused("apply", plan)["id"] == "plan-outdated"
    assert whole(applied) == before
    applied("memory", "destroy", "between")
    # The plan holds the document as it was, whatever becomes of the file.
    document.unlink()
    assert applied("apply", plan).splitlines()[0] == shown.splitlines()[0]
    assert 'label = "driver"' in applied("export")
    assert applied.refused("apply", plan)["id"] == "plan-outdated"


def test_what_the_document_does_not_name_goes_with_prune_alone(applied: Shell, tmp_path: Path) -> None:
    document = tmp_path / "part.toml"
    document.write_text(applied("export"), "utf-8")
    applied.batch(
        f"""
        domain create extra --nest-parent
        memory create heap --size 1M
        domain map extra --iova 0 --size 1M --memory heap
        pgtable create t --parent extra --pool 64K+64K
        device add 0000:00:04.0 --pasid-bits 4
        attach extra 0000:00:04.0
        bind-pgtable extra {RID2} --pasid 8 --pgtable t
        """
    )
    before = whole(applied)
    assert applied("apply", document) == "nothing to do: all is as the document says\n"
    assert whole(applied) == before
    assert applied.run("plan", document, "--prune", "--detailed-exitcode").returncode == 6
    assert whole(applied) == before
    assert applied("apply", document, "--prune").endswith("0 added, 0 changed, 0 replaced, 7 removed\n")
    assert applied("export") == document.read_text("utf-8")
    assert applied.json("check")["ok"]


def test_keep_going_does_what_can_be_done(shell: Shell, tmp_path: Path) -> None:
    document = tmp_path / "bad.toml"
    document.write_text(
        DOCUMENT.read_text("utf-8").replace(
            'domain = "domain2", pgtable = "a1"', 'domain = "domain2", pgtable = "nope"'
        )
    )
    assert shell.refused("apply", document)["id"] == "no-such-pgtable"
    assert shell("domain", "list", "--brief") == ""
    kept = shell.run("apply", document, "--keep-going")
    assert kept.returncode == 4
    assert kept.stderr.startswith(f'error[no-such-pgtable]: {document}:65: device."0000:00:01.0".bindings[0]: ')
    assert kept.stdout.endswith("21 added, 0 changed, 0 replaced, 0 removed\n")
    assert shell("apply", DOCUMENT).endswith("1 added, 0 changed, 0 replaced, 0 removed\n")
    assert shell("apply", DOCUMENT) == "nothing to do: all is as the document says\n"


@pytest.mark.parametrize("damaged", [False, True])
def test_recover_builds_damaged_tables_again(applied: Shell, damaged: bool) -> None:
    exported, there = applied("export"), walks(applied)
    if damaged:
        address = applied.json("translate", RID1, "0x10000")["steps"][0]["address"]
        applied("sim", "write", address, "ff" * 16)
        assert not applied.json("check", exit_code=1)["ok"]
        before = whole(applied)
        assert applied.json("recover", "--dry-run")["changed"]
        assert whole(applied) == before
    assert applied.json("recover")["changed"] is damaged
    assert applied.json("check")["ok"]
    assert applied("export") == exported
    assert walks(applied) == there

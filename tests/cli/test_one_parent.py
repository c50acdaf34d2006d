# SPDX-License-Identifier: Apache-2.0
"""At the shell, on a backend where all nested slots of a device share its parent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from iommuctl import plugins

from .conftest import Result, Run

SETUP = """
memory create ram --size 16M
domain create host
domain create host2
domain create vm1 --nest-parent
domain create vm2 --nest-parent
domain map vm1 --iova 0 --size 8M --memory ram
domain map vm2 --iova 0 --size 8M --memory ram+8M
pgtable create t --parent vm1 --pool 1M+256K
pgtable create u --parent vm2 --pool 1M+256K
attach host 00:01.0
attach host2 00:01.0 --pasid 1
attach vm1 00:02.0
bind-pgtable vm1 00:02.0 --pasid 3 --pgtable t
bind-pgtable vm1 00:02.0 --pasid 4 --pgtable t
"""


@pytest.fixture
def limited(ok: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """RID1 and its PASID 1 are on domains of their own, PASIDs 3 and 4 of RID2 are nested on its parent."""
    monkeypatch.setitem(plugins.BACKENDS, "limited", "tests.conformance.limited")
    file = tmp_path / "setup.txt"
    file.write_text(SETUP, encoding="utf-8")
    ok(f"--backend limited batch {file} --quiet")
    return ok


@pytest.fixture
def refuse(limited: Run, run: Run) -> Callable[..., Result]:
    """Run a command that must be refused, and leave everything as it was."""

    def call(words: str, error: str, exit_code: int) -> Result:
        before = limited("topology").out
        result = run(words)
        assert (result.code, f"error[{error}]" in result.err) == (exit_code, True), result
        assert limited("topology").out == before
        return result

    return call


@pytest.mark.parametrize(
    ("words", "error", "exit_code", "because"),
    [
        ("attach vm1 00:02.0 --pasid 7", "unsupported", 3, "a PASID selects a stage 1 only"),
        ("attach vm2 00:01.0 --pasid 7", "unsupported", 3, "belongs to the whole device"),
        ("attach host 00:02.0 --pasid 7", "cannot-nest", 3, "the addresses of host would go through that stage 2"),
        ("attach vm1 00:01.0 --replace", "cannot-nest", 3, "its PASID 1 is attached to stage-1 domains"),
        ("bind-pgtable vm2 00:02.0 --pgtable u --pasid 7", "cannot-nest", 3, "one stage 2 for all its PASIDs"),
        ("detach vm1 00:02.0", "in-use", 1, "page tables of PASIDs 3, 4 are nested on this one"),
        ("attach vm2 00:02.0 --replace", "in-use", 1, "a device has one stage 2"),
    ],
)
def test_refusals(refuse: Callable[..., Result], words: str, error: str, exit_code: int, because: str) -> None:
    told = refuse(words, error, exit_code)
    assert because in told.err.split("because: ")[1].split("\nhint: ")[0].replace("\n", " ")
    assert "hint: " in told.err


def test_a_pasid_nests_on_the_stage_2_of_its_device(limited: Run, refuse: Callable[..., Result]) -> None:
    limited("detach host 00:01.0")
    told = refuse("bind-pgtable vm1 00:01.0 --pgtable t --pasid 7", "parent-not-attached", 1)
    assert "`iommuctl attach vm1 0000:00:01.0` first" in told.err


def test_force_takes_off_what_is_nested(limited: Run) -> None:
    limited("detach vm1 00:02.0 --force")
    assert limited("device show 00:02.0 -j").json["slots"] == []
    assert "vm1  nest parent\n" in limited("topology").out


@pytest.fixture
def moved(limited: Run) -> Run:
    """As `limited`, with RID1 on vm2."""
    limited("detach host2 00:01.0 --pasid 1")
    limited("attach vm2 00:01.0 --replace")
    return limited


def test_guest_memory_for_a_cd_table(moved: Run, refuse: Callable[..., Result]) -> None:
    at = "bind-pgtable vm2 00:01.0 --addr 2M --pasid 1"
    told = refuse(at, "usage", 2)
    assert "add --cd-pool A+S, with GPAs that vm2 maps read-write" in told.err
    refuse(f"{at} --cd-pool 3M", "bad-number", 2)
    refuse(f"{at} --cd-pool 3M+100", "misaligned", 1)
    refuse(f"{at} --cd-pool 1M+64K", "overlap", 1)
    refuse(f"{at} --cd-pool 64M+64K", "outside-memory", 1)
    made = moved(f"{at} --cd-pool 3M+64K -j").json
    assert (made["cd_pool"], made["cd_pool_size"]) == ("0x300000", 0x1_0000)
    refuse("bind-pgtable vm2 00:01.0 --addr 2M --pasid 2 --cd-pool 4M+64K", "in-use", 1)
    refuse("domain unmap vm2 --iova 0 --size 8M", "in-use", 1)
    moved("bind-pgtable vm2 00:01.0 --pgtable u --pasid 2")
    document = moved("topology -j").json
    for slots in (document["domains"][3]["slots"], moved("device show 00:01.0 -j").json["slots"]):
        assert [slot["cd_pool"] for slot in slots] == [None, "0x300000", "0x300000"]
    assert moved("check -j").json["ok"]


def test_the_pool_of_a_page_table_holds_the_cd_table(limited: Run, refuse: Callable[..., Result]) -> None:
    limited("pgtable create v --parent vm1 --pool 2M+256K")
    limited("bind-pgtable vm1 00:02.0 --pasid 5 --pgtable v")
    for pasid in (3, 4):
        limited(f"unbind-pgtable vm1 00:02.0 --pasid {pasid}")
    told = refuse("pgtable destroy t", "in-use", 1)
    assert "the CD table of 0000:00:02.0 in its pool" in told.err
    limited("pgtable destroy t --force")
    assert [slot["kind"] for slot in limited("device show 00:02.0 -j").json["slots"]] == ["attach"]


def test_a_backend_without_cd_tables_in_guest_memory(ok: Run, run: Run) -> None:
    ok("domain create vm --nest-parent")
    ok("device add 00:01.0")
    told = run("bind-pgtable vm 00:01.0 --addr 0 --cd-pool 1M+64K")
    assert (told.code, "error[unsupported]" in told.err) == (3, True)


def test_what_the_backend_declares(limited: Run) -> None:
    told = limited("backend show limited -j").json
    assert told["capabilities"]["nesting"] == "device"
    assert told["capabilities"]["context_tables_in_guest"] is True


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_export_and_apply(moved: Run, tmp_path: Path, order: tuple[int, ...]) -> None:
    """Whichever binding chose the pool, and whether or not it is still there."""
    moved("pgtable create v --parent vm2 --pool 2M+256K")
    for pasid in order:
        named = {1: "--pgtable u", 2: "--pgtable v", 3: "--addr 4M"}[pasid]
        pool = "--cd-pool 3M+64K" if pasid == order[0] == 3 else ""
        moved(f"bind-pgtable vm2 00:01.0 --pasid {pasid} {named} {pool}")
    for gone in (None, order[0]):
        if gone:
            moved(f"unbind-pgtable vm2 00:01.0 --pasid {gone}")
        before = moved("topology -j").json
        exported = moved("export").out
        file = tmp_path / f"{gone}.toml"
        file.write_text(exported, "utf-8")
        assert moved(f"plan {file} -j").json["changes"] == []
        assert "cd_pool = " in exported
        for slot in moved("device show 00:01.0 -j").json["slots"][1:]:
            moved(f"unbind-pgtable vm2 00:01.0 --pasid {slot['pasid']}")
        moved(f"apply {file} --quiet")
        assert moved("topology -j").json == before
        assert moved("export").out == exported
        assert moved("check -j").json["ok"]

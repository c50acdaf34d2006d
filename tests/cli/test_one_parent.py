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

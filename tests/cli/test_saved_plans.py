# SPDX-License-Identifier: Apache-2.0
"""Plans in files: what they remember, and how those are refused that somebody changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from iommuctl import Iommu
from iommuctl.testing.probes import snapshot

from .conftest import Run


def saved(ok: Run, file: Path) -> Path:
    plan = file.with_suffix(".plan")
    printed = ok("plan", str(file), "--prune", "--out", str(plan)).out
    assert printed.endswith(f"written to {plan}: `iommuctl apply {plan}` does exactly this\n")
    return plan


def test_a_saved_plan_remembers_prune(applied: Run, file: Path) -> None:
    applied("domain create extra")
    plan = saved(applied, file)
    assert "removed" in applied("apply", str(plan)).out
    assert applied("domain list --brief").out == "vm\n"


@pytest.mark.parametrize("option", ["--prune", "--keep-going"])
def test_a_plan_says_by_itself_what_is_to_be_done(applied: Run, run: Run, file: Path, option: str) -> None:
    plan = saved(applied, file)
    refused = run("apply", str(plan), option, "-j")
    assert (refused.code, refused.error["what"]) == (2, f"{plan} is a plan")


def test_a_plan_of_a_plan(applied: Run, run: Run, file: Path) -> None:
    plan = saved(applied, file)
    refused = run("plan", str(plan), "-j")
    assert (refused.code, refused.error["id"]) == (2, "usage")
    assert refused.error["what"] == f"{plan} is a plan already"


TAMPERED: dict[str, Any] = {
    "cut": lambda text: text[: len(text) // 2],
    "another version": lambda text: text.replace('"iommuctl-plan": 1', '"iommuctl-plan": 2'),
    "without a state": lambda text: json.dumps({**json.loads(text), "state": None}),
    "prune is a word": lambda text: json.dumps({**json.loads(text), "prune": "yes"}),
    "no document": lambda text: json.dumps({**json.loads(text), "document": 1}),
    "its document is not TOML": lambda text: json.dumps({**json.loads(text), "document": "[["}),
    "its document has a wrong key": lambda text: json.dumps({**json.loads(text), "document": "schema = 1\nx = 1"}),
    "nested deeply": lambda _: '{"a":' * 100_000,
    "other JSON": lambda _: "{}",
    "numbers of many digits": lambda _: '{"a": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("how", TAMPERED)
def test_plans_that_were_tampered_with(applied: Run, run: Run, file: Path, state: Path, how: str) -> None:
    applied("domain create extra")
    plan = saved(applied, file)
    plan.write_text(TAMPERED[how](plan.read_text("utf-8")), "utf-8")
    with Iommu(state) as iommu:
        before = snapshot(iommu)
        refused = run("apply", str(plan), "-j")
        assert (refused.code, refused.error["id"]) == (2, "bad-document")
        assert snapshot(iommu) == before


def test_a_plan_of_another_state(applied: Run, run: Run, file: Path) -> None:
    plan = saved(applied, file)
    plan.write_text(plan.read_text("utf-8").replace('"state": "', '"state": "0'), "utf-8")
    refused = run("apply", str(plan), "-j")
    assert (refused.code, refused.error["id"]) == (1, "plan-outdated")


def test_a_plan_that_cannot_be_written(applied: Run, run: Run, file: Path, tmp_path: Path) -> None:
    refused = run("plan", str(file), "--out", str(tmp_path / "no" / "folder"), "-j")
    assert (refused.code, refused.out) == (5, "")
    assert "no such file" in refused.error["what"]


def test_json_that_export_printed_is_a_document(applied: Run, run: Run, file: Path, tmp_path: Path) -> None:
    exported = tmp_path / "exported.json"
    exported.write_text(applied("export", "-j").out)
    other = ("--state", str(tmp_path / "other"))
    plan = tmp_path / "exported.plan"
    applied("plan", str(exported), "--out", str(plan), *other)
    applied("apply", str(plan), *other)
    assert applied("export", *other).out == applied("export").out
    assert applied("apply", str(exported), *other).out == "nothing to do: all is as the document says\n"


def test_an_error_in_json_has_a_key_and_no_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "document.json"
    file.write_text('{"schema": 1, "domain": {"d": {"width": "wide"}}}')
    assert run("apply", str(file), "-j").error["what"] == f"{file}: domain.d.width: a string stands here"
    file.write_text('{"schema": 1, "backend": null}')
    assert run("apply", str(file), "-j").error["what"] == f"{file}: backend: null stands here"
    file.write_text('{"schema": 1, "device": {"0:1.0": {"attachments": [{"domain": "d"}, {"domain": "e"}]}}}')
    error = run("apply", str(file), "-j").error
    assert (error["id"], error["because"]) == ("bad-document", 'it stands at device."0:1.0".attachments[0], too')

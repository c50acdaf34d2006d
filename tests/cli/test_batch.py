# SPDX-License-Identifier: Apache-2.0
"""batch: atomic or not, going on or not, lines as typed or as JSON, a numbered result for each."""

import json
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from iommuctl import Iommu
from iommuctl.testing.probes import Snapshot, snapshot

from .conftest import Result, Run

Batch = Callable[..., Result]


@pytest.fixture
def batch(run: Run, tmp_path: Path) -> Batch:
    """Run lines; options follow."""

    def call(lines: str, *options: str) -> Result:
        file = tmp_path / "lines"
        file.write_text(lines, "utf-8")
        result = run("batch", str(file), *options)
        return result._replace(err=result.err.replace(str(file), "lines"))

    return call


def documents(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def held(state: Path) -> Snapshot:
    with Iommu(state) as iommu:
        return snapshot(iommu)


GOOD = """\
# a comment
iommuctl device add 00:01.0 --pasid-bits 4

domain create d --label "two words"  # another
["domain", "create", "e", "--label", "# no comment"]
  ["attach", "d", "00:01.0", "--pasid", 3]
"""


def test_lines_as_typed_and_as_json(batch: Batch, run: Run) -> None:
    done = batch(GOOD)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "0000:00:01.0: added, ATS no, PRI no, 4 PASID bits\nd: created, id 1\ne: created, id 2\n"
        "0000:00:01.0 PASID 3: attached to d\n"
    )
    assert [domain["label"] for domain in run("domain list -j").json["domains"]] == ["two words", "# no comment"]


def test_a_numbered_result_for_each_line(batch: Batch) -> None:
    done = batch(GOOD + "domain list\n", "-j")
    found = documents(done.out)
    assert [each["line"] for each in found] == [2, 4, 5, 6, 7]
    assert all(each["schema"] == 1 for each in found)
    assert found[1]["name"] == "d"
    assert [domain["name"] for domain in found[4]["domains"]] == ["d", "e"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('domain create "d', "no closing quotation"),
        ('["domain", "create"', "not JSON"),
        ("[1.5]", "not a JSON array of strings and integers"),
        ('["domain", ["list"]]', "not a JSON array of strings and integers"),
        ('["domain", true]', "not a JSON array of strings and integers"),
        ("[" * 60_000, "not a JSON array of strings and integers"),
    ],
)
def test_lines_that_are_none(batch: Batch, line: str, words: str) -> None:
    refused = batch(f"domain list\n{line}\n", "-j")
    assert (refused.code, refused.error["id"]) == (2, "bad-document")
    assert refused.error["what"].endswith("lines:2: the line cannot be split into words")
    assert words in refused.error["because"]


def test_a_line_that_is_too_long(batch: Batch) -> None:
    assert "65536 characters" in batch("domain list\n" + "x" * 70_000, "-j").error["what"]


def test_an_array_without_words_is_an_empty_line(batch: Batch) -> None:
    assert batch("[]\n", "-j")[:2] == (0, "")


FAILS = {
    "an error": ("attach nope 00:01.0", 4),
    "a usage error": ("attach", 2),
    "a DMA that faults": ("sim dma 00:01.0 0x5000 --read --size 4", 1),
    "a problem that check finds": ("sim write {root} ff", 1),
}


@pytest.fixture
def used(batch: Batch, run: Run, state: Path) -> str:
    """A folder with something in it. Gives the address of the root entry that its device has."""
    done = batch(
        "device add 00:01.0 --ats\ndomain create d\ndomain map d --iova 0 --size 4K --pa 4K\nattach d 00:01.0\n"
    )
    assert done.code == 0
    address: str = run("translate 00:01.0 0 -j").json["steps"][0]["address"]
    return address


@pytest.mark.parametrize("options", [(), ("-j",)], ids=["text", "json"])
@pytest.mark.parametrize("how", FAILS)
def test_atomic_is_all_or_nothing(batch: Batch, state: Path, used: str, how: str, options: tuple[str, ...]) -> None:
    line, code = FAILS[how]
    before_it = "domain create new\ndetach d 00:01.0\nattach new 00:01.0\n"
    lines = f"{before_it}{line.format(root=used)}\ncheck\ndomain create last\n"
    before = held(state)
    done = batch(lines, "--atomic", *options)
    assert done.code == code
    assert held(state) == before
    if how in ("a DMA that faults", "a problem that check finds"):
        number = 4 if "DMA" in how else 5
        said = f"lines:{number}: stopped, exit code 1, and nothing was changed\n"
        assert done.err == ("" if options else said)
        assert "created" in done.out or options
    elif options:
        assert done.error["hint"].endswith("with --atomic nothing was changed")
        assert done.error["what"].startswith("lines:4: ")
    else:
        assert done.err.startswith(("error[no-such-domain]: lines:4: ", "error[usage]: lines:4: "))


def test_without_atomic_what_came_before_stays(batch: Batch, run: Run, used: str) -> None:
    done = batch("domain create new\nattach nope 00:01.0\ndomain create last\n")
    assert (done.code, done.out) == (4, "new: created, id 2\n")
    assert done.err.startswith("error[no-such-domain]: lines:2: ")
    assert run("domain list --brief").out == "d\nnew\n"
    stopped = batch("sim dma 00:01.0 0x5000 --read --size 4\ndomain create last\n")
    assert (stopped.code, stopped.err) == (1, "lines:1: stopped, exit code 1\n")


def test_atomic_takes_effect_together(batch: Batch, run: Run, used: str) -> None:
    done = batch("domain create new\nattach new 00:01.0 --replace\ncheck\ndomain destroy d\n", "--atomic", "-j")
    assert (done.code, [each["line"] for each in documents(done.out)]) == (0, [1, 2, 3, 4])
    assert run("domain list --brief").out == "new\n"
    assert run("check").code == 0


def test_a_dry_run_of_atomic(batch: Batch, state: Path, used: str) -> None:
    before = held(state)
    done = batch("domain create new\nattach new 00:01.0 --replace\ndomain list --brief\n", "--atomic", "--dry-run")
    assert done.code == 0
    assert done.out.startswith("dry run: new: created, id 2\n")
    assert done.out.endswith("d\nnew\n")
    assert held(state) == before
    found = documents(batch("domain create new\nattach new 00:01.0 --replace\n", "--atomic", "--dry-run", "-j").out)
    assert found[1]["writes"]
    assert held(state) == before
    refused = batch("domain create new\n", "--dry-run", "-j")
    assert (refused.code, refused.error["id"]) == (3, "unsupported")


@pytest.mark.parametrize("option", ["--atomic", "--keep-going", ""])
def test_output_that_cannot_be_written_is_no_fault_of_the_state_folder(state: Path, used: str, option: str) -> None:
    code = f"from iommuctl.__main__ import main; raise SystemExit(main('batch - {option}'.split()))"
    with open("/dev/full", "wb") as full:
        lines = b"device list\n" * 2000
        result = subprocess.run(
            [sys.executable, "-c", code], check=False, input=lines, stdout=full, stderr=subprocess.PIPE
        )
    assert result.returncode == 5
    assert result.stderr.startswith(b"error[system]: the output could not be written")


def test_keep_going_does_every_line_it_can(batch: Batch, run: Run, used: str) -> None:
    lines = (
        "attach nope 00:01.0\ndomain create new\nsim dma 00:01.0 0x5000 --read --size 4\nattach d\ndomain create last\n"
    )
    done = batch(lines, "--keep-going", "-j")
    found = documents(done.out)
    assert done.code == 4  # the highest
    assert [each["line"] for each in found] == [1, 2, 3, 4, 5]
    assert [each.get("error", {}).get("id") for each in found] == ["no-such-domain", None, None, "usage", None]
    assert found[2]["ok"] is False
    assert done.err == ""
    assert run("domain list --brief").out == "d\nnew\nlast\n"
    text = batch(lines, "--keep-going")
    assert text.code == 4
    assert [line.split(": ")[:2] for line in text.err.splitlines() if line.startswith("error")] == [
        ["error[no-such-domain]", "lines:1"],
        ["error[name-taken]", "lines:2"],
        ["error[usage]", "lines:4"],
        ["error[name-taken]", "lines:5"],
    ]


def test_a_line_whose_file_cannot_be_written_has_a_number(batch: Batch, used: str, tmp_path: Path) -> None:
    file = tmp_path / "topology.toml"
    file.write_text("schema = 1\n", "utf-8")
    out = tmp_path / "none" / "plan"
    kept = batch(f"plan {file} --out {out}\ndomain list --brief\n", "--keep-going")
    assert kept.out.endswith("d\n")
    assert (kept.code, kept.err) == (5, f"error[system]: lines:1: {out}: no such file or directory\n")


def test_atomic_and_keep_going_exclude_each_other(batch: Batch) -> None:
    assert batch("domain list\n", "--atomic", "--keep-going", "-j").error["id"] == "usage"


@pytest.mark.parametrize("option", ["--state /tmp", "--backend sim"])
def test_a_line_has_no_folder_of_its_own(batch: Batch, option: str) -> None:
    assert "stands in a batch" in batch(f"domain list {option}\n", "-j").error["what"]


def test_a_batch_in_a_batch(batch: Batch) -> None:
    assert batch("batch -\n", "-j").error["what"].endswith("lines:1: a batch in a batch")


DOCUMENT = "schema = 1\n[domain.new]\n[device.'0000:00:05.0']\nattachments = [{ domain = 'new' }]\n"


def test_documents_in_a_batch(batch: Batch, run: Run, used: str, tmp_path: Path) -> None:
    file = tmp_path / "topology.toml"
    file.write_text(DOCUMENT, "utf-8")
    plan = tmp_path / "plan"
    lines = f"plan {file} --out {plan}\napply {plan}\napply {file}\nexport\ndomain create after\n"
    found = documents(batch(lines, "-j").out)
    assert [each["line"] for each in found] == [1, 2, 3, 4, 5]
    assert [found[0]["add"], found[1]["changed"], found[2]["changed"]] == [3, True, False]
    assert set(found[3]["domain"]) == {"d", "new"}
    assert run("domain list --brief").out == "d\nnew\nafter\n"
    stopped = batch(f"plan {file} --prune --detailed-exitcode\ndomain list\n", "-j")
    assert (stopped.code, len(documents(stopped.out))) == (6, 1)


@pytest.mark.parametrize("command", ["plan {}", "apply {}", "recover"])
def test_a_document_in_an_atomic_batch(batch: Batch, state: Path, used: str, tmp_path: Path, command: str) -> None:
    """It is a transaction by itself, which cannot stand in another."""
    file = tmp_path / "topology.toml"
    file.write_text(DOCUMENT, "utf-8")
    before = held(state)
    refused = batch(f"domain create early\n{command.format(file)}\n", "--atomic", "-j")
    assert (refused.code, refused.error["id"]) == (2, "usage")
    assert refused.error["what"] == f"lines:2: {command.split(maxsplit=1)[0]} stands in a batch with --atomic"
    assert held(state) == before


def test_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("domain create d\nattach nope 00:01.0\n"))
    refused = run("batch - -j")
    assert (refused.code, refused.error["what"].startswith("-:2: ")) == (4, True)

# SPDX-License-Identifier: Apache-2.0
"""Running the command line inside the test process, on a state folder of the test's own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iommuctl.__main__ import main


class Result(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error document on stderr."""
        return json.loads(self.err)["error"]


Run = Callable[..., Result]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new state folder, where every command of the test goes."""
    folder = tmp_path / "state"
    monkeypatch.setenv("IOMMUCTL_STATE", str(folder))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return folder


@pytest.fixture
def run(state: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("domain list -j")`, or with words: `run("domain", "create", "two words")`."""

    def call(*words: str) -> Result:
        arguments = words[0].split() if len(words) == 1 else list(words)
        code = main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def ok(run: Run) -> Run:
    """As `run`, for commands that must succeed."""

    def call(*words: str) -> Result:
        result = run(*words)
        assert result.code == 0, result
        assert not result.err, result
        return result

    return call


def python(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments."""
    return subprocess.run(
        [sys.executable, *arguments], check=False, text=True, capture_output=True, env=os.environ, **kwargs
    )


REFERENCE = """
# The reference topology, with page tables that iommuctl built in guest memory.
device add 0000:00:01.0 --ats --pasid-bits 16
device add 0000:00:02.0 --ats --pasid-bits 16
domain create domain1 --label "the host's own DMA"
domain create domain2 --nest-parent
domain create domain3 --nest-parent
domain map domain1 --iova 1M --size 1M --pa 16M
domain map domain2 --iova 0 --size 16M --pa 32M
domain map domain3 --iova 0 --size 16M --pa 48M
attach domain1 00:01.0
attach domain2 00:01.0 --pasid 1 --label vm1
attach domain3 00:01.0 --pasid 2 --label vm2
attach domain3 00:02.0 --label vm2
pgtable create a1 --parent domain2 --pool 8M+256K
pgtable create b1 --parent domain2 --pool 9M+256K
pgtable create c1 --parent domain3 --pool 8M+256K
pgtable create a2 --parent domain3 --pool 9M+256K
pgtable map a1 --iova 0x7f0000000000 --size 64K --gpa 4M
pgtable map b1 --iova 0x7f0000000000 --size 64K --gpa 5M
pgtable map c1 --iova 0x7f0000000000 --size 64K --gpa 6M
pgtable map a2 --iova 0x7f0000000000 --size 64K --gpa 7M
bind-pgtable domain2 00:01.0 --pasid 3 --pgtable a1 --label sva-a
bind-pgtable domain2 00:01.0 --pasid 4 --pgtable b1
bind-pgtable domain3 00:01.0 --pasid 5 --pgtable c1
bind-pgtable domain3 00:02.0 --pasid 3 --pgtable a2
"""


@pytest.fixture
def reference(ok: Run, tmp_path: Path) -> Run:
    """As `ok`, in a folder that holds the reference topology."""
    file = tmp_path / "reference.txt"
    file.write_text(REFERENCE, encoding="utf-8")
    assert not ok(f"batch {file} --quiet").out
    return ok


DOCUMENT = """\
schema = 1
[memory.ram]
size = "4M"
[domain.vm]
label = "a [label]"
nest_parent = true
mappings = [{ iova = 0, size = "4M", memory = "ram" }]
[device."0000:00:01.0"]
pasid_bits = 8
attachments = [{ domain = "vm" }]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A topology document."""
    path = tmp_path / "topology.toml"
    path.write_text(DOCUMENT, "utf-8")
    return path


@pytest.fixture
def applied(ok: Run, file: Path) -> Run:
    """As `ok`, in a folder that holds what the document says."""
    ok("apply", str(file), "--quiet")
    return ok

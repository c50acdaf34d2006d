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

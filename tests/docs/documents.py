# SPDX-License-Identifier: Apache-2.0
"""Which documents have examples, and a console that types them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.blocks import Block, blocks, line
from iommuctl.__main__ import main

ROOT = Path(__file__).parents[2]
REQUIRED = "IOMMUCTL_REQUIRE_LAB"

ELSEWHERE = {"docs/backends.md"}
"""Its blocks make a package, which a test of its own installs."""

_SHELL = re.compile(r"[|&;<>$`*]|^(?!iommuctl )")
"""What only a shell understands: pipes, redirections, variables, other programs."""


def documents() -> list[str]:
    """The documents whose examples run, by their places."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [str(path.relative_to(ROOT)) for path in found if any(map(runs, blocks(path.read_text("utf-8"))))]
    return [name for name in names if name not in ELSEWHERE]


def runs(block: Block) -> bool:
    """Whether a block is typed or run, and not only read or saved."""
    return block.language in ("console", "python") and block.file is None


class Console:
    """Types commands in one working directory, with one state folder: in this process where no shell is needed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.left_out: list[str] = []
        self.code = 0
        self._capsys = capsys
        patch.chdir(folder)
        patch.setenv("IOMMUCTL_STATE", str(folder / "state"))
        patch.setenv("COLUMNS", "100")
        patch.setenv("NO_COLOR", "1")
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")

    def __call__(self, command: str) -> str | None:
        """What the command prints, on stdout and stderr; `code` is its exit code then.

        None for a command that needs jq where there is none.
        """
        if re.search(r"\bjq\b", command) and not shutil.which("jq"):
            self.left_out.append(command)
            return None
        if _SHELL.search(command):
            done = subprocess.run(
                line(command, self.code), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            self.code = done.returncode
            return done.stdout + done.stderr
        self.code = main(shlex.split(command)[1:])
        captured = self._capsys.readouterr()
        return captured.out + captured.err

# SPDX-License-Identifier: Apache-2.0
"""Documents as the tests see them: their blocks, and the commands of a console block."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from iommuctl.__main__ import main

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PIPE = " | iommuctl "


class Example(NamedTuple):
    """A command, and the lines that follow it; none where the document does not show what it prints."""

    command: str
    output: str


def blocks(document: str, language: str) -> list[str]:
    """The texts of the blocks in that language, in their order."""
    return [text for name, text in _BLOCK.findall(document) if name == language]


def examples(block: str) -> Iterator[Example]:
    """The commands of a console block."""
    assert block.startswith("$ ")
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield Example(command, output)


class Console:
    """Types commands into this process, in one state folder."""

    def __init__(self, state: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = patch
        self.code = 0
        patch.setenv("IOMMUCTL_STATE", str(state))
        patch.setenv("COLUMNS", "100")
        patch.setenv("NO_COLOR", "1")

    def __call__(self, command: str) -> str:
        """What the command prints, on stdout and stderr; `code` is its exit code then."""
        if command == "echo $?":
            text, self.code = f"{self.code}\n", 0
            return text
        if _PIPE in command:
            left, _, command = command.partition(_PIPE)
            piped = subprocess.run(["/bin/sh", "-c", left], check=True, capture_output=True, text=True).stdout
            self._patch.setattr(sys, "stdin", StringIO(piped))
            command = f"iommuctl {command}"
        program, *arguments = shlex.split(command)
        assert program == "iommuctl", "only iommuctl runs in a console block; what is only to be read is `sh`"
        self.code = main(arguments)
        captured = self._capsys.readouterr()
        return captured.out + captured.err

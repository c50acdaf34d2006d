# SPDX-License-Identifier: Apache-2.0
"""The installed command, run as a user runs it, in a state folder of the test's own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iommuctl import Iommu

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).parent / "iommuctl"


class Shell:
    """Types commands. `state` is the folder."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {**os.environ, "IOMMUCTL_STATE": str(state), "IOMMUCTL": str(PROGRAM), "NO_COLOR": "1"}

    def run(self, *words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Type one command, whatever becomes of it."""
        return subprocess.run(
            [str(PROGRAM), *map(str, words)], env=self.environment, input=stdin, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def __call__(self, *words: object, stdin: str | None = None) -> str:
        """Type one command that must work; returns what it prints."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: object, exit_code: int = 0) -> Any:
        """Type one command with -j; returns its document."""
        done = self.run(*words, "-j")
        assert done.returncode == exit_code, f"{words}: {done.stdout}{done.stderr}"
        document = json.loads(done.stdout)
        assert document["schema"] == 1
        return document

    def batch(self, lines: str) -> None:
        """Type many commands in one process."""
        self("batch", "-", "--quiet", stdin=lines)

    def refused(self, *words: object) -> Mapping[str, Any]:
        """Type one command that must be refused; returns its error, which is the same in text and in JSON."""
        text, document = self.run(*words), self.run(*words, "-j")
        error: dict[str, Any] = json.loads(document.stderr)["error"]
        assert text.returncode == document.returncode == error["exit"]
        assert text.stderr.startswith(f"error[{error['id']}]: {error['what']}\n")
        assert "Traceback" not in text.stderr
        assert text.stdout == document.stdout == ""
        return error

    def everything(self) -> dict[str, Any]:
        """All that can be seen of the state, and the words of the tables."""
        with Iommu(self.state) as iommu:
            machine = iommu.describe()
            tables = machine["memory"]["tables"]
            return {
                "slots": iommu.slots(),
                "devices": iommu.devices(),
                "domains": [(domain, iommu.mappings(domain.name)) for domain in iommu.domains()],
                "memory": iommu.memories(),
                "pgtables": [(table, iommu.pgtable_mappings(table.name)) for table in iommu.pgtables()],
                "machine": machine,
                "tables": iommu.read_memory(tables["base"], min(tables["size"], 1 << 20)),
            }


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "state")


RID1, RID2 = "0000:00:01.0", "0000:00:02.0"
REFERENCE = ROOT / "examples" / "reference-topology.sh"


@pytest.fixture(scope="session")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which examples/reference-topology.sh was typed, which tests do not touch."""
    shell = Shell(tmp_path_factory.mktemp("reference") / "state")
    subprocess.run([str(REFERENCE)], env=shell.environment, check=True, capture_output=True, timeout=120)
    return shell.state


@pytest.fixture
def reference(shell: Shell, typed: Path) -> Shell:
    """A copy of the folder in which examples/reference-topology.sh was typed."""
    # Of all copies, this one keeps the holes of the memory file.
    subprocess.run(["cp", "-a", "--sparse=always", str(typed), str(shell.state)], check=True, timeout=60)
    return shell

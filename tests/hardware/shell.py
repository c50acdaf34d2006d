# SPDX-License-Identifier: Apache-2.0
"""Typing commands on a machine with an IOMMU, one process for each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import ROOT
from tests.acceptance.conftest import Shell as InstalledShell


def environment(state: Path | None, plugins: Path | None) -> dict[str, str]:
    """Of a command: `state` is its folder, `plugins` a folder with the metadata of more plugins."""
    path = filter(None, [str(plugins or ""), str(ROOT), os.environ.get("PYTHONPATH")])
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "NO_COLOR": "1"}
    return {**told, "IOMMUCTL_STATE": str(state)} if state else told


class Server:
    """The process that forks commands: see server.py."""

    def __init__(self, plugins: Path | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hardware.server"],
            cwd=ROOT, env=environment(None, plugins), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(
        self, words: list[str], given: dict[str, str], stdin: str = "", *, dies: dict[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Type one command. `dies` says at which call to the kernel it is killed: the arguments of doomed.die."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"words": words, "environment": given, "stdin": stdin, "dies": dies}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the process that forks commands has ended"
        answer = json.loads(line)
        return subprocess.CompletedProcess(words, answer["code"], answer["out"], answer["err"])

    def close(self) -> None:
        self._process.communicate()


class Shell(InstalledShell):
    """Types commands. `state` is the folder; without a server, each command starts Python anew."""

    def __init__(self, state: Path, plugins: Path | None = None, server: Server | None = None) -> None:
        super().__init__(state)
        self.environment = environment(state, plugins)
        self._server = server

    def run(self, *words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Type one command, whatever becomes of it."""
        typed = [str(word) for word in words]
        if self._server:
            return self._server.run(typed, self.environment, stdin or "")
        return subprocess.run(
            [sys.executable, "-m", "iommuctl", *typed], cwd=ROOT, env=self.environment, input=stdin or "",
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def killed(self, call: int, when: str, *words: object) -> bool:
        """Type one command that is killed at its call to the kernel of that number; False if it makes fewer."""
        assert self._server
        done = self._server.run([*map(str, words)], self.environment, dies={"call": call, "when": when})
        assert done.returncode in (0, -9), done.stderr
        return done.returncode == -9

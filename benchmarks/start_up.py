# SPDX-License-Identifier: Apache-2.0
"""Whole runs of the program, from exec to exit, next to those of a bare Python; and commands per second in a batch.

    python benchmarks/start_up.py [--quick]

Both commands of a pair take turns, so that whatever else the machine does hits both. A ratio is that of medians, of
elapsed time and of processor time; on a busy machine the second is the one to look at.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

RID = "0000:00:01.0"
BATCH = 2000

Action = Callable[[], object]


class Cost(NamedTuple):
    """Seconds that children took."""

    elapsed: float
    processor: float


class Shell:
    """Runs Python programs as children, on a state folder of its own, with their byte code cached."""

    def __init__(self, folder: str) -> None:
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.environment["IOMMUCTL_STATE"] = os.path.join(folder, "state")

    def python(self, *arguments: str, text: str = "") -> None:
        """Run Python with these arguments and this standard input. Raises CalledProcessError when it fails."""
        self.run(sys.executable, *arguments, text=text)

    def run(self, *command: str, text: str = "") -> None:
        """Run a command with this standard input. Raises CalledProcessError when it fails."""
        subprocess.run(command, env=self.environment, check=True, capture_output=True, input=text.encode())

    def iommuctl(self, *arguments: str, text: str = "") -> None:
        """Run a command line as the installed script does."""
        program = "import sys; from iommuctl.__main__ import main; sys.exit(main())"
        self.python("-c", program, *arguments, text=text)


def cost(action: Action) -> Cost:
    """What it takes, once."""
    before, start = os.times(), time.perf_counter()
    action()
    elapsed, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(elapsed, spent)


def medians(costs: Sequence[Cost]) -> Cost:
    """The median of each column."""
    return Cost(*(median(column) for column in zip(*costs, strict=True)))


def nothing() -> None:
    """What follows an action that leaves nothing behind."""


def compare(name: str, budget: float, pairs: int, *, ours: Action, theirs: Action, undo: Action = nothing) -> None:
    """Time both in turns, `undo` after each run of ours outside of the time, and print the ratios of the medians."""
    for action in (ours, undo, theirs):
        action()
    mine, other = [], []
    for _ in range(pairs):
        mine.append(cost(ours))
        undo()
        other.append(cost(theirs))
    a, b = medians(mine), medians(other)
    print(
        f"{name:44} {a.elapsed * 1000:6.1f} ms / {b.elapsed * 1000:6.1f} ms = {a.elapsed / b.elapsed:5.2f}"
        f"   processor {a.processor / b.processor:5.2f}   budget {budget:.1f}"
    )


def batch_rate(shell: Shell, name: str, lines: Sequence[str], runs: int, *options: str, budget: int = 1000) -> None:
    """Print how many lines of a batch are carried out in a second, the process's start left out."""
    text = "\n".join(lines)
    empty = medians([cost(lambda: shell.iommuctl("batch", "-", text="domain list\n")) for _ in range(runs + 2)])
    full = medians([cost(lambda: shell.iommuctl("batch", "-", *options, text=text)) for _ in range(runs)])
    rates = [len(lines) / (taken - start) for taken, start in zip(full, empty, strict=True)]
    print(f"{name:44} {rates[0]:6.0f} commands per second   processor {rates[1]:5.0f}   budget {budget}")


def main() -> None:
    """Print every ratio next to its budget."""
    pairs, runs = (5, 1) if "--quick" in sys.argv[1:] else (31, 5)
    with tempfile.TemporaryDirectory(prefix="iommuctl-bench-") as folder:
        shell = Shell(folder)
        lines = [
            f"device add {RID} --ats --pasid-bits 16",
            "domain create domain1",
            "domain create big --page-sizes 4K",
        ]
        shell.iommuctl("batch", "-", text="\n".join(lines))

        def reading() -> None:
            shell.iommuctl("domain", "list")

        def typer() -> None:
            shell.python("-c", "import typer")

        compare("domain list : import typer", 1.4, pairs, ours=reading, theirs=typer)
        compare(
            "attach : import typer", 1.8, pairs,
            ours=lambda: shell.iommuctl("attach", "domain1", RID), theirs=typer,
            undo=lambda: shell.iommuctl("detach", "domain1", RID),
        )  # fmt: skip
        compare(
            "domain create : import typer", 1.8, pairs,
            ours=lambda: shell.iommuctl("domain", "create", "new"), theirs=typer,
            undo=lambda: shell.iommuctl("domain", "destroy", "new"),
        )  # fmt: skip
        # The script that pip made is what a shell starts at TAB.
        installed = os.path.join(os.path.dirname(sys.executable), "iommuctl")
        compare(
            "completion of domains : pass", 2.5, pairs,
            ours=lambda: shell.run(installed, "__complete", "DOMAIN"), theirs=lambda: shell.python("-c", "pass"),
        )  # fmt: skip
        extent = ("--iova", "4G", "--size", "1G")
        compare(
            "domain map of 1 GiB in 4 KiB : domain list", 2.0, pairs,
            ours=lambda: shell.iommuctl("domain", "map", "big", *extent, "--pa", "0"), theirs=reading,
            undo=lambda: shell.iommuctl("domain", "unmap", "big", *extent),
        )  # fmt: skip
        pair = [f"attach domain1 {RID} --pasid 1", f"detach domain1 {RID} --pasid 1"]
        batch_rate(shell, "batch: attach, detach", pair * (BATCH // 2), runs)
        batch_rate(shell, "batch --atomic: attach, detach", pair * (BATCH // 2), runs, "--atomic", budget=2000)
        places = range(0, BATCH // 2 * 0x2000, 0x2000)
        many = [f"domain map domain1 --iova {iova:#x} --size 4K --pa {iova:#x}" for iova in places]
        many += [f"domain unmap domain1 --iova {iova:#x} --size 4K" for iova in places]
        batch_rate(shell, "batch: 1000 mappings, and their unmapping", many, runs)


if __name__ == "__main__":
    main()

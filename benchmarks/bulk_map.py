# SPDX-License-Identifier: Apache-2.0
"""Bulk map: 1 GiB in pages of 4 KiB, against a C loop that does the same as the kernel's page-table code.

    python benchmarks/bulk_map.py

It prints nanoseconds per entry, medians of runs that take turns, and their ratio.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run
from iommuctl_vtd.second_stage import SecondStageFormat

RUNS = 31
IOVA, SIZE, PA = 5 << 30, 1 << 30, 3 << 30
COUNT = SIZE // PAGE
BASE = 1 << 40


class Arena:
    """Memory that has been touched, and is all free again when `used` is set to 0."""

    def __init__(self, pages: int) -> None:
        self._data = memoryview(bytearray(b"\xa5" * (pages * PAGE)))
        self.used = 0

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._data[address - BASE : address - BASE + size])

    def write(self, address: int, data: bytes) -> None:
        self._data[address - BASE : address - BASE + len(data)] = data

    def allocate(self, pages: int) -> list[Run]:
        return [Run(self.allocate_run(pages), pages)]

    def allocate_run(self, pages: int) -> int:
        self.used += pages
        return BASE + (self.used - pages) * PAGE

    def free(self, run: Run) -> None:
        raise AssertionError(f"mapping gave {run} back")


class CLoop:
    """The compiled loop, a process that makes one run whenever it is asked to."""

    def __init__(self, compiler: str, folder: str) -> None:
        source, program = Path(__file__).parent / "c" / "bulk_map.c", Path(folder) / "bulk_map"
        subprocess.run([compiler, "-O2", "-Wall", "-o", program, source], check=True)
        self._process = subprocess.Popen(
            [program, str(IOVA), str(SIZE), str(PA)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self) -> tuple[int, int]:
        """Nanoseconds, and the sum of all leaf entries."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        nanoseconds, total = self._process.stdout.readline().split()
        return int(nanoseconds), int(total)

    def close(self) -> None:
        self._process.communicate()


def run_engine(fmt: radix.Format, memory: Arena) -> int:
    memory.used = 0
    root = radix.new_root(fmt, memory)
    start = time.perf_counter_ns()
    radix.map_range(fmt, memory, root, IOVA, SIZE, PA, "rw", (PAGE,))
    return time.perf_counter_ns() - start


def show(name: str, runs: list[int]) -> float:
    per_entry = median(runs) / COUNT
    print(f"{name:24} {per_entry:5.2f} ns per entry   (first {runs[0] / COUNT:.2f}, best {min(runs) / COUNT:.2f})")
    return per_entry


def main() -> None:
    fmt, memory = SecondStageFormat(48), Arena(520)
    compiler = shutil.which("cc")
    if not compiler:
        print("no C compiler (cc): the engine alone")
        show("radix.map_range", [run_engine(fmt, memory) for _ in range(RUNS)])
        return
    with tempfile.TemporaryDirectory() as folder:
        loop = CLoop(compiler, folder)
        ours, theirs = [], []
        for _ in range(RUNS):
            ours.append(run_engine(fmt, memory))
            nanoseconds, total = loop.run()
            theirs.append(nanoseconds)
        loop.close()
    if total % 2**64 != sum(leaf.raw for leaf in radix.entries(fmt, memory, BASE) if leaf.level == 1) % 2**64:
        raise SystemExit("the two have not built the same tables")
    ratio = show("radix.map_range", ours) / show("C loop", theirs)
    print(f"{'ratio':24} {ratio:5.2f}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Mappings through /dev/iommu: 4 KiB of a memfd mapped and unmapped 10,000 times, against the same loop in C.

    python benchmarks/session.py

No device is attached, so that the kernel has least to do, and what Python adds shows most. The C program is compiled
where there is a compiler, for all machines that see this folder: where there is none, what was compiled before is run.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from iommuctl.iommufd import uapi
from iommuctl.iommufd.session import Iommufd

PAIRS, RUNS = 10_000, 7
PAGE, IOVA = 4096, 16 << 20
FLAGS = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE
SOURCE = Path(__file__).parent / "c" / "session.c"
PROGRAM = SOURCE.parent / "build" / f"session-{os.uname().machine}"


def compile_program() -> None:
    """Make the C program, without shared libraries, so that it runs on a system of another age."""
    if compiler := shutil.which("cc"):
        PROGRAM.parent.mkdir(exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-static", "-o", PROGRAM, SOURCE], check=True)


def run_session(session: Iommufd, ioas_id: int, fd: int) -> int:
    start = time.perf_counter_ns()
    for _ in range(PAIRS):
        session.ioas_map_file(ioas_id, IOVA, PAGE, fd, start=0, flags=FLAGS)
        session.ioas_unmap(ioas_id, IOVA, PAGE)
    return time.perf_counter_ns() - start


def show(name: str, runs: list[int]) -> float:
    per_pair = median(runs) / PAIRS / 1000
    print(f"{name:24} {per_pair:6.2f} us per pair   (best {min(runs) / PAIRS / 1000:.2f})")
    return per_pair


def main() -> None:
    compile_program()
    if not os.path.exists("/dev/iommu"):
        print("skipped: there is no /dev/iommu; run it on a Linux that has one")
        return
    runs = 3 if "--quick" in sys.argv[1:] else RUNS
    session = Iommufd.open()
    ioas_id, fd = session.ioas_alloc(), os.memfd_create("benchmark")
    os.ftruncate(fd, PAGE)
    run_session(session, ioas_id, fd)
    if not PROGRAM.exists():
        print(f"no C compiler (cc), and no {PROGRAM}: the session alone")
        show("Iommufd", [run_session(session, ioas_id, fd) for _ in range(runs)])
        return
    loop = subprocess.Popen([PROGRAM, str(PAIRS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert loop.stdin
    assert loop.stdout
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(run_session(session, ioas_id, fd))
        loop.stdin.write("\n")
        loop.stdin.flush()
        theirs.append(int(loop.stdout.readline()))
    loop.communicate()
    ratio = show("Iommufd", ours) / show("C loop", theirs)
    print(f"{'ratio':24} {ratio:6.2f}")


if __name__ == "__main__":
    main()

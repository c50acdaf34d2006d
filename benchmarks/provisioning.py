# SPDX-License-Identifier: Apache-2.0
"""Topology documents of several sizes: apply, export, and the same apply again, which has nothing to do.

    python benchmarks/provisioning.py [--quick]

Ten attachments for each device. The ratio is that of time per attachment against the smallest size: where time is
linear it is 1, and below that as long as the program's start counts.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SIZES = (1_000, 3_000, 10_000)
PER_DEVICE = 10
MEBIBYTE = 1 << 20
BUDGET = 200


class Run(NamedTuple):
    """What a command took: seconds, and the most memory that it had at once in bytes."""

    seconds: float
    memory: int


def document(attachments: int) -> str:
    """A document with so many attachments: every device has each of ten domains in a PASID of its own."""
    return "\n".join(["schema = 1", *_domains(), *_devices(attachments // PER_DEVICE)]) + "\n"


def _domains() -> Iterator[str]:
    for number in range(PER_DEVICE):
        pa = (number + 1) << 28
        yield f'[domain.d{number}]\nmappings = [{{ iova = "1M", size = "2M", pa = "{pa:#x}" }}]'


def _devices(count: int) -> Iterator[str]:
    for number in range(count):
        rid = f"0000:{number >> 8:02x}:{number >> 3 & 31:02x}.{number & 7}"
        slots = "\n".join(f'    {{ pasid = {pasid + 1}, domain = "d{pasid}" }},' for pasid in range(PER_DEVICE))
        yield f'[device."{rid}"]\npasid_bits = 8\nattachments = [\n{slots}\n]'


def run(state: Path, *words: str, output: Path | None = None) -> Run:
    """Run one command line to its end. Raises CalledProcessError."""
    program = "import sys; from iommuctl.__main__ import main; sys.exit(main())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with open(output or os.devnull, "wb") as stdout:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", program, "--state", str(state), *words], stdout=stdout, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return Run(seconds, usage.ru_maxrss * 1024)


def measured(attachments: int, folder: Path) -> dict[str, Run]:
    """The three commands on a document of that size."""
    file, state = folder / f"{attachments}.toml", folder / f"state-{attachments}"
    file.write_text(document(attachments))
    return {
        "apply": run(state, "apply", str(file), "--quiet"),
        "export": run(state, "export", output=folder / f"{attachments}.export"),
        "apply again": run(state, "apply", str(file), "--quiet"),
    }


def main(arguments: Sequence[str]) -> None:
    """Print time, ratio and memory of each command at each size."""
    sizes = SIZES[:2] if "--quick" in arguments else SIZES
    with tempfile.TemporaryDirectory(prefix="iommuctl-bench-") as folder:
        results = {size: measured(size, Path(folder)) for size in sizes}
    smallest = results[sizes[0]]
    for size, runs in results.items():
        for name, one in runs.items():
            ratio = one.seconds / size / (smallest[name].seconds / sizes[0])
            print(
                f"{size:6} attachments, {name:12} {one.seconds:7.2f} s, {size / one.seconds:6.0f} a second"
                f"   per attachment {ratio:4.2f} of the smallest"
                f"   {one.memory / MEBIBYTE:4.0f} MiB (budget {BUDGET})"
            )


if __name__ == "__main__":
    main(sys.argv[1:])

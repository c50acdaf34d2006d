# SPDX-License-Identifier: Apache-2.0
"""Run all benchmarks: `python benchmarks/run.py [--quick]`. They print ratios next to budgets, and judge nothing."""

import os
import platform
import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("bulk_map.py", "start_up.py", "provisioning.py", "session.py")


def main() -> int:
    """Run one after the other; the exit code says whether all of them ran to their end."""
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {load:.1f}")
    failed = 0
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        failed |= subprocess.run(
            [sys.executable, Path(__file__).with_name(name), *sys.argv[1:]], check=False
        ).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

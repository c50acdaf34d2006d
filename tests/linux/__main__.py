# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.linux`: the tables that Linux writes in VMs of all modes, read by us and compared with its dumps."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.differential.qemu import NoQemu
from tests.differential.qemu import find as find_qemu
from tests.linux.comparison import Comparison
from tests.linux.devices import MODES, NEEDED
from tests.linux.snapshot import take
from tests.linux.vm import NoVm, VmError, find


def main() -> int:
    """Compare in each mode. Returns 0 when all is equal, 1 for a difference or a finding, 2 without a VM."""
    argparse.ArgumentParser(prog="python -m tests.linux", description=__doc__).parse_args()
    try:
        installed, kit = find_qemu("x86_64", NEEDED), find("x86_64")
    except (NoQemu, NoVm) as error:
        print(error, file=sys.stderr)
        return 2
    print("QEMU", ".".join(map(str, installed.version)), flush=True)
    wrong = 0
    for name, mode in MODES.items():
        begin = time.monotonic()
        try:
            with (
                tempfile.TemporaryDirectory(prefix="iommuctl-linux-") as folder,
                take(installed, kit, mode, Path(folder)) as snapshot,
            ):
                compared = Comparison(snapshot)
        except VmError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        wrong += len(compared.findings) + len(compared.differences)
        print(f"{name}: {time.monotonic() - begin:.0f} s", *compared.lines(), sep="\n", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

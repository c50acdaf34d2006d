# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.linux`: the tables that Linux writes in VMs of all modes, as we and as it see them."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.differential.qemu import NoQemu
from tests.differential.qemu import find as find_qemu
from tests.differential.qtest import QtestError
from tests.linux.architecture import ARCHITECTURES, architecture
from tests.linux.snapshot import take
from tests.linux.vm import NoVm, VmError, find


def main() -> int:
    """Compare in each mode. Returns 0 when all is equal, 1 for a difference or a finding, 2 without a VM."""
    parser = argparse.ArgumentParser(prog="python -m tests.linux", description=__doc__)
    parser.add_argument("--arch", choices=ARCHITECTURES, default=ARCHITECTURES[0], help="whose tables")
    arch = architecture(parser.parse_args().arch)
    try:
        installed, kit = find_qemu(arch.processor, arch.needed), find(arch.processor)
    except (NoQemu, NoVm) as error:
        print(error, file=sys.stderr)
        return 2
    print("QEMU", ".".join(map(str, installed.version)), flush=True)
    wrong = 0
    for name, mode in arch.modes.items():
        begin = time.monotonic()
        try:
            with (
                tempfile.TemporaryDirectory(prefix="iommuctl-linux-") as folder,
                take(installed, kit, arch, mode, Path(folder)) as snapshot,
            ):
                compared = arch.compare(snapshot)
        except (VmError, QtestError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        wrong += len(compared.findings) + len(compared.differences)
        print(f"{name}: {time.monotonic() - begin:.0f} s", *compared.lines(), sep="\n", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

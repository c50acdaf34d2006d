# SPDX-License-Identifier: Apache-2.0
"""All suites on one backend, as it is installed: `python -m iommuctl.testing.run NAME [PYTEST ARGUMENT…]`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def run(backend: str, arguments: Sequence[str] = ()) -> bool:
    """Run the suites with pytest, which reports on stdout; whether all passed."""
    own = ["-c", os.devnull, "-p", "no:cacheprovider", "-p", "iommuctl.testing.plugin", f"--iommuctl-backend={backend}"]
    everything = Path(__file__).with_name("everything.py")
    return pytest.main([*own, *arguments, f"--rootdir={everything.parent}", str(everything)]) == pytest.ExitCode.OK


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m iommuctl.testing.run BACKEND [PYTEST ARGUMENT…]")
    sys.exit(0 if run(sys.argv[1], sys.argv[2:]) else 1)

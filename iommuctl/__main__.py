# SPDX-License-Identifier: Apache-2.0
"""The entry point: `iommuctl` and `python -m iommuctl`."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: the program's) and return the exit code."""
    from iommuctl.cli.app import run

    return run(list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())

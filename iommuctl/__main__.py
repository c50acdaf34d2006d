# SPDX-License-Identifier: Apache-2.0
"""The entry point: `iommuctl` and `python -m iommuctl`."""

import gc
import sys

_RARELY = 100_000
COMPLETE = "__complete"
"""The first argument of a completion. Shells ask at each TAB, so the answer imports next to nothing."""


def main(argv: list[str] | None = None) -> int:
    """Run a command line (default: the program's own) and return the exit code."""
    if argv is not None:
        return _run(argv)
    # Most commands live for less than a tenth of a second. The collector would spend a fifth of that on the objects
    # of the imports, of which none is garbage: while they are made, and once more at the end.
    gc.set_threshold(_RARELY)
    code = _run(sys.argv[1:])
    gc.freeze()
    return code


def _run(arguments: list[str]) -> int:
    try:
        if arguments[:1] == [COMPLETE]:
            from iommuctl.complete import answer

            return answer(arguments[1:])
        from iommuctl.cli.app import run
    except KeyboardInterrupt:
        return 130
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())

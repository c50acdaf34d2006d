# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.differential --configurations 2000`: random configurations, on QEMU's IOMMUs and on ours."""

import argparse
import sys

from tests.differential.architecture import ARCHITECTURES, architecture
from tests.differential.qemu import NoQemu
from tests.differential.report import Machines, Report, failure_lines

_SHOWN = 10


def main() -> int:
    """Run what the command line asks for. Returns 0 when all is explained, and every deviation was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--arch", choices=ARCHITECTURES, help="one architecture; all of them without it")
    parser.add_argument("--configurations", type=int, default=2000, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first one")
    parser.add_argument("--show", action="store_true", help="print each configuration and all of its comparisons")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.configurations)
    try:
        chosen = (arguments.arch,) if arguments.arch else ARCHITECTURES
        return max([_compare(name, numbers, show=arguments.show) for name in chosen])
    except NoQemu as error:
        print(error, file=sys.stderr)
        return 2


def _compare(name: str, numbers: range, *, show: bool) -> int:
    """One architecture: every deviation's case, then the configurations of these numbers. Raises NoQemu."""
    arch = architecture(name)
    report = Report(arch)
    with Machines(arch) as machines:
        print(f"{name}: QEMU", ".".join(map(str, machines.installed.version)), flush=True)
        for case, configuration in arch.cases.items():
            report.add(case, configuration, machines.run(configuration))
        for number in numbers:
            one = arch.configuration(number)
            comparisons = machines.run(one)
            report.add(number, one, comparisons)
            if show:
                print(one)
                for comparison in comparisons:
                    print("\n".join(failure_lines(number, one, comparison)), comparison.explained, sep="\n  ")
    for failure in report.failures[:_SHOWN]:
        print("\n".join(failure_lines(*failure)))
    print("\n".join(report.lines()))
    if unmet := report.unmet():
        print(f"not met, so that they should not be listed: {', '.join(unmet)}")
    return 1 if report.failures or unmet else 0


if __name__ == "__main__":
    sys.exit(main())

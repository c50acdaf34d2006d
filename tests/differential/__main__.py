# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.differential --configurations 2000`: random configurations, on QEMU's VT-d unit and on ours."""

import argparse
import sys

from tests.differential.cases import CASES
from tests.differential.qemu import NoQemu
from tests.differential.report import Machines, Report, failure_lines
from tests.differential.strategies import configuration

_SHOWN = 10


def main() -> int:
    """Run what the command line asks for. Returns 0 when all is explained, and every deviation was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--configurations", type=int, default=2000, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first one")
    parser.add_argument("--show", action="store_true", help="print each configuration and all of its comparisons")
    arguments = parser.parse_args()
    report = Report()
    try:
        machines = Machines()
    except NoQemu as error:
        print(error, file=sys.stderr)
        return 2
    with machines:
        print("QEMU", ".".join(map(str, machines.installed.version)), flush=True)
        for name, case in CASES.items():
            report.add(name, case, machines.run(case))
        for number in range(arguments.first, arguments.first + arguments.configurations):
            one = configuration(number)
            comparisons = machines.run(one)
            report.add(number, one, comparisons)
            if arguments.show:
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

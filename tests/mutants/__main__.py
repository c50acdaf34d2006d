# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.mutants`: every field of VT-d's structures one bit off, and who notices."""

import argparse
import os
import sys
from random import Random

from tests.differential.qemu import REQUIRED, NoQemu, find
from tests.mutants.judges import VECTORS, differential, first_failure, swept
from tests.mutants.judging import Verdict, in_child, judged
from tests.mutants.report import lines, problems
from tests.mutants.shifting import Mutant, mutants


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> int:
    """Run what the command line asks for. Returns 0 when every mutant is noticed as the list says."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--chunks", type=int, default=1, metavar="N", help="random configurations, 25 each")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count(), metavar="N", help="processes at once")
    parser.add_argument("--sample", type=_positive, metavar="N", help="only so many mutants, the same each time")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="mutants whose names begin so")
    parser.add_argument("--show", action="store_true", help="print each verdict when it comes")
    arguments = parser.parse_args()
    chosen: list[Mutant] = [one for one in in_child(mutants) if str(one).startswith(tuple(arguments.only))]
    if not chosen:
        parser.error(f"no mutant's name begins so: {' '.join(arguments.only)}")
    if arguments.sample is not None:
        chosen = Random("mutants").sample(chosen, min(arguments.sample, len(chosen)))
    try:
        find("x86_64", ["intel-iommu"])
    except NoQemu as error:
        print(error, file=sys.stderr)
        return 2
    os.environ[REQUIRED] = "1"
    layouts: frozenset[str] = in_child(swept)
    if failure := in_child(first_failure, (*differential(sorted(layouts), arguments.chunks), *VECTORS)):
        print(f"without any mutant, this fails: {failure}")
        return 1
    verdicts: list[Verdict] = []
    for verdict in judged(chosen, layouts, arguments.chunks, arguments.jobs):
        verdicts.append(verdict)
        if arguments.show:
            print(f"{verdict.mutant}: QEMU: {verdict.qemu}; vectors: {verdict.vectors}", flush=True)
    print("\n".join(lines(verdicts)))
    found = list(problems(verdicts))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.mutants`: every field of the architectures' structures one bit off, and who notices."""

import argparse
import os
import sys
from random import Random

from tests.differential.architecture import ARCHITECTURES
from tests.differential.qemu import REQUIRED, NoQemu
from tests.mutants.judges import VECTORS, differential, first_failure, require_qemu, swept
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
    parser.add_argument("--arch", choices=ARCHITECTURES, action="append", help="one architecture's alone")
    parser.add_argument("--chunks", type=int, default=1, metavar="N", help="random configurations, 25 each")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count(), metavar="N", help="processes at once")
    parser.add_argument(
        "--sample", type=_positive, metavar="N", help="only so many mutants of each architecture, the same each time"
    )
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="mutants whose names begin so")
    parser.add_argument("--show", action="store_true", help="print each verdict when it comes")
    arguments = parser.parse_args()
    chosen: dict[str, list[Mutant]] = {}
    for name in arguments.arch or ARCHITECTURES:
        found = [one for one in in_child(mutants, name) if str(one).startswith(tuple(arguments.only))]
        if arguments.sample is not None:
            found = Random("mutants").sample(found, min(arguments.sample, len(found)))
        if found:
            chosen[name] = found
    if not chosen:
        parser.error(f"no mutant's name begins so: {' '.join(arguments.only)}")
    layouts: dict[str, frozenset[str]] = {}
    for name in chosen:
        if missing := in_child(_no_qemu, name):
            print(missing, file=sys.stderr)
            return 2
        layouts[name] = in_child(swept, name)
    os.environ[REQUIRED] = "1"
    for name, own in layouts.items():
        tests = (*differential(name, sorted(own), arguments.chunks), *VECTORS[name])
        if failure := in_child(first_failure, tests):
            print(f"without any mutant, this fails: {failure}")
            return 1
    verdicts: list[Verdict] = []
    for verdict in judged([one for some in chosen.values() for one in some], layouts, arguments.chunks, arguments.jobs):
        verdicts.append(verdict)
        if arguments.show:
            print(f"{verdict.mutant}: QEMU: {verdict.qemu}; vectors: {verdict.vectors}", flush=True)
    for name in chosen:
        print(f"{name}\n" + "\n".join(lines([one for one in verdicts if one.mutant.architecture == name])))
    wrong = list(problems(verdicts))
    print("\n".join(wrong))
    return 1 if wrong else 0


def _no_qemu(architecture: str) -> str | None:
    try:
        require_qemu(architecture)
    except NoQemu as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Who may notice a mutant: QEMU, through the differential tests, and vectors from the specification.

Each judge is a set of this project's tests, so that what is said here is what these tests would do. They run in the
process that has the mutant.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

import pytest

from tests.differential.qemu import find

VECTORS: Mapping[str, tuple[str, ...]] = {
    "vtd": ("tests/vtd/test_vectors.py", "tests/vtd/test_registers.py"),
    "smmuv3": ("tests/smmuv3/test_vectors.py", "tests/smmuv3/test_registers.py", "tests/smmuv3/test_positions.py"),
}
"""The tests that hold words and places from the specification against an architecture's declared structures."""
_COMMANDS = {"vtd": "test_a_good_descriptor_is_taken", "smmuv3": "test_every_opcode"}
"""The test beside the sweeps that queues every kind of command."""


def require_qemu(architecture: str) -> None:
    """Raise NoQemu where there is none that has the unit."""
    from tests.differential.architecture import architecture as compared

    one = compared(architecture)
    find(one.machine, one.needed)


def swept(architecture: str) -> frozenset[str]:
    """The layouts that have a sweep over their bits."""
    return frozenset(import_module(f"tests.differential.{architecture}.test_sweeps").SWEEPS)


def differential(architecture: str, layouts: Iterable[str], chunks: int) -> tuple[str, ...]:
    """The sweeps over these layouts, the directed cases, and so many chunks of random configurations."""
    folder = f"tests/differential/{architecture}"
    return (
        *(f"{folder}/test_sweeps.py::test_every_bit[{layout}]" for layout in layouts),
        f"{folder}/test_sweeps.py::{_COMMANDS[architecture]}",
        f"{folder}/test_deviations.py::test_case",
        f"{folder}/test_deviations.py::test_both_do_the_same",
        *(f"{folder}/test_random.py::test_random_configurations[{chunk}]" for chunk in range(chunks)),
    )


class _Failures:
    """Remembers what failed."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.found.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.found.append(f"import of {report.nodeid}")


def first_failure(tests: Sequence[str]) -> str | None:
    """The first of these tests that fails; None when all pass."""
    failures = _Failures()
    # What is imported already, the other judge's tests for one, could not be rewritten.
    options = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        status = pytest.main([*options, *tests], plugins=[failures])
    if failures.found:
        return failures.found[0]
    return None if status == pytest.ExitCode.OK else "import of a conftest.py"

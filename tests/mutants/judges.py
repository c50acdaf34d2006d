# SPDX-License-Identifier: Apache-2.0
"""Who may notice a mutant: QEMU, through the differential tests, and vectors from the specification.

Each judge is a set of this project's tests, so that what is said here is what these tests would do. They run in the
process that has the mutant.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence

import pytest

VECTORS = ("tests/vtd/test_vectors.py", "tests/vtd/test_registers.py")
"""The tests that hold words from the specification against the declared structures."""
_DIFFERENTIAL = "tests/differential/vtd"
_SWEEPS = f"{_DIFFERENTIAL}/test_sweeps.py::test_every_bit"
_CASES = (
    f"{_DIFFERENTIAL}/test_sweeps.py::test_a_good_descriptor_is_taken",
    f"{_DIFFERENTIAL}/test_deviations.py::test_case",
    f"{_DIFFERENTIAL}/test_deviations.py::test_both_do_the_same",
)
_RANDOM = f"{_DIFFERENTIAL}/test_random.py::test_random_configurations"


def swept() -> frozenset[str]:
    """The layouts that have a sweep over their bits."""
    from tests.differential.vtd.test_sweeps import SWEEPS

    return frozenset(SWEEPS)


def differential(layouts: Iterable[str], chunks: int) -> tuple[str, ...]:
    """The sweeps over these layouts, the directed cases, and so many chunks of random configurations."""
    sweeps = tuple(f"{_SWEEPS}[{layout}]" for layout in layouts)
    return (*sweeps, *_CASES, *(f"{_RANDOM}[{chunk}]" for chunk in range(chunks)))


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

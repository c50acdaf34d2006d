# SPDX-License-Identifier: Apache-2.0
"""Processes with mutants in them: that they answer, end early or never, and which test has noticed what."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code: str) -> list[str]:
    """What this prints in a process that has imported nothing else: children are forked from it."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_child_takes_its_imports_along() -> None:
    code = """
import sys
from tests.mutants.judging import in_child
from tests.mutants.shifting import mutants
print(len(in_child(mutants, "vtd")) > 300, len(in_child(mutants, "smmuv3")) > 500)
print([name for name in sys.modules if name.startswith("iommuctl_")])
"""
    assert run(code) == ["True True", "[]"]


def test_a_child_that_ends_without_an_answer() -> None:
    code = """
import os
from tests.mutants.judging import in_child
try:
    in_child(os._exit, 3)
except RuntimeError as error:
    print(error)
"""
    assert run(code) == ["a child ended with 3"]


def test_tests_that_do_not_end_have_noticed_it() -> None:
    code = """
from tests.mutants import judging
from tests.mutants.shifting import Mutant
judging._LIMIT = 1
judging._judge = lambda *arguments: __import__("time").sleep(60)
print(list(judging.judged([Mutant("vtd", "IQA", "DW", 1)], {"vtd": frozenset()}, 0, 1))[0].qemu)
"""
    assert run(code) == ["its tests do not end"]


@pytest.mark.parametrize(
    ("mutant", "test"),
    [
        (("vtd", "IQA", "DW", 1), "tests/vtd/test_vectors.py::test_encode"),
        (("vtd", "VER", "MAX", 1), "tests/vtd/test_registers.py::test_words"),
        (("smmuv3", "Sync", "CS", 1), "tests/smmuv3/test_vectors.py::test_encode"),
        (("smmuv3", "Gerror", "SFM_ERR", 1), "tests/smmuv3/test_registers.py::test_words"),
        (("smmuv3", "Sync", "MSIData", 1), "tests/smmuv3/test_positions.py::test_positions"),
    ],
)
def test_vectors_notice(mutant: tuple[str, str, str, int], test: str) -> None:
    code = f"""
from tests.mutants.judges import VECTORS, first_failure
from tests.mutants.shifting import Mutant, declare
declare(Mutant{mutant!r})
print(first_failure(VECTORS[{mutant[0]!r}]))
"""
    assert [line.split("[")[0] for line in run(code)] == [test]


@pytest.mark.parametrize("arguments", [("--only", "NoSuchLayout"), ("--sample", "0"), ("--jobs", "0")])
def test_nothing_to_judge_is_no_success(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tests.mutants", *arguments]
    result = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE)
    assert result.returncode == 2
    assert arguments[-1].encode() in result.stderr

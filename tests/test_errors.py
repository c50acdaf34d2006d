# SPDX-License-Identifier: Apache-2.0
"""Ids and exit codes that scripts rely on, and how an error reads."""

from collections.abc import Iterator

import pytest

from iommuctl import errors
from iommuctl.errors import IommuError, Overlap
from iommuctl.testing.probes import EXIT_OF

CONTRACT = {
    1: """overlap partial-unmap misaligned out-of-aperture reserved-range slot-occupied slot-empty slot-bound name-taken
        in-use parent-not-attached not-nest-parent nothing-bound state-damaged""",
    2: "usage bad-number bad-rid zero-size pasid-zero bad-document other-backend",
    3: "unsupported no-pasid-support pasid-too-wide cannot-nest no-ats backend-unavailable",
    4: "no-such-domain no-such-device no-such-pgtable no-such-memory no-such-fault no-such-structure",
    5: "permission kernel-refused group-not-viable lost",
}
EXITS = {error: code for code, words in CONTRACT.items() for error in words.split()}


def classes(base: type[IommuError] = IommuError) -> Iterator[type[IommuError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from classes(kind)


LEAVES = [kind for kind in classes() if not any(True for _ in classes(kind))]


def test_each_class_has_an_id_of_its_own() -> None:
    ids = [kind.id for kind in LEAVES]
    assert len(set(ids)) == len(ids)
    assert "internal" not in ids
    assert all(kind.__doc__ and kind.__doc__.endswith(".") for kind in LEAVES)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.id)
def test_the_exit_codes_are_those_of_the_contract(kind: type[IommuError]) -> None:
    assert kind.exit == EXITS.get(kind.id, kind.exit)
    assert kind.exit in (1, 2, 3, 4, 5)
    assert EXIT_OF.get(kind.id, kind.exit) == kind.exit


def test_the_suites_know_the_whole_contract() -> None:
    assert EXITS.items() <= EXIT_OF.items()


def test_how_an_error_reads() -> None:
    assert str(Overlap("it overlaps")) == "error[overlap]: it overlaps"
    whole = Overlap("it overlaps", because="0x0 is mapped", hint="unmap it")
    assert str(whole) == "error[overlap]: it overlaps\nbecause: 0x0 is mapped\nhint: unmap it"
    assert (whole.what, whole.because, whole.hint) == ("it overlaps", "0x0 is mapped", "unmap it")
    assert str(Overlap("it", hint="unmap it")) == "error[overlap]: it\nhint: unmap it"

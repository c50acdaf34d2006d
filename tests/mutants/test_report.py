# SPDX-License-Identifier: Apache-2.0
"""The list against the structures, and what is said of verdicts."""

import pytest

from iommuctl.plugins import architecture
from tests.differential.architecture import ARCHITECTURES
from tests.mutants.judging import Verdict
from tests.mutants.report import UNLOOKED, lines, problems, reason
from tests.mutants.shifting import Mutant, mutants
from tests.mutants.unlooked import ALL

SEEN, LISTED = Mutant("vtd", "RootEntry", "P", 1), Mutant("vtd", "VER", "MIN", 1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_list_names_fields_that_there_are(name: str) -> None:
    declared = {(one.layout, one.field) for one in mutants(name)}
    layouts = {layout for layout, _ in declared}
    for layout, fields in UNLOOKED[name].items():
        assert layout in layouts
        assert all(fields.values())
        assert fields.keys() == {ALL} or {(layout, field) for field in fields} <= declared
    # The one field of an interrupt's data is the whole structure.
    declared_whole = [
        layout for layout in architecture(name).structures.values() if layout.fields[0].width == layout.bits
    ]
    structures = sum(max(1, len(layout.revisions)) for layout in architecture(name).structures.values())
    assert len(layouts) == structures - len(declared_whole)


def test_a_structure_can_be_listed_whole_or_by_fields() -> None:
    assert reason(LISTED) == UNLOOKED["vtd"]["VER"][ALL]
    assert reason(Mutant("vtd", "CAP", "ND", 1)) == UNLOOKED["vtd"]["CAP"]["ND"]
    assert reason(Mutant("vtd", "CAP", "SAGAW", 1)) is None
    # Both architectures have a structure of that name.
    listed = {name: reason(Mutant(name, "PageRequest", "PRGIndex", 1)) for name in ARCHITECTURES}
    assert listed == {name: UNLOOKED[name]["PageRequest"][ALL] for name in ARCHITECTURES}
    assert reason(SEEN) is None


def test_verdicts_that_are_as_they_should_be() -> None:
    assert not list(problems([Verdict(SEEN, "a case", None), Verdict(LISTED, None, "a vector")]))


def test_what_contradicts_the_list() -> None:
    verdicts = [Verdict(SEEN, None, "a vector"), Verdict(LISTED, "a case", "a vector"), Verdict(LISTED, None, None)]
    assert list(problems(verdicts)) == [
        "RootEntry.P +1 is not listed, but QEMU does not tell",
        "VER.MIN +1 is listed, but QEMU tells: a case",
        "VER.MIN +1 has no vector",
    ]


def test_the_numbers() -> None:
    verdicts = [
        Verdict(SEEN, "a case", "a vector"),
        Verdict(SEEN._replace(field="CTP"), None, None),
        Verdict(LISTED, None, "a vector"),
    ]
    assert [line.split() for line in lines(verdicts)] == [
        ["structure", "mutants", "QEMU", "listed", "vectors", "caught"],
        ["RootEntry", "2", "1", "0", "1", "1"],
        ["VER", "1", "0", "1", "1", "1"],
        ["all", "3", "1", "1", "2", "2"],
    ]

# SPDX-License-Identifier: Apache-2.0
"""A mutant is what its declaration would make, down to the masks that modules take from it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.shifting import Mutant, mutants

ROOT = Path(__file__).parents[2]


def in_mutant(mutant: str, expression: str) -> Any:
    """The value of an expression in a new process that has this mutant. `layouts` has all layouts by class."""
    code = f"""
import json
from tests.mutants.shifting import Mutant, declare
declare(Mutant("vtd", *{mutant}))
from iommuctl_vtd import first_stage, second_stage
from iommuctl_vtd.structures import STRUCTURES
layouts = {{one.__name__: one for first in STRUCTURES.values() for one in (first, *first.revisions.values())}}
print(json.dumps({expression}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("mutant", "expression", "value"),
    [
        (("RootEntry", "P", 1), "layouts['RootEntry'].encode(P=1)", 0b10),
        (("RootEntry", "P", 1), "layouts['RootEntry'].reserved & 0xfff", 0xFFD),
        (("RootEntry", "P", 1), "layouts['ScalableRootEntry'].encode(LP=1)", 1),
        (("ContextEntry", "DID", 1), "layouts['ContextEntry'].encode(DID=3)", 3 << 73),
        (("ContextEntry", "DID", 1), "layouts['ContextEntry'].decode(6 << 72)['DID']", 3),
        # An address stays where it is: other bits belong to it.
        (("FaultRecord", "FI", -1), "layouts['FaultRecord'].FI.mask", 0x7FFF_FFFF_FFFF_F800),
        (("FaultRecord", "FI", -1), "layouts['FaultRecord'].encode(FI=0x1800)", 0x1800),
        (("ScalableRootEntry", "UCTP", -1), "layouts['ScalableRootEntry'].encode(UCTP=0x800)", 0x800 << 64),
        # Fields may overlap, and stand in another order.
        (("IQA", "DW", 1), "layouts['IQA'].encode(DW=1, IQA=0x3000)", 0x3000),
        (("ContextCacheInvalidate", "TYPE", 1), "layouts['ContextCacheInvalidate'].encode()", 2),
        # Revision 3 takes over what revision 4 has.
        (("PasidEntry", "AW", 1), "layouts['PasidEntryRev3'].encode(AW=1)", 1 << 3),
        (("PasidEntryRev3", "NXE", 1), "layouts['PasidEntryRev3'].encode(NXE=1)", 1 << 134),
        (("PasidEntryRev3", "NXE", 1), "layouts['PasidEntry'].ignored", 0b11 << 133),
        # Modules take masks when they are imported.
        (("SecondStageEntry", "W", 1), "second_stage.SecondStageFormat().leaf(1, 0x1000, 'w')", 0x1804),
        (("FirstStageEntry", "A", 1), "first_stage.FirstStageFormat().table(2, 0x1000)", 0x1047),
    ],
)
def test_what_follows_from_a_mutant(mutant: tuple[str, str, int], expression: str, value: int) -> None:
    assert in_mutant(repr(mutant), expression) == value


def test_every_field_has_a_mutant_within_its_structure() -> None:
    found = mutants("vtd")
    assert len(found) == len(set(found)) == len({one[:3] for one in found})
    assert Mutant("vtd", "IQA", "IQA", -1) in found
    assert Mutant("vtd", "IQA", "DW", 1) in found
    assert Mutant("vtd", "PasidEntryRev3", "NXE", 1) in found
    assert not [one for one in found if one[1:3] in {("PasidEntry", "NXE"), ("PasidEntryRev3", "AW")}]


def test_a_field_that_a_variant_has_for_itself_is_its_own() -> None:
    found = [one for one in mutants("smmuv3") if one.layout == "Stage1Descriptor64K"]
    assert [one.field for one in found] == ["OA_51_48", "OA"]


def test_it_is_too_late_once_the_package_is_imported() -> None:
    code = """
import iommuctl_vtd
from tests.mutants.shifting import Mutant, declare
declare(Mutant('vtd', 'IQA', 'DW', 1))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "it has been imported already" in done.stderr

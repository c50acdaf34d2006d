# SPDX-License-Identifier: Apache-2.0
"""The structures of a device as its driver lists them, from memory that holds anything at all."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.formats.memory import PAGE
from iommuctl.model import Rid
from iommuctl_vtd.legacy_tables import LegacyTables
from iommuctl_vtd.pasid_entry import PasidDirectoryEntry
from iommuctl_vtd.structures import STRUCTURES
from iommuctl_vtd.tables import Tables
from tests.machine import SparseMemory
from tests.vtd.handmade import CONTEXT, DIRECTORY_0, DIRECTORY_1, RID, ROOT, WORDS
from tests.vtd.test_hostile import PAGES, fill

SHAPE = ["vtd.scalable-root-entry", "vtd.scalable-context-entry", "vtd.pasid-directory-entry", "vtd.pasid-entry"]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32))
@pytest.mark.parametrize("kind", [Tables, LegacyTables])
def test_memory_that_holds_anything(kind: type[Tables | LegacyTables], seed: int) -> None:
    """Every structure that is listed is present and in memory, and there are no more than memory has room for."""
    random = Random(seed)
    memory = SparseMemory((0, PAGES * PAGE))
    fill(memory, random)
    found = list(kind(memory, 0).structures(Rid(0, random.randrange(256), random.randrange(32), 1)))
    assert len(found) <= 2 + PAGES * PAGE // 8 + PAGES * PAGE // 64
    for step, depth, _ in found:
        layout = STRUCTURES[step.structure]
        raw = layout.from_words(step.raw)
        assert layout.to_bytes(raw) == memory.read(step.address, layout.bits // 8)
        assert any(step.fields[name] for name in ("P", "LP", "UP") if name in step.fields)
        assert kind is LegacyTables or depth == SHAPE.index(step.structure)


def test_the_tables_of_the_other_tests() -> None:
    """Made by hand: more than one directory entry, PASIDs of all types."""
    memory = SparseMemory((0, 0x100_0000))
    memory.put(WORDS)
    found = list(Tables(memory, ROOT & -PAGE).structures(RID))
    assert [(placed.step.structure, placed.step.address) for placed in found[:3]] == list(
        zip(SHAPE, (ROOT, CONTEXT, DIRECTORY_0), strict=False)
    )
    assert [placed.pasids for placed in found[2:]] == [
        (0, 63), (0, 0), (64, 127), (0x41, 0x41), (0x42, 0x42), (0x43, 0x43), (0x44, 0x44)
    ]  # fmt: skip
    assert {placed.step.fields["PGTT"] for placed in found if placed.depth == 3} == {1, 2, 3, 4}


def test_a_table_that_two_entries_point_to_comes_once() -> None:
    memory = SparseMemory((0, 0x100_0000))
    memory.put(WORDS)
    before = list(Tables(memory, ROOT & -PAGE).structures(RID))
    pointer = PasidDirectoryEntry.encode(P=1, SMPTBLPTR=before[2].step.fields["SMPTBLPTR"])
    memory.put({DIRECTORY_1 + 8: pointer})
    after = list(Tables(memory, ROOT & -PAGE).structures(RID))
    assert [placed for placed in after if placed not in before] == [after[-1]]
    assert (after[-1].depth, after[-1].pasids) == (2, (128, 191))

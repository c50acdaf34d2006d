# SPDX-License-Identifier: Apache-2.0
"""What VT-d demands beyond its layouts: each check with a structure that meets it and one that does not."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.formats.bits import Layout
from iommuctl.formats.checks import problems
from iommuctl.inspect.decode import decode
from iommuctl_vtd.context_entry import ContextEntry, ScalableContextEntry
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.interrupt_remap import PostedIrte, RemappedIrte
from iommuctl_vtd.invalidation import (
    ContextCacheInvalidate,
    DeviceTlbInvalidate,
    IecInvalidate,
    IotlbInvalidate,
    PageGroupResponse,
    PasidCacheInvalidate,
    PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate,
)
from iommuctl_vtd.invalidation_registers import CCMD, IOTLBREG
from iommuctl_vtd.page_request import PageRequest
from iommuctl_vtd.pasid_entry import FIRST_STAGE, NESTED, PASS_THROUGH, SECOND_STAGE, PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.registers import RTADDR
from iommuctl_vtd.root_entry import RootEntry, ScalableRootEntry
from iommuctl_vtd.second_stage import SecondStageEntry
from iommuctl_vtd.structures import STRUCTURES
from tests.vtd.test_vectors import VECTORS

Fields = dict[str, int]
EVERY_PAGE = 0xFFFF_FFFF_FFFF_F000

# The structure, a good one, a bad one, and what is said of it.
CASES: list[tuple[type[Layout], Fields, Fields, str]] = [
    (ContextEntry, {"P": 1, "TT": 2, "AW": 2}, {"P": 1, "TT": 3, "AW": 2}, "TT is 0x3 but must be 0x0, 0x1 or 0x2"),
    (ContextEntry, {"P": 1, "AW": 3}, {"P": 1, "AW": 4}, "AW is 0x4 but must be 0x1, 0x2 or 0x3"),
    (
        ScalableContextEntry,
        {"P": 1, "PDTS": 1, "RID_PASID": 0x3FFF},
        {"P": 1, "PDTS": 1, "RID_PASID": 0x4000},
        "RID_PASID is 0x4000 but must be below 2**(PDTS + 13)",
    ),
    (
        PasidEntry,
        {"P": 1, "PGTT": PASS_THROUGH, "AW": 0, "FSPM": 3},
        {"P": 1, "PGTT": 5},
        "PGTT is 0x5 but must be 0x1, 0x2, 0x3 or 0x4",
    ),
    (PasidEntry, {"P": 1, "PGTT": FIRST_STAGE}, {"P": 1, "PGTT": 0}, "PGTT is 0x0 but must be 0x1, 0x2, 0x3 or 0x4"),
    (
        PasidEntry,
        {"P": 1, "PGTT": SECOND_STAGE, "AW": 1, "FSPM": 2},
        {"P": 1, "PGTT": SECOND_STAGE},
        "AW is 0x0 but must be 0x1, 0x2 or 0x3 where PGTT is 0x2 or 0x3",
    ),
    (
        PasidEntry,
        {"P": 1, "PGTT": NESTED, "AW": 3},
        {"P": 1, "PGTT": NESTED, "AW": 7},
        "AW is 0x7 but must be 0x1, 0x2 or 0x3 where PGTT is 0x2 or 0x3",
    ),
    (
        PasidEntry,
        {"P": 1, "PGTT": FIRST_STAGE, "FSPM": 1},
        {"P": 1, "PGTT": FIRST_STAGE, "FSPM": 2},
        "FSPM is 0x2 but must be 0x0 or 0x1 where PGTT is 0x1 or 0x3",
    ),
    (
        PasidEntry,
        {"P": 1, "PGTT": NESTED, "AW": 2, "FSPM": 0},
        {"P": 1, "PGTT": NESTED, "AW": 2, "FSPM": 3},
        "FSPM is 0x3 but must be 0x0 or 0x1 where PGTT is 0x1 or 0x3",
    ),
    (ContextCacheInvalidate, {"G": 1}, {"G": 0}, "G is 0x0 but must be 0x1, 0x2 or 0x3"),
    (ContextCacheInvalidate, {"G": 3, "SID": 8}, {"G": 2, "SID": 8}, "SID is 0x8 but counts only where G is 0x3"),
    (ContextCacheInvalidate, {"G": 3, "FM": 3}, {"G": 1, "FM": 3}, "FM is 0x3 but counts only where G is 0x3"),
    (IotlbInvalidate, {"G": 2, "DW": 1}, {"G": 0}, "G is 0x0 but must be 0x1, 0x2 or 0x3"),
    (IotlbInvalidate, {"G": 3, "AM": 9}, {"G": 2, "AM": 9}, "AM is 0x9 but counts only where G is 0x3"),
    (
        IotlbInvalidate,
        {"G": 3, "AM": 1, "ADDR": 0x2000},
        {"G": 3, "AM": 2, "ADDR": 0x2000},
        "ADDR is 0x2000 but should be a multiple of the 2**AM pages",
    ),
    (DeviceTlbInvalidate, {"ADDR": EVERY_PAGE}, {"ADDR": EVERY_PAGE, "S": 1}, "ADDR is 0xfffffffffffff000 but must "
     "have a zero bit where S is 0x1"),
    (IecInvalidate, {"G": 1, "IM": 2}, {"G": 0, "IM": 2}, "IM is 0x2 but counts only where G is 0x1"),
    (IecInvalidate, {"G": 1, "IIDX": 7}, {"G": 0, "IIDX": 7}, "IIDX is 0x7 but counts only where G is 0x1"),
    (PasidIotlbInvalidate, {"G": 2}, {"G": 1}, "G is 0x1 but must be 0x2 or 0x3"),
    (PasidIotlbInvalidate, {"G": 3, "AM": 9}, {"G": 2, "AM": 9}, "AM is 0x9 but counts only where G is 0x3"),
    (
        PasidIotlbInvalidate,
        {"G": 3, "AM": 63},
        {"G": 3, "AM": 1, "ADDR": 0x1000},
        "ADDR is 0x1000 but should be a multiple of the 2**AM pages",
    ),
    (PasidCacheInvalidate, {"G": 0}, {"G": 2}, "G is 0x2 but must be 0x0, 0x1 or 0x3"),
    (PasidCacheInvalidate, {"G": 1, "PASID": 5}, {"G": 3, "PASID": 5}, "PASID is 0x5 but counts only where G is 0x1"),
    (PasidDeviceTlbInvalidate, {"PASID": 5}, {"PASID": 5, "G": 1}, "PASID is 0x5 but counts only where G is 0x0"),
    (
        PasidDeviceTlbInvalidate,
        {"ADDR": EVERY_PAGE >> 1 & EVERY_PAGE, "S": 1},
        {"ADDR": EVERY_PAGE, "S": 1},
        "ADDR is 0xfffffffffffff000 but must have a zero bit where S is 0x1",
    ),
    (PageGroupResponse, {"RC": 15}, {"RC": 2}, "RC is 0x2 but must be 0x0, 0x1 or 0xf"),
    (PageGroupResponse, {"PP": 1, "PASID": 5}, {"PASID": 5}, "PASID is 0x5 but counts only where PP is 0x1"),
    (PageRequest, {"PP": 1, "PASID": 5}, {"PASID": 5}, "PASID is 0x5 but counts only where PP is 0x1"),
    (RemappedIrte, {"P": 1, "DLM": 7}, {"P": 1, "DLM": 3}, "DLM is 0x3 but must be 0x0, 0x1, 0x2, 0x4, 0x5 or 0x7"),
    (RemappedIrte, {"P": 1, "SVT": 2}, {"P": 1, "SVT": 3}, "SVT is 0x3 but must be 0x0, 0x1 or 0x2"),
    (RemappedIrte, {"P": 1, "SVT": 1, "SQ": 3}, {"P": 1, "SQ": 3}, "SQ is 0x3 but counts only where SVT is 0x1"),
    (PostedIrte, {"P": 1, "SVT": 1}, {"P": 1, "SVT": 3}, "SVT is 0x3 but must be 0x0, 0x1 or 0x2"),
    (PostedIrte, {"P": 1, "SVT": 1, "SQ": 1}, {"P": 1, "SVT": 2, "SQ": 1}, "SQ is 0x1 but counts only where SVT is "
     "0x1"),
    (RTADDR, {"TTM": 3}, {"TTM": 2}, "TTM is 0x2 but must be 0x0, 0x1 or 0x3"),
    (CCMD, {"CIRG": 0}, {"CIRG": 0, "ICC": 1}, "CIRG is 0x0 but must be 0x1, 0x2 or 0x3 where ICC is 0x1"),
    (IOTLBREG, {"IIRG": 1, "IVT": 1}, {"IVT": 1}, "IIRG is 0x0 but must be 0x1, 0x2 or 0x3 where IVT is 0x1"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "good", "bad", "sentence"), CASES)
def test_each_check(layout: type[Layout], good: Fields, bad: Fields, sentence: str) -> None:
    assert problems(layout, layout.encode(**good)) == []
    (problem,) = problems(layout, layout.encode(**bad))
    said, _, section = problem.rpartition(": VT-d 4.1 section ")
    assert said == sentence
    assert f"section {section}" in (layout.__doc__ or "")


def test_the_cases_have_every_check() -> None:
    declared = {
        (layout.name, check.field.name, check.demand) for layout in STRUCTURES.values() for check in layout.checks
    }
    tried = {(layout.name, *re.split(r" is 0x\w+ but ", sentence)) for layout, _, _, sentence in CASES}
    assert tried == declared


GOOD = {name: vector for name, vector in VECTORS.items() if name != "PASID, memory types"}
"""That one leaves AW away."""


@pytest.mark.parametrize(("layout", "fields", "words"), GOOD.values(), ids=GOOD)
def test_nothing_is_wrong_with_the_worked_examples(
    layout: type[Layout], fields: Fields, words: tuple[int, ...]
) -> None:
    assert problems(layout, layout.from_words(words)) == []


# What is not present

ONES = (1 << 64) - 1
ABSENT: list[tuple[type[Layout], int, int]] = [
    (RootEntry, 0, 1),
    (ScalableRootEntry, 0, 1),
    (ScalableRootEntry, 0, 1 << 64),
    (ContextEntry, 2, 1),
    (ScalableContextEntry, 2, 1),
    (PasidDirectoryEntry, 2, 1),
    (PasidEntry, 2, 1),
    (SecondStageEntry, 0, 1),
    (SecondStageEntry, 0, 2),
    (RemappedIrte, 2, 1),
    (PostedIrte, 2, 1),
]


@pytest.mark.parametrize(("layout", "looked_at", "present"), ABSENT)
def test_nothing_is_wrong_with_an_entry_that_is_not_present(layout: type[Layout], looked_at: int, present: int) -> None:
    others = {ScalableRootEntry: 1 | 1 << 64, SecondStageEntry: 3}.get(layout, 1)
    everything = (1 << layout.bits) - 1 & ~others
    assert problems(layout, everything | looked_at) == problems(layout, looked_at) == []
    assert problems(layout, everything | present) != []


def test_the_halves_of_a_root_entry_are_independent() -> None:
    upper, lower = (ScalableRootEntry.encode(**{name: 1}) for name in ("UP", "LP"))
    assert problems(ScalableRootEntry, lower | 0xFFE << 64) == problems(ScalableRootEntry, upper | 0xFFE) == []
    reserved = 0xFFE << 64 | 0xFFE
    assert problems(ScalableRootEntry, lower | reserved) == ["reserved bits 11:1 set: VT-d 4.1 section 9.2"]
    assert problems(ScalableRootEntry, upper | reserved) == ["reserved bits 75:65 set: VT-d 4.1 section 9.2"]


def test_an_absent_first_stage_entry_may_hold_anything() -> None:
    # It has no reserved bits of its own; which bits of ADDR are reserved depends on the level.
    assert problems(FirstStageEntry, ONES) == problems(FirstStageEntry, ONES & ~1) == []


# Any bits whatsoever

LAYOUTS = [other for layout in STRUCTURES.values() for other in dict.fromkeys([layout, *layout.revisions.values()])]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_bits_decode_and_their_problems_are_stable(layout: type[Layout], data: st.DataObject) -> None:
    """What hardware ignores and what it does not look at have no say."""
    raw = data.draw(st.integers(0, (1 << layout.bits) - 1))
    noise = data.draw(st.integers(0, (1 << layout.bits) - 1))
    found = decode(layout, raw)
    assert tuple(problems(layout, raw)) == found.problems
    assert problems(layout, raw ^ noise & layout.ignored) == list(found.problems)
    checked = layout.checked(raw)
    quiet = raw ^ noise & ~checked
    if layout.checked(quiet) == checked:
        assert problems(layout, quiet) == list(found.problems)
    assert all(re.search(r": VT-d 4\.1 section [\d.]+\d$", problem) for problem in found.problems)
    assert len(set(found.problems)) == len(found.problems)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_field_has_a_meaning(layout: type[Layout]) -> None:
    everything = decode(layout, (1 << layout.bits) - 1)
    unnamed = [field.name for field in everything.fields if not field.meaning and not layout.field(field.name).values]
    assert unnamed == []

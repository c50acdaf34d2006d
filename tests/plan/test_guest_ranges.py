# SPDX-License-Identifier: Apache-2.0
"""Ranges of page tables, against a model that has an entry for each page."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from iommuctl.plan.document import GuestMapping
from iommuctl.plan.guest_ranges import joined, together, way

PAGES = 24
Model = dict[int, tuple[int, str]]
"""What each page maps to, and how."""


def model(mappings: Iterable[GuestMapping]) -> Model:
    found: Model = {}
    for one in mappings:
        for page in range(one.size):
            assert one.iova + page not in found, "two ranges overlap"
            found[one.iova + page] = (one.gpa + page, one.prot)
    return found


@st.composite
def ranges(draw: st.DrawFn) -> list[GuestMapping]:
    """Ranges that do not overlap, in any order; many of them continue each other."""
    at, found = 0, []
    for gap, size in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=6)):
        gpa = draw(st.one_of(st.just(at + gap), st.integers(0, 3)))
        found.append(GuestMapping(at + gap, size, gpa, draw(st.sampled_from(("rw", "rw", "r")))))
        at += gap + size
    return draw(st.permutations(found))


@given(ranges())
def test_joined(mappings: list[GuestMapping]) -> None:
    found = joined(mappings)
    assert model(found) == model(mappings)
    assert list(found) == sorted(found)
    for before, after in pairwise(found):
        follows = (before.iova + before.size, before.gpa + before.size, before.prot)
        assert follows != (after.iova, after.gpa, after.prot)
    assert joined(reversed(found)) == found


@given(ranges(), ranges())
def test_together(wanted: list[GuestMapping], kept: list[GuestMapping]) -> None:
    assert model(together(wanted, kept)) == model(kept) | model(wanted)
    assert joined(together(wanted, kept)) == together(wanted, kept)


@given(ranges(), ranges())
def test_way(pages: list[GuestMapping], wanted: list[GuestMapping]) -> None:
    """Each of `pages` is a page, some of them larger than a change of them."""
    found = way(pages, wanted)
    now, target = model(pages), model(wanted)
    unmapped = model(found.unmap)
    for page in pages:
        own = model([page])
        stays = all(target.get(at) == entry for at, entry in own.items())
        for at, entry in own.items():
            assert unmapped.get(at) == (None if stays else entry)
    left = {at: entry for at, entry in now.items() if at not in unmapped}
    mapped = model(found.map)
    assert not left.keys() & mapped.keys()
    assert left | mapped == target
    assert list(found.unmap) == sorted(found.unmap)
    assert list(found.map) == sorted(found.map)


@given(ranges())
def test_where_nothing_changes_there_is_no_way_to_go(mappings: list[GuestMapping]) -> None:
    assert way(mappings, joined(mappings)) == ((), ())

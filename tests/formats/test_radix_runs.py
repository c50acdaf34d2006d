# SPDX-License-Identifier: Apache-2.0
"""Runs of entries and of pages, against loops that do the same one by one."""

import struct
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iommuctl.formats.memory import PAGE, Run
from iommuctl.formats.runs import page_runs, progression
from tests.formats.toy import pages_of

MAX = (1 << 64) - 1


def by_struct(first: int, step: int, count: int) -> bytes:
    return b"".join(struct.pack("<Q", first + number * step) for number in range(count))


@settings(deadline=None)
@given(first=st.integers(0, MAX), shift=st.integers(0, 55), count=st.integers(0, 1500))
@example(first=0, shift=12, count=0)
@example(first=0xA000_0000_00FF_F067, shift=12, count=33)
@example(first=MAX - (999 << 12), shift=12, count=1000)
def test_progression(first: int, shift: int, count: int) -> None:
    first = min(first, MAX - (max(count - 1, 0) << shift)) if count << shift <= MAX else first % PAGE
    count = min(count, (MAX - first >> shift) + 1)
    assert b"".join(progression(first, 1 << shift, count)) == by_struct(first, 1 << shift, count)


@pytest.mark.parametrize("shift", [12, 14, 16, 21, 25, 29, 30, 36, 39])
def test_progression_over_many_blocks(shift: int) -> None:
    """Carries go through several bytes, from a start that is no start of a block."""
    first = (1 << 48) - (9001 << shift) + 0xF61 if shift < 32 else (5 << shift) + 0xF61
    assert b"".join(progression(first, 1 << shift, 20_000)) == by_struct(first, 1 << shift, 20_000)


def test_progression_ends_with_the_last_word_that_there_is() -> None:
    """A block may reach beyond 64 bits where the progression does not."""
    for shift, count in ((55, 41), (48, 33_024)):
        first = (1 << 64) - (count << shift) + 7
        assert b"".join(progression(first, 1 << shift, count)) == by_struct(first, 1 << shift, count)


@given(st.lists(st.integers(0, 30)))
def test_page_runs(numbers: list[int]) -> None:
    runs = page_runs(number * PAGE for number in numbers)
    assert pages_of(runs) == sorted({number * PAGE for number in numbers})
    for run, following in pairwise(runs):
        assert run.address + run.pages * PAGE < following.address


def test_page_runs_join() -> None:
    assert page_runs([0x5000, 0x1000, 0x2000, 0x2000]) == [Run(0x1000, 2), Run(0x5000, 1)]

# SPDX-License-Identifier: Apache-2.0
"""STEs that STE.CONT says are the same, and that are not: IHI0070 G.b sections 3.20.2, 5.2 and 7.3.18."""

import pytest

from iommuctl.model import RequestKind
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.missing import missing
from iommuctl_smmuv3.register_bank import DEFAULTS
from tests.smmuv3.handmade import ONE, ONE_5, RW, STE_ONE, TWO, Ask, handmade, ste
from tests.smmuv3.machine import Machine, Words, idr0_with, slot, structures
from tests.smmuv3.test_missing import stale

CFG_CONFLICT = "F_CFG_CONFLICT"
REC_CFG_ATS = 1 << 3
CONT = 77 - 64


def spanned(cont: int, **options: int) -> Machine:
    """The STE of ONE, stream 8, is the first of 2**cont; streams 9 and 10 have others, and 15 is none."""
    return handmade({ste(ONE) + 8: STE_ONE[1] | cont << CONT}, **options)


@pytest.mark.parametrize(
    ("cont", "cached", "conflicts"),
    [
        (0, 9, False),
        (1, 9, True),
        (1, 10, False),
        (2, 10, True),
        (2, 12, False),
        (3, 14, True),
        (3, 16, False),
        (4, 0, True),
        (15, 31, True),
    ],
)
def test_conflicts_in_the_cache_of_stes(cont: int, cached: int, conflicts: bool) -> None:
    """The span is 2**CONT streams, aligned; of those in it that are cached, one is not the same."""
    for where, low in ((ONE, 0x21), (ONE_5, 0x5821)):
        machine = spanned(cont)
        machine.goes(slot(cached), 0x30000)
        machine.records()
        for _ in range(2):
            assert (machine.goes(where, RW) == CFG_CONFLICT) == conflicts
            assert machine.records() == ([(0x08_0000_0000 | low, 0, 0, 0)] if conflicts else [])
        assert machine.send((cached << 32 | 3, 1)) == 0
        assert machine.goes(where, RW) == 0x30000


def test_stes_that_are_the_same_but_for_cont() -> None:
    machine = spanned(1)
    machine.memory.put(structures((*STE_ONE, 0), ste(slot(9))))
    assert machine.goes(slot(9), RW) == 0x30000
    assert machine.goes(ONE, RW) == 0x30000
    # Bits that are software's own do not count.
    machine = spanned(1)
    machine.memory.put(structures((STE_ONE[0], STE_ONE[1] | 15 << 20, STE_ONE[2], 0), ste(slot(9))))
    assert machine.goes(slot(9), RW) == 0x30000
    assert machine.goes(ONE, RW) == 0x30000


def test_an_ste_that_conflicts_is_not_kept() -> None:
    machine = spanned(1)
    assert machine.goes(TWO, 0x30000) == 0x98000
    assert machine.goes(ONE, RW) == CFG_CONFLICT
    assert machine.unit.caches()["ste"] == 1
    # Nor does the other one suffer.
    assert machine.goes(TWO, 0x30000) == 0x98000
    machine.memory.put({ste(ONE) + 8: STE_ONE[1]})
    assert machine.goes(ONE, RW) == 0x30000


@pytest.mark.parametrize(("cr2", "records"), [(0, []), (REC_CFG_ATS, [(0x08_0000_0021, 0, 0, 0)])])
@pytest.mark.parametrize("kind", ["translation", "translated"])
def test_requests_of_ats_that_meet_a_conflict(kind: RequestKind, cr2: int, records: list[Words]) -> None:
    machine = spanned(1, cr2=cr2, cr0=0x1D, idr0=idr0_with(ATSRECERR=1))
    machine.goes(TWO, 0x30000)
    assert Ask(ONE, RW, kind=kind).of(machine) == CFG_CONFLICT
    assert machine.records() == records


def test_what_is_missing_is_about_the_other_stream() -> None:
    """Its STE was made the same, and the unit not told."""
    machine = spanned(1)
    assert machine.goes(TWO, 0x30000) == 0x98000
    same = structures((STE_ONE[0], STE_ONE[1] | 1 << CONT, STE_ONE[2], 0), ste(TWO))
    machine.memory.put(same)
    found = stale(machine, ONE, RW)
    assert [entry.tag for entry in found] == [(9,)]
    features = Features.of(DEFAULTS)
    assert [*missing(ONE, found, features, stage_2_alone=False)] == [1 << 64 | 9 << 32 | 3]
    assert machine.send((9 << 32 | 3, 1)) == 0
    assert machine.goes(ONE, RW) == machine.goes(TWO, RW) == 0x30000

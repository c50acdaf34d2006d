# SPDX-License-Identifier: Apache-2.0
"""Several entries of the TLB for one address: IHI0070 G.b sections 3.20.1, 3.21.1 and 7.3.17.

Software changes tables as the architecture forbids. Each step is a change of words, a command, or a request with where
it goes: with BBML = 2 the one that the unit chooses, otherwise F_TLB_CONFLICT in its place.
"""

from typing import NamedTuple

import pytest

from iommuctl.model import Access, Slot
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.missing import missing
from iommuctl_smmuv3.register_bank import DEFAULTS
from tests.smmuv3.handmade import BOTH, I2, I3, IN_2M, L2, L3, ONE, ONE_5, RO, RW, TWO, Ask, handmade
from tests.smmuv3.machine import Machine, Words, idr0_with
from tests.smmuv3.test_missing import stale

CONFLICT = "F_TLB_CONFLICT"
TABLE, FREE = 0x28000, 0x29000
"""Pages for new tables."""
SPLIT = {TABLE + 8 * n: 0x20_0F47 + 0x1000 * n for n in range(3)}
"""Pages of the block at IN_2M, which all may write."""
NH_VA = 0x0012_0011_0000_0012
S2_BLOCK, S2_SPLIT = 0x20_0000, {FREE: 0x60_07FF, FREE + 8: 0x60_17FF}


def idr3_with(bbml: int) -> int:
    return DEFAULTS["IDR3"] & ~(3 << 11) | bbml << 11


class Go(NamedTuple):
    """A request. `conflict` is the record of F_TLB_CONFLICT where there is one."""

    slot: Slot
    iova: int
    access: Access
    pa: int
    conflict: Words | None = None


Step = dict[int, int] | Words | Go

SEQUENCES: dict[str, tuple[Step, ...]] = {
    # The block is read-only, so that a write finds the new page, and then there are both.
    "a block into pages": (
        {L2 + 8: 0x20_0FC5},
        Go(ONE, IN_2M, "r", 0x20_0000),
        SPLIT | {L2 + 8: TABLE | 3},
        Go(ONE, IN_2M + 0x10, "w", 0x20_0010),
        Go(ONE, IN_2M + 0x20, "r", 0x20_0020, (0x08_0000_0020, 0x208_0000_0000, IN_2M + 0x20, 0)),
        Go(ONE, IN_2M + 0x30, "w", 0x20_0030, (0x08_0000_0020, 0x200_0000_0000, IN_2M + 0x30, 0)),
        Go(ONE, IN_2M + 0x1000, "r", 0x20_1000),
        (NH_VA, IN_2M | 1),
        Go(ONE, IN_2M + 0x40, "r", 0x20_0040),
    ),
    # The command about the second page takes the table's descriptor, so that the third one comes of the block.
    "pages into a block": (
        SPLIT | {L2 + 8: TABLE | 3},
        Go(ONE, IN_2M, "r", 0x20_0000),
        {L2 + 8: 0x20_0F45},
        (NH_VA, IN_2M + 0x1000),
        Go(ONE, IN_2M + 0x2000, "x", 0x20_2000),
        Go(ONE, IN_2M + 0x1000, "r", 0x20_1000),
        Go(ONE, IN_2M, "x", 0x20_0000, (0x08_0000_0020, 0x20C_0000_0000, IN_2M, 0)),
        (0x30,),
        Go(ONE, IN_2M, "x", 0x20_0000),
    ),
    "a page that becomes global": (
        Go(ONE, RW, "r", 0x30000),
        {L3 + 8 * 4: 0x30747},
        Go(ONE_5, RW, "r", 0x30000),
        Go(ONE, RW, "r", 0x30000, (0x08_0000_0020, 0x208_0000_0000, RW, 0)),
        Go(ONE_5, RW, "r", 0x30000),
        # What is not global goes with its ASID.
        (0x0012_0011_0000_0011,),
        Go(ONE, RW, "r", 0x30000),
    ),
    "a block of stage 2 into pages": (
        {I2 + 8: 0x60_077D},
        Go(TWO, S2_BLOCK, "r", 0x60_0000),
        S2_SPLIT | {I2 + 8: FREE | 3},
        Go(TWO, S2_BLOCK + 0x10, "w", 0x60_0010),
        Go(TWO, S2_BLOCK + 0x123, "r", 0x60_0123, (0x09_0000_0020, 0x288_0000_0000, S2_BLOCK + 0x123, S2_BLOCK)),
        (0x2A_0000_002A, S2_BLOCK | 1),
        Go(TWO, S2_BLOCK + 0x123, "r", 0x60_0123),
    ),
    # A write to the page with the CD finds the new entry of stage 2, and the next fetch of the CD finds both.
    "of stage 2, met by the fetch of a CD": (
        {I2: 0x77D, L3 + 8 * 4: 0x3F47},
        Go(BOTH, RW, "r", 0x3000),
        {I2: 0x16003},
        Go(BOTH, RW, "w", 0x3000),
        (0x0A_0000_0006,),
        Go(BOTH, IN_2M, "r", 0x60_0000, (0x0A_0000_0020, 0x088_0000_0000, IN_2M, 0x3000)),
        (0x2B_0000_0028,),
        Go(BOTH, IN_2M, "r", 0x60_0000),
    ),
    # The same of the table that the command leaves to be read again.
    "of stage 2, met by the fetch of a table": (
        {I2: 0x77D, L3 + 8 * 4: 0x23F47, I3 + 8 * 0x31: 0x317FF},
        Go(BOTH, RW, "r", 0x23000),
        {I2: 0x16003},
        Go(BOTH, RW, "w", 0x23000),
        (0x2B_0000_0010,),
        Go(BOTH, RO, "r", 0x31000, (0x0A_0000_0020, 0x188_0000_0000, RO, 0x23000)),
        (0x2B_0000_0028,),
        Go(BOTH, RW, "r", 0x23000),
    ),
}  # fmt: skip


def play(machine: Machine, steps: tuple[Step, ...], *, conflicts: bool) -> int:
    """Returns how many conflicts there were."""
    met = 0
    for step in steps:
        if isinstance(step, Go):
            expected = CONFLICT if conflicts and step.conflict else step.pa
            assert machine.goes(*step[:3]) == expected, step
            assert machine.records() == ([step.conflict] if expected == CONFLICT else [])
            assert machine.reaches(*step[:3]) == step.pa
            met += expected == CONFLICT
        elif isinstance(step, dict):
            machine.memory.put(step)
        else:
            assert machine.send(step) == 0
    return met


@pytest.mark.parametrize("bbml", [0, 1, 2])
@pytest.mark.parametrize("name", SEQUENCES)
def test_conflicts_in_the_tlb(name: str, bbml: int) -> None:
    """With BBML = 2 the unit chooses; without, it says so, as often as it is asked."""
    met = play(handmade(idr3=idr3_with(bbml)), SEQUENCES[name], conflicts=bbml < 2)
    assert (met > 0) == (bbml < 2)


def test_a_conflict_takes_nothing_away() -> None:
    machine = handmade()
    play(machine, SEQUENCES["a block into pages"][:5], conflicts=True)
    before = machine.unit.caches()
    assert machine.goes(ONE, IN_2M) == CONFLICT
    assert machine.unit.caches() == before


@pytest.mark.parametrize(("recorded", "cr2", "atsrecerr"), [(True, 8, 1), (False, 0, 1), (False, 8, 0)])
def test_a_translation_request_that_meets_a_conflict(recorded: bool, cr2: int, atsrecerr: int) -> None:
    """It is aborted, and told of as configuration errors are: IHI0070 G.b section 3.9.1.2."""
    machine = handmade(cr2=cr2, idr0=idr0_with(ATSRECERR=atsrecerr))
    play(machine, SEQUENCES["a block into pages"][:4], conflicts=True)
    assert Ask(ONE, IN_2M, kind="translation").of(machine) == CONFLICT
    assert len(machine.records()) == recorded


def lacking(machine: Machine, where: Slot, iova: int, *, stage_2_alone: bool = False) -> list[Words]:
    """The commands that were left out, as the sanitizer tells."""
    features = Features.of(DEFAULTS)
    found = missing(where, stale(machine, where, iova), features, stage_2_alone=stage_2_alone)
    return [(raw & (1 << 64) - 1, raw >> 64) for raw in found]


MISSING: dict[str, tuple[int, list[Words]]] = {
    "a block into pages": (4, [(NH_VA, IN_2M | 1)]),
    # A table went, too.
    "pages into a block": (6, [(NH_VA, IN_2M)]),
    "a page that becomes global": (3, [(NH_VA, RW | 1)]),
    "a block of stage 2 into pages": (4, [(0x2A_0000_002A, S2_BLOCK | 1)]),
    "of stage 2, met by the fetch of a CD": (5, [(0x2B_0000_0028, 0)]),
}


@pytest.mark.parametrize("name", MISSING)
def test_the_invalidation_that_a_conflict_is_for_want_of(name: str) -> None:
    before, expected = MISSING[name]
    machine = handmade()
    play(machine, SEQUENCES[name][:before], conflicts=True)
    request = SEQUENCES[name][before]
    assert isinstance(request, Go)
    assert machine.goes(*request[:3]) == CONFLICT
    commands = lacking(machine, request.slot, request.iova & -4096, stage_2_alone=request.slot == TWO)
    assert commands == expected
    assert machine.send(*commands) == 0
    assert machine.goes(*request[:3]) == request.pa


# The contiguous hint and nT do away with conflicts.


def test_the_contiguous_hint_may_change() -> None:
    """Its entries are kept one by one."""
    for bbml in (1, 2):
        machine = handmade(idr3=idr3_with(bbml))
        pages = {L3 + 8 * n: 0x0010_0000_0003_0FC7 + 0x1000 * (n % 16) for n in range(16)}
        machine.memory.put(pages)
        assert machine.goes(ONE, RW) == 0x34000
        machine.memory.put({place: word & ~(1 << 52) & ~(1 << 7) for place, word in pages.items()})
        assert machine.goes(ONE, RW, "w") == 0x34000
        assert machine.goes(ONE, RW) == 0x34000


NT = 1 << 16


@pytest.mark.parametrize(("bbml", "kept"), [(0, 1), (1, 0), (2, 1)])
@pytest.mark.parametrize(
    ("where", "iova", "changes"),
    [
        (ONE, IN_2M, {L2 + 8: 0x20_0F45 | NT}),
        (TWO, S2_BLOCK, {I2 + 8: 0x60_07FD | NT}),
        (BOTH, IN_2M, {L2 + 8: 0x20_0F45 | NT}),
        (BOTH, IN_2M, {I2 + 8: 0x60_07FD | NT}),
    ],
)
def test_blocks_with_nt_are_not_kept(where: Slot, iova: int, changes: dict[int, int], bbml: int, kept: int) -> None:
    """On level 1; level 2 does not look at it, and on level 0 it is reserved."""
    machine = handmade(changes, idr3=idr3_with(bbml))
    own = machine.goes(where, iova)
    assert machine.reaches(where, iova) == own
    assert isinstance(own, int)
    entries = machine.unit.caches()["tlb"]
    assert machine.ask(where, iova).hit == bool(kept)
    # The tables and the CD have entries of stage 2 when nested.
    assert machine.unit.caches()["tlb"] == entries


def test_a_page_has_no_nt() -> None:
    """There, bit 16 is one of the address."""
    machine = handmade({L3 + 8 * 4: 0x31F47 | NT})
    assert machine.goes(ONE, RW) == 0x31000
    assert machine.ask(ONE, RW).hit


def test_a_block_is_changed_as_level_1_demands() -> None:
    """Both ways, as section 3.21.1.2 has them, with requests of both kinds all the time."""
    machine = handmade(SPLIT | {L2 + 8: 0x20_0F45})

    accesses: tuple[Access, ...] = ("r", "w")

    def asked() -> None:
        for offset in (0, 0x1000, 0x2000):
            for access in accesses:
                assert machine.goes(ONE, IN_2M + offset, access) == 0x20_0000 + offset

    asked()
    for word in (0x20_0F45 | NT, TABLE | 3, 0x20_0F45 | NT, 0x20_0F45):
        machine.memory.put({L2 + 8: word})
        asked()
        for page in range(512):
            assert machine.send((NH_VA, IN_2M + 0x1000 * page)) == 0
        asked()
    assert machine.records() == []


# What finding costs


def test_look_ups_are_few() -> None:
    """Of the sizes that there are alone: not of all ten, of the ASID and of all ASIDs, before each walk."""
    machine = handmade()
    counted: list[str] = []
    get = machine.rows.get

    def counting(kind: str, key: str) -> object:
        counted.append(kind)
        return get(kind, key)

    machine.rows.get = counting  # type: ignore[method-assign]
    costs = []
    for iova in (RW, RW, RO, IN_2M, IN_2M, RW):
        counted.clear()
        assert isinstance(machine.goes(ONE, iova), int)
        costs.append(sum(kind.startswith("smmuv3.tlb") for kind in counted))
    # The sizes, once more where an entry is put in, and an entry of each of them.
    assert costs == [2, 2, 3, 3, 3, 3]

# SPDX-License-Identifier: Apache-2.0
"""Live STEs and CDs: whatever the unit may see between two stores is the old one or the new one to it, or not valid."""

from collections.abc import Iterator
from itertools import chain, combinations, permutations

import pytest

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.update import plan, write_live
from tests.machine import SparseMemory

S1 = {"S1ContextPtr": 0x12345000, "S1CDMax": 8, "S1CIR": 1, "S1COR": 1, "S1CSH": 3, "S1Fmt": 1}
S2 = {
    "S2T0SZ": 16, "S2SL0": 2, "S2IR0": 1, "S2OR0": 1, "S2SH0": 3, "S2PS": 5, "S2AA64": 1, "S2PTW": 1, "S2R": 1,
    "S2TTB": 0x4000_0000, "SHCFG": 1,
}  # fmt: skip

STES = {
    "zero": 0,
    "abort": Ste.encode(V=1),
    "bypass": Ste.encode(V=1, Config=4, SHCFG=1),
    "s1": Ste.encode(V=1, Config=5, **S1, S1DSS=2, EATS=1),
    "s1 terminate": Ste.encode(V=1, Config=5, **S1, S1DSS=0, EATS=1),
    "s1 skip": Ste.encode(V=1, Config=5, **S1, S1DSS=1, EATS=1, SHCFG=1),
    "s1 elsewhere": Ste.encode(V=1, Config=5, **{**S1, "S1ContextPtr": 0x777000}, S1DSS=2, EATS=1),
    "s1 el2": Ste.encode(V=1, Config=5, **S1, S1DSS=2, EATS=1, STRW=2),
    "s2 vmid 0": Ste.encode(V=1, Config=6, **S2, EATS=1),
    "s2": Ste.encode(V=1, Config=6, **S2, S2VMID=7, EATS=1),
    "s2 other": Ste.encode(V=1, Config=6, **{**S2, "S2TTB": 0x5000_0000}, S2VMID=8, EATS=1),
    "nested skip": Ste.encode(V=1, Config=7, **S1, **S2, S1DSS=1, S2VMID=7, EATS=1),
    "nested": Ste.encode(V=1, Config=7, **S1, **S2, S1DSS=2, S2VMID=7, EATS=1),
}
LOWER = {"T0SZ": 16, "IR0": 1, "OR0": 1, "SH0": 3, "TTB0": 0x12340000}
UPPER = {"T1SZ": 16, "TG1": 2, "IR1": 1, "OR1": 1, "SH1": 3, "TTB1": 0x5670000}
REST = {"V": 1, "AA64": 1, "IPS": 5, "R": 1, "A": 1, "ASET": 1, "MAIR0": 0xF404FF44}
CDS = {
    "zero": 0,
    "lower": Cd.encode(**REST, **LOWER, EPD1=1, ASID=3),
    "lower, other asid": Cd.encode(**REST, **LOWER, EPD1=1, ASID=4),
    "lower, other table": Cd.encode(**REST, **{**LOWER, "TTB0": 0x777000}, EPD1=1, ASID=3),
    "both other": Cd.encode(**REST, **{**LOWER, "TTB0": 0x777000}, EPD1=1, ASID=4),
    "upper": Cd.encode(**REST, **UPPER, EPD0=1, ASID=3),
    "both": Cd.encode(**REST, **LOWER, **UPPER, ASID=3),
    "none": Cd.encode(**REST, EPD0=1, EPD1=1, ASID=3),
}


def meaning_of_ste(raw: int) -> tuple[object, ...]:
    """What an STE tells the unit: IHI0070 G.b section 5.2, field by field."""
    f = Ste.values(raw)
    if not f["V"]:
        return ("invalid",)
    if f["Config"] < 4:
        return ("abort",)
    told: list[object] = [f["Config"]]
    if f["Config"] & 1:
        told += [f[n] for n in ("S1Fmt", "S1ContextPtr", "S1CDMax", "S1DSS", "S1CIR", "S1COR", "S1CSH", "S1STALLD")]
        told += [f["S2VMID"], f["EATS"]]
    if f["Config"] == 5:
        told.append(f["STRW"])
    if f["Config"] & 2:
        told += [value for name, value in f.items() if name.startswith("S2")] + [f["EATS"]]
    if f["Config"] != 5 or f["S1DSS"] == 1:
        told.append(f["SHCFG"])
    return tuple(told)


def meaning_of_cd(raw: int) -> tuple[object, ...]:
    """What a CD tells the unit: section 5.4."""
    f = Cd.values(raw)
    if not f["V"]:
        return ("invalid",)
    gone = {n for n in LOWER if f["EPD0"]} | {n for n in UPPER if f["EPD1"]}
    return tuple(value for name, value in f.items() if name not in gone and name not in ("TG0",))


def seen(layout: type[Layout], one: int, other: int) -> Iterator[int]:
    """Every mixture of the words of two states: a unit reads the words in any order, and stores are seen in any."""
    first, second = layout.to_words(one), layout.to_words(other)
    differing = [number for number in range(len(first)) if first[number] != second[number]]
    for there in chain.from_iterable(combinations(differing, count) for count in range(len(differing) + 1)):
        yield layout.from_words(second[n] if n in there else first[n] for n in range(len(first)))


MEANINGS = {Ste: meaning_of_ste, Cd: meaning_of_cd}
CHANGES = [(Ste, STES, old, new) for old, new in permutations(STES, 2)] + [
    (Cd, CDS, old, new) for old, new in permutations(CDS, 2)
]


def words_in_conflict(layout: type[Layout], old: int, new: int) -> set[int]:
    """The words with a bit that differs and that both look at, found out bit by bit."""
    meaning = MEANINGS[layout]
    return {
        bit // 64
        for bit in range(layout.bits)
        if (old ^ new) >> bit & 1
        and all(meaning(entry) != meaning(entry ^ 1 << bit) for entry in (old, new))
    }  # fmt: skip


@pytest.mark.parametrize("layout", [Ste, Cd])
def test_whatever_the_unit_may_see(layout: type[Layout]) -> None:
    meaning = MEANINGS[layout]
    for kind, entries, old, new in CHANGES:
        if kind is not layout:
            continue
        before, after = entries[old], entries[new]
        allowed = {meaning(before), meaning(after)}
        broken = len(words_in_conflict(layout, before, after)) > 1
        met = set()
        last = before
        for step in plan(layout, before, after):
            met |= {meaning(state) for state in seen(layout, last, step)}
            last = step
        assert last == after, (old, new)
        assert met <= (allowed | {("invalid",)} if broken else allowed), (old, new)
        # Not valid in between, and nothing but where it has to be.
        assert (("invalid",) in met - allowed) == broken, (old, new)


@pytest.mark.parametrize(
    ("old", "new", "syncs"),
    [
        ("bypass", "abort", 2),
        ("s1", "abort", 2),
        ("s1", "bypass", 3),
        ("s1", "s1 skip", 1),
        ("s1 skip", "bypass", 2),
        ("s2", "abort", 2),
        ("s2", "bypass", 2),
        ("s1", "s2 vmid 0", 3),
        ("s1", "s2", 3),
        ("nested", "nested skip", 1),
        ("nested", "s2", 2),
    ],
)
def test_how_often_caches_are_told_of_an_ste(old: str, new: str, syncs: int) -> None:
    assert len(plan(Ste, STES[old], STES[new])) == syncs
    assert len(plan(Ste, STES[new], STES[old])) == syncs


@pytest.mark.parametrize(
    ("old", "new", "syncs"),
    [("zero", "lower", 2), ("lower", "lower, other asid", 1), ("lower", "both other", 3), ("lower", "upper", 3)],
)
def test_how_often_caches_are_told_of_a_cd(old: str, new: str, syncs: int) -> None:
    assert len(plan(Cd, CDS[old], CDS[new])) == syncs
    assert len(plan(Cd, CDS[new], CDS[old])) == syncs


def test_nothing_changes() -> None:
    assert plan(Ste, STES["nested"], STES["nested"]) == []


def test_bits_that_nobody_uses_go_at_once() -> None:
    left_over = STES["abort"] | STES["s1"] & ~Ste.Config.mask
    assert plan(Ste, left_over, STES["abort"]) == [STES["abort"]]


def test_stores() -> None:
    """The words that change and no others, one store each, and the caches are told after those of a step."""
    memory = SparseMemory((0, 0x1000))
    memory.write(0x40, Ste.to_bytes(STES["s1"]))
    memory.writes.clear()
    told: list[int] = []
    write_live(memory, Ste, 0x40, STES["s2"], lambda: told.append(len(memory.writes)))
    new = Ste.to_words(STES["s2"])
    expected = [(0, 0), (1, new[1]), (2, new[2]), (3, new[3]), (0, new[0])]
    assert memory.writes == [(0x40 + 8 * n, word.to_bytes(8, "little")) for n, word in expected]
    assert told == [1, 4, 5]
    assert memory.read(0x40, 64) == Ste.to_bytes(STES["s2"])

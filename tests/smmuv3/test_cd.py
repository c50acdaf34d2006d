# SPDX-License-Identifier: Apache-2.0
"""Every rule that makes a CD ILLEGAL: a structure that breaks it and nothing else, and its legal neighbour."""

from typing import Any

import pytest

from iommuctl.formats.checks import problems
from iommuctl_smmuv3.cd import Cd, illegal
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.ste import Ste
from tests.smmuv3.test_vectors import VECTORS
from tests.smmuv3.units import FEATURES, QEMU

Fields = dict[str, int]

EL1 = Ste.encode(V=1, Config=5)
EL2 = Ste.encode(V=1, Config=5, STRW=2)
NESTED = Ste.encode(V=1, Config=7, S2AA64=1)

CD: Fields = {"V": 1, "AA64": 1, "A": 1, "T0SZ": 25, "EPD1": 1, "IPS": 6, "TTB0": 0x1000}
WIDE: Fields = CD | {"EPD1": 0, "T1SZ": 25, "TG1": 2, "TTB1": 0x2000}

# What is legal below which STE, on which unit, what makes it ILLEGAL, of the CD or of the unit, and what is said then.
RULES: list[tuple[int, Fields, Fields, dict[str, Any], dict[str, Any], str]] = [
    (EL1, CD, {"V": 0}, {}, {}, "V is 0"),
    (EL1, CD | {"S": 1}, {}, {}, {"stall_model": 1}, "S is 1, but the unit cannot stall"),
    (EL1, CD | {"S": 1}, {"S": 0}, {"stall_model": 2}, {}, "S is 0, but the unit always stalls"),
    (EL1 | Ste.S1STALLD.mask, CD, {"S": 1}, {}, {}, "S is 1, but the STE's S1STALLD forbids it"),
    (EL1, CD | {"A": 0}, {}, {}, {"term_model": True}, "A is 0, but the unit always aborts"),
    (EL1, CD, {}, {}, {"aarch64": False}, "AA64 is 1, a format that the unit lacks"),
    (EL1, CD | {"AA64": 0}, {}, {}, {"aarch32": False}, "AA64 is 0, a format that the unit lacks"),
    (NESTED ^ Ste.S2AA64.mask, CD | {"AA64": 0}, {"AA64": 1}, {}, {}, "AA64 is 1, but the STE's S2AA64 is 0"),
    (EL1, CD | {"ENDI": 1}, {}, {}, {"ttendian": 2}, "ENDI is 1, which the unit cannot read"),
    (EL1, CD | {"ENDI": 0}, {}, {}, {"ttendian": 3}, "ENDI is 0, which the unit cannot read"),
    (EL1, CD | {"HA": 1}, {}, {"httu": 1}, {"httu": 0}, "HA is 1, but the unit does not update such tables"),
    (EL1, CD | {"HA": 1, "HD": 1}, {}, {"httu": 2}, {"httu": 1}, "HD is 1, but the unit does not update such tables"),
    (EL1, CD | {"HD": 0}, {"HD": 1}, {"httu": 0}, {}, "HD is 1, but the unit does not update such tables"),
    (EL1, CD | {"HA": 1, "HAFT": 1}, {"HA": 0}, {}, {}, "HAFT is 1, but HA is 0"),
    (EL1, CD | {"HAFT": 1}, {}, {"httu": 2}, {"httu": 3}, "HAFT is 1, but HA is 0"),
    (EL1, CD | {"ASID": 0xFF}, {"ASID": 0x100}, {"asid16": False}, {}, "ASID has more than 8 bits"),
    (NESTED, CD | {"ASID": 0x100}, {}, {}, {"asid16": False}, "ASID has more than 8 bits"),
    # The lower table.
    (EL1, CD, {"TG0": 3}, {}, {}, "TG0 is 0x3, a granule that the unit lacks"),
    (EL1, CD, {}, {}, {"granules": (1 << 14, 1 << 16)}, "TG0 is 0x0, a granule that the unit lacks"),
    (EL1, CD | {"TG0": 1}, {}, {}, {"granules": (1 << 12, 1 << 14)}, "TG0 is 0x1, a granule that the unit lacks"),
    (EL1, CD | {"T0SZ": 39}, {"T0SZ": 40}, {"stt": False}, {}, "T0SZ is 40, not one of 16 to 39"),
    (EL1, CD | {"T0SZ": 48}, {"T0SZ": 49}, {}, {}, "T0SZ is 49, not one of 16 to 48"),
    (EL1, CD | {"T0SZ": 47, "TG0": 1}, {"T0SZ": 48}, {}, {}, "T0SZ is 48, not one of 12 to 47"),
    (EL1, CD | {"T0SZ": 16}, {"T0SZ": 15}, {}, {}, "T0SZ is 15, not one of 16 to 48"),
    (EL1, CD | {"T0SZ": 12, "DS": 1}, {"T0SZ": 11}, {}, {}, "T0SZ is 11, not one of 12 to 48"),
    (EL1, CD | {"T0SZ": 12, "DS": 1}, {}, {}, {"ds": False}, "T0SZ is 12, not one of 16 to 48"),
    (EL1, CD | {"T0SZ": 12, "TG0": 1}, {}, {}, {"vax": 48}, "T0SZ is 12, not one of 16 to 47"),
    (EL1, CD | {"IPS": 4, "TTB0": 1 << 43}, {"TTB0": 1 << 44}, {}, {}, "TTB0 has more than 44 bits"),
    (EL1, CD | {"TTB0": 1 << 44}, {}, {}, {"oas": 44}, "TTB0 has more than 44 bits"),
    (EL1, CD | {"TTB0": 1 << 48, "DS": 1}, {"DS": 0}, {}, {}, "TTB0 has more than 48 bits"),
    (EL1, CD | {"TTB0": 1 << 48, "TG0": 1}, {"TG0": 2}, {}, {}, "TTB0 has more than 48 bits"),
    # The upper table.
    (EL1, WIDE, {"TG1": 0}, {}, {}, "TG1 is 0x0, a granule that the unit lacks"),
    (EL1, WIDE | {"TG1": 1}, {}, {}, {"granules": (1 << 12, 1 << 16)}, "TG1 is 0x1, a granule that the unit lacks"),
    (EL1, WIDE | {"TG1": 3, "T1SZ": 12}, {"TG1": 2}, {}, {}, "T1SZ is 12, not one of 16 to 48"),
    (EL1, WIDE, {"T1SZ": 49}, {}, {}, "T1SZ is 49, not one of 16 to 48"),
    (EL1, WIDE | {"TG1": 3, "TTB1": 1 << 48}, {"TG1": 1}, {}, {}, "TTB1 has more than 48 bits"),
    (EL1, WIDE | {"EPD1": 1, "TTB1": 1 << 54}, {"EPD1": 0}, {}, {}, "TTB1 has more than 48 bits"),
    (EL1, WIDE | {"EPD0": 1, "TTB0": 1 << 54}, {"EPD0": 0}, {}, {}, "TTB0 has more than 48 bits"),
]


@pytest.mark.parametrize(("ste", "fields", "change", "unit", "other", "said"), RULES)
def test_rules(
    *, ste: int, fields: Fields, change: Fields, unit: dict[str, Any], other: dict[str, Any], said: str
) -> None:
    features = FEATURES._replace(**unit)
    assert illegal(Cd.encode(**fields), ste, features) == ""
    assert illegal(Cd.encode(**fields | change), ste, features._replace(**other)) == said


@pytest.mark.parametrize(
    ("fields", "unit", "el2", "e2h"),
    [
        (CD | {"ASID": 0x100}, {"asid16": False}, "", "ASID has more than 8 bits"),
        (WIDE | {"TG1": 0}, {}, "", "TG1 is 0x0, a granule that the unit lacks"),
        (CD | {"TG0": 3}, {}, *("TG0 is 0x3, a granule that the unit lacks",) * 2),
        (CD | {"AA64": 0}, {}, "", "AA64 is 0, but the StreamWorld is NS-EL2-E2H"),
    ],
)
def test_worlds_of_el2(fields: Fields, unit: dict[str, Any], el2: str, e2h: str) -> None:
    """EL2 has no ASIDs and one table, unless CR2.E2H says otherwise."""
    raw, features = Cd.encode(**fields), FEATURES._replace(**unit)
    assert illegal(raw, EL2, features) == el2
    assert illegal(raw, EL2, features, e2h=True) == e2h


@pytest.mark.parametrize("ste", [EL1, NESTED, NESTED | Ste.STRW.put(2)])
def test_e2h_is_about_el2_alone(ste: int) -> None:
    assert illegal(Cd.encode(**CD | {"AA64": 0}), ste, FEATURES, e2h=True) == ""


def test_without_el2_strw_does_not_count() -> None:
    features = FEATURES._replace(hyp=False, asid16=False)
    assert illegal(Cd.encode(**CD | {"ASID": 0x100}), EL2, features) == "ASID has more than 8 bits"


def test_what_the_other_format_does_not_have() -> None:
    """HA, HD and the sizes are of VMSAv8-64."""
    fields = WIDE | {"AA64": 0, "HA": 1, "HD": 1, "TG0": 3, "TG1": 0, "T0SZ": 0, "T1SZ": 0}
    assert illegal(Cd.encode(**fields), EL1, FEATURES._replace(httu=0)) == ""


def test_reserved_bits_do_not_count() -> None:
    assert illegal(Cd.encode(**WIDE) | Cd.reserved | Cd.ignored, EL1, FEATURES) == ""


def test_worked_examples() -> None:
    lower, both = (Cd.encode(**VECTORS[name][1]) for name in ("V11 CD, lower table", "V12 CD, both tables, stalls"))
    assert illegal(lower, EL1, FEATURES) == illegal(both, EL1, FEATURES) == ""
    qemu = Features.of(QEMU)
    assert illegal(lower, EL1, qemu) == ""
    assert illegal(both, EL1, qemu) == "S is 1, but the unit cannot stall"


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (CD | {"TG0": 2}, {"TG0": 3}, "TG0 is 0x3 but must be 0x0, 0x1 or 0x2 where EPD0 is 0x0"),
        (CD | {"SH0": 2}, {"SH0": 1}, "SH0 is 0x1 but must be 0x0, 0x2 or 0x3 where EPD0 is 0x0"),
        (WIDE | {"TG1": 1}, {"TG1": 0}, "TG1 is 0x0 but must be 0x1, 0x2 or 0x3 where EPD1 is 0x0"),
        (WIDE | {"SH1": 3}, {"SH1": 1}, "SH1 is 0x1 but must be 0x0, 0x2 or 0x3 where EPD1 is 0x0"),
    ],
)
def test_what_decoding_calls_out(good: Fields, bad: Fields, said: str) -> None:
    assert problems(Cd, Cd.encode(**good)) == []
    assert problems(Cd, Cd.encode(**good | bad)) == [f"{said}: IHI0070 G.b section 5.4"]
    off = {"EPD0": 1, "EPD1": 1}
    assert problems(Cd, Cd.encode(**good | bad | off)) == []


def test_a_cd_that_is_not_valid() -> None:
    assert problems(Cd, ((1 << 512) - 1) & ~Cd.V.mask) == []

# SPDX-License-Identifier: Apache-2.0
"""Every rule that makes an STE ILLEGAL: a structure that breaks it and nothing else, and its legal neighbour."""

from typing import Any

import pytest

from iommuctl.formats.checks import problems
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.ste import Ste, cd_table_size, illegal
from tests.smmuv3.test_vectors import VECTORS
from tests.smmuv3.units import FEATURES, QEMU

Fields = dict[str, int]

ONE: Fields = {"V": 1, "Config": 5, "S1ContextPtr": 0x1000}
TWO: Fields = {"V": 1, "Config": 6, "S2AA64": 1, "S2T0SZ": 20, "S2SL0": 2, "S2PS": 6, "S2TTB": 0x1000}
BOTH: Fields = ONE | TWO | {"Config": 7}
SMALL: Fields = {"S2T0SZ": 39, "S2SL0": 0}

# What is legal, on which unit, what makes it ILLEGAL (of the STE or of the unit), and what is said then.
RULES: list[tuple[Fields, Fields, dict[str, Any], dict[str, Any], str]] = [
    (ONE, {"V": 0}, {}, {}, "V is 0"),
    (ONE, {}, {}, {"s1p": False}, "Config has stage 1, which the unit lacks"),
    (BOTH, {}, {}, {"s1p": False}, "Config has stage 1, which the unit lacks"),
    (TWO, {}, {}, {"s2p": False}, "Config has stage 2, which the unit lacks"),
    (BOTH, {}, {}, {"s2p": False}, "Config has stage 2, which the unit lacks"),
    (ONE | {"S1CDMax": 8}, {"S1CDMax": 9}, {"ssid_bits": 8}, {}, "S1CDMax is 9, but SubstreamIDs have 8 bits"),
    *(
        (
            ONE | {"S1CDMax": 8, "S1Fmt": code}, {}, {}, {"cd2l": False},
            "S1Fmt is a two-level table, which the unit lacks",
        )
        for code in (1, 2)
    ),
    (
        ONE | {"S1ContextPtr": (1 << 44) - 64},
        {"S1ContextPtr": 1 << 44},
        {"oas": 44},
        {},
        "S1ContextPtr has more than 44 bits",
    ),
    (ONE | {"STRW": 2}, {"STRW": 1}, {}, {}, "STRW is 0x1, which is reserved"),
    (ONE | {"STRW": 2}, {"STRW": 3}, {}, {}, "STRW is 0x3, which is reserved"),
    (ONE | {"S1STALLD": 1}, {}, {}, {"stall_model": 1}, "S1STALLD is 1, but STALL_MODEL leaves no choice"),
    (ONE | {"S1STALLD": 1}, {}, {}, {"stall_model": 2}, "S1STALLD is 1, but STALL_MODEL leaves no choice"),
    (ONE | {"S2VMID": 0x100}, {}, {}, {"vmid16": False}, "S2VMID has more than 8 bits"),
    (ONE | {"STRW": 2, "S2VMID": 0x100}, {}, {"vmid16": False}, {"hyp": False}, "S2VMID has more than 8 bits"),
    (TWO | {"S2VMID": 0xFF}, {"S2VMID": 0x100}, {"vmid16": False}, {}, "S2VMID has more than 8 bits"),
    (BOTH | {"STRW": 2, "S2VMID": 0x100}, {}, {}, {"vmid16": False}, "S2VMID has more than 8 bits"),
    (BOTH | {"EATS": 1}, {"S2S": 1}, {}, {}, "EATS is not 0, but S2S is 1"),
    (BOTH | {"EATS": 2}, {"S2S": 1}, {}, {}, "EATS is not 0, but S2S is 1"),
    (TWO | {"EATS": 3}, {"S2S": 1}, {}, {}, "EATS is not 0, but S2S is 1"),
    (TWO | {"EATS": 3, "S2S": 1}, {}, {"dpt": False}, {"dpt": True}, "EATS is not 0, but S2S is 1"),
    (BOTH | {"EATS": 2}, {}, {}, {"split_ats": False}, "EATS is split-stage ATS, which the unit lacks"),
    *(
        (base | {"EATS": 1}, {"EATS": 2}, {}, {}, "EATS is split-stage ATS, but Config has not both stages")
        for base in (ONE, TWO)
    ),
    (TWO | {"S2S": 1}, {}, {}, {"stall_model": 1}, "S2S is 1, but the unit cannot stall"),
    (TWO | {"S2S": 1}, {"S2S": 0}, {"stall_model": 2}, {}, "S2S is 0, but the unit always stalls"),
    (TWO, {}, {}, {"aarch64": False}, "S2AA64 is 1, a format that the unit lacks"),
    (TWO | {"S2AA64": 0}, {}, {}, {"aarch32": False}, "S2AA64 is 0, a format that the unit lacks"),
    (TWO | {"S2ENDI": 1}, {}, {}, {"ttendian": 2}, "S2ENDI is 1, which the unit cannot read"),
    (TWO | {"S2ENDI": 0}, {}, {}, {"ttendian": 3}, "S2ENDI is 0, which the unit cannot read"),
    (TWO, {"S2TG": 3}, {}, {}, "S2TG is 0x3, a granule that the unit lacks"),
    (TWO, {}, {}, {"granules": (1 << 14, 1 << 16)}, "S2TG is 0x0, a granule that the unit lacks"),
    (
        TWO | {"S2TG": 1, "S2SL0": 2, "S2T0SZ": 16},
        {},
        {},
        {"granules": (1 << 12, 1 << 14)},
        "S2TG is 0x1, a granule that the unit lacks",
    ),
    (TWO | SMALL, {"S2T0SZ": 40}, {"stt": False}, {}, "S2T0SZ is 40, not one of 16 to 39"),
    (TWO | SMALL | {"S2T0SZ": 40}, {}, {}, {"stt": False}, "S2T0SZ is 40, not one of 16 to 39"),
    (TWO | {"S2T0SZ": 48, "S2SL0": 3}, {"S2T0SZ": 49}, {}, {}, "S2T0SZ is 49, not one of 16 to 48"),
    (TWO | {"S2TG": 1, "S2T0SZ": 47, "S2SL0": 0}, {"S2T0SZ": 48}, {}, {}, "S2T0SZ is 48, not one of 12 to 47"),
    (TWO | {"S2T0SZ": 16}, {"S2T0SZ": 15}, {}, {}, "S2T0SZ is 15, not one of 16 to 48"),
    (TWO | {"S2T0SZ": 15, "S2DS": 1}, {}, {}, {"ds": False}, "S2T0SZ is 15, not one of 16 to 48"),
    (
        TWO | {"S2T0SZ": 20, "S2PS": 4},
        {"S2T0SZ": 19},
        {"oas": 44, "aarch32": False},
        {},
        "S2T0SZ is 19, not one of 20 to 48",
    ),
    (TWO | {"S2TG": 1, "S2T0SZ": 20}, {"S2SL0": 3}, {}, {}, "S2SL0 is reserved"),
    (
        TWO | {"S2DS": 1, "S2SL0_2": 1, "S2SL0": 0, "S2T0SZ": 12},
        {"S2SL0": 1},
        {},
        {},
        "S2SL0 is reserved",
    ),
    (TWO | {"S2T0SZ": 24}, {"S2T0SZ": 25}, {}, {}, "S2SL0 begins at level 0, which does not go with S2T0SZ 25"),
    (
        TWO | {"S2T0SZ": 21, "S2SL0": 1},
        {"S2T0SZ": 20},
        {},
        {},
        "S2SL0 begins at level 1, which does not go with S2T0SZ 20",
    ),
    (TWO | {"S2PS": 4}, {"S2TTB": 1 << 44}, {}, {}, "S2TTB has more than 44 bits"),
    (TWO | {"S2TTB": 1 << 44}, {}, {}, {"oas": 44}, "S2TTB has more than 44 bits"),
    (TWO | {"S2TTB": 1 << 47}, {"S2TTB": 1 << 48}, {}, {}, "S2TTB has more than 48 bits"),
    (TWO | {"S2TTB": 1 << 48, "S2DS": 1}, {"S2DS": 0}, {}, {}, "S2TTB has more than 48 bits"),
    (TWO | {"S2AA64": 0, "S2TTB": 1 << 39}, {"S2TTB": 1 << 40}, {}, {}, "S2TTB has more than 40 bits"),
    (TWO | {"S2HA": 1}, {}, {"httu": 1}, {"httu": 0}, "S2HA is 1, but the unit does not update such tables"),
    (
        TWO | {"S2HA": 1, "S2HD": 1},
        {},
        {"httu": 2},
        {"httu": 1},
        "S2HD is 1, but the unit does not update such tables",
    ),
    (TWO | {"S2HA": 1}, {"S2AA64": 0}, {}, {}, "S2HA is 1, but the unit does not update such tables"),
    (TWO | {"S2HA": 1, "S2HAFT": 1}, {"S2HA": 0}, {}, {}, "S2HAFT is 1, but S2HA is 0"),
    (TWO | {"S2HAFT": 1}, {}, {"httu": 2}, {"httu": 3}, "S2HAFT is 1, but S2HA is 0"),
    (TWO | {"S2FWB": 1}, {"S2AA64": 0}, {}, {}, "S2FWB is 1, but S2AA64 is 0"),
    (TWO | {"S2FWB": 1, "S2AA64": 0}, {}, {"fwb": False}, {"fwb": True}, "S2FWB is 1, but S2AA64 is 0"),
    (TWO | {"S2PIE": 1}, {"S2AA64": 0}, {}, {}, "S2PIE is 1, but S2AA64 is 0"),
    (TWO | {"S2PIE": 1, "S2AA64": 0}, {}, {"s2pi": False}, {"s2pi": True}, "S2PIE is 1, but S2AA64 is 0"),
    (TWO | {"S2PIE": 1, "S2POE": 1}, {"S2PIE": 0}, {}, {}, "S2POE is 1, but S2PIE is 0"),
    (TWO | {"S2POE": 1}, {}, {"s2po": False}, {"s2po": True}, "S2POE is 1, but S2PIE is 0"),
    *(
        (
            TWO | {"S2PIE": 1, "S2POE": 1},
            {f"S2HWU{bit}": 1},
            {},
            {},
            "S2POE is 1, but S2HWU takes bits of the overlay's index",
        )
        for bit in (59, 60, 61, 62)
    ),
    (TWO | {"S2PIE": 1, "S2POE": 1, "S2POI": 0x2}, {"S2POI": 0x1}, {}, {}, "S2POI0 is reserved"),
    (TWO | {"S2PIE": 1, "S2POE": 1, "S2POI": 0x4 << 60}, {"S2POI": 0x5 << 60}, {}, {}, "S2POI15 is reserved"),
    (
        BOTH | {"S1MPAM": 1, "VMSPtr": 1 << 43},
        {"VMSPtr": 1 << 44},
        {"oas": 44, "ds": False},
        {},
        "VMSPtr has more than 44 bits",
    ),
    (BOTH | {"VMSPtr": 1 << 52}, {"S1MPAM": 1}, {}, {}, "VMSPtr has more than 52 bits"),
    (
        BOTH | {"S1MPAM": 1, "VMSPtr": 1 << 52},
        {},
        {"vms": False},
        {"vms": True},
        "VMSPtr has more than 52 bits",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "change", "unit", "other", "said"), RULES)
def test_rules(fields: Fields, change: Fields, unit: dict[str, Any], other: dict[str, Any], said: str) -> None:
    features = FEATURES._replace(**unit)
    assert illegal(Ste.encode(**fields), features) == ""
    assert illegal(Ste.encode(**fields | change), features._replace(**other)) == said


STAGE_2_JUNK = {"S2T0SZ": 63, "S2TG": 3, "S2TTB": 1 << 55, "S2POE": 1, "S2S": 1, "S2HAFT": 1, "S2FWB": 1}
STAGE_1_JUNK = {"S1CDMax": 31, "S1Fmt": 2, "S1ContextPtr": 1 << 55, "STRW": 1, "S1STALLD": 1}


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        (ONE | STAGE_2_JUNK, {"stall_model": 1}),
        (TWO | STAGE_1_JUNK | {"S2S": 1}, {"stall_model": 2}),
        ({"V": 1, "Config": 4} | STAGE_1_JUNK | STAGE_2_JUNK | {"S2VMID": 0x100, "EATS": 2}, {"vmid16": False}),
        *(({"V": 1, "Config": code} | STAGE_1_JUNK | STAGE_2_JUNK, {"s1p": False, "s2p": False}) for code in range(4)),
        ({"V": 1, "Config": 4, "S2VMID": 0x100}, {"vmid16": False}),
        (TWO, {"s1p": False}),
        (ONE, {"s2p": False}),
        (TWO, {"stall_model": 1}),
        (TWO | {"S2AA64": 0, "S2TG": 3}, {}),
        (TWO | {"S2AA64": 0, "S2T0SZ": 0}, {}),
        (TWO | {"S1MPAM": 1, "VMSPtr": 1 << 52}, {}),
        (ONE | {"EATS": 1, "S2S": 1}, {}),
        (ONE | {"STRW": 1}, {"hyp": False}),
        (BOTH | {"STRW": 1}, {}),
        (BOTH | {"S1ContextPtr": 1 << 52}, {}),
        (ONE | {"S1Fmt": 2}, {"cd2l": False}),
        (ONE | {"S1CDMax": 1, "S1Fmt": 3}, {"cd2l": False}),
        (ONE | {"STRW": 2, "S2VMID": 0x100}, {"vmid16": False}),
        (ONE | {"S2VMID": 0x100}, {"vmid16": False, "s2p": False}),
        (TWO | {"EATS": 2}, {"ats": False}),
    ],
)
def test_what_does_not_count(fields: Fields, unit: dict[str, Any]) -> None:
    """Fields of a stage that Config does not have, and of features that the unit lacks."""
    assert illegal(Ste.encode(**fields), FEATURES._replace(**unit)) == ""


def test_reserved_bits_do_not_count() -> None:
    assert illegal(Ste.encode(**TWO) | Ste.reserved | Ste.ignored, FEATURES) == ""


def test_worked_examples() -> None:
    for name, (layout, fields, _) in VECTORS.items():
        if layout is Ste:
            assert illegal(Ste.encode(**fields), FEATURES) == "", name
    qemu = Features.of(QEMU)
    assert illegal(Ste.encode(**VECTORS["V3 STE, stage 1, one CD"][1]), qemu) == ""
    said = "S1CDMax is 20, but SubstreamIDs have 0 bits"
    assert illegal(Ste.encode(**VECTORS["V4 STE, stage 1, CD table of two levels"][1]), qemu) == said


@pytest.mark.parametrize(
    ("s1fmt", "s1cdmax", "size"),
    [
        (0, 0, 64),
        (2, 0, 64),
        (0, 5, 2048),
        (3, 5, 2048),
        (1, 6, 64),
        (1, 9, 64),
        (1, 10, 128),
        (2, 13, 64),
        (2, 20, 8192),
    ],
)
def test_what_the_context_pointer_points_to(s1fmt: int, s1cdmax: int, size: int) -> None:
    assert cd_table_size(s1fmt, s1cdmax) == size


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (ONE | {"S1Fmt": 2}, {"S1Fmt": 3}, "S1Fmt is 0x3 but must be 0x0, 0x1 or 0x2 where Config is 0x5 or 0x7"),
        (
            ONE | {"S1CDMax": 6},
            {"S1ContextPtr": 0x1040},
            "S1ContextPtr is 0x1040 but should be a multiple of the size of what it points to",
        ),
        (BOTH | {"S1DSS": 2}, {"S1DSS": 3}, "S1DSS is 0x3 but must be 0x0, 0x1 or 0x2 where Config is 0x5 or 0x7"),
        (ONE | {"S1CSH": 2}, {"S1CSH": 1}, "S1CSH is 0x1 but must be 0x0, 0x2 or 0x3 where Config is 0x5 or 0x7"),
        (ONE | {"STRW": 2}, {"STRW": 1}, "STRW is 0x1 but must be 0x0 or 0x2 where Config is 0x5"),
        (TWO | {"S2SH0": 3}, {"S2SH0": 1}, "S2SH0 is 0x1 but must be 0x0, 0x2 or 0x3 where Config is 0x6 or 0x7"),
        (BOTH | {"S2TG": 2}, {"S2TG": 3}, "S2TG is 0x3 but must be 0x0, 0x1 or 0x2 where Config is 0x6 or 0x7"),
    ],
)
def test_what_decoding_calls_out(good: Fields, bad: Fields, said: str) -> None:
    assert problems(Ste, Ste.encode(**good)) == []
    assert problems(Ste, Ste.encode(**good | bad)) == [f"{said}: IHI0070 G.b section 5.2"]


def test_bits_that_hardware_does_not_look_at() -> None:
    """All of an STE that is not valid, and all but the first four of one that aborts."""
    everything = (1 << 512) - 1
    assert problems(Ste, everything & ~1) == []
    assert Ste.checked(0) == Ste.checked(everything & ~1) == 0
    assert problems(Ste, everything & ~0xE) == []
    assert problems(Ste, 9 | Ste.reserved) == [
        "reserved bits 447, 444:440, 387, 383:376, 301:296, 255, 252:248, 107:105, 58:56 set: IHI0070 G.b section 5.2"
    ]

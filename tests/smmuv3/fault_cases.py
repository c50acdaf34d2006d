# SPDX-License-Identifier: Apache-2.0
"""Every event that a request can cause, by one small change to good tables, and its record as literal words."""

from typing import NamedTuple

from iommuctl_smmuv3.register_bank import DEFAULTS
from tests.smmuv3.handmade import (
    ABSENT,
    BASE,
    BOTH,
    BOTH_5,
    CD_0,
    CD_5,
    HYP,
    I0,
    I1,
    I3,
    L0,
    L1,
    L2,
    L3,
    NOWHERE,
    OLD,
    ONE,
    ONE_5,
    PRIV,
    RO,
    RW,
    STE_BOTH,
    THROUGH,
    TWO,
    UNUSED,
    WORDS,
    WRITE_ONLY,
    Ask,
    handmade,
    ste,
)
from tests.smmuv3.machine import Machine, Words, slot

READ_5 = Ask(ONE_5)
READ, WRITE = Ask(ONE), Ask(ONE, access="w")
N_READ, N_WRITE = Ask(BOTH), Ask(BOTH, access="w")
T_READ = Ask(TWO, 0x30123)
RECINVSID, REC_CFG_ATS = 1 << 1, 1 << 3
RW4 = 8 * 4
S1_READ, S1_WRITE, S1_FETCH = 0x208_0000_0000, 0x200_0000_0000, 0x20C_0000_0000
"""Second words: CLASS IN, with RnW and InD."""
S2_READ, S2_WRITE = 0x288_0000_0000, 0x280_0000_0000
S2_TABLE_READ, S2_TABLE_WRITE = 0x188_0000_0000, 0x180_0000_0000
"""CLASS TT; what is told of is the request, not the access to the table."""
S2_CD = 0x088_0000_0000
TTRNW = 0x1000_0000_0000


class Case(NamedTuple):
    """A request of good tables with some words changed, the name of its end, and its record."""

    name: str
    record: Words | None
    ask: Ask
    changes: dict[int, int]
    cr2: int = 0
    read_only: tuple[int, int] = (0, 0)
    options: dict[str, int] = {}  # noqa: RUF012 - of a NamedTuple


def with_bits(address: int, sets: int, clears: int = 0) -> dict[int, int]:
    """A word of the good tables with some bits changed."""
    return {address: WORDS.get(address, 0) & ~clears | sets}


AT = RW + 0x123
MPAM = {"idr3": DEFAULTS["IDR3"] | 1 << 7, "mpamidr": 63}
"""A unit with virtual machine structures."""
NO_VMS = with_bits(ste(BOTH) + 8, 1 << 26) | {ste(BOTH) + 40: NOWHERE >> 12 << 12}
"""S1MPAM, and VMSPtr."""
CASES: dict[str, Case] = {
    # Configuration.
    "beyond the table": Case("C_BAD_STREAMID", None, Ask(slot(32)), {}),
    "beyond the table, recorded": Case("C_BAD_STREAMID", (0x20_0000_0002, 0, 0, 0), Ask(slot(32)), {}, RECINVSID),
    "beyond the table, with PASID": Case(
        "C_BAD_STREAMID", (0xFFFF_0001_2802, 0, 0, 0), Ask(slot(0xFFFF, 0x12)), {}, RECINVSID
    ),
    "V is 0": Case("C_BAD_STE", (0x0E_0000_0004, 0, 0, 0), Ask(UNUSED), {}),
    "V is 0, with PASID": Case("C_BAD_STE", (0x0E_0000_7804, 0, 0, 0), Ask(slot(14, 7)), {}),
    "an STE that is illegal": Case("C_BAD_STE", (0x08_0000_0004, 0, 0, 0), READ, {ste(ONE): 0xA800_0000_0000_300B}),
    "abort": Case("ABORT", None, Ask(slot(12)), {}),
    "abort, with PASID": Case("ABORT", None, Ask(slot(12, 1)), {}),
    "abort, Config 3": Case("ABORT", None, READ, {ste(ONE): (1 << 64) - 1 - 8}),
    "stream disabled": Case("F_STREAM_DISABLED", (0x08_0000_0006, 0, 0, 0), READ, with_bits(ste(ONE) + 8, 0, 3)),
    "PASID 0 is taken": Case("F_STREAM_DISABLED", (0x08_0000_0006, 0, 0, 0), Ask(slot(8, 0)), {}),
    "PASID too large": Case("C_BAD_SUBSTREAMID", (0x08_0000_8008, 0, 0, 0), Ask(slot(8, 8)), {}),
    "PASID without stage 1": Case("C_BAD_SUBSTREAMID", (0x09_0000_5008, 0, 0, 0), Ask(slot(9, 5), 0x30000), {}),
    "PASID 0 without stage 1": Case("C_BAD_SUBSTREAMID", (0x09_0000_0008, 0, 0, 0), Ask(slot(9, 0), 0x30000), {}),
    "PASID in bypass": Case("C_BAD_SUBSTREAMID", (0x0B_FFFF_F008, 0, 0, 0), Ask(slot(11, 0xFFFFF)), {}),
    "PASID of one CD": Case("C_BAD_SUBSTREAMID", (0x08_0000_5008, 0, 0, 0), READ_5, {ste(ONE): 0x300B}),
    "level 1 descriptor of CDs not valid": Case(
        "C_BAD_SUBSTREAMID", (0x08_0004_1008, 0, 0, 0), Ask(slot(8, 0x41)), {ste(ONE): 0x6000_0000_0004_001B}
    ),
    "level 2 of CDs beyond the unit": Case(
        "C_BAD_SUBSTREAMID",
        (0x08_0004_1008, 0, 0, 0),
        Ask(slot(8, 0x41)),
        {ste(ONE): 0x6000_0000_0004_001B, 0x40008: 1 << 48 | 1},
    ),
    "no CD": Case(
        "F_CD_FETCH", (0x08_0000_5809, 0, 0, 0x80_0140), READ_5, {ste(ONE): 0x1800_0000_0080_000B}
    ),
    "no level 1 descriptor of CDs": Case(
        "F_CD_FETCH", (0x08_0004_1809, 0, 0, 0x80_0008), Ask(slot(8, 0x41)), {ste(ONE): 0x6000_0000_0080_001B}
    ),
    "CD not valid": Case("C_BAD_CD", (0x08_0000_000A, 0, 0, 0), READ, with_bits(CD_0, 0, 1 << 31)),
    "CD that is illegal": Case("C_BAD_CD", (0x08_0000_580A, 0, 0, 0), READ_5, with_bits(CD_5, 1 << 44)),
    # Stage 1.
    "table of stage 1 nowhere": Case(
        "F_WALK_EABT", (0x08_0000_000B, 0x108_0000_0000, AT, 0x80_0010), READ, {L0: NOWHERE | 3}
    ),
    "start table nowhere, written": Case(
        "F_WALK_EABT", (0x08_0000_000B, 0x100_0000_0000, AT, 0x80_0008), WRITE, {CD_0 + 8: NOWHERE}
    ),
    "not mapped": Case("F_TRANSLATION", (0x08_0000_0010, S1_READ, ABSENT, 0), Ask(ONE, ABSENT), {}),
    "not mapped, with PASID": Case("F_TRANSLATION", (0x08_0000_5810, S1_READ, ABSENT, 0), Ask(ONE_5, ABSENT), {}),
    "not mapped, written": Case("F_TRANSLATION", (0x08_0000_0010, S1_WRITE, ABSENT, 0), Ask(ONE, ABSENT, "w"), {}),
    "not mapped, executed": Case("F_TRANSLATION", (0x08_0000_0010, S1_FETCH, ABSENT, 0), Ask(ONE, ABSENT, "x"), {}),
    "not mapped, privileged": Case(
        "F_TRANSLATION", (0x08_0000_5810, 0x20A_0000_0000, ABSENT, 0), Ask(ONE_5, ABSENT, privileged=True), {}
    ),
    "a table not there": Case("F_TRANSLATION", (0x08_0000_0010, S1_READ, AT, 0), READ, with_bits(L1, 0, 1)),
    "a block where none can be": Case("F_TRANSLATION", (0x08_0000_0010, S1_READ, AT, 0), READ, {L0: 0x21001}),
    "a page of the wrong type": Case("F_TRANSLATION", (0x08_0000_0010, S1_READ, AT, 0), READ, {L3 + RW4: 0x30F45}),
    "beyond T0SZ": Case("F_TRANSLATION", (0x08_0000_0010, S1_READ, 1 << 48, 0), Ask(ONE, 1 << 48), {}),
    "TTB1 is off": Case(
        "F_TRANSLATION", (0x08_0000_0010, S1_READ, 0xFFFF_F000_0000_1234, 0), Ask(ONE, 0xFFFF_F000_0000_1234), {}
    ),
    "TTB0 is off": Case("F_TRANSLATION", (0x08_0000_0010, S1_READ, AT, 0), READ, with_bits(CD_0, 1 << 14)),
    "page beyond IPS": Case(
        "F_ADDR_SIZE", (0x08_0000_0011, S1_READ, AT, 0), READ, with_bits(CD_0, 0, 5 << 32) | {L3 + RW4: 1 << 32 | 0xF47}
    ),
    "table beyond IPS": Case(
        "F_ADDR_SIZE", (0x08_0000_0011, S1_READ, AT, 0), READ, with_bits(CD_0, 0, 1 << 32) | {L2: 1 << 44 | 0x23003}
    ),
    "AF is 0": Case("F_ACCESS", (0x08_0000_0012, S1_READ, OLD, 0), Ask(ONE, OLD), {}),
    "read-only": Case("F_PERMISSION", (0x08_0000_0013, S1_WRITE, RO, 0), Ask(ONE, RO, "w"), {}),
    "privileged": Case("F_PERMISSION", (0x08_0000_0013, S1_READ, PRIV, 0), Ask(ONE, PRIV), {}),
    "not executable": Case(
        "F_PERMISSION", (0x08_0000_0013, S1_FETCH, RW, 0), Ask(ONE, RW, "x"), with_bits(L3 + RW4, 1 << 54)
    ),
    # Stage 2.
    "beyond IAS": Case("F_ADDR_SIZE", (0x09_0000_0011, S1_READ, 1 << 48, 0), Ask(TWO, 1 << 48), {}),
    "bypass beyond OAS": Case("F_ADDR_SIZE", (0x0B_0000_0011, S1_WRITE, 1 << 48, 0), Ask(THROUGH, 1 << 48, "w"), {}),
    "beyond S2T0SZ": Case(
        "F_TRANSLATION", (0x09_0000_0010, S2_READ, 1 << 44, 1 << 44), Ask(TWO, 1 << 44), {}
    ),
    "table of stage 2 nowhere": Case(
        "F_WALK_EABT", (0x09_0000_000B, S2_READ, 0x30123, 0x80_0000), T_READ, {I1: NOWHERE | 3}
    ),
    "stage 2 not mapped": Case(
        "F_TRANSLATION", (0x09_0000_0010, S2_WRITE, 0x39123, 0x39000), Ask(TWO, 0x39123, "w"), {}
    ),
    "page beyond S2PS": Case(
        "F_ADDR_SIZE", (0x09_0000_0011, S2_READ, 0x30123, 0x30000), T_READ, {I3 + 8 * 0x30: 1 << 44 | 0x7FF}
    ),
    "stage 2, AF is 0": Case(
        "F_ACCESS", (0x09_0000_0012, S2_READ, 0x30123, 0x30000), T_READ, with_bits(I3 + 8 * 0x30, 0, 1 << 10)
    ),
    "stage 2 read-only": Case(
        "F_PERMISSION", (0x09_0000_0013, S2_WRITE, 0x31123, 0x31000), Ask(TWO, 0x31123, "w"), {}
    ),
    "stage 2 write-only": Case(
        "F_PERMISSION", (0x09_0000_0013, S2_READ, WRITE_ONLY, 0x38000), Ask(TWO, WRITE_ONLY), {}
    ),
    # Nested: fetches of CDs, of tables, and the page.
    "CD not mapped": Case(
        "F_TRANSLATION", (0x0A_0000_5810, S2_CD, AT, 0x3000), Ask(BOTH_5), {I3 + 8 * 3: 0}
    ),
    "level 2 of CDs beyond stage 2": Case(
        "F_TRANSLATION",
        (0x0A_0004_1810, S2_CD, AT, 1 << 48),
        Ask(slot(10, 0x41)),
        {ste(BOTH): 0x6000_0000_0000_301F, 0x3008: 1 << 48 | 1},
    ),
    "CD mapped to nowhere": Case(
        "F_CD_FETCH", (0x0A_0000_5809, 0, 0, 0x80_0140), Ask(BOTH_5), {I3 + 8 * 3: NOWHERE | 0x7FF}
    ),
    "CD write-only": Case("F_PERMISSION", (0x0A_0000_0013, S2_CD, AT, 0x3000), N_READ, {I3 + 8 * 3: 0x37BF}),
    "CD in device memory": Case("F_PERMISSION", (0x0A_0000_0013, S2_CD, AT, 0x3000), N_READ, {I3 + 8 * 3: 0x37C7}),
    "walk for a CD to nowhere": Case(
        "F_WALK_EABT", (0x0A_0000_000B, S2_CD, AT, 0x80_0018), N_READ, {I0 + 0x5000: NOWHERE | 3}
    ),
    "table not mapped": Case(
        "F_TRANSLATION", (0x0A_0000_0010, S2_TABLE_WRITE, AT, 0x21000), N_WRITE, {I3 + 8 * 0x21: 0}
    ),
    "table beyond stage 2": Case(
        "F_TRANSLATION", (0x0A_0000_0010, S2_TABLE_READ, AT, 1 << 44), N_READ, {L0: 1 << 44 | 3}
    ),
    "table write-only": Case(
        "F_PERMISSION", (0x0A_0000_0013, S2_TABLE_READ | TTRNW, AT, 0x22000), N_READ, {I3 + 8 * 0x22: 0x227BF}
    ),
    "table in device memory": Case(
        "F_PERMISSION", (0x0A_0000_0013, S2_TABLE_WRITE | TTRNW, AT, 0x22000), N_WRITE, {I3 + 8 * 0x22: 0x227C3}
    ),
    "table, AF is 0": Case(
        "F_ACCESS", (0x0A_0000_0012, S2_TABLE_READ, AT, 0x20000), N_READ, {I3 + 8 * 0x20: 0x203FF}
    ),
    "AF of a read-only table": Case(
        "F_PERMISSION",
        (0x0A_0000_0013, S2_TABLE_READ, OLD, 0x23000),
        Ask(BOTH, OLD),
        with_bits(CD_0, 1 << 43) | {I3 + 8 * 0x23: 0x2377F},
    ),
    "table mapped to nowhere": Case(
        "F_WALK_EABT", (0x0A_0000_000B, 0x108_0000_0000, AT, 0x80_0018), N_READ, {I3 + 8 * 0x22: NOWHERE | 0x7FF}
    ),
    "walk for the page to nowhere": Case(
        "F_WALK_EABT",
        (0x0A_0000_000B, S2_READ, BASE + 0x4123, 0x80_0000),
        N_READ,
        {L3 + RW4: 1 << 30 | 0xF47, I1 + 8: NOWHERE | 3},
    ),
    "page not mapped by stage 2": Case(
        "F_TRANSLATION", (0x0A_0000_0010, S2_READ, AT, 0x39000), N_READ, {L3 + RW4: 0x39F47}
    ),
    "page beyond stage 2": Case(
        "F_TRANSLATION", (0x0A_0000_0010, S2_READ, AT, 1 << 44), N_READ, {L3 + RW4: 1 << 44 | 0xF47}
    ),
    "nested, stage 2 read-only": Case(
        "F_PERMISSION", (0x0A_0000_0013, S2_WRITE, AT, 0x31000), N_WRITE, {L3 + RW4: 0x31F47}
    ),
    # The virtual machine structure.
    "no VMS": Case("F_VMS_FETCH", (0x0A_0000_0025, 0, 0, NOWHERE), N_READ, NO_VMS, options=MPAM),
    "no VMS, with PASID": Case("F_VMS_FETCH", (0x0A_0000_5825, 0, 0, NOWHERE), Ask(BOTH_5), NO_VMS, options=MPAM),
    "VMS beyond the unit": Case(
        "C_BAD_STE", (0x0A_0000_0004, 0, 0, 0), N_READ, NO_VMS | {ste(BOTH) + 40: 1 << 48}, options=MPAM
    ),
    # EL2.
    "EL2 has no upper half": Case(
        "F_TRANSLATION", (0x0D_0000_0010, S1_READ, (1 << 64) - 1, 0), Ask(HYP, (1 << 64) - 1), {}
    ),
    # ATS.
    "translation request without EATS": Case(
        "F_BAD_ATS_TREQ",
        (0x08_0000_0005, 0, AT, 0),
        Ask(ONE, kind="translation"),
        with_bits(ste(ONE) + 8, 0, 1 << 28),
    ),
    "translation request in bypass": Case(
        "F_BAD_ATS_TREQ", (0x0B_0000_0005, 0, 0x1234, 0), Ask(THROUGH, 0x1234, kind="translation"), {}
    ),
}  # fmt: skip

# Descriptors that cannot be updated. Walks have no effects, so only requests fail so.
HA, S2HA = with_bits(CD_0, 1 << 43), 1 << 56
PAGE_OF_L3, PAGE_OF_I3 = (L3, 0x1000), (I3, 0x1000)
UPDATES: dict[str, Case] = {
    "AF of stage 1": Case(
        "F_WALK_EABT", (0x08_0000_000B, 0x108_0000_0000, OLD, 0x23048), Ask(ONE, OLD), HA, read_only=PAGE_OF_L3
    ),
    "AF of stage 1, nested": Case(
        "F_WALK_EABT", (0x0A_0000_000B, 0x108_0000_0000, OLD, 0x23048), Ask(BOTH, OLD), HA, read_only=PAGE_OF_L3
    ),
    "AF of stage 2": Case(
        "F_WALK_EABT",
        (0x09_0000_000B, S2_READ, 0x30123, 0x16180),
        T_READ,
        with_bits(ste(TWO) + 16, S2HA) | {I3 + 8 * 0x30: 0x983FF},
        read_only=PAGE_OF_I3,
    ),
    "AF of stage 2, of a CD": Case(
        "F_WALK_EABT",
        (0x0A_0000_000B, S2_CD, AT, 0x16018),
        N_READ,
        with_bits(ste(BOTH) + 16, S2HA) | {I3 + 8 * 3: 0x33FF},
        read_only=PAGE_OF_I3,
    ),
    "AF of stage 2, of a table": Case(
        "F_WALK_EABT",
        (0x0A_0000_000B, S2_TABLE_READ, AT, 0x16108),
        N_READ,
        with_bits(ste(BOTH) + 16, S2HA) | {I3 + 8 * 0x21: 0x213FF},
        read_only=PAGE_OF_I3,
    ),
}  # fmt: skip

# Two things are wrong: what is told first. IHI0070 G.b section 7.3.22.
S2_AWAY = {I3 + 8 * 3: 0}
ORDER: dict[str, Case] = {
    "C_BAD_STE, C_BAD_SUBSTREAMID": Case("C_BAD_STE", None, Ask(slot(9, 5)), {ste(TWO): 0xC}),
    "C_BAD_STE, VMS": Case("C_BAD_STE", None, N_READ, NO_VMS | {ste(BOTH): STE_BOTH[0] & ~1}, options=MPAM),
    "VMS, C_BAD_SUBSTREAMID": Case("F_VMS_FETCH", None, Ask(slot(10, 8)), NO_VMS, options=MPAM),
    "C_BAD_SUBSTREAMID, CD fetch": Case("C_BAD_SUBSTREAMID", None, Ask(slot(10, 8)), S2_AWAY),
    "F_STREAM_DISABLED, CD fetch": Case("F_STREAM_DISABLED", None, N_READ, S2_AWAY | with_bits(ste(BOTH) + 8, 0, 2)),
    "stage 2 of the CD, C_BAD_CD": Case("F_TRANSLATION", None, N_READ, S2_AWAY | {CD_0: 0}),
    "C_BAD_CD, input range": Case("C_BAD_CD", None, Ask(ONE, 1 << 48), {CD_0: 0}),
    "input range, table": Case("F_TRANSLATION", None, Ask(ONE, 1 << 48), {CD_0 + 8: NOWHERE}),
    "EPD, table": Case("F_TRANSLATION", None, READ, with_bits(CD_0, 1 << 14) | {CD_0 + 8: NOWHERE}),
    "stage 2 of a table, invalid there": Case("F_PERMISSION", None, N_READ, {I3 + 8 * 0x21: 0x217BF, L1: 0}),
    "F_TRANSLATION, F_ADDR_SIZE": Case(
        "F_TRANSLATION", None, READ, with_bits(CD_0, 0, 5 << 32) | {L3 + RW4: 1 << 40 | 1}
    ),
    "F_ADDR_SIZE, F_ACCESS": Case(
        "F_ADDR_SIZE", None, READ, with_bits(CD_0, 0, 5 << 32) | {L3 + RW4: 1 << 40 | 0xB47}
    ),
    "F_ACCESS, F_PERMISSION": Case("F_ACCESS", None, WRITE, {L3 + RW4: 0x30BC7}),
    "F_PERMISSION, stage 2 of the page": Case("F_PERMISSION", None, N_WRITE, {L3 + RW4: 0x39FC7}),
    "stage 2: F_TRANSLATION, F_ADDR_SIZE": Case("F_TRANSLATION", None, T_READ, {I3 + 8 * 0x30: 1 << 44 | 0x7FD}),
    "stage 2: F_ADDR_SIZE, F_ACCESS": Case("F_ADDR_SIZE", None, T_READ, {I3 + 8 * 0x30: 1 << 44 | 0x3FF}),
    "stage 2: F_ACCESS, F_PERMISSION": Case("F_ACCESS", None, T_READ, {I3 + 8 * 0x30: 0x983BF}),
    "IAS, stage 2's range": Case("F_ADDR_SIZE", None, Ask(TWO, 1 << 50), {}),
}  # fmt: skip


def machine_of(case: Case) -> Machine:
    machine = handmade(case.changes, cr2=case.cr2, **case.options)
    machine.memory.read_only = case.read_only
    return machine

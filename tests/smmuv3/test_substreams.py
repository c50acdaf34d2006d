# SPDX-License-Identifier: Apache-2.0
"""Which CD a request uses, or none: the table of IHI0070 G.b section 8, and what S1DSS and the STE overrule."""

import pytest

from iommuctl.model import Access
from tests.smmuv3.fault_cases import with_bits
from tests.smmuv3.handmade import BOTH, L3, ONE, PRIV, RO, RW, handmade, ste
from tests.smmuv3.machine import idr0_with, slot

AT = RW + 0x123
BAD, DISABLED = "C_BAD_SUBSTREAMID", "F_STREAM_DISABLED"
BY_CD_0, BY_CD_5 = 0x30123, 0x31123
"""Where AT goes by each CD; CD 5 has a start table of its own."""
OTHER_TREE = {0x3148: 0x24000, 0x24008: 0x25003, 0x25010: 0x26003, 0x26018: 0x27003, 0x27020: 0x31F47}


@pytest.mark.parametrize(
    ("most", "pasid", "dss", "expected"),
    [
        *((0, None, dss, BY_CD_0) for dss in range(4)),
        *((0, pasid, dss, BAD) for pasid in (0, 5) for dss in range(4)),
        (3, None, 0, DISABLED),
        (3, None, 1, AT),
        (3, None, 2, BY_CD_0),
        (3, None, 3, DISABLED),
        (3, 0, 0, BY_CD_0),
        (3, 0, 1, BY_CD_0),
        (3, 0, 2, DISABLED),
        (3, 0, 3, BY_CD_0),
        *((3, 5, dss, BY_CD_5) for dss in range(4)),
        *((3, pasid, dss, BAD) for pasid in (8, 0xFFFFF) for dss in range(4)),
        (1, 5, 0, BAD),
    ],
)
def test_which_cd(most: int, pasid: int | None, dss: int, expected: int | str) -> None:
    machine = handmade(OTHER_TREE | {ste(ONE): most << 59 | 0x300B, ste(ONE) + 8: 0xD4 | dss})
    assert machine.reaches(slot(8, pasid), AT) == expected
    assert machine.goes(slot(8, pasid), AT) == expected


@pytest.mark.parametrize(
    ("iova", "expected"),
    [(0x30123, 0x98123), (AT, "F_TRANSLATION"), (1 << 44, "F_TRANSLATION"), (1 << 48, "F_ADDR_SIZE")],
)
def test_s1dss_leaves_stage_2_alone(iova: int, expected: int | str) -> None:
    """A nested stream whose requests without PASID skip stage 1 is one of stage 2."""
    machine = handmade(with_bits(ste(BOTH) + 8, 1, 3))
    assert machine.goes(BOTH, iova) == expected
    assert machine.goes(slot(10, 5), AT) == 0x98123
    told = machine.ask(BOTH, 0x30123).translation
    assert [step.address for step in told.steps] == [0x1280, 0x10000, 0x14000, 0x15000, 0x16180]


def test_s1dss_bypass_ends_where_bypass_does() -> None:
    """At OAS, and nothing of it can stall."""
    machine = handmade(with_bits(ste(ONE) + 8, 1, 3), idr5=0x70)
    assert machine.goes(ONE, (1 << 32) - 1) == (1 << 32) - 1
    assert machine.goes(ONE, 1 << 32) == "F_ADDR_SIZE"
    assert machine.records() == [(0x08_0000_0011, 0x208_0000_0000, 1 << 32, 0)]


PRIVCFG, INSTCFG = 48, 50
"""In the second word of an STE."""


@pytest.mark.parametrize(
    ("pasid", "privileged", "privcfg", "expected"),
    [
        # A PCIe request tells of privilege with its PASID alone.
        (None, False, 0, "F_PERMISSION"),
        (None, True, 0, "F_PERMISSION"),
        (5, False, 0, "F_PERMISSION"),
        (5, True, 0, 0x32000),
        (5, True, 1, 0x32000),
        (5, True, 2, "F_PERMISSION"),
        (5, False, 2, "F_PERMISSION"),
        (5, False, 1, "F_PERMISSION"),
        (5, False, 3, 0x32000),
        (None, False, 3, 0x32000),
    ],
)
def test_privcfg(pasid: int | None, privileged: bool, privcfg: int, expected: int | str) -> None:
    machine = handmade(with_bits(ste(ONE) + 8, privcfg << PRIVCFG))
    assert machine.goes(slot(8, pasid), PRIV, privileged=privileged) == expected
    records = machine.records()
    if expected == "F_PERMISSION":
        assert [record[1] >> 33 & 1 for record in records] == [0]


@pytest.mark.parametrize(
    ("access", "instcfg", "ind", "rnw"),
    [
        ("r", 0, 0, 1),
        ("x", 0, 1, 1),
        ("r", 1, 0, 1),
        ("x", 1, 1, 1),
        ("r", 2, 0, 1),
        ("x", 2, 0, 1),
        ("r", 3, 1, 1),
        ("x", 3, 1, 1),
        # Writes are data.
        ("w", 3, 0, 0),
        ("w", 2, 0, 0),
    ],
)
def test_instcfg(access: Access, instcfg: int, ind: int, rnw: int) -> None:
    """As a record tells it, of a page that is not there."""
    machine = handmade(with_bits(ste(ONE) + 8, instcfg << INSTCFG) | {L3 + 8 * 5: 0})
    assert machine.goes(ONE, RO, access) == "F_TRANSLATION"
    assert [(record[1] >> 34 & 1, record[1] >> 35 & 1) for record in machine.records()] == [(ind, rnw)]


def test_instcfg_decides_on_rights() -> None:
    """A page that is not executed but read, and the other way round."""
    never = {L3 + 8 * 4: 0x60_0000_0003_0F47}
    assert handmade(never).goes(ONE, RW, "x") == "F_PERMISSION"
    assert handmade(never | with_bits(ste(ONE) + 8, 2 << INSTCFG)).goes(ONE, RW, "x") == 0x30000
    assert handmade(never | with_bits(ste(ONE) + 8, 3 << INSTCFG)).goes(ONE, RW, "r") == "F_PERMISSION"
    assert handmade(never | with_bits(ste(ONE) + 8, 3 << INSTCFG)).goes(ONE, RW, "w") == 0x30000


def test_a_unit_that_cannot_overrule_ignores_it() -> None:
    """IDR1.ATTR_PERMS_OVR is 0."""
    both = with_bits(ste(ONE) + 8, 3 << PRIVCFG | 3 << INSTCFG)
    assert handmade(both, idr1=0x0270_0510).goes(ONE, PRIV) == "F_PERMISSION"
    assert handmade(both).goes(ONE, PRIV) == 0x32000


def test_vmids_that_count_without_stage_2() -> None:
    """On a unit with stage 2, S2VMID of a stream without; on one without stage 2, none."""
    assert handmade().ask(ONE, AT).tag[:3] == (0, 0x11, 0x12)
    assert handmade(idr0=idr0_with(S2P=0)).ask(ONE, AT).tag[:3] == (0, 0, 0x12)


@pytest.mark.parametrize(
    ("strw", "cr2", "hyp", "world"),
    [(0, 0, 1, 0), (2, 0, 1, 2), (2, 1, 1, 3), (2, 0, 0, 0), (3, 0, 0, 0), (0, 1, 1, 0)],
)
def test_stream_worlds(strw: int, cr2: int, hyp: int, world: int) -> None:
    """STRW counts on units with EL2; CR2.E2H tells whether that has ASIDs."""
    machine = handmade(with_bits(ste(ONE) + 8, strw << 30), cr2=cr2, idr0=idr0_with(Hyp=hyp))
    assert machine.ask(ONE, AT).tag[:3] == (world, 0 if world else 0x11, -1 if world == 2 else 0x12)


def test_strw_does_not_count_under_stage_2() -> None:
    machine = handmade(with_bits(ste(BOTH) + 8, 2 << 30))
    assert machine.ask(BOTH, AT).tag[:3] == (0, 0x2B, 0x12)

# SPDX-License-Identifier: Apache-2.0
"""What register values say a unit can do: worked words, and those of the unit that is simulated by default."""

import pytest

from iommuctl_vtd.capability import Capability, capability
from tests.machine import SparseMemory
from tests.vtd.driven import Driven
from tests.vtd.fault_cases import CAP, ECAP
from tests.vtd.machine import Machine

QEMU_CAP, QEMU_ECAP = 0x00D2008C222F0606, 0x0000480080000F42
RICH_ECAP = 0x0003ED9CA4F00FDE


def test_qemu() -> None:
    """QEMU 10 with scalable mode. Its address width, 48 bits, is no register."""
    unit = Capability(QEMU_CAP, QEMU_ECAP, 48)
    assert (unit.domain_ids, unit.widths, unit.mgaw, unit.max_address_mask) == (65536, (39, 48), 48, 18)
    assert unit.domain_widths == (39, 48)
    assert unit.page_sizes == (1 << 12, 1 << 21, 1 << 30)
    assert unit.first_stage_levels == (4,)
    assert unit.drains == {"DW": 1, "DR": 1}
    present = [name for name in NAMES if unit.has(name)]
    assert present == ["QI", "PT", "SRS", "SMTS", "SSTS"]


NAMES = ["C", "QI", "DT", "IR", "EIM", "PT", "SC", "MTS", "NEST", "PRS", "SRS", "EAFS", "PASID", "DIT", "PDS", "SMTS"]
NAMES += ["SSADS", "SSTS", "FSTS", "SMPWCS", "RPS", "RPRIVS", "ADMS"]


def test_rich() -> None:
    unit = Capability(QEMU_CAP, RICH_ECAP, 48)
    assert [name for name in NAMES if not unit.has(name)] == ["C", "MTS", "DIT", "RPRIVS", "ADMS"]


def test_the_default_unit() -> None:
    """Word by word: ND 6, SAGAW 39 48 57, MGAW 57, FRO, SSLPS 2M 1G, PSI, 8 records, MAMV 18, drains, FS1GP, FS5LP."""
    cap = 6 | 0b111 << 9 | 56 << 16 | 0x40 << 24 | 0b11 << 34 | 1 << 39 | 7 << 40 | 18 << 48
    assert cap | 1 << 54 | 1 << 55 | 1 << 56 | 1 << 60 | 1 << 63 == CAP
    bits = (1, 2, 6, 7, 26, 29, 31, 34, 40, 42, 43, 45, 46, 47, 48, 49)
    assert sum(1 << bit for bit in bits) | 0x50 << 8 | 19 << 35 == ECAP
    assert Machine(SparseMemory()).unit.capability.haw == 48


def test_what_the_default_unit_declares() -> None:
    declared = Driven().driver.capabilities()
    assert declared.nesting == "slot"
    assert (declared.widths, declared.page_sizes) == ((39, 48, 57), (1 << 12, 1 << 21, 1 << 30))
    assert declared.pasid_bits == 20
    assert declared.pgtable_formats == ("vtd.first-stage-4", "vtd.first-stage-5")
    assert declared.reserved == ((0xFEE00000, 0xFEEFFFFF),)
    assert declared.hitless_replace
    assert declared.physical_addresses
    assert declared.simulates
    assert not declared.dirty_tracking
    assert not declared.execute_permission


@pytest.mark.parametrize(
    ("sagaw", "mgaw", "widths"),
    [(0b111, 57, (39, 48, 57)), (0b111, 56, (39, 48)), (0b110, 48, (48,)), (0b100, 57, (57,)), (0b111, 39, (39,))],
)
def test_a_domain_is_no_wider_than_guest_addresses(sagaw: int, mgaw: int, widths: tuple[int, ...]) -> None:
    cap = CAP & ~(0x1F << 8 | 0x3F << 16) | sagaw << 9 | mgaw - 1 << 16
    assert Driven(cap=cap).driver.capabilities().widths == widths


@pytest.mark.parametrize(("sslps", "sizes"), [(0, (1 << 12,)), (1, (1 << 12, 1 << 21))])
def test_page_sizes(sslps: int, sizes: tuple[int, ...]) -> None:
    assert Driven(cap=CAP & ~(0xF << 34) | sslps << 34).driver.capabilities().page_sizes == sizes


@pytest.mark.parametrize(("bits", "declared"), [(0, 1), (7, 8), (19, 20), (31, 20)])
def test_pasid_bits(bits: int, declared: int) -> None:
    """PSS is the width minus 1, and no PASID has more than 20."""
    assert Driven(ecap=ECAP & ~(0x1F << 35) | bits << 35).driver.capabilities().pasid_bits == declared


def test_without_psi_there_is_no_mask() -> None:
    assert Capability(CAP & ~(1 << 39), ECAP, 48).max_address_mask < 0


def test_one_object_for_each_kind_of_unit() -> None:
    assert capability(CAP, ECAP, 48) is capability(CAP, ECAP, 48)
    assert capability(CAP, ECAP, 48) is not capability(CAP, ECAP, 47)

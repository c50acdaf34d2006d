# SPDX-License-Identifier: Apache-2.0
"""What identification registers say a unit can do."""

from typing import Any

import pytest

from iommuctl.formats.bits import Field
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR3, IDR5
from tests.smmuv3.units import FEATURES, QEMU

NOTHING = Features.of({})


def test_qemu() -> None:
    unit = Features.of(QEMU)
    expected: dict[str, Any] = {
        "s1p": True, "aarch64": True, "asid16": True, "vmid16": True, "ttendian": 2, "stall_model": 1,
        "term_model": True, "two_level": True, "sid_bits": 16, "cmdq_bits": 19, "eventq_bits": 19, "had": True,
        "ril": True, "bbml": 2, "oas": 44, "granules": (1 << 12, 1 << 14, 1 << 16),
    }  # fmt: skip
    assert unit == NOTHING._replace(**expected)
    assert unit.ias == 44


def test_nothing() -> None:
    """No feature at all, but the least of addresses; only NS1ATS says something by being 0."""
    said = {name: value for name, value in NOTHING._asdict().items() if value}
    assert said == {"split_ats": True, "oas": 32, "vax": 48}


FLAGS: list[tuple[str, Field, str]] = [
    ("IDR0", IDR0.S1P, "s1p"),
    ("IDR0", IDR0.S2P, "s2p"),
    ("IDR0", IDR0.Hyp, "hyp"),
    ("IDR0", IDR0.ATS, "ats"),
    ("IDR0", IDR0.ASID16, "asid16"),
    ("IDR0", IDR0.VMID16, "vmid16"),
    ("IDR0", IDR0.VMW, "vmw"),
    ("IDR0", IDR0.ATSRECERR, "ats_records"),
    ("IDR0", IDR0.PRI, "pri"),
    ("IDR0", IDR0.CD2L, "cd2l"),
    ("IDR0", IDR0.TERM_MODEL, "term_model"),
    ("IDR1", IDR1.ATTR_TYPES_OVR, "attr_types_ovr"),
    ("IDR1", IDR1.ATTR_PERMS_OVR, "attr_perms_ovr"),
    ("IDR3", IDR3.HAD, "had"),
    ("IDR3", IDR3.XNX, "xnx"),
    ("IDR3", IDR3.FWB, "fwb"),
    ("IDR3", IDR3.STT, "stt"),
    ("IDR3", IDR3.RIL, "ril"),
    ("IDR3", IDR3.DPT, "dpt"),
    ("IDR3", IDR3.S2PI, "s2pi"),
    ("IDR3", IDR3.S2PO, "s2po"),
    ("IDR5", IDR5.DS, "ds"),
]


@pytest.mark.parametrize(("register", "field", "name"), FLAGS, ids=[name for _, _, name in FLAGS])
def test_flags(register: str, field: Field, name: str) -> None:
    said: dict[str, Any] = {name: True}
    assert Features.of({register: field.mask}) == NOTHING._replace(**said)


@pytest.mark.parametrize(
    ("register", "field", "value", "said"),
    [
        ("IDR0", IDR0.TTF, 1, {"aarch32": True}),
        ("IDR0", IDR0.TTF, 2, {"aarch64": True}),
        ("IDR0", IDR0.TTF, 3, {"aarch32": True, "aarch64": True}),
        ("IDR0", IDR0.HTTU, 2, {"httu": 2}),
        ("IDR0", IDR0.NS1ATS, 1, {"split_ats": False}),
        ("IDR0", IDR0.TTENDIAN, 3, {"ttendian": 3}),
        ("IDR0", IDR0.STALL_MODEL, 2, {"stall_model": 2}),
        ("IDR0", IDR0.ST_LEVEL, 1, {"two_level": True}),
        ("IDR3", IDR3.BBML, 1, {"bbml": 1}),
        ("IDR1", IDR1.SIDSIZE, 32, {"sid_bits": 32}),
        ("IDR1", IDR1.SSIDSIZE, 20, {"ssid_bits": 20}),
        ("IDR1", IDR1.CMDQS, 19, {"cmdq_bits": 19}),
        ("IDR1", IDR1.EVENTQS, 18, {"eventq_bits": 18}),
        ("IDR1", IDR1.PRIQS, 17, {"priq_bits": 17}),
        *(("IDR5", IDR5.OAS, code, {"oas": bits}) for code, bits in enumerate((32, 36, 40, 42, 44, 48, 52, 56))),
        *(("IDR5", IDR5.VAX, code, {"vax": bits}) for code, bits in enumerate((48, 52, 56))),
        ("IDR5", IDR5.GRAN4K, 1, {"granules": (1 << 12,)}),
        ("IDR5", IDR5.GRAN16K, 1, {"granules": (1 << 14,)}),
        ("IDR5", IDR5.GRAN64K, 1, {"granules": (1 << 16,)}),
    ],
)
def test_numbers(register: str, field: Field, value: int, said: dict[str, Any]) -> None:
    assert Features.of({register: field.put(value)}) == NOTHING._replace(**said)


@pytest.mark.parametrize(
    ("aarch32", "aarch64", "oas", "ias"),
    [(False, True, 36, 36), (True, True, 36, 40), (True, False, 48, 40), (True, True, 52, 52), (False, False, 48, 0)],
)
def test_intermediate_addresses(aarch32: bool, aarch64: bool, oas: int, ias: int) -> None:
    assert FEATURES._replace(aarch32=aarch32, aarch64=aarch64, oas=oas).ias == ias


@pytest.mark.parametrize(("ttendian", "orders"), [(0, [True, True]), (2, [True, False]), (3, [False, True])])
def test_byte_orders(ttendian: int, orders: list[bool]) -> None:
    unit = FEATURES._replace(ttendian=ttendian)
    assert [unit.reads_tables(0), unit.reads_tables(1)] == orders


@pytest.mark.parametrize(
    ("oas", "ds", "size", "granule", "entry_ds", "bits"),
    [
        (52, True, 4, 1 << 12, 0, 44),
        (44, True, 5, 1 << 12, 0, 44),
        (52, True, 6, 1 << 12, 0, 48),
        (52, True, 6, 1 << 14, 1, 52),
        (52, False, 6, 1 << 14, 1, 48),
        (52, False, 6, 1 << 16, 0, 52),
    ],
)
def test_output_bits(*, oas: int, ds: bool, size: int, granule: int, entry_ds: int, bits: int) -> None:
    assert FEATURES._replace(oas=oas, ds=ds).output_bits(size, granule, entry_ds) == bits


@pytest.mark.parametrize("lacks", [None, "S1P", "S2P", "MPAM", "PARTID_MAX"])
def test_virtual_machine_structures(lacks: str | None) -> None:
    """IHI0070 G.b section 5.6.1: with both stages, and more than one partition."""
    bits = {"S1P": ("IDR0", 1 << 1), "S2P": ("IDR0", 1 << 0), "MPAM": ("IDR3", 1 << 7), "PARTID_MAX": ("MPAMIDR", 1)}
    registers = dict.fromkeys(("IDR0", "IDR3"), 0) | {"MPAMIDR": 0xFF_0000}
    for name, (register, bit) in bits.items():
        registers[register] |= bit if name != lacks else 0
    assert Features.of(registers).vms == (lacks is None)

# SPDX-License-Identifier: Apache-2.0
"""Descriptors by type, and the two ways in which they write a range."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl_vtd.invalidation import DESCRIPTORS, covering_block, device_tlb_block, device_tlb_range

LAST = (1 << 64) - 1
ADDRESSES = st.integers(0, LAST)


def test_types() -> None:
    assert {code: layout.name for code, layout in DESCRIPTORS.items()} == {
        1: "vtd.context-cache-invalidate",
        2: "vtd.iotlb-invalidate",
        3: "vtd.device-tlb-invalidate",
        4: "vtd.iec-invalidate",
        5: "vtd.invalidation-wait",
        6: "vtd.pasid-iotlb-invalidate",
        7: "vtd.pasid-cache-invalidate",
        8: "vtd.pasid-device-tlb-invalidate",
        9: "vtd.page-group-response",
    }
    assert {layout.encode() for layout in DESCRIPTORS.values()} == set(DESCRIPTORS)


@pytest.mark.parametrize(
    ("first", "last", "address", "order"),
    [
        (0x1000, 0x1FFF, 0x1000, 0),
        (0x1234, 0x1234, 0x1000, 0),
        (0x1FFF, 0x2000, 0x0, 2),
        (0x2000, 0x3FFF, 0x2000, 1),
        (0x40000000, 0x401FFFFF, 0x40000000, 9),
        (0x7FFFF000, 0x80000FFF, 0x0, 20),
        (0, LAST, 0, 52),
        (LAST, LAST, LAST & ~0xFFF, 0),
        ((1 << 63) - 1, 1 << 63, 0, 52),
    ],
)
def test_covering_block(first: int, last: int, address: int, order: int) -> None:
    assert covering_block(first, last) == (address, order)


@settings(deadline=None)
@given(ADDRESSES, ADDRESSES)
def test_no_smaller_block_covers(one: int, other: int) -> None:
    first, last = sorted((one, other))
    address, order = covering_block(first, last)
    size = 0x1000 << order
    assert address % size == 0
    assert address <= first <= last < address + size <= 1 << 64
    if order:
        assert first < address + size // 2 <= last


@pytest.mark.parametrize(
    ("address", "order", "addr", "s"),
    [
        (0x10000, 0, 0x10000, 0),
        (0x2000, 1, 0x2000, 1),
        (0x10000, 4, 0x17000, 1),
        (0x200000, 9, 0x2FF000, 1),
        (0, 52, 0x7FFFFFFFFFFFF000, 1),
    ],
)
def test_device_tlb_range(address: int, order: int, addr: int, s: int) -> None:
    assert device_tlb_range(address, order) == (addr, s)
    assert device_tlb_block(addr, s) == (address, address + (0x1000 << order) - 1)


@settings(deadline=None, max_examples=200)
@given(ADDRESSES, st.integers(0, 52))
def test_device_tlb_block_reverses_the_range(address: int, order: int) -> None:
    size = 0x1000 << order
    address &= -size
    assert device_tlb_block(*device_tlb_range(address, order)) == (address, address + size - 1)


def test_an_address_without_a_zero_bit_is_everything() -> None:
    assert device_tlb_block(0xFFFFFFFFFFFFF000, 1) == (0, LAST)

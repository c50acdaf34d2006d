# SPDX-License-Identifier: Apache-2.0
"""How numbers are written, and that nothing is misread."""

import pytest

from iommuctl import numbers
from iommuctl.errors import BadNumber, IommuError, ZeroSize


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("010", 10),
        ("0x0", 0),
        ("0x1000", 4096),
        ("0XfF", 255),
        ("4K", 4096),
        ("4k", 4096),
        ("4KiB", 4096),
        ("2M", 2 << 20),
        ("2MiB", 2 << 20),
        ("1G", 1 << 30),
        ("3GiB", 3 << 30),
        ("1T", 1 << 40),
        ("16TiB", 16 << 40),
        ("18446744073709551615", (1 << 64) - 1),
        ("0xffffffffffffffff", (1 << 64) - 1),
        ("0x" + "0" * 100 + "1", 1),
    ],
)
def test_numbers(text: str, value: int) -> None:
    assert numbers.number(text) == value


@pytest.mark.parametrize(
    ("text", "what", "because"),
    [
        ("", "'' is not a number", "it is empty"),
        ("-1", "'-1' is not a number", "addresses and sizes are not negative"),
        ("-0x1000", "'-0x1000' is not a number", "addresses and sizes are not negative"),
        ("1_000", "'1_000' is not a number", "underscores are not part of a number"),
        ("0x1000_0000", "'0x1000_0000' is not a number", "underscores are not part of a number"),
        ("dead", "'dead' is not a number", "hexadecimal numbers begin with 0x"),
        ("4KB", "'4KB' is not a number", "KB and MB can mean two things; the units are K or KiB, M or MiB, G, T"),
        ("4Q", "'4Q' is not a number", ""),
        ("0x10K", "'0x10K' is not a number", ""),
        ("1.5G", "'1.5G' is not a number", ""),
        ("+5", "'+5' is not a number", ""),
        (" 5", "' 5' is not a number", ""),
        ("5\n", "'5\\n' is not a number", ""),
        ("1e3", "'1e3' is not a number", "hexadecimal numbers begin with 0x"),
        ("0o17", "'0o17' is not a number", ""),
        ("٣", "'٣' is not a number", ""),
        ("18446744073709551616", "'18446744073709551616' is too large", "addresses and sizes have 64 bits"),
        ("0x10000000000000000", "'0x10000000000000000' is too large", "addresses and sizes have 64 bits"),
        ("16777216T", "'16777216T' is too large", "addresses and sizes have 64 bits"),
        ("9" * 5000, f"'{'9' * 57}...' is too large", "addresses and sizes have 64 bits"),
    ],
)
def test_what_is_not_a_number(text: str, what: str, because: str) -> None:
    with pytest.raises(BadNumber) as caught:
        numbers.number(text)
    assert (caught.value.what, caught.value.because) == (what, because)


def test_a_size_is_not_zero() -> None:
    assert numbers.size("4K") == 4096
    with pytest.raises(ZeroSize) as caught:
        numbers.size("0x0")
    assert caught.value.what == "the size '0x0' is zero"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x1000..0x1fff", (0x1000, 0x1000)),
        ("0..0", (0, 1)),
        ("0x1000+4K", (0x1000, 0x1000)),
        ("0+1G", (0, 1 << 30)),
        ("0..0xffffffffffffffff", (0, 1 << 64)),
        ("0xfffffffffffff000+4K", (0xFFFF_FFFF_FFFF_F000, 4096)),
    ],
)
def test_ranges(text: str, value: tuple[int, int]) -> None:
    assert numbers.byte_range(text) == value


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("0x1000", BadNumber, "'0x1000' is not a range"),
        ("0x2000..0x1000", BadNumber, "the range '0x2000..0x1000' ends before it begins"),
        ("0x1000+0", ZeroSize, "the size '0' is zero"),
        ("..5", BadNumber, "'' is not a number"),
        ("1..2..3", BadNumber, "'2..3' is not a number"),
        ("0x1000+-4", BadNumber, "'-4' is not a number"),
        ("0xffffffffffffffff+2", BadNumber, "the range '0xffffffffffffffff+2' is too large"),
    ],
)
def test_what_is_not_a_range(text: str, kind: type[IommuError], what: str) -> None:
    with pytest.raises(kind) as caught:
        numbers.byte_range(text)
    assert caught.value.what == what


def test_a_place_in_memory() -> None:
    assert numbers.memory_place("ram") == ("ram", 0)
    assert numbers.memory_place("ram+0x2000") == ("ram", 0x2000)
    with pytest.raises(BadNumber, match="names no memory"):
        numbers.memory_place("+4K")
    with pytest.raises(BadNumber, match="'' is not a number"):
        numbers.memory_place("ram+")


def test_page_sizes() -> None:
    assert numbers.page_sizes("1G,4K,4K") == (4096, 1 << 30)
    with pytest.raises(BadNumber):
        numbers.page_sizes("4K,")


def test_pasids() -> None:
    assert numbers.pasid_or_auto("auto") == "auto"
    assert numbers.pasid_or_auto("0") == 0
    with pytest.raises(BadNumber):
        numbers.pasid_or_auto("automatic")


def test_data_is_bytes_in_memory_order() -> None:
    assert numbers.hex_data("00ff12") == b"\x00\xff\x12"
    with pytest.raises(BadNumber, match="is a number, and data is bytes"):
        numbers.hex_data("0x1234")
    with pytest.raises(BadNumber, match="'abc' is not data"):
        numbers.hex_data("abc")
    with pytest.raises(BadNumber, match="is not data"):
        numbers.hex_data("00 11")
    with pytest.raises(ZeroSize):
        numbers.hex_data("")


@pytest.mark.parametrize(
    ("value", "long", "short"),
    [
        (0, "0 bytes", "0"),
        (1, "1 byte", "1"),
        (100, "100 bytes", "100"),
        (4096, "4 KiB", "4K"),
        (3 << 40, "3 TiB", "3T"),
    ],
)
def test_sizes_for_people(value: int, long: str, short: str) -> None:
    assert (numbers.human(value), numbers.unit(value)) == (long, short)

# SPDX-License-Identifier: Apache-2.0
"""How numbers are written, on the command line and in documents.

A number is `0x1000`, `4096` or, with a binary unit, `4K`, `2MiB`, `1G`. A range is `A..B` (both inclusive) or `A+S`.
Everything else is refused with a sentence: a number that was misread would end up in a page table.
"""

import re
from collections.abc import Iterable
from typing import Literal

from iommuctl.errors import BadNumber, ZeroSize

_NUMBER = re.compile(r"0[xX]([0-9a-fA-F]+)|([0-9]+)(?:([kKmMgGtT])(?:i[bB])?)?", re.ASCII)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_DIGITS = 64
"""Longer input is refused before int() spends time on it."""
_SPELLING = "a number is written 0x1000, 4096, 4K, 2MiB or 1G"


def number(text: str) -> int:
    """An address or another number of at most 64 bits. Raises BadNumber."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadNumber(f"{shown(text)} is not a number", because=_why(text), hint=_SPELLING)
    hexadecimal, decimal, unit = match.groups()
    digits = (hexadecimal or decimal).lstrip("0") or "0"
    value = 1 << 64
    if len(digits) <= _DIGITS:
        value = int(digits, 16) if hexadecimal else int(digits) << _UNITS[(unit or "").lower()]
    if value >> 64:
        raise BadNumber(f"{shown(text)} is too large", because="addresses and sizes have 64 bits")
    return value


def size(text: str) -> int:
    """A number of bytes, not zero. Raises BadNumber and ZeroSize."""
    value = number(text)
    if not value:
        raise ZeroSize(f"the size {shown(text)} is zero", hint="give the number of bytes, for example 4K")
    return value


def byte_range(text: str) -> tuple[int, int]:
    """`A..B` or `A+S` as (first address, size). Raises BadNumber and ZeroSize."""
    first_text, dots, last_text = text.partition("..")
    if dots:
        first, last = number(first_text), number(last_text)
        if last < first:
            raise BadNumber(f"the range {shown(text)} ends before it begins")
        return first, last - first + 1
    first_text, plus, size_text = text.partition("+")
    if not plus:
        raise BadNumber(
            f"{shown(text)} is not a range", hint="write first..last, as 0x1000..0x1fff, or start+size, as 0x1000+4K"
        )
    first, length = number(first_text), size(size_text)
    if first + length > 1 << 64:
        raise BadNumber(f"the range {shown(text)} is too large", because="it reaches beyond 64-bit addresses")
    return first, length


def memory_place(text: str) -> tuple[str, int]:
    """`MEM` or `MEM+OFFSET` as (name, offset). Raises BadNumber."""
    name, plus, offset = text.partition("+")
    if not name:
        raise BadNumber(f"{shown(text)} names no memory", hint="write MEM or MEM+OFFSET")
    return name, number(offset) if plus else 0


def page_sizes(text: str) -> tuple[int, ...]:
    """A comma-separated list, ascending and without repetition. Raises BadNumber and ZeroSize."""
    return tuple(sorted({size(part) for part in text.split(",")}))


def pasid_or_auto(text: str) -> int | Literal["auto"]:
    """A PASID, or `auto` for a free one. Raises BadNumber."""
    return "auto" if text == "auto" else number(text)


def hex_data(text: str) -> bytes:
    """Bytes in the order in which they lie in memory. Raises BadNumber and ZeroSize."""
    if not text:
        raise ZeroSize("there is no data", hint="give bytes in hexadecimal, for example 00ff12")
    if text[:2] in ("0x", "0X"):
        raise BadNumber(
            f"{shown(text)} is a number, and data is bytes",
            because="the bytes of a number would have to be turned round, or not",
            hint="leave 0x out and write the bytes in the order in which they lie in memory",
        )
    if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text, re.ASCII) is None:
        raise BadNumber(f"{shown(text)} is not data", because="data is bytes of two hexadecimal digits each")
    return bytes.fromhex(text)


def human(value: int) -> str:
    """A size with the largest unit that divides it: `2 MiB`, `4 KiB`, `100 bytes`."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value and not value & ((1 << shift) - 1):
            return f"{value >> shift} {unit}"
    return "1 byte" if value == 1 else f"{value} bytes"


def unit(value: int) -> str:
    """A size as one types it, for columns: `2M`, `4K`, `100`."""
    for shift, letter in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if value and not value & ((1 << shift) - 1):
            return f"{value >> shift}{letter}"
    return str(value)


def units(values: Iterable[int]) -> str:
    """Sizes as `--page-sizes` takes them: `4K,2M,1G`."""
    return ",".join(map(unit, values))


def shown(text: str) -> str:
    """Input as an error message repeats it: quoted, not longer than a line takes."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _why(text: str) -> str:
    if not text:
        return "it is empty"
    if text.lstrip().startswith("-"):
        return "addresses and sizes are not negative"
    if "_" in text:
        return "underscores are not part of a number"
    if re.fullmatch(r"[0-9a-fA-F]+", text, re.ASCII):
        return "hexadecimal numbers begin with 0x"
    if re.fullmatch(r"[0-9]+[kKmMgGtT][bB]", text, re.ASCII):
        return "KB and MB can mean two things; the units are K or KiB, M or MiB, G, T"
    return ""

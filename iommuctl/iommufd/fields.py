# SPDX-License-Identifier: Apache-2.0
"""Fields of the kernel's structures, by type and in their order: `_fields_ = u32("size", "flags") + u64("iova")`."""

import ctypes
from struct import Struct
from typing import Any

Fields = tuple[tuple[str, type["ctypes._CDataType"]], ...]


def u8(*names: str) -> Fields:
    """Fields of one byte."""
    return tuple((name, ctypes.c_uint8) for name in names)


def u16(*names: str) -> Fields:
    """Fields of two bytes."""
    return tuple((name, ctypes.c_uint16) for name in names)


def u32(*names: str) -> Fields:
    """Fields of four bytes."""
    return tuple((name, ctypes.c_uint32) for name in names)


def u64(*names: str) -> Fields:
    """Fields of eight bytes, which lie at multiples of eight."""
    return tuple((name, ctypes.c_uint64) for name in names)


def s32(*names: str) -> Fields:
    """Fields of four bytes with a sign: file descriptors."""
    return tuple((name, ctypes.c_int32) for name in names)


def array(name: str, element: type["ctypes._CDataType"], length: int) -> Fields:
    """One field of `length` elements; none of them for what follows the structure."""
    return ((name, element * length),)


def packer(kind: type[ctypes.Structure]) -> Struct:
    """What fills a structure of plain numbers in one step, several times as fast as field by field."""
    listed: Any = kind._fields_
    return Struct("@" + "".join(of._type_ for _, of in listed))

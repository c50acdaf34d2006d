# SPDX-License-Identifier: Apache-2.0
"""What a topology document may hold: every key of every table, declared once.

Reading, the JSON Schema and the reference of keys come from here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from iommuctl import numbers
from iommuctl.errors import Usage
from iommuctl.model import Rid
from iommuctl.rules import PROTS, check_label, check_name

SCHEMA = 1


class Kind(NamedTuple):
    """A kind of value: what it is in words, how it is read, and its JSON Schema.

    `read` takes what TOML holds and raises IommuError, or TypeError for a value of a wrong type.
    """

    words: str
    read: Callable[[Any], Any]
    schema: Mapping[str, Any]


class Field(NamedTuple):
    """A key of a table."""

    name: str
    kind: Kind
    meaning: str
    required: bool = False


class Table(NamedTuple):
    """A table: its keys, and the arrays of tables in it. Of the keys `one_of` it has exactly one."""

    meaning: str
    fields: tuple[Field, ...]
    arrays: Mapping[str, "Table"] = {}
    one_of: tuple[str, ...] = ()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return numbers.number(hex(value) if value >= 0 else str(value))
    return numbers.number(_text(value))


def _size(value: Any) -> int:
    return numbers.size(value) if isinstance(value, str) else numbers.size(hex(_number(value)))


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return _number(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _name(value: Any) -> str:
    check_name(_text(value))
    return _text(value)


def _label(value: Any) -> str:
    check_label(_text(value))
    return _text(value)


def _place(value: Any) -> tuple[str, int]:
    name, offset = numbers.memory_place(_text(value))
    check_name(name)
    return name, offset


def _prot(value: Any) -> str:
    if _text(value) not in PROTS:
        raise Usage(f"{value!r} is not a protection")
    return _text(value)


def _options(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError
    for name, one in value.items():
        if type(one) not in (str, int):
            raise Usage(f"the option {name} is {type_name(one)}")
    return {name: str(one) for name, one in value.items()}


_STRING = {"type": "string"}
_NUMERIC = {
    "type": ["string", "integer"],
    "minimum": 0,
    "pattern": "^(0[xX][0-9a-fA-F]+|[0-9]+([kKmMgGtT]([iI][bB])?)?)$",
}
NAME_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,62}$"
RID_PATTERN = "^([0-9a-fA-F]{1,4}:)?[0-9a-fA-F]{1,2}:[0-9a-fA-F]{1,2}[.][0-7]$"

TEXT = Kind("text", _label, _STRING)
WORD = Kind("a word", _text, _STRING)
NAME = Kind("a name", _name, {"type": "string", "pattern": NAME_PATTERN})
FLAG = Kind("true or false", _flag, {"type": "boolean"})
COUNT = Kind("an integer", _count, {"type": "integer", "minimum": 0})
PASID = Kind("an integer, 1 or more", _count, {"type": "integer", "minimum": 1})
ADDRESS = Kind('an address, as "0x1000"', _number, _NUMERIC)
SIZE = Kind('a size, as "4K", "0x1000" or 4096', _size, {**_NUMERIC, "minimum": 1})
RANGE = Kind('a range, as "0x1000+4K" or "0x1000..0x1fff"', lambda value: numbers.byte_range(_text(value)), _STRING)
SIZES = Kind('sizes, as "4K,2M"', lambda value: numbers.page_sizes(_text(value)), _STRING)
PLACE = Kind('memory, as "vm1" or "vm1+0x1000"', _place, _STRING)
PROT = Kind(f"one of {', '.join(PROTS)}", _prot, {"enum": list(PROTS)})
OPTIONS = Kind(
    "a table of words", _options, {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
)

_PASID = Field("pasid", PASID, "PASID of the slot; without it the slot of the RID itself")
_LABEL = Field("label", TEXT, "a note for people")

MACHINE = Table(
    "The simulated machine, for the backend sim",
    (
        Field("architecture", WORD, "architecture of its IOMMU"),
        Field("ram", RANGE, "where its RAM is"),
        Field("tables", RANGE, "the part of RAM for the IOMMU's tables"),
        Field("options", OPTIONS, "details of the IOMMU, as `sim init --option` takes them"),
    ),
)
MEMORY = Table("Named memory, for mappings", (Field("size", SIZE, "bytes, in whole pages", required=True),))
DOMAIN = Table(
    "A domain: a kernel-managed I/O page table",
    (
        _LABEL,
        Field("nest_parent", FLAG, "whether page tables can be nested on it"),
        Field("width", COUNT, "address bits"),
        Field("page_sizes", SIZES, "the page sizes that it uses"),
    ),
    {
        "mappings": Table(
            "A mapping, to `memory` or to `pa`",
            (
                Field("iova", ADDRESS, "first input address", required=True),
                Field("size", SIZE, "bytes, in whole pages", required=True),
                Field("memory", PLACE, "named memory that it shows"),
                Field("pa", ADDRESS, "physical address that it shows"),
                Field("prot", PROT, 'what a device may do there; "rw" for a new mapping unless given'),
            ),
            one_of=("memory", "pa"),
        )
    },
)
PGTABLE = Table(
    "A page table that iommuctl builds in guest memory",
    (
        _LABEL,
        Field("parent", NAME, "the domain on which it can be nested", required=True),
        Field("pool", RANGE, "guest memory for its tables, as GPAs of the parent", required=True),
        Field("format", WORD, "page-table format; the backend's first unless given"),
    ),
    {
        "mappings": Table(
            "What it maps",
            (
                Field("iova", ADDRESS, "first input address", required=True),
                Field("size", SIZE, "bytes, in whole pages", required=True),
                Field("gpa", ADDRESS, "guest physical address that it shows", required=True),
                Field("prot", PROT, 'what a device may do there; "rw" unless given'),
                Field("privileged", FLAG, "whether requests of users are kept out"),
            ),
        )
    },
)
DEVICE = Table(
    "A device, and what its slots hold",
    (
        Field("ats", FLAG, "whether it has a TLB of its own (simulated devices)"),
        Field("pri", FLAG, "whether it makes page requests (simulated devices)"),
        Field("pasid_bits", COUNT, "width of its PASIDs (simulated devices)"),
    ),
    {
        "attachments": Table(
            "A domain in a slot of the device",
            (_PASID, Field("domain", NAME, "the domain", required=True), _LABEL),
        ),
        "bindings": Table(
            "A page table in a slot of the device: `pgtable`, or the one at `addr`",
            (
                _PASID,
                Field("domain", NAME, "the parent", required=True),
                Field("pgtable", NAME, "a page table that iommuctl builds"),
                Field("addr", ADDRESS, "GPA of a page table that its owner builds"),
                Field("format", WORD, "page-table format of the one at `addr`; the backend's first unless given"),
                _LABEL,
                Field("cd_pool", RANGE, "guest memory for the CD table of the device, where it lies there"),
            ),
            one_of=("pgtable", "addr"),
        ),
    },
)

NAMED: Mapping[str, Table] = {"memory": MEMORY, "domain": DOMAIN, "pgtable": PGTABLE, "device": DEVICE}
"""Tables of tables: one for each object, by its name or RID."""
PATTERNS: Mapping[str, str] = {kind: RID_PATTERN if kind == "device" else NAME_PATTERN for kind in NAMED}
"""What such a name looks like."""
TOP = (
    Field("schema", COUNT, f"version of the format, {SCHEMA}", required=True),
    Field("backend", WORD, "backend that the state folder must belong to, or belongs to from now on"),
)


def read_name(kind: str, text: str) -> Any:
    """The name of an object of that kind: a RID for devices. Raises IommuError."""
    if kind == "device":
        return Rid.parse(text)
    check_name(text)
    return text


def read_value(kind: Kind, value: Any) -> Any:
    """A value of that kind. Raises IommuError with what is wrong with it."""
    try:
        return kind.read(value)
    except TypeError:
        raise Usage(f"{type_name(value)} stands here") from None


def type_name(value: Any) -> str:
    """What TOML calls the type of a value. Only JSON has null."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", dict: "a table"}
    return names.get(type(value), "a date or time")

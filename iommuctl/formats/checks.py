# SPDX-License-Identifier: Apache-2.0
"""What a specification demands of a structure beyond its layout: values that mean something, fields that go together.

The demands are declared where the fields are, and each is about one field:

    class Example(Layout, bits=64, name="test.example"):
        '''An example: VT-d 4.1 section 9.6.'''

        KIND = Bits(2, 0, values={1: "one", 2: "other"})
        SIZE = Bits(5, 3)
        WIDTH = Bits(9, 6)

        checks = (
            named(KIND),
            only(SIZE, KIND=2),
            Check(WIDTH, "must be even", lambda entry: entry.WIDTH % 2 == 0),
        )

`problems` turns those that do not hold into sentences. Encoding does not ask for them, as tests and other people's
tables need bad structures, too; walks do not either: hardware decides by itself.
"""

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from iommuctl.formats.bits import Field, Layout

_SOURCE = re.compile(r"\S+ \S+ section [\dA-Z]+(\.\d+)*")

Where = int | tuple[int, ...]


class Check(NamedTuple):
    """One demand: a field, the words that follow "FIELD is 0x… but", and whether a structure meets it.

    `holds` is given an object that has the value of each field as an attribute, by the field's name.
    """

    field: Field
    demand: str
    holds: Callable[[Any], bool]


def named(field: Field, **where: Where) -> Check:
    """The field must hold one of the values that its declaration names; perhaps only where other fields hold these."""
    demand = f"must be {_any_of(tuple(field.values))}"
    if where:
        demand += f" where {_words(where)}"
    return Check(field, demand, lambda entry: getattr(entry, field.name) in field.values or not _met(entry, where))


def only(field: Field, **where: Where) -> Check:
    """The field counts only where other fields hold these values, so that elsewhere it should be zero."""
    demand = f"counts only where {_words(where)}"
    return Check(field, demand, lambda entry: not getattr(entry, field.name) or _met(entry, where))


def problems(layout: type[Layout], raw: int) -> list[str]:
    """Sentences about what is wrong with a structure, each with the section that says so.

    None about bits that hardware does not look at, as in an entry that is not present.
    """
    checked = layout.checked(raw)
    found = layout.misfits(raw, checked)
    values = SimpleNamespace(**layout.values(raw))
    found += [
        f"{check.field.name} is {check.field.get(raw):#x} but {check.demand}"
        for check in layout.checks
        if check.field.mask & checked and not check.holds(values)
    ]
    return [cited(layout, sentence) for sentence in found]


def cited(layout: type[Layout], sentence: str) -> str:
    """A sentence about a structure with the section that specifies it, which is what its docstring names first."""
    source = _SOURCE.search(" ".join((layout.__doc__ or "").split()))
    return f"{sentence}: {source[0]}" if source else sentence


def _met(entry: Any, where: Mapping[str, Where]) -> bool:
    return all(getattr(entry, name) in _values(value) for name, value in where.items())


def _words(where: Mapping[str, Where]) -> str:
    return " and ".join(f"{name} is {_any_of(_values(value))}" for name, value in where.items())


def _values(value: Where) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


def _any_of(values: tuple[int, ...]) -> str:
    *most, last = (f"{value:#x}" for value in values)
    return f"{', '.join(most)} or {last}" if most else last

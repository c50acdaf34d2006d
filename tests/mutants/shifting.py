# SPDX-License-Identifier: Apache-2.0
"""Mutants: an architecture's structures as they are declared, but for one field that stands one bit off.

A mutant comes into being while the package is imported, so that all that follows from the declaration follows. It
takes a process in which the package has not been imported.
"""

import sys
from importlib import import_module
from typing import NamedTuple

from iommuctl.formats.bits import Address, Field, Ignored, Layout


class Mutant(NamedTuple):
    """The field of an architecture's layout (its class) is declared so many bits too high."""

    architecture: str
    layout: str
    field: str
    by: int

    def __str__(self) -> str:
        return f"{self.layout}.{self.field} {self.by:+}"


def package(architecture: str) -> str:
    """Where the structures of the architecture are declared."""
    return f"iommuctl_{architecture}"


def mutants(architecture: str) -> list[Mutant]:
    """One for each declared field: a bit up, or down where the field ends at the structure's top.

    Fields that hardware ignores are never encoded, so that there are none for these; nor for a field that is the whole
    structure, which has no room to move.
    """
    structures = import_module(f"{package(architecture)}.structures").STRUCTURES
    layouts = [layout for first in structures.values() for layout in (first, *first.revisions.values())]
    return [
        Mutant(architecture, layout.__name__, field.name, -1 if field.msb == layout.bits - 1 else 1)
        for layout in dict.fromkeys(layouts)
        for field in layout.fields
        if vars(layout).get(field.name) is field and not isinstance(field, Ignored) and field.width < layout.bits
    ]


def declare(mutant: Mutant) -> None:
    """Have the package declare this mutant when it is imported in this process."""
    own = package(mutant.architecture)
    assert own not in sys.modules, "it has been imported already"
    derive = Layout._derive.__func__  # type: ignore[attr-defined]

    def derive_mutant(cls: type[Layout]) -> None:
        if cls.__name__ == mutant.layout and cls.__module__.startswith(own):
            _shift(cls._declared[mutant.field], mutant.by)
        derive(cls)

    def check_nothing(_: type[Layout]) -> None:
        """Two fields may overlap now."""

    Layout._check = classmethod(check_nothing)  # type: ignore[method-assign, assignment]
    Layout._derive = classmethod(derive_mutant)  # type: ignore[method-assign, assignment]


def _shift(field: Field, by: int) -> None:
    field.lsb, field.msb = field.lsb + by, field.msb + by
    field.mask = (1 << field.width) - 1 << field.lsb
    field.bias = field.lsb - field.lsb % 64 if isinstance(field, Address) else field.lsb

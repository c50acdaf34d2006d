# SPDX-License-Identifier: Apache-2.0
"""What judges each part of the models from outside, and what nothing judges yet: the data of docs/fidelity.md.

Of structures and faults it follows from the tests' own tables; of the rest it is written down in the architectures'
modules of this package.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from iommuctl.formats.bits import Fixed, Layout
from tests.differential.covered import Covered
from tests.differential.deviation import Deviation
from tests.mutants.unlooked import ALL

VECTORS, QEMU, LINUX = "vectors", "QEMU", "Linux"
JUDGES: Mapping[str, str] = {
    VECTORS: "words, walks and faults computed from the specification by hand, which stand in tests as literals",
    QEMU: "QEMU's units over our table bytes and our commands, DMA by DMA ([tests/differential]"
    "(../tests/differential/README.md)); for fields, that a differential test fails where one is moved by a bit "
    "([tests/mutants](../tests/mutants/README.md))",
    LINUX: "a second walk: tables that Linux wrote, as its kernel tells of them and as our unit reads them "
    "([tests/linux](../tests/linux/README.md))",
}


class Subject(NamedTuple):
    """A part of the model: by which judge it is held, in which files or folders of tests, and what they leave open."""

    name: str
    judged: Mapping[str, str]
    left: str = ""


class Judged(Protocol):
    """What the module of an architecture has."""

    SUBJECTS: tuple[Subject, ...]
    UNLOOKED: Mapping[str, Mapping[str, str]]
    """See `tests.mutants.unlooked`."""
    DEVIATIONS: Mapping[str, Deviation]
    COVERED: Mapping[int, Covered]
    REASONS: Mapping[int, tuple[str, str]]
    """Names and sentences of faults, by code."""

    def fields_with_vectors(self, layout: type[Layout]) -> frozenset[str]:
        """The fields of a structure that are not zero in some word that was computed by hand."""

    def structures_of_linux(self) -> frozenset[str]:
        """The structures that are compared with what Linux's kernel tells, by their names."""

    def codes_with_vectors(self) -> frozenset[int]:
        """The fault codes that hand-written entries lead to."""


def judged(architecture: str) -> Judged:
    """What there is about an architecture."""
    return cast("Judged", import_module(f"tests.fidelity.{architecture}"))


def fields_by_qemu(layout: type[Layout], unlooked: Mapping[str, Mapping[str, str]]) -> tuple[int, dict[str, str]]:
    """How many fields of a structure QEMU looks at, and the others with the reason."""
    listed = unlooked.get(layout.__name__, {})
    if layout.fields[0].width == layout.bits:
        # There is no mutant of it.
        listed = {ALL: "it is one field, which cannot be declared a bit off"}
    others = {field.name: listed.get(field.name, listed.get(ALL, "")) for field in layout.fields}
    others = {name: why for name, why in others.items() if why}
    return len(layout.fields) - len(others), others


def not_zero(layout: type[Layout], rows: Iterable[tuple[type[Layout], Mapping[str, int]]]) -> frozenset[str]:
    """The fields of a structure that are not zero in some of these words, by their layouts."""
    own = [fields for one, fields in rows if one is layout]
    held = {name for fields in own for name, value in fields.items() if value}
    always = {field.name for field in layout.fields if isinstance(field, Fixed)} if own else set()
    return frozenset(held | always)

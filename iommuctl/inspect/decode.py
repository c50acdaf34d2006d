# SPDX-License-Identifier: Apache-2.0
"""Decoding the raw bits of a hardware structure, as someone has them from a dump or a log."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import NamedTuple

from iommuctl.errors import BackendUnavailable, BadNumber, BadStructure, NoSuchStructure
from iommuctl.formats import checks
from iommuctl.formats.bits import Fixed, Layout

_HEX = re.compile(r"(0[xX])?([0-9a-fA-F]+)", re.ASCII)
_WORD_DIGITS = 16


class DecodedField(NamedTuple):
    """A field with its place, its value and what that means."""

    name: str
    msb: int
    lsb: int
    value: int
    meaning: str
    needs: str | None


class Decoded(NamedTuple):
    """A structure, field by field, and sentences about what is wrong with it, each with the section that says so.

    `revision` is None for a structure that looks the same in all revisions of its specification.
    """

    structure: str
    revision: int | None
    words: tuple[int, ...]
    fields: tuple[DecodedField, ...]
    problems: tuple[str, ...]


def find(name: str, revision: int | None = None) -> type[Layout]:
    """The structure of that full name, `vtd.pasid-entry`, as that revision of its specification has it.

    Raises NoSuchStructure.
    """
    layout = _find(name)
    if revision is None:
        return layout
    if revision in layout.revisions:
        return layout.revisions[revision]
    from iommuctl import plugins

    architecture = name.partition(".")[0] + "."
    family = [other for full, other in plugins.structures().items() if full.startswith(architecture)]
    known = sorted({number for other in family for number in other.revisions})
    if revision in known:
        return layout
    raise NoSuchStructure(
        f"there is no revision {revision} of {layout.name}",
        hint=f"revisions that are told apart: {', '.join(map(str, known)) or 'none'}",
    )


def _find(name: str) -> type[Layout]:
    from iommuctl import plugins

    try:
        known = plugins.architecture(name.partition(".")[0]).structures
    except BackendUnavailable:
        known = {}
    if name in known:
        return known[name]
    everything = plugins.structures()
    if name in everything:
        return everything[name]
    short = [full for full in everything if full.partition(".")[2] == name]
    near = short or get_close_matches(name, everything)
    raise NoSuchStructure(
        f"there is no structure {name[:60]!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "`iommuctl table list` names them all",
    )


def summary(layout: type[Layout]) -> str:
    """What the structure is and where it is specified: the first paragraph of its docstring, on one line."""
    return first_paragraph(layout.__doc__)


def first_paragraph(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def field_docs(layout: type[Layout]) -> dict[str, str]:
    """What the literals behind the fields of a declaration say, by the fields' names: each one's first paragraph.

    Another revision has those of the declaration that it changes. There are none for a declaration whose source is
    not installed.
    """
    found: dict[str, str] = {}
    for declaration in reversed(layout.__mro__):
        if issubclass(declaration, Layout) and declaration is not Layout:
            found |= _own_docs(declaration)
    return found


def _own_docs(layout: type[Layout]) -> dict[str, str]:
    import ast
    from inspect import getsource
    from textwrap import dedent

    try:
        (declaration,) = ast.parse(dedent(getsource(layout))).body
    except (OSError, TypeError):
        return {}
    assert isinstance(declaration, ast.ClassDef)
    found = {}
    for pair in pairwise(declaration.body):
        match pair:
            case ast.Assign(targets=[ast.Name(name)]), ast.Expr(ast.Constant(str(text))):
                found[name] = first_paragraph(text)
    return found


def decode(layout: type[Layout], raw: int) -> Decoded:
    """Every field of a structure, whatever its reserved bits hold, and what is wrong with it.

    A value that has no name means what the declaration says of its field, which is about bits that are set: a single
    one that is not means nothing.
    """
    docs = field_docs(layout)
    docs |= {field.name: f"always {field.value:#x}" for field in layout.fields if isinstance(field, Fixed)}
    fields = []
    for field in layout.fields:
        value = field.get(raw)
        meaning = field.values.get(value) or (docs.get(field.name, "") if value or field.width > 1 else "")
        fields.append(DecodedField(field.name, field.msb, field.lsb, value, meaning, field.needs))
    problems = tuple(checks.problems(layout, raw))
    return Decoded(layout.name, layout.revision, layout.to_words(raw), tuple(fields), problems)


def parse(layout: type[Layout], texts: Sequence[str]) -> int:
    """The structure that was written in hexadecimal, in one of three ways.

    Words of 64 bits, lowest first. One number of more than 16 digits after 0x: the whole structure. Its bytes
    without 0x, all of them or two words and more: as they lie in memory. What is missing at the end is zero.
    Raises BadNumber and BadStructure.
    """
    parts = [_split(text) for text in texts]
    size = layout.bits // 8
    prefix, digits = parts[0]
    whole_words = _WORD_DIGITS < len(digits) < 2 * size and len(digits) % _WORD_DIGITS == 0
    if len(parts) == 1 and not prefix and (len(digits) == 2 * size or whole_words):
        return int.from_bytes(bytes.fromhex(digits), "little")
    if len(parts) == 1 and prefix and len(digits) > _WORD_DIGITS:
        raw = int(digits, 16)
    else:
        raw = layout.from_words(_words(layout, parts))
    if raw >> layout.bits:
        raise BadStructure(f"the value does not fit into {layout.name}", because=f"it has {layout.bits} bits")
    return raw


def _words(layout: type[Layout], parts: Sequence[tuple[str, str]]) -> list[int]:
    for prefix, digits in parts:
        if len(digits) > _WORD_DIGITS:
            raise BadStructure(
                f"{prefix}{digits[:20]}… has {len(digits)} digits",
                because=f"a word has at most {_WORD_DIGITS}, and all of {layout.name} in memory order has"
                f" {layout.bits // 4} without 0x",
            )
    count = (layout.bits + 63) // 64
    if len(parts) > count:
        raise BadStructure(
            f"{len(parts)} words are too many", because=f"{layout.name} has {count} of 64 bits" if count > 1 else
            f"{layout.name} has {layout.bits} bits",
        )  # fmt: skip
    return [int(digits, 16) for _, digits in parts]


def _split(text: str) -> tuple[str, str]:
    match = _HEX.fullmatch(text)
    if match is None or len(text) > 1 << 12:
        raise BadNumber(f"{text[:60]!r} is not hexadecimal", hint="write words as 0x1003, or all bytes without 0x")
    return match[1] or "", match[2]

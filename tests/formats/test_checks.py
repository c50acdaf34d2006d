# SPDX-License-Identifier: Apache-2.0
"""Checks as a layout declares them: the sentences, where they count, and whose section they name."""

from typing import ClassVar

import pytest

from iommuctl.formats.bits import Bit, Bits, Fixed, Layout
from iommuctl.formats.checks import Check, cited, named, only, problems


class Example(Layout, bits=64, name="test.example", revision=4, present="P"):
    """An example: Toy 2.0 section 9.6, and more of Toy 2.0 section 1."""

    P = Bit(0)
    KIND = Bits(6, 4, values={1: "one", 2: "two", 7: "seven"})
    MODE = Bits(9, 8, values={0: "off"})
    SIZE = Bits(13, 10)
    TYPE = Fixed(63, 60, 5)

    checks: ClassVar[tuple[Check, ...]] = (
        named(KIND),
        named(MODE, KIND=(1, 2)),
        only(SIZE, KIND=2, MODE=0),
        Check(SIZE, "must be even", lambda entry: entry.SIZE % 2 == 0),
    )


class ExampleRev3(Example, revision=3):
    """An example of revision 3: Toy 1.0 section 7."""

    OLD = Bit(14)

    checks: ClassVar[tuple[Check, ...]] = (*Example.checks, only(OLD, KIND=1))


class Plain(Layout, bits=64, name="test.plain"):
    """A structure that nobody specified."""

    A = Bit(0)


def found(**values: int) -> list[str]:
    return problems(Example, Example.encode(P=1, **values))


def test_a_good_structure_has_no_problems() -> None:
    assert found(KIND=1) == found(KIND=2, SIZE=4) == []


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        ({"KIND": 0}, ["KIND is 0x0 but must be 0x1, 0x2 or 0x7"]),
        ({"KIND": 1, "MODE": 2}, ["MODE is 0x2 but must be 0x0 where KIND is 0x1 or 0x2"]),
        ({"KIND": 3, "MODE": 2}, ["KIND is 0x3 but must be 0x1, 0x2 or 0x7"]),
        ({"KIND": 1, "SIZE": 4}, ["SIZE is 0x4 but counts only where KIND is 0x2 and MODE is 0x0"]),
        ({"KIND": 2, "SIZE": 15}, ["SIZE is 0xf but must be even"]),
        (
            {"KIND": 1, "SIZE": 1},
            ["SIZE is 0x1 but counts only where KIND is 0x2 and MODE is 0x0", "SIZE is 0x1 but must be even"],
        ),
    ],
)
def test_sentences_name_the_value_the_demand_and_the_section(values: dict[str, int], sentences: list[str]) -> None:
    assert found(**values) == [f"{sentence}: Toy 2.0 section 9.6" for sentence in sentences]


def test_what_the_layout_forbids_comes_first() -> None:
    assert problems(Example, 1 << 20 | 1) == [
        "TYPE is 0x0 but always 0x5 in this structure: Toy 2.0 section 9.6",
        "reserved bit 20 set: Toy 2.0 section 9.6",
        "KIND is 0x0 but must be 0x1, 0x2 or 0x7: Toy 2.0 section 9.6",
    ]


def test_nothing_is_wrong_with_what_is_not_present() -> None:
    everything = (1 << 64) - 1
    assert problems(Example, everything)
    assert problems(Example, everything & ~1) == []
    assert Example.misfits(everything & ~1)


def test_encoding_asks_for_the_layout_alone() -> None:
    assert Example.decode(Example.encode(P=1, KIND=3))["KIND"] == 3


def test_a_revision_has_its_own_section_and_may_add_checks() -> None:
    good, bad = (ExampleRev3.encode(P=1, OLD=1, KIND=kind) for kind in (1, 2))
    assert problems(ExampleRev3, good) == []
    assert problems(ExampleRev3, bad) == ["OLD is 0x1 but counts only where KIND is 0x1: Toy 1.0 section 7"]
    assert problems(Example, Example.encode(P=1, KIND=1) | 1 << 14) == ["reserved bit 14 set: Toy 2.0 section 9.6"]
    assert len(Example.checks) == 4


@pytest.mark.parametrize(
    ("doc", "section"),
    [
        ("A thing: VT-d 4.1 section 9.10. More.", ": VT-d 4.1 section 9.10"),
        ("A thing, as VT-d 4.1\n    section 9.6 has it.", ": VT-d 4.1 section 9.6"),
        ("A thing: SMMUv3 F.b section D5.4", ": SMMUv3 F.b section D5.4"),
        ("A thing of its own.", ""),
        (None, ""),
    ],
)
def test_the_section_is_what_the_docstring_says(doc: str | None, section: str) -> None:
    members = {"__doc__": doc, "A": Bit(0)}
    layout: type[Layout] = type("MadeUp", (Layout,), members, bits=64, name="test.made-up")
    assert cited(layout, "reserved bit 5 set") == f"reserved bit 5 set{section}"


def test_a_structure_without_a_section() -> None:
    assert problems(Plain, 2) == ["reserved bit 1 set"]

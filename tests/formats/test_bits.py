# SPDX-License-Identifier: Apache-2.0
"""Declared layouts: what a declaration refuses, and round trips of every structure that is declared."""

import types
from functools import cache
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iommuctl_smmuv3.id_registers
import iommuctl_smmuv3.structures
import iommuctl_vtd.registers
import iommuctl_vtd.structures
from iommuctl.errors import BadStructure
from iommuctl.formats.bits import Address, Bit, Bits, Field, Fixed, Ignored, Layout, bit_names

MODULES: tuple[ModuleType, ...] = (*iommuctl_vtd.structures.MODULES, *iommuctl_smmuv3.structures.MODULES)


class Example(Layout, bits=128, name="test.example"):
    """Every kind of field, in two words."""

    TYPE = Fixed(3, 0, 5)
    FLAG = Bit(4, values={0: "off", 1: "on"})
    NUMBER = Bits(11, 8, needs="WIDE")
    SPARE = Ignored(13, 12)
    POINTER = Address(47, 16)
    HIGH_POINTER = Address(127, 76)


class Part(Layout, bits=64, name="test.part", revision=4):
    """A structure that had more fields once."""

    P = Bit(0)
    OLD: Field = Ignored(1, 1)
    UNUSED = Ignored(2, 2)
    POINTER = Address(63, 12)


class PartRev3(Part, revision=3):
    """What it had."""

    HINT = Bits(5, 4)
    OLD = Bit(1)


LAYOUTS: list[type[Layout]] = [
    Example,
    PartRev3,
    *(
        thing
        for module in MODULES
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Layout) and thing.__module__ == module.__name__
    ),
]
FIELDS = [(layout, field) for layout in LAYOUTS for field in layout.fields]
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


def step(field: Field) -> int:
    """The smallest value but zero that stands in the field's place."""
    return 1 << field.lsb - field.bias


@cache
def values_of(layout: type[Layout]) -> st.SearchStrategy[dict[str, int]]:
    """Values for all fields of a structure."""
    return st.fixed_dictionaries(
        {
            field.name: st.just(field.value)
            if isinstance(field, Fixed)
            else st.integers(0, (1 << field.width) - 1).map(step(field).__mul__)
            for field in layout.fields
        }
    )


# Every structure


@every_layout
@settings(deadline=None, derandomize=True, max_examples=8)
@given(data=st.data())
def test_round_trip(layout: type[Layout], data: st.DataObject) -> None:
    values = data.draw(values_of(layout))  # type: ignore[arg-type]
    raw = layout.encode(**values)
    assert layout.decode(raw) == layout.values(raw) == values
    assert layout.misfits(raw) == []
    words = layout.to_words(raw)
    assert len(words) == -(-layout.bits // 64)
    assert layout.from_words(words) == raw
    stored = layout.to_bytes(raw)
    assert len(stored) * 8 == layout.bits
    assert b"".join(word.to_bytes(8, "little") for word in words)[: len(stored)] == stored


# There are as many structures as there are examples elsewhere.
@every_layout
@settings(deadline=None, derandomize=True, max_examples=8)
@given(data=st.data())
def test_whatever_memory_holds_decodes_or_does_not_fit(layout: type[Layout], data: st.DataObject) -> None:
    raw = data.draw(st.integers(0, (1 << layout.bits) - 1))
    if layout.misfits(raw):
        with pytest.raises(BadStructure):
            layout.decode(raw)
    else:
        assert layout.encode(**layout.decode(raw)) == raw & ~layout.ignored


@every_layout
def test_every_bit_has_one_meaning(layout: type[Layout]) -> None:
    masks = [field.mask for field in layout.fields]
    assert sum(masks) + layout.ignored + layout.reserved == (1 << layout.bits) - 1


@every_layout
def test_every_structure_names_its_specification(layout: type[Layout]) -> None:
    if layout not in (Example, PartRev3):
        assert layout.__doc__ is not None
        specifications = ("VT-d 4.1",) if layout.name.startswith("vtd.") else ("IHI0070 G.b", "DDI0487 M.a.a")
        assert any(f"{specification} section " in layout.__doc__ for specification in specifications)


def test_names_are_unique() -> None:
    assert len({(layout.name, layout.revision) for layout in LAYOUTS}) == len(LAYOUTS)


def test_every_structure_can_be_asked_for() -> None:
    """In its newest revision by name, and from there in all others."""
    structures = iommuctl_vtd.structures.STRUCTURES | iommuctl_smmuv3.structures.STRUCTURES
    assert all(layout.name == name for name, layout in structures.items())
    found = [other for layout in structures.values() for other in layout.revisions.values() or [layout]]
    assert len(found) == len(set(found))
    assert set(found) == set(LAYOUTS) - {Example, PartRev3}
    assert all(layout.revision in (None, 4) for layout in structures.values())


@pytest.mark.parametrize(
    ("architecture", "registers"),
    [
        ("vtd", {iommuctl_vtd.registers.ECAP}),
        ("smmuv3", {getattr(iommuctl_smmuv3.id_registers, name) for name in ("IDR0", "IDR1", "IDR3", "IDR5")}),
    ],
)
def test_needs_are_capabilities(architecture: str, registers: set[type[Layout]]) -> None:
    needs = {field.needs for layout, field in FIELDS if field.needs and layout.name.startswith(f"{architecture}.")}
    assert needs
    assert needs <= {field.name for register in registers for field in register.fields}


@every_layout
def test_a_value_that_is_one_too_large_is_refused(layout: type[Layout]) -> None:
    for field in layout.fields:
        too_large = (field.mask >> field.bias) + step(field)
        with pytest.raises(BadStructure) as refused:
            layout.encode(**{field.name: too_large})
        assert refused.value.what == f"{too_large:#x} does not fit field {field.name}"
        place = f"bit {field.lsb}" if field.width == 1 else f"bits {field.msb}:{field.lsb}"
        assert refused.value.because.startswith(f"{field.name} is {place}, ")


@every_layout
def test_a_negative_value_is_refused(layout: type[Layout]) -> None:
    for field in layout.fields:
        with pytest.raises(BadStructure, match=f"-{step(field):#x} does not fit field {field.name}"):
            layout.encode(**{field.name: -step(field)})


# Fields


@pytest.mark.parametrize(
    ("name", "value", "because"),
    [
        ("FLAG", 2, "FLAG is bit 4, 1 wide, so at most 0x1"),
        ("NUMBER", 16, "NUMBER is bits 11:8, 4 wide, so at most 0xf"),
        ("POINTER", 1 << 48, "POINTER is bits 47:16, an address of 48 bits that is a multiple of 0x10000"),
        ("POINTER", 0x8000, "POINTER is bits 47:16, an address of 48 bits that is a multiple of 0x10000"),
        ("HIGH_POINTER", 1 << 64, "HIGH_POINTER is bits 127:76, an address of 64 bits that is a multiple of 0x1000"),
        ("HIGH_POINTER", 0x800, "HIGH_POINTER is bits 127:76, an address of 64 bits that is a multiple of 0x1000"),
    ],
)
def test_values_that_do_not_fit(name: str, value: int, because: str) -> None:
    with pytest.raises(BadStructure) as refused:
        Example.encode(**{name: value})
    assert str(refused.value) == f"error[bad-structure]: {value:#x} does not fit field {name}\nbecause: {because}"


def test_get_and_put() -> None:
    raw = Example.encode(FLAG=1, NUMBER=0xA, POINTER=0x1234_0000, HIGH_POINTER=0x5000)
    assert raw == 0x5000 << 64 | 0x1234_0A15
    assert Example.NUMBER.get(raw) == 0xA
    assert Example.POINTER.get(raw) == 0x1234_0000
    assert Example.HIGH_POINTER.get(raw) == 0x5000
    assert Example.HIGH_POINTER.put(0x5000) == 0x5000 << 64


# Declarations


def test_overlapping_fields_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^Broken\.B overlaps A in bits 5:4$"):

        class Broken(Layout, bits=64, name="test.broken"):
            A = Bits(5, 0)
            B = Bits(9, 4)


def test_ignored_bits_overlap_too() -> None:
    with pytest.raises(TypeError, match=r"^Broken\.B overlaps A in bit 7$"):

        class Broken(Layout, bits=64, name="test.broken"):
            A = Ignored(7, 0)
            B = Bit(7)


@pytest.mark.parametrize(("msb", "lsb"), [(64, 60), (3, 5)])
def test_fields_outside_the_structure_are_refused(msb: int, lsb: int) -> None:
    with pytest.raises(TypeError, match=rf"^Broken\.A: bits {msb}:{lsb} are not in 64 bits$"):

        class Broken(Layout, bits=64, name="test.broken"):
            A = Bits(msb, lsb)


def test_a_fixed_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^Broken\.A: 0x10 does not fit 4 bits$"):

        class Broken(Layout, bits=64, name="test.broken"):
            A = Fixed(3, 0, 16)


def test_declaration_order_is_kept_and_ignored_bits_are_not_shown() -> None:
    assert [field.name for field in Example.fields] == ["TYPE", "FLAG", "NUMBER", "POINTER", "HIGH_POINTER"]
    assert Example.reserved == 0xFFF << 64 | 0xFFFF_0000_0000_C0E0


@pytest.mark.parametrize(("bits", "name"), [(0, "test.broken"), (64, "")])
def test_a_structure_has_bits_and_a_name(bits: int, name: str) -> None:
    with pytest.raises(TypeError, match=r"^Broken needs `bits` and `name`$"):

        class Broken(Layout, bits=bits, name=name):
            A = Bit(0)


# Revisions


def test_a_revision_has_what_the_newest_has_and_more() -> None:
    assert [field.name for field in Part.fields] == ["P", "POINTER"]
    assert [field.name for field in PartRev3.fields] == ["P", "OLD", "HINT", "POINTER"]
    assert (Part.name, Part.bits) == (PartRev3.name, PartRev3.bits) == ("test.part", 64)
    assert PartRev3.P is Part.P
    assert PartRev3.encode(P=1, OLD=1, HINT=3, POINTER=0x1000) == 0x1033
    assert PartRev3.decode(0x1037) == {"P": 1, "OLD": 1, "HINT": 3, "POINTER": 0x1000}


def test_what_a_revision_declares_changes_no_other() -> None:
    assert (Part.reserved, Part.ignored) == (0xFF8, 0x6)
    assert (PartRev3.reserved, PartRev3.ignored) == (0xFC8, 0x4)
    assert Part.decode(0x1003) == {"P": 1, "POINTER": 0x1000}
    with pytest.raises(BadStructure, match="reserved bits 5:4 set"):
        Part.decode(0x1033)


def test_revisions_know_each_other() -> None:
    assert (Part.revision, PartRev3.revision, Example.revision) == (4, 3, None)
    assert Part.revisions == PartRev3.revisions == {4: Part, 3: PartRev3}
    assert list(Part.revisions) == [4, 3]
    assert Example.revisions == {}


def test_a_revision_overlaps_nothing_that_it_does_not_replace() -> None:
    with pytest.raises(TypeError, match=r"^Broken\.HINT overlaps P in bit 0$"):

        class Broken(Part, revision=2):
            HINT = Bits(3, 0)

    assert 2 not in Part.revisions


class PartVariant(Part, variant="test.part-variant"):
    """A structure of its own, like the other but for some bits: Test 1.0 section 1."""

    WIDE = Bits(6, 0)


def test_a_variant_replaces_what_it_overlaps() -> None:
    assert (PartVariant.name, PartVariant.bits, PartVariant.revisions) == ("test.part-variant", Part.bits, {})
    kept = [field for field in Part.fields if field.lsb > 6]
    assert list(PartVariant.fields) == [PartVariant.WIDE, *kept]
    assert PartVariant.reserved == Part.reserved & ~0x7F
    assert 0 < len(kept) < len(Part.fields)
    assert Part.name == "test.part"
    assert PartVariant not in Part.revisions.values()


def test_fields_of_a_variant_overlap_each_other_as_little_as_any() -> None:
    with pytest.raises(TypeError, match=r"^Broken\.B overlaps A in bit 3$"):

        class Broken(Part, variant="test.broken"):
            A = Bits(3, 0)
            B = Bits(7, 3)


def test_what_is_no_other_revision() -> None:
    message = "^Broken must be another revision of test.part: `revision=…` and nothing else$"
    with pytest.raises(TypeError, match=message):

        class Broken(Part):
            A = Bit(4)

    for arguments in ({"revision": 3}, {"revision": 2, "bits": 32}, {"revision": 2, "name": "test.other"}):
        with pytest.raises(TypeError, match=message):
            types.new_class("Broken", (Part,), arguments)
    with pytest.raises(TypeError, match=message.replace("part", "example")):

        class Broken(Example, revision=3):  # type: ignore[no-redef]
            A = Bit(5)


# Structures


def test_fixed_fields_need_not_be_given() -> None:
    assert Example.encode() == Example.encode(TYPE=5) == 5


def test_another_fixed_value_is_refused() -> None:
    with pytest.raises(BadStructure) as refused:
        Example.encode(TYPE=6)
    assert refused.value.what == "TYPE of test.example is always 0x5, not 0x6"


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(BadStructure) as refused:
        Example.encode(TPYE=5)
    assert refused.value.what == "test.example has no field TPYE"
    assert refused.value.hint == "its fields are TYPE, FLAG, NUMBER, POINTER, HIGH_POINTER"


@pytest.mark.parametrize(
    ("raw", "because"),
    [
        (0x25, "reserved bit 5 set"),
        (0xE5, "reserved bits 7:5 set"),
        (1 << 75 | 0x85, "reserved bits 75, 7 set"),
        (0x6, "TYPE is 0x6 but always 0x5 in this structure"),
        (0x26, "TYPE is 0x6 but always 0x5 in this structure; reserved bit 5 set"),
        (1 << 128 | 5, "it has more than 128 bits"),
        (-1, "it has more than 128 bits"),
    ],
)
def test_structures_that_are_none(raw: int, because: str) -> None:
    with pytest.raises(BadStructure) as refused:
        Example.decode(raw)
    assert refused.value.what == f"{raw:#x} is not a valid test.example"
    assert refused.value.because == because


def test_ignored_bits_are_no_problem() -> None:
    assert Example.decode(0x3005) == Example.decode(0x5)


def test_reserved_without_a_capability() -> None:
    assert Example.reserved_without({"WIDE"}.__contains__) == Example.reserved
    assert Example.reserved_without(set().__contains__) == Example.reserved | 0xF00


def test_missing_words_are_zero() -> None:
    assert Example.from_words([]) == 0
    assert Example.from_words([5]) == 5
    assert Example.from_words([5, 0x1000]) == 0x1000 << 64 | 5


@pytest.mark.parametrize(
    ("words", "what", "because"),
    [
        ([0, 0, 0], "too many words for test.example", "it has 128 bits"),
        ([1 << 64], "0x10000000000000000 is not a word of test.example", "that word has 64 bits"),
        ([0, -1], "-0x1 is not a word of test.example", "that word has 64 bits"),
    ],
)
def test_words_that_a_structure_does_not_have(words: list[int], what: str, because: str) -> None:
    with pytest.raises(BadStructure) as refused:
        Example.from_words(words)
    assert (refused.value.what, refused.value.because) == (what, because)


def test_the_word_of_a_32_bit_register() -> None:
    register = iommuctl_vtd.registers.GSTS
    assert register.from_words([0x80000000]) == 0x80000000
    with pytest.raises(BadStructure, match=r"0x100000000 is not a word of vtd\.gsts\n"):
        register.from_words([0x100000000])


@pytest.mark.parametrize(
    ("mask", "names"), [(1, "bit 0"), (0b110, "bits 2:1"), (0b1011, "bits 3, 1:0"), (1 << 511, "bit 511")]
)
def test_bit_names(mask: int, names: str) -> None:
    assert bit_names(mask) == names

# SPDX-License-Identifier: Apache-2.0
"""`table list` and `table decode`: the three ways to write a structure, and what is said about it."""

import json
from pathlib import Path

import pytest

from iommuctl.errors import BadNumber, BadStructure
from iommuctl.formats.bits import Address, Bit, Bits, Fixed, Layout
from iommuctl.inspect import decode

from .conftest import Run, python


class Sample(Layout, bits=128, name="test.sample"):
    """A sample: Toy 1.0 section 1."""

    P = Bit(0, values={0: "absent", 1: "present"})
    KIND = Fixed(7, 4, 3)
    PTR = Address(63, 12)
    """Where the rest is."""
    HIGH = Bits(127, 120)


VALUE = 0x7F << 120 | 0x5000 | 3 << 4 | 1
WRITTEN = [
    ["0x5031", "0x7f00000000000000"],
    ["5031", "7f00000000000000"],
    [f"{VALUE:#x}"],
    ["0x" + f"{VALUE:032x}".upper()],
    [VALUE.to_bytes(16, "little").hex()],
]


@pytest.mark.parametrize("texts", WRITTEN)
def test_three_ways_to_write_a_structure(texts: list[str]) -> None:
    assert decode.parse(Sample, texts) == VALUE


def test_what_is_missing_is_zero() -> None:
    assert decode.parse(Sample, ["0x31"]) == 0x31
    descriptor = decode.find("vtd.invalidation-wait")
    whole = decode.parse(descriptor, ["0x200000025", "0x1234567c"])
    assert whole == 0x1234567C_00000002_00000025
    data = whole.to_bytes(32, "little")
    assert decode.parse(descriptor, [data.hex()]) == decode.parse(descriptor, [data[:16].hex()]) == whole


@pytest.mark.parametrize("digits", ["1" * 17, "1" * 31, "1" * 33, "1" * 80])
def test_bytes_are_whole_words(digits: str) -> None:
    with pytest.raises(BadStructure, match=f"has {len(digits)} digits"):
        decode.parse(decode.find("vtd.invalidation-wait"), [digits])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["0x1", "0x2", "0x3"], "3 words are too many"),
        (["0x" + "1" * 33], "the value does not fit into test.sample"),
        (["1" * 33], r"1{20}… has 33 digits"),
        (["0x1", "0x" + "1" * 17], "has 17 digits"),
    ],
)
def test_what_does_not_fit(texts: list[str], message: str) -> None:
    with pytest.raises(BadStructure, match=message):
        decode.parse(Sample, texts)


@pytest.mark.parametrize("text", ["", "0x", "0xg", "-1", "1_0", "0x1" + "0" * 5000, "٣"])
def test_what_is_not_hexadecimal(text: str) -> None:
    with pytest.raises(BadNumber, match="is not hexadecimal"):
        decode.parse(Sample, [text])


def test_fields_meanings_and_problems() -> None:
    found = decode.decode(Sample, VALUE | 1 << 100)
    assert [(field.name, field.value, field.meaning) for field in found.fields] == [
        ("P", 1, "present"),
        ("KIND", 3, "always 0x3"),
        ("PTR", 0x5000, "Where the rest is."),
        ("HIGH", 0x7F, ""),
    ]
    assert found.problems == ("reserved bit 100 set: Toy 1.0 section 1",)


def test_what_declarations_say_of_their_fields() -> None:
    assert decode.field_docs(decode.find("vtd.iqa"))["QS"] == "The queue has 4096 << QS bytes."
    made_up: type[Layout] = type("MadeUp", (Layout,), {"P": Bit(0)}, bits=64, name="test.made-up")
    assert decode.field_docs(made_up) == {}


def test_the_meaning_of_a_value_is_its_name_or_else_what_its_field_is() -> None:
    def meanings(name: str, raw: int, revision: int | None = None) -> dict[str, str]:
        found = decode.decode(decode.find(name, revision), raw)
        return {field.name: field.meaning for field in found.fields}

    assert meanings("vtd.iqa", 0x2000802) == {
        "QS": "The queue has 4096 << QS bytes.",
        "DW": "descriptors of 256 bits",
        "IQA": "Address of the queue.",
    }
    # A single bit that is not set, and a value that should have a name, mean nothing.
    assert meanings("vtd.iqa", 0)["QS"] == "The queue has 4096 << QS bytes."
    assert meanings("vtd.pasid-entry", 5 << 6) | {"P": "", "PGTT": ""} == meanings("vtd.pasid-entry", 5 << 6)
    assert meanings("vtd.pasid-entry", 1)["P"] == "The PASID has translations."
    # A revision has what it does not change from the newest.
    old = meanings("vtd.pasid-entry", 1 << 5 | 1, 3)
    assert (old["P"], old["SLEE"]) == ("The PASID has translations.", "The second stage has execute permissions.")


def test_decode_as_text(ok: Run) -> None:
    lines = ok("table decode vtd.pasid-entry 0x80000000000000c9 0x1").out.splitlines()
    assert lines[0] == "vtd.pasid-entry  PASID table entry: VT-d 4.1 section 9.6. Bits 5:0 of a PASID select it."
    words = ["0x80000000000000c9", "0x0000000000000001", *["0x0000000000000000"] * 6]
    assert f"{lines[1]} {lines[2]}".split() == words
    assert lines[3].split() == ["BITS", "FIELD", "VALUE", "MEANING"]
    rows = [line.split(maxsplit=3) for line in lines[4:]]
    assert ["8:6", "PGTT", "0x3", "nested"] in rows
    assert ["79:64", "DID", "0x1", "Domain id, by which caches tag what they keep."] in rows
    assert ["1", "FPD", "0x0"] in rows
    assert not any(line.startswith("problem") for line in lines)


def test_decode_calls_out_what_is_wrong_and_who_says_so(ok: Run) -> None:
    words = "0x141 0x0 0x0 0x0 0x0 0x0 0x0 0x1"
    problems = [
        "reserved bit 448 set: VT-d 4.1 section 9.6",
        "PGTT is 0x5 but must be 0x1, 0x2, 0x3 or 0x4: VT-d 4.1 section 9.6",
    ]
    lines = ok(f"table decode vtd.pasid-entry {words}").out.splitlines()
    assert lines[-2:] == [f"problem: {problem}" for problem in problems]
    assert ok(f"table decode vtd.pasid-entry {words} -j").json["problems"] == problems
    # Not present: hardware does not look at the rest.
    assert ok(f"table decode vtd.pasid-entry {words.replace('0x141', '0x140')} -j").json["problems"] == []


def test_the_program_itself(state: Path) -> None:
    """What scripts see of a structure that is wrong: the question was answered, so the exit code is 0."""
    result = python("-m", "iommuctl", "table", "decode", "vtd.context-entry", "0xd", "0x2", "-j")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["problems"] == ["TT is 0x3 but must be 0x0, 0x1 or 0x2: VT-d 4.1 section 9.3"]
    assert not state.exists()
    assert python("-m", "iommuctl", "table", "decode", "vtd.context").returncode == 2


def test_decode_as_json(ok: Run) -> None:
    document = ok("table decode vtd.scalable-root-entry 0x1001 0x2001 -j").json
    assert document["schema"] == 1
    assert document["structure"] == "vtd.scalable-root-entry"
    assert document["raw"] == ["0x1001", "0x2001"]
    assert document["fields"]["LP"] == "0x1"
    assert document["problems"] == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vtd.pasid-entri", "did you mean vtd.pasid-entry"),
        ("pasid-entry", "did you mean vtd.pasid-entry?"),
        ("nothing.like.it", "`iommuctl table list` names them all"),
    ],
)
def test_a_structure_that_does_not_exist(run: Run, name: str, hint: str) -> None:
    result = run(f"table decode {name} 0x1 -j")
    assert result.code == 4
    assert result.error["id"] == "no-such-structure"
    assert result.error["hint"].startswith(hint)


def test_list_names_every_structure_with_what_it_is(ok: Run) -> None:
    document = ok("table list -j").json
    names = [row["name"] for row in document["structures"]]
    assert "vtd.pasid-entry" in names
    assert all(row["doc"] for row in document["structures"])
    revisions = {row["name"]: row["revisions"] for row in document["structures"]}
    assert (revisions["vtd.pasid-entry"], revisions["vtd.root-entry"]) == ([3, 4], [])
    assert ok("table list --brief").out.split() == names

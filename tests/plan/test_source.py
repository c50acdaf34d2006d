# SPDX-License-Identifier: Apache-2.0
"""On which line something stands in a document, which a TOML parser does not tell."""

from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.errors import BadDocument
from iommuctl.plan.document import Path, path_text
from iommuctl.plan.source import Source

TEXT = '''\
# a comment with ] and " and QQQ
schema = 1

[domain.d1]
label = "one # two ]"
mappings = [
    { iova = 0, size = "4K" },
    # between

    { iova = 4096, size = "4K" }, { iova = 8192 },
]
width = 48

[domain."d 2"]
label = """first
second [ { "" ""\\""""
nest_parent = true
note = QQQ
'' [
QQQ'
after = 1
pgtable.parent = "d1"
pgtable.deep.er = [
  1,
  2]

[[many]]
a = 1
[[many]]
a = {b = {c = [10, "x]"]}}
last = 0'''.replace("QQQ", "'''")
LINES: list[tuple[Path, int]] = [
    (("schema",), 2),
    (("domain",), 4),
    (("domain", "d1"), 4),
    (("domain", "d1", "label"), 5),
    (("domain", "d1", "mappings"), 6),
    (("domain", "d1", "mappings", 0), 7),
    (("domain", "d1", "mappings", 0, "size"), 7),
    (("domain", "d1", "mappings", 1), 10),
    (("domain", "d1", "mappings", 2, "iova"), 10),
    (("domain", "d1", "width"), 12),
    (("domain", "d 2"), 14),
    (("domain", "d 2", "label"), 15),
    (("domain", "d 2", "nest_parent"), 17),
    (("domain", "d 2", "note"), 18),
    (("domain", "d 2", "after"), 21),
    (("domain", "d 2", "pgtable", "parent"), 22),
    (("domain", "d 2", "pgtable", "deep", "er"), 23),
    (("domain", "d 2", "pgtable", "deep", "er", 1), 25),
    (("many", 0), 27),
    (("many", 1), 29),
    (("many", 1, "a", "b", "c", 1), 30),
    (("many", 1, "last"), 31),
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "newline"])
def test_lines_of_paths(newline: str, end: str) -> None:
    text = TEXT.replace("\n", newline) + (newline if end else "")
    source = Source("file", text)
    for path, line in LINES:
        assert source.line(path) == line, path


def test_a_table_over_several_lines() -> None:
    """TOML 1.1 has them."""
    try:
        source = Source("file", "a = [\n  {\n    b = 1,\n    c = 2\n  },\n]\nd = 1\n")
    except BadDocument:
        pytest.skip("the parser knows TOML 1.0 only")
    places: list[Path] = [("a", 0), ("a", 0, "b"), ("a", 0, "c"), ("d",)]
    assert [source.line(path) for path in places] == [2, 3, 4, 7]


def test_the_document_as_a_whole_is_on_the_first_line() -> None:
    assert Source("file", "\n\na = 1\n").line(()) == 1
    assert Source("file", "").line(()) == 1


def test_only_ends_of_lines_end_lines() -> None:
    """Other programs count no line where Python's splitlines sees one."""
    text = 'a = "\u2028 \x85 \u2029"  # \u2028\nb = 2\n'
    assert Source("file", text).line(("b",)) == 2
    with pytest.raises(BadDocument, match=r"^error\[bad-document\]: file:2: this is not TOML"):
        Source("file", 'a = "\u2028"\nb =\n')


def test_an_error_names_file_line_and_key() -> None:
    error = Source("some file", "a = 1\n[b]\n'c d' = 3").error(("b", "c d"), "what is wrong", because="why")
    assert (error.what, error.because) == ('some file:3: b."c d": what is wrong', "why")
    assert Source("-", "a = 1").error((), "what is wrong").what == "-:1: what is wrong"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("domain", "vm1", "mappings", 2, "size"), "domain.vm1.mappings[2].size"),
        (("device", "0000:00:01.0"), 'device."0000:00:01.0"'),
        (("a_b-c", "é"), 'a_b-c."é"'),
        (("a", ""), 'a.""'),
        (("a", 'x"y\n'), 'a."x\\"y\\n"'),
        ((), ""),
    ],
)
def test_paths_are_written_as_toml_writes_keys(path: Path, text: str) -> None:
    assert path_text(path) == text


BIG = 20_000


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[domain.d]\nmappings = [\n" + "  { iova = 0 },\n" * BIG + "]\n", ("domain", "d", "mappings", BIG - 1)),
        ("".join(f"[memory.m{n}]\nsize = 1\n" for n in range(BIG)), ("memory", f"m{BIG - 1}")),
        ("a = \"\"\"\n" + "x\n" * BIG + "\"\"\"\nb = 1\n", ("b",)),
    ],
    ids=["array", "tables", "string"],
)  # fmt: skip
def test_few_parses_find_a_line(monkeypatch: pytest.MonkeyPatch, text: str, path: Path) -> None:
    source = Source("file", text)
    parses = 0
    whole = tomli.loads

    def counted(text: str) -> dict[str, Any]:
        nonlocal parses
        parses += 1
        return whole(text) if len(text) < 1000 else source.table

    # Of the beginnings only the short ones are parsed, the others are taken for the whole: all that counts is how many.
    monkeypatch.setattr(tomli, "loads", counted)
    source.line(path)
    assert 0 < parses <= 20


VALUES = st.recursive(
    st.integers(-5, 5) | st.booleans() | st.text(alphabet="ab\"'\\\n[]{}#\u2028=, ", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a\"'.[# ", max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(table=st.dictionaries(st.text("ab\"'.[# ", max_size=3), VALUES, max_size=4), multiline=st.booleans())
def test_every_beginning_that_is_tried_is_toml(table: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(table, multiline_strings=multiline)
    source = Source("file", text)
    found = [source.line((key,)) for key in source.table]
    assert all(1 <= line <= text.count("\n") + 1 for line in found)
    for key, value in table.items():
        if not isinstance(value, dict | list):
            assert tomli.loads("\n".join(text.split("\n")[: source.line((key,)) - 1])).get(key) is None

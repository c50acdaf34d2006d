# SPDX-License-Identifier: Apache-2.0
"""Bad documents: each is a bad-document with file, line, key and what was expected, and changes nothing."""

import random
from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl import Iommu
from iommuctl.__main__ import main
from iommuctl.errors import BadDocument, IommuError
from iommuctl.plan import shape, writing
from iommuctl.plan.document import Key, MappingEntry, MemoryEntry
from iommuctl.plan.reading import read
from iommuctl.plan.source import LARGEST, Source
from iommuctl.testing.probes import snapshot
from tests.plan.bad_documents import BAD, Bad

EXAMPLE = (Path(__file__).parents[2] / "examples" / "reference-topology.toml").read_text("utf-8")
FULL = """
schema = 1
backend = "sim"
[machine]
architecture = "vtd"
ram = "0x0+1G"
tables = "512M+64M"
options = { haw = 46, mode = "scalable" }
[memory.m]
size = 4096
[domain.d]
label = "a label"
nest_parent = true
width = 48
page_sizes = "4K,2M"
mappings = [{ iova = 0, size = "4K", memory = "m" }, { iova = 8192, size = 1, pa = "0x1000", prot = "r" }]
[pgtable.t]
parent = "d"
pool = "0x0..0xfff"
format = "vtd.first-stage-4"
mappings = [{ iova = "4K", size = "4K", gpa = 0, prot = "r", privileged = true }]
[device."0000:00:01.0"]
ats = true
pri = false
pasid_bits = 20
attachments = [{ domain = "d", label = "" }]
bindings = [{ domain = "d", pgtable = "t" }, { pasid = 2, domain = "d", addr = "0x1000", format = "f", label = "x" }]
"""


def said(error: IommuError) -> str:
    return "; ".join(filter(None, (error.what, error.because, error.hint)))


def test_there_are_many_kinds() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_documents_name_file_line_and_key(bad: Bad) -> None:
    with pytest.raises(BadDocument) as caught:
        read(Source("some.toml", bad.text))
    place = f"some.toml:{bad.line}: " + (f"{bad.path}: " if bad.path else "")
    if "digits" not in bad.words and "deeply" not in bad.words:  # the parser does not tell where
        assert caught.value.what.startswith(place)
    assert bad.words in said(caught.value)


def test_bad_documents_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOMMUCTL_STATE", str(tmp_path / "state"))
    file = tmp_path / "bad.toml"
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.domain_create("d")
        before = snapshot(iommu)
        for name, bad in BAD.items():
            file.write_text(bad.text, "utf-8")
            for command in ("apply", "plan"):
                assert main([command, str(file)]) == 2, name
                printed = capsys.readouterr()
                assert printed.out == ""
                assert printed.err.startswith(f"error[bad-document]: {file}"), name
        assert snapshot(iommu) == before


def test_a_text_that_is_too_long() -> None:
    with pytest.raises(BadDocument, match="more than 64 MiB"):
        Source("big", "#" * (LARGEST + 1))


def test_every_key_is_read() -> None:
    document = read(Source("full", FULL))
    assert document.backend == "sim"
    assert document.machine
    assert document.machine.options == {"haw": "46", "mode": "scalable"}
    kinds = [key.kind for key in document.objects]
    assert sorted(kinds) == sorted(
        ["memory", "domain", "mapping", "mapping", "pgtable", "device", "attachment", "binding", "binding"]
    )
    assert document.objects[Key("memory", "m")] == MemoryEntry(4096)
    assert document.objects[Key("mapping", ("d", 8192))] == MappingEntry(1, pa=0x1000, prot="r")
    named = {field.name for table in (*shape.NAMED.values(), shape.MACHINE) for field in table.fields}
    assert all(f"{name} = " in FULL for name in named)


@pytest.mark.parametrize("text", [FULL, EXAMPLE], ids=["full", "example"])
def test_what_was_read_is_written_and_read_again_as_the_same(text: str) -> None:
    document = read(Source("one", text))
    written = writing.text(document)
    again = read(Source("other", written))
    assert again._replace(places={}) == document._replace(places={})
    assert writing.text(again) == written


OTHER_TYPES = [0, -1, 1 << 70, 1.5, float("nan"), True, "", "x", "0x1000", [], [1], [{}], {}, {"a": 1}, {"": {}}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, each in inner for place in places(each, (*path, key))]


def changed(table: dict[str, Any], path: tuple[Any, ...], how: str, value: Any) -> dict[str, Any]:
    """The document with another value, another key, or nothing at a place."""
    whole = tomli.loads(tomli_w.dumps(table))
    at: Any = whole
    for part in path[:-1]:
        at = at[part]
    if how == "value" or not isinstance(at, dict):
        at[path[-1]] = value
    elif how == "key":
        at[str(value)] = at.pop(path[-1])
    else:
        del at[path[-1]]
    return whole


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_values_and_keys_are_read_or_refused(data: st.DataObject) -> None:
    table = tomli.loads(data.draw(st.sampled_from((FULL, EXAMPLE))))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(table)))
        table = changed(table, path, data.draw(st.sampled_from(("value", "key", "gone"))),
                        data.draw(st.sampled_from(OTHER_TYPES)))  # fmt: skip
    text = tomli_w.dumps(table)
    read_or_refused(text)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32), text=st.sampled_from((FULL, EXAMPLE)))
def test_mutated_text_is_read_or_refused(seed: int, text: str) -> None:
    """Characters and lines that are changed, doubled, moved or lost."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        parts = text.split("\n") if chance.random() < 0.4 else list(text)
        if not parts:
            break
        at = chance.randrange(len(parts))
        match chance.randrange(5):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[chance.randrange(len(parts))])
            case 2:
                parts[at] = chance.choice(('"', "'", "[", "]", "{", "}", "=", "#", ".", "\\", "\0", "\r", "9", "é"))
            case 3:
                parts = parts[:at]
            case _:
                other = chance.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
        text = ("\n" if any(len(part) > 1 for part in parts) else "").join(parts)
    read_or_refused(text)


def read_or_refused(text: str) -> None:
    refusal: BadDocument | None = None
    try:
        document = read(Source("file", text))
    except BadDocument as error:
        refusal = error
    else:
        writing.text(document)
    if refusal:
        name, line, *_ = refusal.what.split(":")
        assert name == "file"
        assert 1 <= int(line) <= text.count("\n") + 1
        assert refusal.because or refusal.hint

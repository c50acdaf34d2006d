# SPDX-License-Identifier: Apache-2.0
"""translate, check, sim, backend, batch and demo."""

import io
import json
import os
from pathlib import Path

import pytest

from .conftest import Run, python

SVA = "0x7f0000000000"


def test_translate_shows_every_step(reference: Run) -> None:
    lines = reference(f"translate 00:01.0 {SVA} --pasid 3 --access w").out.splitlines()
    assert lines[0] == f"0000:00:01.0 PASID 3  IOVA {SVA}  w"
    assert lines[1].split()[0] == "vtd.scalable-root-entry"
    assert lines[-1] == "-> 0x2400000  rw  4 KiB page"
    document = reference(f"translate 00:01.0 {SVA} --pasid 3 -j").json
    assert (document["rid"], document["pasid"], document["iova"]) == ("0000:00:01.0", 3, SVA)
    assert (document["pa"], document["page_size"], document["prot"]) == ("0x2400000", 4096, "rw")
    assert (document["memory"], document["offset"], document["fault"]) == (None, None, None)
    known = {row["name"] for row in reference("table list -j").json["structures"]}
    for step in document["steps"]:
        assert step["structure"] in known
        assert step["address"].startswith("0x")
        assert all(word.startswith("0x") for word in step["raw"])
        assert all(value.startswith("0x") for value in step["fields"].values())


def test_translate_names_memory(ok: Run) -> None:
    ok("device add 00:01.0")
    ok("memory create m --size 64K")
    ok("domain create d")
    ok("domain map d --iova 1M --size 16K --memory m+16K")
    ok("attach d 00:01.0")
    document = ok("translate 00:01.0 0x101010 -j").json
    assert (document["memory"], document["offset"]) == ("m", 0x5010)
    assert "(m+0x5010)" in ok("translate 00:01.0 0x101010").out


def test_translate_that_faults_is_an_answer(reference: Run) -> None:
    document = reference("translate 00:01.0 0 -j").json
    assert document["pa"] is None
    fault = document["fault"]
    assert {"code", "name", "reason", "rid", "pasid", "iova", "access"} == set(fault)
    assert fault["code"].startswith("0x")
    assert reference("translate 00:01.0 0").out.splitlines()[-1].startswith("fault 0x")


def test_check(reference: Run, run: Run) -> None:
    assert reference("check").out == "ok: the tables hold what they should\n"
    assert reference("check -j").json == {"schema": 1, "ok": True, "problems": []}
    pasid_entry = reference("translate 00:01.0 1M -j").json["steps"][3]["address"]
    reference(f"sim write {pasid_entry} {'00' * 8}")
    damaged = run("check -j")
    assert damaged.code == 1
    assert damaged.json["ok"] is False
    assert damaged.json["problems"]
    text = run("check")
    assert (text.code, text.err) == (1, "")
    assert text.out.startswith("problem: ")


def test_dma(reference: Run) -> None:
    written = reference(f"sim dma 00:01.0 {SVA} --pasid 3 --write --data 68656c6c6f -j").json
    assert written == {
        "schema": 1,
        "ok": True,
        "pieces": [{"iova": SVA, "pa": "0x2400000", "size": 5}],
        "data": None,
        "fault": None,
        "stale": False,
        "changed": [],
        "missing": [],
        "iotlb": {"hits": 0, "misses": 1},
        "device_tlb": {"hits": 0, "misses": 0},
    }
    assert reference("sim read 0x2400000 8 -j").json["data"] == "68656c6c6f000000"
    read = reference(f"sim dma 00:01.0 {SVA} --pasid 3 --read --size 5 -j").json
    assert read["data"] == "68656c6c6f"
    text = reference(f"sim dma 00:01.0 {SVA} --pasid 3 --read --size 5").out
    assert text.startswith(f"read 5 bytes: {SVA} <- 0x2400000\n")
    assert "|hello|" in text


def test_dma_that_faults(reference: Run, run: Run) -> None:
    result = run("sim dma 00:01.0 0 --read --size 8 -j")
    assert (result.code, result.err) == (1, "")
    assert result.json["ok"] is False
    assert result.json["fault"]["rid"] == "0000:00:01.0"
    assert "fault 0x" in run("sim dma 00:01.0 0 --read --size 8").out


def test_dma_that_is_stale(reference: Run) -> None:
    dma = f"sim dma 00:01.0 {SVA} --pasid 3 --read --size 8"
    reference(dma)
    reference(f"pgtable unmap a1 --iova {SVA} --size 64K")
    told = reference(f"{dma} -j").json
    assert told["stale"] is True
    assert [(each["structure"], each["table"], each["operation"]) for each in told["changed"]] == [
        ("vtd.first-stage-entry", "page table a1", f"pgtable unmap a1 --iova {SVA} --size 0x10000")
    ]
    assert [command["name"] for command in told["missing"]] == ["vtd.pasid-iotlb-invalidate"]
    text = reference(dma).out
    assert "stale: iotlb answered" in text
    assert "of page table a1, last by `pgtable unmap a1" in text
    assert "missing  vtd.pasid-iotlb-invalidate" in text


@pytest.mark.parametrize(
    "line",
    [
        "sim dma 00:01.0 0",
        "sim dma 00:01.0 0 --read",
        "sim dma 00:01.0 0 --write",
        "sim dma 00:01.0 0 --read --write --size 4",
        "sim dma 00:01.0 0 --read --size 4 --data 00",
        "sim dma 00:01.0 0 --write --size 4 --data 00",
        "sim dma 00:01.0 0 --read --size 1G",
        "sim init --option width",
        "sim init --arch none",
        "sim init --ram 4K",
    ],
)
def test_malformed_requests_of_the_simulator(run: Run, line: str) -> None:
    result = run(f"{line} -j")
    assert result.code in (2, 3, 4), result
    assert result.error["what"]


def test_sim_init_show_reset(ok: Run, run: Run) -> None:
    line = ok("sim init --arch vtd --ram 0+64M --tables 0..0xffffff").out
    assert line == "vtd machine made, RAM 0x0..0x3ffffff (64 MiB), tables 0x0..0xffffff (16 MiB)\n"
    document = ok("sim show -j").json
    assert document["arch"] == "vtd"
    memory = document["memory"]
    assert (memory["base"], memory["size"]) == ("0x0", 64 << 20)
    assert memory["tables"] == {"base": "0x0", "size": 16 << 20}
    assert os.path.getsize(memory["file"]) == 64 << 20
    assert all(value.startswith("0x") for value in document["registers"].values())
    assert all(isinstance(count, int) for count in document["caches"].values())
    assert "memory file" in ok("sim show").out
    ok("sim write 0x2000000 00ff")
    assert ok("sim read 0x2000000 2").out == "0x2000000  00 ff                                            |..|\n"
    file = Path(memory["file"])
    with file.open("rb") as raw:
        raw.seek(0x2000000)
        assert raw.read(2) == b"\x00\xff"
    ok("domain create d")
    assert run("sim init -j").error["id"] == "in-use"
    ok("sim reset")
    assert ok("domain list --brief").out == ""
    assert ok("sim read 0x2000000 2 -j").json["data"] == "0000"


def test_memory_outside_ram(ok: Run, run: Run) -> None:
    ok("sim init --ram 0+64M --tables 0+16M")
    assert run("sim read 64M 1 -j").error["id"] == "outside-memory"
    assert run("sim write 0x3ffffff 0000 -j").error["id"] == "outside-memory"


def test_backends(ok: Run, run: Run) -> None:
    rows = {row["name"]: row for row in ok("backend list -j").json["backends"]}
    assert {"name", "available", "because", "architecture", "api"} == set(rows["sim"])
    assert rows["sim"]["available"] is True
    shown = ok("backend show sim -j").json
    assert isinstance(shown["capabilities"]["hitless_replace"], bool)
    assert shown["limits"]["pasid_bits"] > 0
    assert "hitless replace" in ok("backend show sim").out
    assert "sim" in ok("backend list").out
    assert run("backend show nothing -j").error["id"] == "backend-unavailable"


def test_a_folder_belongs_to_one_backend(ok: Run, run: Run) -> None:
    ok("device add 00:01.0")
    assert run("device list --backend vtd -j").error["id"] == "other-backend"
    assert ok("--backend sim device list --brief").out == "0000:00:01.0\n"


def test_batch_stops_at_the_first_error(ok: Run, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("\n# comment\ndomain create d # here, too\niommuctl domain show nothing\ndomain create e\n")
    result = run(f"batch {file}")
    assert result.code == 4
    assert result.out == "d: created, id 1\n"
    assert result.err.startswith(f"error[no-such-domain]: {file}:4: no domain 'nothing'")
    assert ok("domain list --brief").out == "d\n"


def test_batch_as_json_is_a_document_per_line(ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("device add 00:01.0\ndomain create 'd'\nattach d 00:01.0\n"))
    documents = [json.loads(line) for line in ok("batch - -j").out.splitlines()]
    assert [document["schema"] for document in documents] == [1, 1, 1]
    assert documents[2]["domain"] == "d"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"domain create 'd", "1: the line cannot be split into words"),
        (b"\xff\xfe", "is not text"),
        (b"batch other", "1: a batch in a batch"),
        (b"domain list --state /tmp", "1: --state stands in a batch"),
        (b"\n\ndoman list", "3: no such command 'doman'"),
        (b"domain", "1: "),
        (b"sim dma 00:01.0", "1: missing argument 'IOVA'"),
    ],
)
def test_a_batch_that_cannot_be(run: Run, tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "lines"
    file.write_bytes(content)
    result = run(f"batch {file} -j")
    assert result.code == 2
    assert message in result.error["what"]


def test_a_batch_stops_where_a_dma_faults(reference: Run, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("sim dma 00:01.0 0 --read --size 1\ndomain create never\n")
    result = run(f"batch {file}")
    assert result.code == 1
    assert result.err == f"{file}:1: stopped, exit code 1\n"
    assert "never" not in reference("domain list").out


def test_a_batch_file_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    result = run(f"batch {tmp_path}/none -j")
    assert result.code == 2
    assert result.error["id"] == "bad-document"
    assert run(f"batch {tmp_path} -j").code == 2


def test_demo(ok: Run, state: Path) -> None:
    text = ok("demo").out
    assert text.count("PASID 3") >= 4
    (paragraph,) = [part for part in text.split("\n\n") if part.startswith("The mapping is gone")]
    words = " ".join(paragraph.split())
    assert "0000:00:01.0 PASID 3 still reaches 0x1ef100000: a cache answered." in words
    assert "of page table a1, as it was before `pgtable unmap a1 --iova 0x7f0000000000 --size 0x10000`." in words
    assert "What is missing is vtd.pasid-iotlb-invalidate with " in words
    assert "`iommuctl invalidate domain2 --device 0000:00:01.0 --pasid 3 --iova 0x7f0000000000 --size 64K`" in words
    assert "fault" in text
    assert not state.exists()
    document = ok("demo -j").json
    assert len(document["dma"]) == 8
    assert all(row["ok"] for row in document["dma"])
    without = document["without_invalidation"]
    assert without["stale"] is True
    assert [command["name"] for command in without["missing"]] == ["vtd.pasid-iotlb-invalidate"]
    assert document["with_invalidation"]["fault"]
    assert document["walk"]["pa"]


def test_text_for_a_terminal_that_knows_ascii_only(reference: Run, state: Path) -> None:
    reference("domain", "create", "d4", "--label", "böse")
    code = "import sys; from iommuctl.__main__ import main; sys.exit(main(['topology']))"
    os.environ["PYTHONIOENCODING"] = "ascii"
    try:
        result = python("-c", code)
    finally:
        del os.environ["PYTHONIOENCODING"]
    assert result.returncode == 0
    assert "|   |-- PASID 2  attached" in result.stdout
    assert '"b\\xf6se"' in result.stdout


def test_a_check_of_nothing_says_so(run: Run, state: Path) -> None:
    assert run("check").out == f"ok: there is no state in {state} yet\n"

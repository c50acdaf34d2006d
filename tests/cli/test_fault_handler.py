# SPDX-License-Identifier: Apache-2.0
"""`fault handler`: what is typed, stored, shown and cleared."""

import shutil

import pytest

from iommuctl import plugins
from iommuctl.capabilities import Capabilities
from iommuctl.hookspecs import HardwareContext, hookimpl
from tests.cli import real
from tests.cli.conftest import Run
from tests.cli.real import NAME

SETUP = (
    "device add 00:01.0 --ats --pri --pasid-bits 8",
    "domain create d",
    "domain create parent --nest-parent",
    "domain map parent --iova 0 --size 1M --pa 1M",
    "memory create buffers --size 64K",
    "memory create 0.1 --size 64K",
)


@pytest.fixture
def machine(ok: Run) -> Run:
    for command in SETUP:
        ok(f"{command} --quiet")
    return ok


@pytest.mark.parametrize(
    ("words", "kind", "what"),
    [
        ("--queue", "queue", ""),
        ("--reject", "reject", ""),
        ("--demand-map --from buffers", "demand-map", "buffers, nothing of 64 KiB in use"),
        ("--from 0.1 --demand-map", "demand-map", "0.1, nothing of 64 KiB in use"),
        ("--demand-map --from 1M..0x101fff", "demand-map", "0x100000+0x2000, nothing of 8 KiB in use"),
        ("--demand-map --from 0x100000+8K", "demand-map", "0x100000+0x2000, nothing of 8 KiB in use"),
        ("--exec true", "exec", str(shutil.which("true"))),
    ],
)
def test_each_kind(machine: Run, words: str, kind: str, what: str) -> None:
    assert machine(f"fault handler set d {words}").out == f"d: page requests are answered by {kind}\n"
    assert machine("fault handler show").out.splitlines()[1].split(maxsplit=2) == ["d", kind, *([what] if what else [])]
    assert machine("fault handler clear d").out == "d: no handler of page requests\n"
    assert machine("fault handler show -j").json == {"schema": 1, "handlers": []}


def test_all_that_follows_exec_is_the_program_s(machine: Run) -> None:
    words = ["true", "-j", "--pasid", "7", "--exec", "--", "a b", "", "--from", "-"]
    document = machine("fault", "handler", "set", "00:01.0", "-j", "--pasid", "5", "--exec", *words).json
    assert document == {
        "schema": 1, "domain": None, "rid": "0000:00:01.0", "pasid": 5, "kind": "exec", "program": words,
        "from": None, "replaced": [],
    }  # fmt: skip
    (shown,) = machine("fault handler show -j").json["handlers"]
    del document["schema"], document["replaced"]
    assert shown == {**document, "program": [shutil.which("true"), *words[1:]]}
    assert machine("fault handler show").out.splitlines()[1].endswith("true -j --pasid 7 --exec -- 'a b' '' --from -")


def test_those_of_one_owner(machine: Run) -> None:
    for words in ("d --reject", "00:01.0 --queue", "00:01.0 --pasid 5 --reject", "parent --demand-map --from 4K+4K"):
        machine(f"fault handler set {words} --quiet")

    def shown(words: str = "") -> list[tuple[object, object, object]]:
        found = machine(f"fault handler show {words} -j").json["handlers"]
        return [(each["domain"], each["rid"] and each["rid"][5:], each["pasid"]) for each in found]

    assert shown() == [("d", None, None), ("parent", None, None), (None, "00:01.0", None), (None, "00:01.0", 5)]
    assert shown("id:2") == [("parent", None, None)]
    assert shown("00:01.0") == [(None, "00:01.0", None), (None, "00:01.0", 5)]
    assert shown("00:01.0 --pasid 5") == [(None, "00:01.0", 5)]
    assert shown("00:01.0 --pasid 6") == []
    (guest,) = machine("fault handler show parent -j").json["handlers"]
    assert guest["from"] == {"memory": None, "start": "0x1000", "size": 4096, "used": 0}


@pytest.mark.parametrize(
    ("words", "code", "id_"),
    [
        ("set d", 2, "usage"),
        ("set d --queue --reject", 2, "usage"),
        ("set d --demand-map", 2, "usage"),
        ("set d --from buffers --queue", 2, "usage"),
        ("set d --queue program", 2, "usage"),
        ("set d --exec", 2, "usage"),
        ("set d --queue --pasid 5", 2, "usage"),
        ("set d --demand-map --from 1M+", 2, "bad-number"),
        ("set d --demand-map --from 0x100080+4K", 1, "misaligned"),
        ("set d --demand-map --from nobody", 4, "no-such-memory"),
        ("set parent --demand-map --from 2M+4K", 1, "outside-memory"),
        ("set d --exec /nowhere/program", 5, "system"),
        ("set nobody --queue", 4, "no-such-domain"),
        ("set 00:09.0 --queue", 4, "no-such-device"),
        ("set 00:01.0 --pasid 0 --queue", 2, "pasid-zero"),
        ("set 00:01.0 --pasid 256 --queue", 3, "pasid-too-wide"),
        ("clear nobody", 4, "no-such-domain"),
        ("show nobody", 4, "no-such-domain"),
        ("show --pasid 5", 2, "usage"),
    ],
)
def test_what_is_refused(machine: Run, run: Run, words: str, code: int, id_: str) -> None:
    result = run("-j", "fault", "handler", *words.split())
    assert (result.code, result.error["id"]) == (code, id_), result
    assert machine("fault handler show -j").json["handlers"] == []


def test_where_nobody_is_told_of_page_requests(ok: Run, run: Run) -> None:
    ok("sim init --option mode=legacy --quiet")
    ok("domain create d --quiet")
    refused = run("fault handler set d --queue -j")
    assert (refused.code, refused.error["what"]) == (3, "nobody is told of page requests here")


def test_memory_of_a_handler_is_in_use(machine: Run, run: Run) -> None:
    machine("fault handler set d --demand-map --from buffers --quiet")
    refused = run("memory destroy buffers -j")
    assert (refused.code, refused.error["id"]) == (1, "in-use")
    machine("memory destroy buffers --force --quiet")
    assert machine("fault handler show -j").json["handlers"] == []


def test_a_table_that_is_replaced(ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real machine a table takes page requests from when it is made, or never."""
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.cli.real")
    declared = real.iommuctl_capabilities

    def capabilities(context: HardwareContext) -> Capabilities:
        return declared(context)._replace(page_responses=("success", "invalid"))

    monkeypatch.setattr(real, "iommuctl_capabilities", hookimpl(capabilities))
    ok(f"--backend {NAME} domain create d --quiet")
    ok("device bind 00:10.0 --quiet")
    for pasid in (1, 2):
        ok(f"attach d 00:10.0 --pasid {pasid} --quiet")
    slots = "0000:00:10.0 PASID 1, 0000:00:10.0 PASID 2"
    told = f"d: page requests are answered by reject; a new table is in {slots} in place of the old one\n"
    assert ok("fault handler set d --reject").out == told
    assert ok("fault handler set 00:10.0 --pasid 2 --queue -j").json["replaced"] == []
    assert ok("fault handler clear d -j").json["replaced"] == [{"rid": "0000:00:10.0", "pasid": 1}]

# SPDX-License-Identifier: Apache-2.0
"""Bad state folders and hostile tables: a clear error, nothing lost, no traceback, no unbounded walk."""

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import RID1, Shell

SETUP = f"""
    device add {RID1} --pasid-bits 8
    domain create domain1
    domain map domain1 --iova 0 --size 2M --pa 0x200000
    attach domain1 {RID1}
"""


@pytest.fixture
def used(shell: Shell) -> Shell:
    shell.batch(SETUP)
    return shell


def memory_file(shell: Shell) -> Path:
    return Path(shell.json("sim", "show")["memory"]["file"])


def test_a_truncated_state_file(used: Shell) -> None:
    path = used.state / "state.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for command in (["domain", "list"], ["domain", "create", "new"]):
        error = used.refused(*command)
        assert (error["id"], error["exit"]) == ("state-damaged", 1)
    path.write_bytes(whole)
    assert used.json("check")["ok"]


@pytest.mark.parametrize("lost", ["removed", "emptied"])
def test_a_state_file_that_is_lost(used: Shell, lost: str) -> None:
    """The rest of the folder shows that it was in use: it does not read as empty, and nothing is made over it."""
    path = used.state / "state.db"
    whole = path.read_bytes()
    if lost == "removed":
        path.unlink()
    else:
        path.write_bytes(b"")
    for command in (["domain", "list"], ["check"], ["domain", "create", "new"]):
        assert used.refused(*command)["id"] == "state-damaged"
    path.write_bytes(whole)
    assert used.json("check")["ok"]


def test_an_error_that_nobody_can_read_keeps_its_exit_code(used: Shell, tmp_path: Path) -> None:
    """Standard error is closed, or a file that may not grow, as on a full disk."""
    for words in ("domain show nope", "domain show nope -j"):
        for before, where in (("", "2>&-"), ("ulimit -f 0;", f"2>{tmp_path}/full")):
            script = f'{before} exec "$IOMMUCTL" {words} {where}'
            done = subprocess.run(
                ["/bin/sh", "-c", script], env=used.environment, capture_output=True, text=True, check=False, timeout=60
            )
            assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.parametrize("content", [b"not a database at all\n" * 100, os.urandom(8192)], ids=["text", "noise"])
def test_a_file_that_is_no_database(used: Shell, content: bytes) -> None:
    (used.state / "state.db").write_bytes(content)
    assert used.refused("topology")["id"] == "state-damaged"
    assert (used.state / "state.db").read_bytes() == content


def test_a_database_of_another_program(shell: Shell) -> None:
    shell.state.mkdir()
    path = shell.state / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = path.read_bytes()
    for command in (["domain", "list"], ["domain", "create", "new"]):
        error = shell.refused(*command)
        assert error["id"] == "state-damaged"
        assert "not a state file of iommuctl" in error["what"]
    assert path.read_bytes() == before


def test_a_newer_state_file(used: Shell) -> None:
    connection = sqlite3.connect(used.state / "state.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    error = used.refused("domain", "list")
    assert (error["id"], error["exit"]) == ("state-newer", 1)
    assert "version 99" in error["because"]


def test_a_missing_or_short_memory_file(used: Shell) -> None:
    path = memory_file(used)
    path.rename(path.with_suffix(".away"))
    missing = used.refused("translate", RID1, "0x1000")
    assert (missing["id"], "missing" in missing["what"]) == ("state-damaged", True)
    with path.open("wb") as short:
        short.truncate(4096)
    short_error = used.refused("domain", "create", "new")
    assert (short_error["id"], "too short" in short_error["what"]) == ("state-damaged", True)
    path.with_suffix(".away").rename(path)
    assert used.json("check")["ok"]
    assert used.json("topology")["domains"][0]["name"] == "domain1"


@pytest.mark.parametrize("unfinished", [False, True])
def test_reset_makes_a_machine_again(used: Shell, unfinished: bool) -> None:
    memory_file(used).unlink()
    if unfinished:
        # A command was killed between its commit and its writes to memory.
        connection = sqlite3.connect(used.state / "state.db")
        connection.execute("INSERT INTO redo (address, data) VALUES (4096, x'00')")
        connection.commit()
        connection.close()
    used("sim", "reset")
    assert used.json("topology")["domains"] == []
    assert used.json("check")["ok"]


def test_a_folder_that_may_not_be_used(shell: Shell) -> None:
    shell.state.write_text("a file, not a folder")
    assert shell.refused("domain", "create", "new")["exit"] in (1, 5)


def test_tables_that_loop(used: Shell) -> None:
    """The root's first entry points to the root itself: a walk ends at its last level, a survey enters once."""
    entry = used.json("translate", RID1, "0x1000")["steps"][4]
    root = int(entry["address"], 16) & -4096
    used("sim", "write", hex(root), (root | 3).to_bytes(8, "little").hex())
    fault_or_answer = used.json("translate", RID1, "0x1000")
    assert len(fault_or_answer["steps"]) <= 8
    problems = used.json("check", exit_code=1)["problems"]
    assert any("second time" in problem for problem in problems)
    assert len(used.json("table", "dump", "domain1")["entries"]) <= 512


def test_tables_outside_memory(used: Shell) -> None:
    entry = used.json("translate", RID1, "0x1000")["steps"][4]
    used("sim", "write", entry["address"], (0x7FFF_FFFF_F000 | 3).to_bytes(8, "little").hex())
    fault = used.json("translate", RID1, "0x1000")["fault"]
    assert (fault["code"], fault["name"]) == ("0x78", "SSS.1")
    assert used.json("sim", "dma", RID1, "0x1000", "--read", "--size", 4, exit_code=1)["fault"]["code"] == "0x78"
    assert any("outside memory" in problem for problem in used.json("check", exit_code=1)["problems"])
    before = used.state.joinpath("state.db").read_bytes()
    assert used.refused("domain", "unmap", "domain1", "--iova", 0, "--size", "2M")["id"] == "damaged-table"
    assert used.state.joinpath("state.db").read_bytes() == before


@pytest.mark.parametrize("structure", ["scalable-root-entry", "scalable-context-entry", "pasid-directory-entry"])
def test_check_lists_a_table_that_cannot_be_followed(used: Shell, structure: str) -> None:
    steps = used.json("translate", RID1, "0x1000")["steps"]
    address = next(step["address"] for step in steps if step["structure"] == f"vtd.{structure}")
    used("sim", "write", address, "ff" * 8)
    assert used.json("check", exit_code=1)["problems"]


def test_noise_as_tables(used: Shell) -> None:
    """Random words over all table memory that is in use: every command ends with an answer or an error."""
    tables = used.json("sim", "show")["memory"]["tables"]
    noise = os.urandom(64 << 10)
    path = memory_file(used)
    with path.open("r+b") as memory:
        memory.seek(int(tables["base"], 16))
        memory.write(noise)
    for command in (
        ["translate", RID1, "0x1000"],
        ["sim", "dma", RID1, "0x1000", "--read", "--size", "4"],
        ["check"],
        ["table", "dump", "domain1"],
        ["domain", "map", "domain1", "--iova", "4M", "--size", "4K", "--pa", "0"],
        ["domain", "unmap", "domain1", "--iova", "0", "--size", "2M"],
        ["detach", "domain1", RID1],
        ["device", "remove", RID1, "--force"],
        ["domain", "destroy", "domain1", "--force"],
    ):
        done = used.run(*command)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr

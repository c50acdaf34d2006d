# SPDX-License-Identifier: Apache-2.0
"""The live words, without a shell: what is answered, from which folder, and from which it is not."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iommuctl import Iommu, complete
from iommuctl.__main__ import main
from iommuctl.state import schema
from tests.completion.conftest import FAR, RID1, RID2, Folders


def asked(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What the program prints as a shell asks it, and that it says nothing else."""
    assert main(["__complete", *arguments]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["DOMAIN"], ["domain1", "domain2", "vm-1.a@x", "_low"]),
        (["PGTABLE"], ["sva-a"]),
        (["MEM"], ["buffers"]),
        (["RID"], [RID1, RID2, FAR]),
        (["PGTABLE|MEM|RID"], ["sva-a", "buffers", RID1, RID2, FAR]),
        (["PASID"], ["7", "12", "4095"]),
        (["PASID", "", RID1], ["12", "4095"]),
        (["PASID", "", "00:02.0"], ["7"]),
        (["PASID", "", FAR], []),
        (["PASID", "", "no RID"], ["7", "12", "4095"]),
        (["UNKNOWN"], []),
        ([], []),
    ],
)
def test_words(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str],
    words: list[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("IOMMUCTL_STATE", str(folders.state))
    assert asked(capfd, *arguments) == words


def test_the_folder_that_is_named_answers(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOMMUCTL_STATE", str(folders.state))
    assert asked(capfd, "DOMAIN|RID", str(folders.other)) == ["elsewhere", "0000:4b:00.0"]


def test_devices_are_those_of_the_backend(folders: Folders) -> None:
    with Iommu(folders.state) as iommu:
        assert complete.words(["RID"], str(folders.state)) == [str(device.rid) for device in iommu.devices()]


def test_of_a_backend_without_rows_of_devices_those_in_use_are_known(folders: Folders, tmp_path: Path) -> None:
    with sqlite3.connect(folders.state / "state.db") as connection, sqlite3.connect(tmp_path / "state.db") as copy:
        connection.backup(copy)
        copy.execute("UPDATE meta SET value = '\"mine\"' WHERE key = 'backend'")
    connection.close()
    copy.close()
    assert complete.words(["RID"], str(tmp_path)) == [RID1, RID2]


def test_nothing_is_changed_or_created(folders: Folders, tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folders.state.iterdir() if path.name.startswith(("st", "lo"))}

    with sqlite3.connect(folders.state / "state.db") as connection:
        connection.execute("INSERT INTO redo VALUES (1000, 0, x'00')")
    before = contents()
    assert complete.words(["PGTABLE"], str(folders.state)) == ["sva-a"]
    assert contents() == before
    with connection:
        connection.execute("DELETE FROM redo")
    connection.close()
    assert complete.words(["DOMAIN"], str(tmp_path / "new")) == []
    assert not (tmp_path / "new").exists()


def test_a_folder_whose_name_means_something_in_a_uri(tmp_path: Path) -> None:
    folder = tmp_path / "a b?mode=rwc#%41\udcff"
    with Iommu(folder, backend="sim") as iommu:
        iommu.domain_create("here")
    assert complete.words(["DOMAIN"], str(folder)) == ["here"]


def edit(folder: Path, script: str) -> None:
    with sqlite3.connect(folder / "state.db") as connection:
        connection.executescript(script)
    connection.close()


def truncated(folder: Path) -> None:
    os.truncate(folder / "state.db", 5000)


def garbage(folder: Path) -> None:
    (folder / "state.db").write_bytes(b"\x1b[31m" * 2000)


def empty(folder: Path) -> None:
    (folder / "state.db").write_bytes(b"")


def pipe(folder: Path) -> None:
    (folder / "state.db").unlink()
    os.mkfifo(folder / "state.db")


def folder_instead(folder: Path) -> None:
    (folder / "state.db").unlink()
    (folder / "state.db").mkdir()


def of_another_program(folder: Path) -> None:
    edit(folder, "PRAGMA application_id = 1")


def newer(folder: Path) -> None:
    edit(folder, f"PRAGMA user_version = {schema.VERSION + 1}")


def without_tables(folder: Path) -> None:
    edit(folder, "DROP TABLE slot; DROP TABLE pgtable; DROP TABLE mapping; DROP TABLE domain")


def endless(folder: Path) -> None:
    numbers = "WITH RECURSIVE n(name) AS (SELECT 1 UNION ALL SELECT name + 1 FROM n) SELECT name, name AS id FROM n"
    edit(folder, f"PRAGMA foreign_keys = OFF; DROP TABLE domain; CREATE VIEW domain AS {numbers}")


def huge(folder: Path) -> None:
    edit(folder, f"UPDATE domain SET name = printf('%.*c', {complete.LONGEST + 1}, 'x')")


@pytest.mark.parametrize(
    "damage",
    [truncated, garbage, empty, pipe, folder_instead, of_another_program, newer, without_tables, endless, huge],
)
def test_a_folder_that_cannot_be_read_has_no_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.domain_create("domain1")
    assert asked(capfd, "DOMAIN", str(tmp_path / "state")) == ["domain1"]
    damage(tmp_path / "state")
    assert asked(capfd, "DOMAIN", str(tmp_path / "state")) == []


@pytest.mark.parametrize(
    "name",
    ["", "-x", ".x", "a b", "a\nb", "$(id)", "`id`", "a;id", "a'b", "a+1", "id:1", "\x1b[31mred", "\u00e9", "x" * 64],
)
@pytest.mark.parametrize("blob", [False, True])
def test_only_what_is_spelt_like_a_name_is_printed(tmp_path: Path, name: str, blob: bool) -> None:
    with Iommu(tmp_path, backend="sim") as iommu:
        iommu.domain_create("good")
        iommu.domain_create("bad")
    with sqlite3.connect(tmp_path / "state.db") as connection:
        value = name.encode("latin-1") if blob else name
        connection.execute("UPDATE domain SET name = ? WHERE name = 'bad'", (value,))
        connection.execute("INSERT INTO backend_row VALUES ('sim.device', ?, '[]')", (value,))
    connection.close()
    assert complete.words(["DOMAIN", "RID"], str(tmp_path)) == ["good"]


def test_text_that_is_no_unicode(tmp_path: Path) -> None:
    with Iommu(tmp_path, backend="sim") as iommu:
        iommu.domain_create("good")
        iommu.domain_create("bad")
    edit(tmp_path, "UPDATE domain SET name = CAST(x'62ff' AS TEXT) WHERE name = 'bad'")
    assert complete.words(["DOMAIN"], str(tmp_path)) == ["good"]


def test_a_writer_is_not_waited_for(tmp_path: Path) -> None:
    with Iommu(tmp_path, backend="sim") as iommu:
        iommu.domain_create("domain1")
    connection = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert complete.words(["DOMAIN"], str(tmp_path)) == ["domain1"]
    connection.execute("COMMIT")
    connection.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    assert complete.words(["DOMAIN"], str(tmp_path)) == []
    assert time.monotonic() - began < 30
    connection.close()


def test_a_shell_that_left_is_told_nothing(folders: Folders) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "iommuctl", "__complete", "DOMAIN", str(folders.state)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")

# SPDX-License-Identifier: Apache-2.0
"""`fault list`, on simulated machines and where the machine is real."""

import re
from pathlib import Path

import pytest

from iommuctl import plugins
from iommuctl.state import faults
from tests.cli.conftest import Run
from tests.cli.real import NAME, QUEUE

TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"
SETUP = ("device add 00:01.0 --pasid-bits 8", "domain create d", "attach d 00:01.0")


@pytest.fixture
def machine(ok: Run) -> Run:
    """A simulated machine with VT-d, whose device is attached to a domain without mappings."""
    for command in SETUP:
        ok(f"{command} --quiet")
    return ok


@pytest.fixture
def real(ok: Run, state: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A real machine with an empty queue."""
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.cli.real")
    ok(f"--backend {NAME} domain create d --quiet")
    (state / "events").touch()
    return ok


def test_a_table_with_the_last_one_at_the_end(machine: Run, run: Run) -> None:
    for command in ("0x5008 --write --data 00", "0x6000 --read --size 1 --pasid 7", "0x5ff0 --write --data 00"):
        assert run(f"sim dma 00:01.0 {command}").code == 1
    head, *rows = machine("fault list").out.splitlines()
    assert head.split() == ["ID", "LAST", "SLOT", "IOVA", "ACCESS", "COUNT", "FAULT"]
    assert [re.sub(TIME, "T", re.sub("  +", " | ", row)) for row in rows] == [
        "2 | T | 0000:00:01.0 PASID 7 | 0x6000 | r | 1 | 0x59 SPT.2: The PASID table entry is not present.",
        "1 | T | 0000:00:01.0 | 0x5000 | w | 2 | 0x79 SSS.2: A second-stage entry is not present.",
    ]
    assert machine("fault list --brief").out == "2\n1\n"
    assert machine("fault list").err == ""


def test_a_document(machine: Run, run: Run) -> None:
    run("sim dma 00:01.0 0x6123 --read --size 1 --pasid 7")
    document = machine("fault list -j").json
    (fault,) = document.pop("faults")
    assert document == {"schema": 1, "page_requests": [], "lost": []}
    assert re.fullmatch(TIME, fault["first"])
    assert fault.pop("first") == fault.pop("last")
    assert fault == {
        "id": 1, "code": "0x59", "name": "SPT.2", "reason": "The PASID table entry is not present.",
        "rid": "0000:00:01.0", "pasid": 7, "iova": "0x6000", "access": "r", "count": 1, "source": "sim0",
        "structure": "vtd.fault-record", "raw": ["0x6000", "0xc000075980000008"],
    }  # fmt: skip
    decoded = machine(f"table decode {fault['structure']} {' '.join(fault['raw'])} -j").json
    assert decoded["fields"]["PV"] == "0x7"


def test_what_a_record_does_not_tell(ok: Run, run: Run) -> None:
    ok("sim init --arch smmuv3 --quiet")
    for command in SETUP:
        ok(f"{command} --quiet")
    run("sim dma 00:01.0 0x6123 --read --size 1 --pasid 7")
    (fault,) = ok("fault list -j").json["faults"]
    assert (fault["name"], fault["pasid"], fault["iova"], fault["access"]) == ("C_BAD_CD", 7, None, None)
    assert re.split("  +", ok("fault list").out.splitlines()[1])[3:5] == ["-", "-"]


def test_what_is_missing_is_told(machine: Run, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "KEPT", 3)
    for page in range(9):
        run(f"sim dma 00:01.0 {page << 12:#x} --read --size 1")
    told = run("fault list")
    assert len(told.out.splitlines()) == 1 + 3
    assert told.err.splitlines() == [
        "warning: events of sim0 that were lost before they were read: at least 1",
        "warning: faults of sim0 that made room for newer ones: 5 (3 are kept)",
    ]
    told = machine("fault list -j")
    assert (told.err, told.json["lost"]) == ("", [{"source": "sim0", "lost": 1, "exact": False, "dropped": 5}])


def test_before_the_first_use(run: Run, state: Path) -> None:
    assert run("fault list -j").json == {"schema": 1, "faults": [], "page_requests": [], "lost": []}
    assert run("fault list").code == 0
    assert not state.exists()


def test_a_dry_run_reads_no_queue(machine: Run, run: Run) -> None:
    run("sim dma 00:01.0 0x6000 --read --size 1")
    assert machine("fault list --brief --dry-run").out == ""
    assert machine("fault list --brief").out == "1\n"


def test_in_a_batch_that_is_undone(real: Run, run: Run, state: Path, tmp_path: Path) -> None:
    (state / "events").write_text("0x5000\n0x6000\n")
    lines = tmp_path / "lines.txt"
    lines.write_text("domain create e\nfault list --brief\ndomain destroy nobody\n")
    assert run(f"batch --atomic {lines}").code == 4
    assert real("domain list --brief").out == "d\n"
    assert (state / "events").read_text() == ""
    listed = real("fault list -j").json["faults"]
    assert [(fault["iova"], fault["count"], fault["source"]) for fault in listed] == [
        ("0x5000", 1, QUEUE),
        ("0x6000", 1, QUEUE),
    ]


def test_a_machine_that_is_told_of_no_faults(real: Run, run: Run, state: Path) -> None:
    (state / "events").unlink()
    refused = run("fault list -j")
    assert (refused.code, refused.error["id"]) == (3, "unsupported")
    assert "journalctl" in refused.error["hint"]

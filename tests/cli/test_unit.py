# SPDX-License-Identifier: Apache-2.0
"""`unit list` and `unit show`: units in words, registers field by field, and hardware that gives a few alone."""

import json
from pathlib import Path

import pytest

from iommuctl.hookspecs import Context, hookimpl
from iommuctl.model import IommuUnit
from iommuctl_sim import backend as sim

from .conftest import Run, python


def test_list(ok: Run) -> None:
    assert ok("unit list").out == "UNIT  ARCHITECTURE\nsim0  vtd\n"
    assert ok("unit list --brief").out == "sim0\n"
    assert ok("unit list -j").json == {"schema": 1, "units": [{"name": "sim0", "architecture": "vtd"}]}


def test_looking_makes_no_state_folder(ok: Run, state: Path) -> None:
    ok("unit list")
    before = ok("unit show sim0 -j").json
    assert not state.exists()
    ok("device add 00:01.0")
    assert ok("unit show sim0 -j").json == before


def test_show(ok: Run) -> None:
    lines = ok("unit show sim0").out.splitlines()
    assert lines[0] == "sim0  vtd"
    end = lines.index("")
    words = dict(line.split("  ", 1) for line in lines[1:end])
    assert words["second stage"].strip() == "39, 48, 57 bits; pages of 4K, 2M, 1G"
    assert words["nesting"].strip() == "yes"
    registers = lines[end + 1 :]
    assert registers[0] == f"CAP  {ok('sim show -j').json['registers']['CAP']}"
    assert "├── ND      0x6   65536 domain ids" in registers
    assert "├── NEST    0x1   A first stage can be nested on a second stage." in registers
    assert "FRCD0  0x0" in registers
    assert not any(" 0x0 " in line for line in registers)


def test_show_as_json(ok: Run) -> None:
    document = ok("unit show sim0 -j").json
    assert set(document) == {"schema", "name", "architecture", "words", "registers"}
    assert (document["name"], document["architecture"]) == ("sim0", "vtd")
    assert document["words"]["PASIDs"] == "20 bits"
    assert {name: each["value"] for name, each in document["registers"].items()} == ok("sim show -j").json["registers"]
    assert all({"value", "fields", "meanings", "problems"} == set(each) for each in document["registers"].values())
    ecap = document["registers"]["ECAP"]
    assert (ecap["fields"]["NEST"], ecap["fields"]["IR"]) == ("0x1", "0x0")
    assert ecap["meanings"]["DT"] == "Devices may have TLBs of their own (ATS)."
    assert "IR" not in ecap["meanings"]
    assert document["registers"]["RTADDR"]["meanings"]["TTM"] == "scalable mode"
    # `table decode` says the same.
    decoded = ok(f"table decode vtd.cap {document['registers']['CAP']['value']} -j").json
    assert decoded["fields"] == document["registers"]["CAP"]["fields"]
    assert decoded["meanings"] == document["registers"]["CAP"]["meanings"]


def test_a_unit_of_ones_own(ok: Run) -> None:
    ok("sim init --option mode=legacy --option cap=0xd2008c222f0606 --option ecap=0x480080000f62")
    words = ok("unit show sim0 -j").json["words"]
    assert words["root table"].endswith("legacy mode")
    assert words["fault records"] == "1, from offset 0x220"
    assert words["first stage"] == "no"
    lines = ok("unit show sim0").out.splitlines()
    assert lines[lines.index("ECAP  0x480080000f62") + 7] == "└── problem: reserved bit 5 set: VT-d 4.1 section 11.4.3"


def test_a_fault_in_words(ok: Run, run: Run) -> None:
    ok("device add 00:01.0")
    assert run("sim dma 00:01.0 0x1000 --read --size 4").code == 1
    lines = ok("unit show sim0").out.splitlines()
    assert "faults                       pending, the first in FRCD0" in lines
    assert "├── FR   0x51    SPD.2: The PASID directory entry is not present." in lines
    assert ok("table decode vtd.fault-record 0 0x5100000000 -j").json["meanings"]["FR"].startswith("SPD.2: ")


def test_a_unit_that_does_not_exist(run: Run) -> None:
    result = run("unit show dmar9")
    assert result.code == 4
    assert result.err == "error[no-such-unit]: no unit 'dmar9'\nhint: `iommuctl unit list` names them all\n"
    assert run("unit show dmar9 -j").error["id"] == "no-such-unit"
    assert run("unit show").err.startswith("error[usage]: missing argument 'UNIT'")


def test_hardware_gives_a_few_registers(ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    units = [IommuUnit("dmar0", "vtd", {"CAP": 0xD2008C222F0606, "ECAP": 0x480080000F42, "PLMBASE": 0x5000}),
             IommuUnit("dmar1", "vtd", {})]  # fmt: skip

    def few(context: Context) -> list[IommuUnit]:
        return units

    monkeypatch.setattr(sim, "iommuctl_units", hookimpl(few))
    assert ok("unit list --brief").out == "dmar0\ndmar1\n"
    text = ok("unit show dmar0").out
    assert "\ndomain ids                   65536\n" in text
    assert "\ntranslation " not in text
    assert text.endswith("\nPLMBASE  0x5000\n")
    document = ok("unit show dmar0 -j").json
    assert document["registers"]["PLMBASE"] == {"value": "0x5000", "fields": {}, "meanings": {}, "problems": []}
    assert ok("unit show dmar1").out.splitlines()[1:] == ["unit  unknown: CAP and ECAP cannot be read", ""]
    assert ok("unit show dmar1 -j").json["registers"] == {}


def test_a_backend_without_units(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sim, "iommuctl_units")
    result = run("unit list")
    assert result.code == 3
    assert result.err == "error[unsupported]: the backend sim cannot do this\nbecause: it has no units operation\n"


def test_the_program_itself(state: Path) -> None:
    result = python("-m", "iommuctl", "unit", "show", "sim0", "-j")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["words"]["translation"] == "on"
    assert python("-m", "iommuctl", "unit", "show", "sim1").returncode == 4

# SPDX-License-Identifier: Apache-2.0
"""`table decode --revision`: the bits that revisions 3 and 4 of VT-d read differently, one by one."""

import pytest

from .conftest import Run

# A structure, its words with one such bit, what revision 3 sees there, and whether revision 4 reserves or ignores it.
DIFFERENCES = [
    ("vtd.pasid-entry", "0x61", {"SLEE": "0x1"}, 5),
    ("vtd.pasid-entry", "0x41 0x8000000", {"EMT": "0x1"}, 91),
    ("vtd.pasid-entry", "0x41 0x10000000", {"EMT": "0x2"}, 92),
    ("vtd.pasid-entry", "0x41 0x20000000", {"EMT": "0x4"}, 93),
    ("vtd.pasid-entry", "0x41 0x40000000", {"PWT": "0x1"}, 94),
    ("vtd.pasid-entry", "0x41 0x80000000", {"PCD": "0x1"}, 95),
    ("vtd.pasid-entry", "0x41 0 0x2", {"ERE": "0x1"}, 129),
    ("vtd.pasid-entry", "0x41 0 0x20", {"NXE": "0x1"}, None),
    ("vtd.pasid-entry", "0x41 0 0x40", {"SMEP": "0x1"}, None),
    ("vtd.second-stage-entry", "0x7", {"X": "0x1"}, None),
    ("vtd.second-stage-entry", "0x4000000000000003", {"TM": "0x1"}, 62),
    ("vtd.first-stage-entry", "0x8000000000000001", {"XD": "0x1"}, None),
    ("vtd.page-group-response", "0x29", {"PDP": "0x1"}, 5),
    ("vtd.page-group-response", "0x9 0x4", {"LPIG": "0x1"}, 66),
    ("vtd.page-request", "0x201", {"PDP": "0x1"}, 9),
    ("vtd.page-request", "0x1 0 0x1", {"PRIVATE_DATA": "0x1"}, 128),
    ("vtd.page-request", "0x1 0 0 0x8000000000000000", {"PRIVATE_DATA": f"{1 << 127:#x}"}, 255),
]


@pytest.mark.parametrize(("name", "words", "fields", "reserved"), DIFFERENCES)
def test_a_bit_that_revisions_read_differently(
    ok: Run, name: str, words: str, fields: dict[str, str], reserved: int | None
) -> None:
    old = ok(f"table decode {name} {words} --revision 3 -j").json
    assert old["revision"] == 3
    assert old["fields"].items() >= fields.items()
    assert old["meanings"].keys() >= fields.keys()
    assert old["problems"] == []
    new = ok(f"table decode {name} {words} --revision 4 -j").json
    assert new == ok(f"table decode {name} {words} -j").json
    assert not new["fields"].keys() & fields.keys()
    assert [problem.partition(":")[0] for problem in new["problems"]] == (
        [] if reserved is None else [f"reserved bit {reserved} set"]
    )
    assert {key: value for key, value in old["fields"].items() if key in new["fields"]} == new["fields"]


def test_revisions(ok: Run) -> None:
    words = "0x69 0x4000000 0x22"
    now, newest, old = (ok(f"table decode vtd.pasid-entry {words} {rest} -j").json for rest in
                        ("", "--revision 4", "--revision 3"))  # fmt: skip
    assert now == newest
    assert (now["structure"], now["revision"]) == ("vtd.pasid-entry", 4)
    assert now["problems"] == ["reserved bits 129, 5 set: VT-d 4.1 section 9.6"]
    assert "NXE" not in now["fields"]
    assert (old["structure"], old["revision"], old["problems"]) == ("vtd.pasid-entry", 3, [])
    assert (old["fields"]["SLEE"], old["fields"]["ERE"], old["fields"]["NXE"]) == ("0x1", "0x1", "0x1")
    line = ok(f"table decode vtd.pasid-entry {words} --revision 3").out.splitlines()[0]
    assert line.startswith("vtd.pasid-entry  PASID table entry of revision 3")


@pytest.mark.parametrize("revision", ["3", "4"])
def test_a_structure_that_did_not_change(ok: Run, revision: str) -> None:
    document = ok(f"table decode vtd.root-entry 0x1001 --revision {revision} -j").json
    assert document == ok("table decode vtd.root-entry 0x1001 -j").json
    assert document["revision"] is None


@pytest.mark.parametrize("name", ["vtd.pasid-entry", "vtd.root-entry"])
def test_a_revision_that_is_not_known(run: Run, name: str) -> None:
    result = run(f"table decode {name} 0x1 --revision 2 -j")
    assert result.code == 4
    assert result.error["what"] == f"there is no revision 2 of {name}"
    assert result.error["hint"] == "revisions that are told apart: 3, 4"

# SPDX-License-Identifier: Apache-2.0
"""A DMA that faults is in `fault list`, by the installed command, on both architectures."""

import pytest

from tests.acceptance.conftest import Shell

RID1, RID2 = "0000:00:01.0", "0000:00:02.0"


@pytest.fixture(params=["vtd", "smmuv3"])
def machine(request: pytest.FixtureRequest, shell: Shell) -> Shell:
    """RID1 is on d, which maps a page to read; nothing is attached to its PASIDs, nor to RID2 but an empty domain."""
    shell("sim", "init", "--arch", request.param)
    shell.batch(
        f"device add {RID1} --pasid-bits 10\ndevice add {RID2}\ndomain create d\ndomain create empty\n"
        f"domain map d --iova 0x10000 --size 4K --pa 0x200000 --prot r\nattach d {RID1}\nattach empty {RID2}\n"
    )
    return shell


def dma(machine: Shell, rid: str, iova: int, *how: str) -> dict[str, object]:
    """A DMA of one byte; its fault as the simulator tells it at once."""
    told = machine.json("sim", "dma", rid, hex(iova), *(how or ("--read", "--size", 1)), exit_code=1)
    fault: dict[str, object] = told["fault"]
    return fault


def test_what_is_recorded_is_what_happened(machine: Shell) -> None:
    assert machine.json("fault", "list")["faults"] == []
    happened = [
        dma(machine, RID1, 0x10123, "--write", "--data", "00"),
        dma(machine, RID1, 0x20000),
        dma(machine, RID2, 0xFFFF_F000),
        dma(machine, RID1, 0x10000, "--read", "--size", "1", "--pasid", "1"),
    ]
    listed = machine.json("fault", "list")["faults"]
    assert len(listed) == len(happened)
    for record, fault in zip(listed, happened, strict=True):
        assert [record[name] for name in ("code", "name", "rid", "pasid")] == [
            fault[name] for name in ("code", "name", "rid", "pasid")
        ]
        assert record["access"] in (fault["access"], None)
        assert record["iova"] is None or int(record["iova"], 16) >> 12 == int(str(fault["iova"]), 16) >> 12
        decoded = machine.json("table", "decode", record["structure"], *record["raw"])
        assert not decoded["problems"]
    assert [record["iova"] is None for record in listed[:3]] == [False] * 3
    assert machine.json("fault", "list")["faults"] == listed


def test_records_make_room_for_new_ones(machine: Shell) -> None:
    """More than a unit of VT-d has registers for, but each time fewer."""
    for turn in range(3):
        requests = "".join(
            f"sim dma {RID2} {0x100_0000 * turn + 0x1000 * page:#x} --read --size 1\n" for page in range(7)
        )
        machine.run("batch", "-", "--keep-going", "--quiet", stdin=requests)
        document = machine.json("fault", "list")
        assert (len(document["faults"]), document["lost"]) == (7 * (turn + 1), [])


def test_a_reset_machine_has_recorded_nothing(machine: Shell) -> None:
    dma(machine, RID1, 0x20000)
    machine("fault", "list")
    machine("sim", "reset")
    assert machine.json("fault", "list")["faults"] == []

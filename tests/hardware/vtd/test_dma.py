# SPDX-License-Identifier: Apache-2.0
"""A device's DMA goes through what commands mapped, one process for each command."""

from pathlib import Path

import pytest

from tests.hardware.held import held
from tests.hardware.shell import Shell

EDU = "0000:00:10.0"
MIB = 1 << 20


@pytest.fixture
def ready(shell: Shell) -> Shell:
    """An edu device attached to domain1, which maps 1 MiB of `ram` at 1 MiB."""
    for line in (
        f"device bind {EDU}",
        "domain create domain1",
        "memory create ram --size 1M",
        "domain map domain1 --iova 1M --size 1M --memory ram",
        f"attach domain1 {EDU}",
    ):
        shell(*line.split())
    return shell


def test_bytes_move_while_they_are_mapped_and_not_after(ready: Shell, state: Path) -> None:
    with held(state) as machine:
        machine.write(1, 0, b"from memory to the device and back")
        machine.edu(EDU).load(MIB, 34)
        machine.edu(EDU).store(MIB + 0x8000, 34)
        assert machine.read(1, 0x8000, 34) == b"from memory to the device and back"
    ready("domain", "unmap", "domain1", "--iova", "1M", "--size", "1M")
    with held(state) as machine:
        machine.edu(EDU).store(MIB + 0xA000, 34)
        assert machine.read(1, 0xA000, 34) == bytes(34)


def test_a_part_of_a_mapping_is_refused_before_the_kernel_sees_it(ready: Shell, state: Path) -> None:
    error = ready.refused("domain", "unmap", "domain1", "--iova", "1M", "--size", "64K")
    assert "0x100000+0x100000" in error["because"]
    with held(state) as machine:
        machine.write(1, 0, b"still there")
        machine.edu(EDU).load(MIB, 11)
        machine.edu(EDU).store(MIB + 0x9000, 11)
        assert machine.read(1, 0x9000, 11) == b"still there"


def test_what_is_detached_reaches_nothing(ready: Shell, state: Path) -> None:
    ready("detach", "domain1", EDU)
    with held(state) as machine:
        machine.edu(EDU).store(MIB, 16)
        machine.write(1, 0, b"\xff" * 16)
        machine.edu(EDU).store(MIB, 16)
        assert machine.read(1, 0, 16) == b"\xff" * 16
    ready("attach", "domain1", EDU)
    with held(state) as machine:
        machine.edu(EDU).store(MIB, 16)
        assert machine.read(1, 0, 16) != b"\xff" * 16


def test_a_replaced_domain_is_another_memory(ready: Shell, state: Path) -> None:
    for line in (
        "domain create domain2",
        "memory create other --size 1M",
        "domain map domain2 --iova 1M --size 1M --memory other",
    ):
        ready(*line.split())
    with held(state) as machine:
        machine.write(1, 0, b"first")
        machine.write(2, 0, b"other")
    answer = ready.json("attach", "domain2", EDU, "--replace")
    assert answer["hitless"] is False
    with held(state) as machine:
        machine.edu(EDU).load(MIB, 5)
        machine.edu(EDU).store(MIB + 0x1000, 5)
        assert machine.read(2, 0x1000, 5) == b"other"
        assert machine.read(1, 0x1000, 5) == bytes(5)


def test_a_read_only_mapping_is_not_written(ready: Shell, state: Path) -> None:
    ready(*["domain", "map", "domain1", "--iova", "4M", "--size", "64K", "--memory", "ram", "--prot", "r"])
    with held(state) as machine:
        machine.write(1, 0, b"read me")
        machine.edu(EDU).load(4 * MIB, 7)
        machine.edu(EDU).store(4 * MIB + 0x100, 7)
        assert machine.read(1, 0x100, 7) == bytes(7)
        machine.edu(EDU).store(MIB + 0x100, 7)
        assert machine.read(1, 0x100, 7) == b"read me"


def test_no_object_is_left_when_all_is_taken_away(ready: Shell, state: Path) -> None:
    for line in (
        f"detach domain1 {EDU}",
        "domain destroy domain1",
        "memory destroy ram",
    ):
        ready(*line.split())
    with held(state) as machine:
        assert machine.objects() == 1, "only the device is left"
    ready("device", "unbind", EDU)
    with held(state) as machine:
        assert machine.objects() == 0
    assert ready("check").startswith("ok")


def test_translations_name_the_memory(ready: Shell) -> None:
    answer = ready.json("translate", EDU, "0x100010")
    assert (answer["pa"], answer["memory"], answer["offset"], answer["prot"]) == (None, "ram", 16, "rw")
    answer = ready.json("translate", EDU, "0x10")
    assert answer["fault"]["name"] == "NO_MAPPING"


def test_the_kernel_s_own_devices_are_shown_and_not_touched(ready: Shell) -> None:
    devices = {each["rid"]: each for each in ready.json("topology")["devices"]}
    assert devices[EDU]["bound"]
    others = [each for rid, each in devices.items() if rid != EDU]
    assert others
    assert not any(each["bound"] for each in others)
    assert all(each["owner"] for each in others)
    error = ready.refused("attach", "domain1", "0000:00:11.0")
    assert "device bind 0000:00:11.0" in error["hint"]


@pytest.mark.parametrize(
    "words",
    [
        "device bind 0000:00:11.0",
        "device unbind 0000:00:10.0 --force",
        "memory create more --size 64K",
        "domain create domain2",
        "domain map domain1 --iova 4M --size 64K --memory ram",
        "domain unmap domain1 --iova 1M --size 1M",
        "attach domain1 0000:00:10.0 --replace",
        "detach domain1 0000:00:10.0",
        "domain destroy domain1 --force",
    ],
)
def test_a_dry_run_tells_the_calls_and_makes_none(ready: Shell, state: Path, words: str) -> None:
    before = ready.json("topology"), ready.json("device", "list"), ready.json("domain", "show", "domain1")
    with held(state) as machine:
        objects = machine.objects()
    answer = ready.json(*words.split(), "--dry-run")
    assert answer["dry_run"]
    # Memory is made by the C library, of which nothing is logged.
    assert answer.get("calls") or words.startswith("memory")
    assert (ready.json("topology"), ready.json("device", "list"), ready.json("domain", "show", "domain1")) == before
    with held(state) as machine:
        assert machine.objects() == objects
        machine.write(1, 0, b"as before")
        machine.edu(EDU).load(MIB, 9)
        machine.edu(EDU).store(MIB + 0x1000, 9)
        assert machine.read(1, 0x1000, 9) == b"as before"

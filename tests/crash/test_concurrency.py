# SPDX-License-Identifier: Apache-2.0
"""Many processes change one state folder at the same time: none fails, and nothing is lost or done twice.

Each does two hundred pairs through the library, or twenty by commands; a ninth of that without IOMMUCTL_THOROUGH.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iommuctl import Iommu
from tests.thorough import share

PROCESSES = 8
SHARED = "0000:00:01.0"
OWN = [f"0000:01:{number:02x}.0" for number in range(PROCESSES)]

# Half of the work is on a device of the process's own, half on one that all share, where each takes any free PASID.
# It ends attached.
WORKER = """
import sys
from iommuctl import Iommu

folder, own, shared, rounds = sys.argv[1:]
with Iommu(folder) as iommu:
    for _ in range(int(rounds) // 2):
        iommu.attach("first", own)
        iommu.detach("first", own)
        pasid = iommu.attach("second", shared, pasid="auto").slot.pasid
        iommu.detach("second", shared, pasid=pasid)
    iommu.attach("first", own)
    print(iommu.attach("second", shared, pasid="auto").slot.pasid)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    with Iommu(folder, backend="sim") as iommu:
        for rid in (SHARED, *OWN):
            iommu.device_add(rid, ats=True, pasid_bits=8)
        for name in ("first", "second"):
            iommu.domain_create(name)
            iommu.map(name, iova=0x10000, size=0x4000, pa=0x10_0000)
    return folder


def check_end(folder: Path, pasids: list[int]) -> None:
    """Each process's device is attached, the shared one has a PASID for each of them, and the machine is sound."""
    assert len(set(pasids)) == PROCESSES
    with Iommu(folder) as iommu:
        slots = {(str(held.slot.rid), held.slot.pasid): held.domain.name for held in iommu.slots()}
        expected = {(rid, None): "first" for rid in OWN} | {(SHARED, pasid): "second" for pasid in pasids}
        assert slots == expected
        for rid, pasid in expected:
            assert iommu.translate(rid, 0x10000, pasid=pasid).pa == 0x10_0000
            assert not iommu.dma(rid, 0x10000, size=8, pasid=pasid).stale
        assert iommu.check() == []


def test_eight_processes_attach_and_detach_many_times_each(folder: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), own, SHARED, str(share(200))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in OWN
    ]
    ends = [(*worker.communicate(timeout=300), worker.returncode) for worker in workers]
    assert [(complaint, code) for _, complaint, code in ends] == [("", 0)] * PROCESSES
    check_end(folder, [int(text) for text, _, _ in ends])


def test_eight_shells_attach_and_detach_some_times_each(folder: Path) -> None:
    """Each command is a process of its own, so the first of each also race for the lock at their start."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        pasids = list(pool.map(type_commands, [folder] * PROCESSES, OWN))
    check_end(folder, pasids)


def type_commands(folder: Path, own: str) -> int:
    for _ in range(share(20) // 2):
        iommuctl(folder, "attach", "first", own)
        iommuctl(folder, "detach", "first", own)
        pasid = iommuctl(folder, "attach", "second", SHARED, "--pasid", "auto")["pasid"]
        iommuctl(folder, "detach", "second", SHARED, "--pasid", str(pasid))
    iommuctl(folder, "attach", "first", own)
    pasid = iommuctl(folder, "attach", "second", SHARED, "--pasid", "auto")["pasid"]
    assert isinstance(pasid, int)
    return pasid


def iommuctl(folder: Path, *words: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "iommuctl", "-j", *words],
        env={**os.environ, "IOMMUCTL_STATE": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer

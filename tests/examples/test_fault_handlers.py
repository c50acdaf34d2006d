# SPDX-License-Identifier: Apache-2.0
"""The programs of examples/fault-handlers map what a device asks for, in the page table of its guest's process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.handlers import Handler
from iommuctl.model import Slot
from tests.serving.asking import A, ask, told

FOLDER = Path(__file__).parents[2] / "examples" / "fault-handlers"
PROGRAMS = Path(sys.executable).parent
REQUIRED = "IOMMUCTL_REQUIRE_LAB"
SLOT = Slot(A, 3)
FIRST, GPA, SIZE = 0x7F0000000000, 0x400000, 0x10000


def test_every_program_is_tried() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"guest-sva.sh", "guest_sva.py"}


@pytest.mark.parametrize("name", ["guest-sva.sh", "guest_sva.py"])
def test_a_guest_process(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith(".sh") and not shutil.which("jq"):
        reason = "there is no jq"
        pytest.fail(reason) if os.environ.get(REQUIRED) == "1" else pytest.skip(reason)
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.device_add(A, ats=True, pri=True, pasid_bits=8)
        iommu.domain_create("vm", nest_parent=True)
        iommu.map("vm", iova=0, size=16 << 20, pa=32 << 20)
        iommu.attach("vm", A)
        iommu.pgtable_create("process", parent="vm", pool=8 << 20, pool_size=0x40000)
        iommu.bind_pgtable("vm", A, pgtable="process", pasid=SLOT.pasid)
        words = (str(FOLDER / name), *map(hex, (FIRST, GPA, SIZE)))
        iommu.handler_set(str(A), Handler("exec", words), pasid=SLOT.pasid)
        first = FIRST >> 12
        ask(iommu, SLOT, first + 3, first + 1, first + 3)
        ask(iommu, SLOT, first + 16, group=1)
        done = subprocess.run(
            [PROGRAMS / "iommuctl", "--state", iommu.state, "fault", "run", "--once"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert told(iommu) == {(SLOT, 0): "success", (SLOT, 1): "invalid"}
        assert {leaf.iova: leaf.pa for leaf in iommu.pgtable_mappings("process")} == {
            FIRST + 0x1000: GPA + 0x1000, FIRST + 0x3000: GPA + 0x3000
        }  # fmt: skip
        assert iommu.translate(A, FIRST + 0x3123, pasid=3, access="w").pa == (32 << 20) + GPA + 0x3123
        assert iommu.check() == []

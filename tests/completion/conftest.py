# SPDX-License-Identifier: Apache-2.0
"""State folders to complete from, and shells that do."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from iommuctl import Iommu
from tests.completion.shells import ROOT, SCRIPTS, Shell

REQUIRED = "IOMMUCTL_REQUIRE_LAB"
"""With this set to 1, a shell that is missing is a failure, not a reason to skip."""
RID1, RID2, FAR = "0000:00:01.0", "0000:00:02.0", "0000:3a:1f.7"


class Folders(NamedTuple):
    """A home with two state folders: the one of the environment, and one beside it."""

    home: Path
    state: Path
    other: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    home = tmp_path_factory.mktemp("home")
    found = Folders(home, home / "state", home / "my other")
    with Iommu(found.state, backend="sim") as iommu:
        for rid in (RID1, RID2, FAR):
            iommu.device_add(rid, pasid_bits=16)
        for name in ("domain1", "domain2", "vm-1.a@x", "_low"):
            iommu.domain_create(name, nest_parent=name == "domain2")
        iommu.memory_create("buffers", 1 << 20)
        iommu.map("domain2", iova=0, size=1 << 20, memory="buffers")
        iommu.attach("domain2", RID1)
        iommu.attach("domain2", RID1, pasid=4095)
        iommu.attach("domain1", RID2, pasid=7)
        iommu.pgtable_create("sva-a", parent="domain2", pool=0, pool_size=1 << 16)
        iommu.bind_pgtable("domain2", RID1, pgtable="sva-a", pasid=12)
    with Iommu(found.other, backend="sim") as iommu:
        iommu.device_add("0000:4b:00.0")
        iommu.domain_create("elsewhere")
    return found


@pytest.fixture(scope="module", params=SCRIPTS)
def shell(request: pytest.FixtureRequest, folders: Folders) -> Iterator[Shell]:
    """Each of the three shells, in the home of `folders`."""
    name = request.param
    if shutil.which(name) is None:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    environment = {
        "HOME": str(folders.home),
        "IOMMUCTL_STATE": str(folders.state),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
        "TERM": "xterm",
        "LANG": "C.UTF-8",
    }
    running = Shell(name, environment, ROOT / "completions" / SCRIPTS[name])
    yield running
    running.close()

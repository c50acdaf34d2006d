# SPDX-License-Identifier: Apache-2.0
"""A simulated machine whose devices ask for pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu
from tests.serving.asking import A, B


@pytest.fixture
def iommu(tmp_path: Path) -> Iterator[Iommu]:
    """Two devices with PASIDs 5 and 6 attached to domain d, which has 4 KiB pages alone."""
    with Iommu(tmp_path / "state", backend="sim") as made:
        made.domain_create("d", page_sizes=[4096])
        made.memory_create("m", 8 << 12)
        for rid in (A, B):
            made.device_add(rid, ats=True, pri=True, pasid_bits=8)
            for pasid in (5, 6):
                made.attach("d", rid, pasid=pasid)
        yield made

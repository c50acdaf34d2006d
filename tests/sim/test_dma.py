# SPDX-License-Identifier: Apache-2.0
"""What a simulated device asks its unit for."""

from pathlib import Path
from typing import Any

import pytest

from iommuctl.iommu import Iommu
from iommuctl.model import Slot
from iommuctl_smmuv3.unit import Unit as SmmuUnit
from iommuctl_vtd.unit import Unit as VtdUnit
from tests.sim.scenarios import LOW, PAGE, SCALABLE, SMMUV3, A, machine


@pytest.mark.parametrize(("mode", "unit"), [(SCALABLE, VtdUnit), (SMMUV3, SmmuUnit)])
@pytest.mark.parametrize("translated", [False, True])
def test_the_bytes_of_each_page_are_asked_for_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, unit: type[Any], translated: bool
) -> None:
    """No transaction crosses 4 KB, which PCIe forbids, too; a translation request is about a page."""
    asked: list[tuple[str, int, int]] = []
    right = unit.request

    def request(self: Any, slot: Slot, iova: int, access: str, **how: Any) -> Any:
        asked.append((how.get("kind", "untranslated"), iova % PAGE, how.get("size", 1)))
        return right(self, slot, iova, access, **how)

    monkeypatch.setattr(unit, "request", request)
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        machine(iommu, mode)
        iommu.domain_create("d")
        iommu.map("d", iova=LOW, size=3 * PAGE, memory="ram")
        iommu.attach("d", A)
        assert iommu.dma(A, LOW + PAGE - 2, size=PAGE + 6, translated=translated).fault is None
    kind = "translated" if translated else "untranslated"
    assert [one for one in asked if one[0] == kind] == [(kind, PAGE - 2, 2), (kind, 0, PAGE), (kind, 0, 4)]
    assert [size for one, _, size in asked if one == "translation"] == [1] * (3 if translated else 0)

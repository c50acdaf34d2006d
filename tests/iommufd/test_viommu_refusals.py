# SPDX-License-Identifier: Apache-2.0
"""What is said where the kernel refuses what guests need."""

import errno

import pytest

from iommuctl.iommufd import evidence, uapi
from iommuctl.iommufd.refusals import refused

NO_TYPE, SOME_TYPE = 0, 2
NEST, DIRTY, PASID = 1, 2, 8


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (SOME_TYPE, "has no vIOMMU of type 0x7 (fields dev_id, type)"),
        (None, "has no vIOMMU of type 0x7 (fields dev_id, type)"),
        (NO_TYPE, "the kernel was built without that part of its driver which is for guests"),
    ],
)
def test_no_viommu(monkeypatch: pytest.MonkeyPatch, kind: int | None, said: str) -> None:
    monkeypatch.setattr(evidence, "hw_type", lambda _fd, dev_id: {3: kind}[dev_id])
    argument = uapi.iommu_viommu_alloc(dev_id=3, hwpt_id=5, type=7)
    because = refused(-1, "IOMMU_VIOMMU_ALLOC", argument, errno.EOPNOTSUPP).because
    assert because.startswith("the IOMMU of device 3 ")
    assert said in because


@pytest.mark.parametrize(
    ("flags", "data_type", "said"),
    [
        (DIRTY, 0, "has no tables with flags 0x2 (field flags)"),
        (NEST | PASID, 0, "has no nest parents, or none with flags 0x9 (field flags)"),
        (PASID, 2, "nests no table of type 0x2 with flags 0x8 on 5 (fields data_type, flags, pt_id)"),
    ],
)
def test_no_such_table(flags: int, data_type: int, said: str) -> None:
    argument = uapi.iommu_hwpt_alloc(flags=flags, dev_id=3, pt_id=5, data_type=data_type)
    assert said in refused(-1, "IOMMU_HWPT_ALLOC", argument, errno.EOPNOTSUPP).because

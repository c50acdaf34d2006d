# SPDX-License-Identifier: Apache-2.0
"""An SMMUv3 of both stages on which Linux does not nest: a guest's stage 1 could have DMA bypass caches."""

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd import uapi
from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.vfio import Cdev
from iommuctl_smmuv3.features import Features
from tests.hardware.smmuv3.guest import VIOMMU, registers

pytestmark = pytest.mark.smmuv3_plain


def test_no_viommu(session: Iommufd, device: Cdev) -> None:
    """Neither the registers nor a nest parent tell that; the attempt does."""
    dev_id = device.bind(session.fd)
    features = Features.of(registers(session, dev_id))
    assert features.s1p
    assert features.s2p
    parent = session.hwpt_alloc(dev_id, session.ioas_alloc(), uapi.IOMMU_HWPT_ALLOC_NEST_PARENT)
    device.attach(parent)
    with pytest.raises(KernelRefused, match="EOPNOTSUPP") as refused:
        session.viommu_alloc(dev_id, parent, VIOMMU)
    assert "CANWBS" in refused.value.because

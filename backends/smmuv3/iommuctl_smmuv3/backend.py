# SPDX-License-Identifier: Apache-2.0
"""The backend for real SMMUv3 hardware, through iommufd. It says why it cannot work where it cannot."""

from iommuctl.hookspecs import API_VERSION, Availability, hookimpl


@hookimpl
def iommuctl_probe() -> Availability:
    import os

    because = (
        "this version of iommuctl does not drive hardware yet"
        if os.path.exists("/dev/iommu")
        else "there is no /dev/iommu: the kernel has no iommufd, or its module is not loaded"
    )
    return Availability("smmuv3", False, because, "smmuv3", API_VERSION)

# SPDX-License-Identifier: Apache-2.0
"""The payloads of VT-d in calls of iommufd: include/uapi/linux/iommufd.h of Linux 7.3, with the kernel's names."""
# ruff: noqa: N801

from ctypes import Structure
from typing import Final

from iommuctl.iommufd.fields import u32, u64

IOMMU_HW_INFO_TYPE_INTEL_VTD: Final = 1
IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17: Final = 1 << 0
IOMMU_HWPT_DATA_VTD_S1: Final = 1
IOMMU_VTD_S1_SRE: Final = 1 << 0
IOMMU_VTD_S1_EAFE: Final = 1 << 1
IOMMU_VTD_S1_WPE: Final = 1 << 2
IOMMU_HWPT_INVALIDATE_DATA_VTD_S1: Final = 0
IOMMU_VTD_INV_FLAGS_LEAF: Final = 1 << 0


class iommu_hw_info_vtd(Structure):
    """What GET_HW_INFO tells: CAP and ECAP, raw."""

    _fields_ = u32("flags", "__reserved") + u64("cap_reg", "ecap_reg")


class iommu_hwpt_vtd_s1(Structure):
    """A first stage: GPA of its root, address width in bits, bits of the PASID-table entry."""

    _fields_ = u64("flags", "pgtbl_addr") + u32("addr_width", "__reserved")


class iommu_hwpt_vtd_s1_invalidate(Structure):
    """Pages of a first stage to invalidate; address 0 and 2**64 - 1 pages are all of it."""

    _fields_ = u64("addr", "npages") + u32("flags", "__reserved")

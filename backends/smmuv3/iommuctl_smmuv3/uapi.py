# SPDX-License-Identifier: Apache-2.0
"""The payloads of SMMUv3 in calls of iommufd: include/uapi/linux/iommufd.h of Linux 7.3, with the kernel's names."""
# ruff: noqa: N801

from ctypes import Structure, c_uint32, c_uint64
from typing import Final

from iommuctl.iommufd.fields import array, u32

IOMMU_HW_INFO_TYPE_ARM_SMMUV3: Final = 2
IOMMU_HWPT_DATA_ARM_SMMUV3: Final = 2
IOMMU_VIOMMU_TYPE_ARM_SMMUV3: Final = 1
IOMMU_VEVENTQ_TYPE_ARM_SMMUV3: Final = 1
IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3: Final = 1


class iommu_hw_info_arm_smmuv3(Structure):
    """What GET_HW_INFO tells: IDR0 to IDR5, IIDR and AIDR, raw."""

    _fields_ = u32("flags", "__reserved") + array("idr", c_uint32, 6) + u32("iidr", "aidr")


class iommu_hwpt_arm_smmuv3(Structure):
    """The first two 64-bit words of an STE, little-endian: what stage 1 is made of."""

    _fields_ = array("ste", c_uint64, 2)


class iommu_viommu_arm_smmuv3_invalidate(Structure):
    """One command of the queue, little-endian."""

    _fields_ = array("cmd", c_uint64, 2)


class iommu_vevent_arm_smmuv3(Structure):
    """One event record, little-endian; its StreamID is the vDEVICE's number."""

    _fields_ = array("evt", c_uint64, 4)

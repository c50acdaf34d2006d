# SPDX-License-Identifier: Apache-2.0
"""The interface of /dev/vfio/devices/vfioN, as far as iommuctl uses it, with the kernel's names.

Source: include/uapi/linux/vfio.h of Linux 7.3. Every structure of a call starts with `argsz`, its own size in bytes.
"""
# ruff: noqa: N801

from ctypes import Structure, c_uint8
from typing import Final

from iommuctl.iommufd.fields import array, s32, u32, u64

_BASE = ord(";") << 8 | 100
VFIO_DEVICE_GET_INFO: Final = _BASE + 7
VFIO_DEVICE_GET_REGION_INFO: Final = _BASE + 8
VFIO_DEVICE_FEATURE: Final = _BASE + 17
VFIO_DEVICE_BIND_IOMMUFD: Final = _BASE + 18
VFIO_DEVICE_ATTACH_IOMMUFD_PT: Final = _BASE + 19
VFIO_DEVICE_DETACH_IOMMUFD_PT: Final = _BASE + 20

# DEVICE_GET_INFO and DEVICE_GET_REGION_INFO: flags, and the regions of a PCI device.
VFIO_DEVICE_FLAGS_RESET: Final = 1 << 0
VFIO_DEVICE_FLAGS_PCI: Final = 1 << 1
VFIO_REGION_INFO_FLAG_READ: Final = 1 << 0
VFIO_REGION_INFO_FLAG_WRITE: Final = 1 << 1
VFIO_REGION_INFO_FLAG_MMAP: Final = 1 << 2
VFIO_PCI_BAR0_REGION_INDEX: Final = 0
VFIO_PCI_BAR5_REGION_INDEX: Final = 5
VFIO_PCI_CONFIG_REGION_INDEX: Final = 7

# Flags of BIND, ATTACH and DETACH.
VFIO_DEVICE_BIND_FLAG_TOKEN: Final = 1 << 0
VFIO_DEVICE_ATTACH_PASID: Final = 1 << 0
VFIO_DEVICE_DETACH_PASID: Final = 1 << 0

# DEVICE_FEATURE: flags, and the number of the feature in their low bits.
VFIO_DEVICE_FEATURE_MASK: Final = 0xFFFF
VFIO_DEVICE_FEATURE_GET: Final = 1 << 16
VFIO_DEVICE_FEATURE_SET: Final = 1 << 17
VFIO_DEVICE_FEATURE_PROBE: Final = 1 << 18
VFIO_DEVICE_FEATURE_DMA_BUF: Final = 11


class vfio_device_info(Structure):
    """VFIO_DEVICE_GET_INFO: what kind of device it is."""

    _fields_ = u32("argsz", "flags", "num_regions", "num_irqs", "cap_offset", "pad")


class vfio_region_info(Structure):
    """VFIO_DEVICE_GET_REGION_INFO: where region `index` lies in the device's file."""

    _fields_ = u32("argsz", "flags", "index", "cap_offset") + u64("size", "offset")


class vfio_device_feature(Structure):
    """VFIO_DEVICE_FEATURE: followed by the feature's own structure, which `argsz` counts."""

    _fields_ = u32("argsz", "flags") + array("data", c_uint8, 0)


class vfio_device_bind_iommufd(Structure):
    """VFIO_DEVICE_BIND_IOMMUFD: `token_uuid_ptr` points to 16 bytes if the flag says so."""

    _fields_ = u32("argsz", "flags") + s32("iommufd") + u32("out_devid") + u64("token_uuid_ptr")


class vfio_device_attach_iommufd_pt(Structure):
    """VFIO_DEVICE_ATTACH_IOMMUFD_PT: `pt_id` comes back as the HWPT that was attached."""

    _fields_ = u32("argsz", "flags", "pt_id", "pasid")


class vfio_device_detach_iommufd_pt(Structure):
    """VFIO_DEVICE_DETACH_IOMMUFD_PT."""

    _fields_ = u32("argsz", "flags", "pasid")


class vfio_region_dma_range(Structure):
    """A part of a region, in bytes."""

    _fields_ = u64("offset", "length")


class vfio_device_feature_dma_buf(Structure):
    """VFIO_DEVICE_FEATURE_DMA_BUF: followed by `nr_ranges` of `vfio_region_dma_range`; the call returns the new fd."""

    _fields_ = u32("region_index", "open_flags", "flags", "nr_ranges") + array("dma_ranges", vfio_region_dma_range, 0)

# SPDX-License-Identifier: Apache-2.0
"""The interface of /dev/iommu: its calls, flags and generic structures, with the kernel's names.

Source: include/uapi/linux/iommufd.h of Linux 7.3. What only one vendor's hardware gives or takes (the payloads behind
`data_uptr`, and the types that announce them) is declared in the vendor's package.

Every structure starts with its own size, in bytes; fields `out_*` are written by the kernel, and what is reserved is 0.
Addresses and lengths are in bytes, ranges end with their last byte.
"""
# ruff: noqa: N801

from ctypes import Structure, Union, c_uint8
from typing import Final

from iommuctl.iommufd.fields import array, s32, u8, u16, u32, u64

_IO = ord(";") << 8
IOMMU_DESTROY: Final = _IO | 0x80
IOMMU_IOAS_ALLOC: Final = _IO | 0x81
IOMMU_IOAS_ALLOW_IOVAS: Final = _IO | 0x82
IOMMU_IOAS_COPY: Final = _IO | 0x83
IOMMU_IOAS_IOVA_RANGES: Final = _IO | 0x84
IOMMU_IOAS_MAP: Final = _IO | 0x85
IOMMU_IOAS_UNMAP: Final = _IO | 0x86
IOMMU_OPTION: Final = _IO | 0x87
IOMMU_VFIO_IOAS: Final = _IO | 0x88
IOMMU_HWPT_ALLOC: Final = _IO | 0x89
IOMMU_GET_HW_INFO: Final = _IO | 0x8A
IOMMU_HWPT_SET_DIRTY_TRACKING: Final = _IO | 0x8B
IOMMU_HWPT_GET_DIRTY_BITMAP: Final = _IO | 0x8C
IOMMU_HWPT_INVALIDATE: Final = _IO | 0x8D
IOMMU_FAULT_QUEUE_ALLOC: Final = _IO | 0x8E
IOMMU_IOAS_MAP_FILE: Final = _IO | 0x8F
IOMMU_VIOMMU_ALLOC: Final = _IO | 0x90
IOMMU_VDEVICE_ALLOC: Final = _IO | 0x91
IOMMU_IOAS_CHANGE_PROCESS: Final = _IO | 0x92
IOMMU_VEVENTQ_ALLOC: Final = _IO | 0x93
IOMMU_HW_QUEUE_ALLOC: Final = _IO | 0x94
IOMMU_IOAS_NOIOMMU_GET_PA: Final = _IO | 0x95

# Flags of IOAS_MAP, IOAS_MAP_FILE and IOAS_COPY.
IOMMU_IOAS_MAP_FIXED_IOVA: Final = 1 << 0
IOMMU_IOAS_MAP_WRITEABLE: Final = 1 << 1
IOMMU_IOAS_MAP_READABLE: Final = 1 << 2

# OPTION: `option_id` and `op`.
IOMMU_OPTION_RLIMIT_MODE: Final = 0
IOMMU_OPTION_HUGE_PAGES: Final = 1
IOMMU_OPTION_OP_SET: Final = 0
IOMMU_OPTION_OP_GET: Final = 1

# VFIO_IOAS: `op`.
IOMMU_VFIO_IOAS_GET: Final = 0
IOMMU_VFIO_IOAS_SET: Final = 1
IOMMU_VFIO_IOAS_CLEAR: Final = 2

# Flags of HWPT_ALLOC, and the type of a table that the kernel manages.
IOMMU_HWPT_ALLOC_NEST_PARENT: Final = 1 << 0
IOMMU_HWPT_ALLOC_DIRTY_TRACKING: Final = 1 << 1
IOMMU_HWPT_FAULT_ID_VALID: Final = 1 << 2
IOMMU_HWPT_ALLOC_PASID: Final = 1 << 3
IOMMU_HWPT_DATA_NONE: Final = 0

# GET_HW_INFO: types that are no vendor's, flags, and bits of `out_capabilities`.
IOMMU_HW_INFO_TYPE_NONE: Final = 0
IOMMU_HW_INFO_TYPE_DEFAULT: Final = 0
IOMMU_HW_INFO_FLAG_INPUT_TYPE: Final = 1 << 0
IOMMU_HW_CAP_DIRTY_TRACKING: Final = 1 << 0
IOMMU_HW_CAP_PCI_PASID_EXEC: Final = 1 << 1
IOMMU_HW_CAP_PCI_PASID_PRIV: Final = 1 << 2
IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED: Final = 1 << 3

# Flags of HWPT_SET_DIRTY_TRACKING and of HWPT_GET_DIRTY_BITMAP.
IOMMU_HWPT_DIRTY_TRACKING_ENABLE: Final = 1
IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR: Final = 1

# A page fault's flags and permissions, and the codes of a response.
IOMMU_PGFAULT_FLAGS_PASID_VALID: Final = 1 << 0
IOMMU_PGFAULT_FLAGS_LAST_PAGE: Final = 1 << 1
IOMMU_PGFAULT_PERM_READ: Final = 1 << 0
IOMMU_PGFAULT_PERM_WRITE: Final = 1 << 1
IOMMU_PGFAULT_PERM_EXEC: Final = 1 << 2
IOMMU_PGFAULT_PERM_PRIV: Final = 1 << 3
IOMMUFD_PAGE_RESP_SUCCESS: Final = 0
IOMMUFD_PAGE_RESP_INVALID: Final = 1

# Types that are no vendor's, and the flag of an event's header.
IOMMU_VIOMMU_TYPE_DEFAULT: Final = 0
IOMMU_VEVENTQ_TYPE_DEFAULT: Final = 0
IOMMU_VEVENTQ_FLAG_LOST_EVENTS: Final = 1 << 0
IOMMU_HW_QUEUE_TYPE_DEFAULT: Final = 0


class iommu_destroy(Structure):
    """IOMMU_DESTROY: an object of any kind goes."""

    _fields_ = u32("size", "id")


class iommu_ioas_alloc(Structure):
    """IOMMU_IOAS_ALLOC: an address space that holds mappings."""

    _fields_ = u32("size", "flags", "out_ioas_id")


class iommu_iova_range(Structure):
    """A range of IOVAs; `last` belongs to it."""

    _fields_ = u64("start", "last")


class iommu_ioas_iova_ranges(Structure):
    """IOMMU_IOAS_IOVA_RANGES: `allowed_iovas` points to room for `num_iovas` of `iommu_iova_range`."""

    _fields_ = u32("size", "ioas_id", "num_iovas", "__reserved") + u64("allowed_iovas", "out_iova_alignment")


class iommu_ioas_allow_iovas(Structure):
    """IOMMU_IOAS_ALLOW_IOVAS: `allowed_iovas` points to `num_iovas` of `iommu_iova_range`."""

    _fields_ = u32("size", "ioas_id", "num_iovas", "__reserved") + u64("allowed_iovas")


class iommu_ioas_map(Structure):
    """IOMMU_IOAS_MAP: memory of the calling process."""

    _fields_ = u32("size", "flags", "ioas_id", "__reserved") + u64("user_va", "length", "iova")


class iommu_ioas_noiommu_get_pa(Structure):
    """IOMMU_IOAS_NOIOMMU_GET_PA: where an IOVA leads without an IOMMU."""

    _fields_ = u32("size", "flags", "ioas_id", "__reserved") + u64("iova", "length", "out_phys")


class iommu_ioas_map_file(Structure):
    """IOMMU_IOAS_MAP_FILE: memory of a memfd or of a dma-buf."""

    _fields_ = u32("size", "flags", "ioas_id") + s32("fd") + u64("start", "length", "iova")


class iommu_ioas_copy(Structure):
    """IOMMU_IOAS_COPY: what is mapped in one address space, in another as well."""

    _fields_ = u32("size", "flags", "dst_ioas_id", "src_ioas_id") + u64("length", "dst_iova", "src_iova")


class iommu_ioas_unmap(Structure):
    """IOMMU_IOAS_UNMAP: `length` comes back as the number of bytes that were unmapped."""

    _fields_ = u32("size", "ioas_id") + u64("iova", "length")


class iommu_option(Structure):
    """IOMMU_OPTION: read or set one option, of the whole file or of the object."""

    _fields_ = u32("size", "option_id") + u16("op", "__reserved") + u32("object_id") + u64("val64")


class iommu_vfio_ioas(Structure):
    """IOMMU_VFIO_IOAS: the address space that VFIO's older interface uses."""

    _fields_ = u32("size", "ioas_id") + u16("op", "__reserved")


class iommu_hwpt_alloc(Structure):
    """IOMMU_HWPT_ALLOC: a page table; `pt_id` is an IOAS, the parent's HWPT, or a vIOMMU."""

    _fields_ = (
        u32("size", "flags", "dev_id", "pt_id", "out_hwpt_id", "__reserved", "data_type", "data_len")
        + u64("data_uptr")
        + u32("fault_id", "__reserved2")
    )


class _hw_info_type(Union):
    _fields_ = u32("in_data_type", "out_data_type")


class iommu_hw_info(Structure):
    """IOMMU_GET_HW_INFO: `data_len` comes back as the length that the kernel has."""

    _anonymous_ = ("_type",)
    _fields_ = (
        u32("size", "flags", "dev_id", "data_len")
        + u64("data_uptr")
        + (("_type", _hw_info_type),)
        + u8("out_max_pasid_log2")
        + array("__reserved", c_uint8, 3)
        + u64("out_capabilities")
    )


class iommu_hwpt_set_dirty_tracking(Structure):
    """IOMMU_HWPT_SET_DIRTY_TRACKING: on with the flag, off without."""

    _fields_ = u32("size", "flags", "hwpt_id", "__reserved")


class iommu_hwpt_get_dirty_bitmap(Structure):
    """IOMMU_HWPT_GET_DIRTY_BITMAP: `data` points to a bit for each `page_size` of the range, in words of 64 bits."""

    _fields_ = u32("size", "hwpt_id", "flags", "__reserved") + u64("iova", "length", "page_size", "data")


class iommu_hwpt_invalidate(Structure):
    """IOMMU_HWPT_INVALIDATE: `entry_num` comes back as the number of requests that were carried out."""

    _fields_ = u32("size", "hwpt_id") + u64("data_uptr") + u32("data_type", "entry_len", "entry_num", "__reserved")


class iommu_hwpt_pgfault(Structure):
    """One page fault, as it is read from a fault queue."""

    _fields_ = u32("flags", "dev_id", "pasid", "grpid", "perm", "__reserved") + u64("addr") + u32("length", "cookie")


class iommu_hwpt_page_response(Structure):
    """The answer to a group of page faults, as it is written to a fault queue."""

    _fields_ = u32("cookie", "code")


class iommu_fault_alloc(Structure):
    """IOMMU_FAULT_QUEUE_ALLOC: a fault queue and the file to read it by."""

    _fields_ = u32("size", "flags", "out_fault_id", "out_fault_fd")


class iommu_viommu_alloc(Structure):
    """IOMMU_VIOMMU_ALLOC: the part of a physical IOMMU that one guest has, over its nest parent `hwpt_id`."""

    _fields_ = u32("size", "flags", "type", "dev_id", "hwpt_id", "out_viommu_id", "data_len", "__reserved") + u64(
        "data_uptr"
    )


class iommu_vdevice_alloc(Structure):
    """IOMMU_VDEVICE_ALLOC: the number `virt_id` that a device has on a vIOMMU."""

    _fields_ = u32("size", "viommu_id", "dev_id", "out_vdevice_id") + u64("virt_id")


class iommu_ioas_change_process(Structure):
    """IOMMU_IOAS_CHANGE_PROCESS: the caller is charged for what is pinned."""

    _fields_ = u32("size", "__reserved")


class iommufd_vevent_header(Structure):
    """Precedes each event that is read from an event queue."""

    _fields_ = u32("flags", "sequence")


class iommu_veventq_alloc(Structure):
    """IOMMU_VEVENTQ_ALLOC: an event queue of a vIOMMU and the file to read it by."""

    _fields_ = u32(
        "size", "flags", "viommu_id", "type", "veventq_depth", "out_veventq_id", "out_veventq_fd", "__reserved"
    )


class iommu_hw_queue_alloc(Structure):
    """IOMMU_HW_QUEUE_ALLOC: a queue in guest memory that hardware reads by itself."""

    _fields_ = u32("size", "flags", "viommu_id", "type", "index", "out_hw_queue_id") + u64(
        "nesting_parent_iova", "length"
    )

# SPDX-License-Identifier: Apache-2.0
"""The interface of iommufd's mock driver, with the kernel's names: drivers/iommu/iommufd/iommufd_test.h of Linux 7.3.

One call carries an operation and its arguments. The kernel copies nothing back of an operation that has no outputs.
"""
# ruff: noqa: N801

from ctypes import Structure, Union
from typing import Final

from iommuctl.iommufd.fields import s32, u32, u64

IOMMU_TEST_CMD: Final = ord(";") << 8 | 0xA0

IOMMU_TEST_OP_ADD_RESERVED: Final = 1
IOMMU_TEST_OP_MOCK_DOMAIN: Final = 2
IOMMU_TEST_OP_MD_CHECK_MAP: Final = 3
IOMMU_TEST_OP_MD_CHECK_REFS: Final = 4
IOMMU_TEST_OP_CREATE_ACCESS: Final = 5
IOMMU_TEST_OP_DESTROY_ACCESS_PAGES: Final = 6
IOMMU_TEST_OP_ACCESS_PAGES: Final = 7
IOMMU_TEST_OP_ACCESS_RW: Final = 8
IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT: Final = 9
IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE: Final = 10
IOMMU_TEST_OP_ACCESS_REPLACE_IOAS: Final = 11
IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS: Final = 12
IOMMU_TEST_OP_DIRTY: Final = 13
IOMMU_TEST_OP_MD_CHECK_IOTLB: Final = 14
IOMMU_TEST_OP_TRIGGER_IOPF: Final = 15
IOMMU_TEST_OP_DEV_CHECK_CACHE: Final = 16
IOMMU_TEST_OP_TRIGGER_VEVENT: Final = 17
IOMMU_TEST_OP_PASID_ATTACH: Final = 18
IOMMU_TEST_OP_PASID_REPLACE: Final = 19
IOMMU_TEST_OP_PASID_DETACH: Final = 20
IOMMU_TEST_OP_PASID_CHECK_HWPT: Final = 21
IOMMU_TEST_OP_DMABUF_GET: Final = 22
IOMMU_TEST_OP_DMABUF_REVOKE: Final = 23

MOCK_IOMMUPT_DEFAULT: Final = 0
MOCK_IOMMUPT_HUGE: Final = 1

MOCK_APERTURE_START: Final = 1 << 24
MOCK_APERTURE_LAST: Final = (1 << 31) - 1
MOCK_PAGE_SIZE: Final = 2048
MOCK_HUGE_PAGE_SIZE: Final = 512 * MOCK_PAGE_SIZE

MOCK_FLAGS_ACCESS_WRITE: Final = 1 << 0
MOCK_FLAGS_ACCESS_SYZ: Final = 1 << 16
MOCK_ACCESS_RW_WRITE: Final = 1 << 0
MOCK_ACCESS_RW_SLOW_PATH: Final = 1 << 2
MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES: Final = 1 << 0
MOCK_FLAGS_DEVICE_NO_DIRTY: Final = 1 << 0
MOCK_FLAGS_DEVICE_PASID: Final = 1 << 2

MOCK_NESTED_DOMAIN_IOTLB_ID_MAX: Final = 3
MOCK_NESTED_DOMAIN_IOTLB_NUM: Final = 4
MOCK_DEV_CACHE_ID_MAX: Final = 3
MOCK_DEV_CACHE_NUM: Final = 4

MOCK_PASID_WIDTH: Final = 20
IOMMU_TEST_PASID_RESERVED: Final = 1024
"""The driver refuses to replace what this PASID has by what the test operation asks for."""

IOMMU_HW_INFO_TYPE_SELFTEST: Final = 0xFEEDBEEF
IOMMU_HW_INFO_SELFTEST_REGVAL: Final = 0xDEADBEEF
IOMMU_HWPT_DATA_SELFTEST: Final = 0xDEAD
IOMMU_TEST_IOTLB_DEFAULT: Final = 0xBADBEEF
IOMMU_TEST_DEV_CACHE_DEFAULT: Final = 0xBADDAD
IOMMU_HWPT_INVALIDATE_DATA_SELFTEST: Final = 0xDEADBEEF
IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID: Final = 0xDADBEEF
IOMMU_TEST_INVALIDATE_FLAG_ALL: Final = 1 << 0
IOMMU_VIOMMU_TYPE_SELFTEST: Final = 0xDEADBEEF
IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST: Final = 0xDEADBEEF
IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID: Final = 0xDADBEEF
IOMMU_VEVENTQ_TYPE_SELFTEST: Final = 0xBEEFBEEF
IOMMU_HW_QUEUE_TYPE_SELFTEST: Final = 0xDEADBEEF
IOMMU_TEST_HW_QUEUE_MAX: Final = 2


class _add_reserved(Structure):
    _fields_ = u64("start", "length")


class _mock_domain(Structure):
    _fields_ = u32("out_stdev_id", "out_hwpt_id", "out_idev_id")


class _mock_domain_flags(Structure):
    _fields_ = u32("out_stdev_id", "out_hwpt_id", "out_idev_id", "dev_flags")


class _mock_domain_replace(Structure):
    _fields_ = u32("pt_id")


class _check_map(Structure):
    _fields_ = u64("iova", "length", "uptr")


class _check_refs(Structure):
    _fields_ = u64("length", "uptr") + u32("refs")


class _create_access(Structure):
    _fields_ = u32("out_access_fd", "flags")


class _destroy_access_pages(Structure):
    _fields_ = u32("access_pages_id")


class _access_pages(Structure):
    _fields_ = u32("flags", "out_access_pages_id") + u64("iova", "length", "uptr")


class _access_rw(Structure):
    _fields_ = u64("iova", "length", "uptr") + u32("flags")


class _memory_limit(Structure):
    _fields_ = u32("limit")


class _access_replace_ioas(Structure):
    _fields_ = u32("ioas_id")


class _dirty(Structure):
    _fields_ = u32("flags") + u64("iova", "length", "page_size", "uptr", "out_nr_dirty")


class _check_iotlb(Structure):
    _fields_ = u32("id", "iotlb")


class _trigger_iopf(Structure):
    _fields_ = u32("dev_id", "pasid", "grpid", "perm") + u64("addr")


class _check_dev_cache(Structure):
    _fields_ = u32("id", "cache")


class _trigger_vevent(Structure):
    _fields_ = u32("dev_id")


class _pasid_attach(Structure):
    _fields_ = u32("pasid", "pt_id")


class _pasid_detach(Structure):
    _fields_ = u32("pasid")


class _pasid_check(Structure):
    _fields_ = u32("pasid", "hwpt_id")


class _dmabuf_get(Structure):
    _fields_ = u32("length", "open_flags")


class _dmabuf_revoke(Structure):
    _fields_ = s32("dmabuf_fd") + u32("revoked")


class _arguments(Union):
    _fields_ = (
        ("add_reserved", _add_reserved),
        ("mock_domain", _mock_domain),
        ("mock_domain_flags", _mock_domain_flags),
        ("mock_domain_replace", _mock_domain_replace),
        ("check_map", _check_map),
        ("check_refs", _check_refs),
        ("create_access", _create_access),
        ("destroy_access_pages", _destroy_access_pages),
        ("access_pages", _access_pages),
        ("access_rw", _access_rw),
        ("memory_limit", _memory_limit),
        ("access_replace_ioas", _access_replace_ioas),
        ("dirty", _dirty),
        ("check_iotlb", _check_iotlb),
        ("trigger_iopf", _trigger_iopf),
        ("check_dev_cache", _check_dev_cache),
        ("trigger_vevent", _trigger_vevent),
        ("pasid_attach", _pasid_attach),
        ("pasid_replace", _pasid_attach),
        ("pasid_detach", _pasid_detach),
        ("pasid_check", _pasid_check),
        ("dmabuf_get", _dmabuf_get),
        ("dmabuf_revoke", _dmabuf_revoke),
    )


class iommu_test_cmd(Structure):
    """IOMMU_TEST_CMD: an operation on object `id`, with the member of the union that has its name."""

    _anonymous_ = ("arguments",)
    _fields_ = (*u32("size", "op", "id", "__reserved"), ("arguments", _arguments), *u32("last"))


class iommu_test_hw_info(Structure):
    """What GET_HW_INFO gives."""

    _fields_ = u32("flags", "test_reg")


class iommu_hwpt_selftest(Structure):
    """The payload of a nested page table."""

    _fields_ = u32("iotlb", "pagetable_type")


class iommu_hwpt_invalidate_selftest(Structure):
    """An invalidation of a nested page table."""

    _fields_ = u32("flags", "iotlb_id")


class iommu_viommu_selftest(Structure):
    """The payload of a vIOMMU."""

    _fields_ = u32("in_data", "out_data") + u64("out_mmap_offset", "out_mmap_length")


class iommu_viommu_invalidate_selftest(Structure):
    """An invalidation of a vIOMMU."""

    _fields_ = u32("flags", "vdev_id", "cache_id")


class iommu_viommu_event_selftest(Structure):
    """An event of a vIOMMU."""

    _fields_ = u32("virt_id")

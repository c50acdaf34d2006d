# SPDX-License-Identifier: Apache-2.0
"""The structures and numbers of /dev/iommu and of VFIO's devices are the kernel's.

The literals were printed by a C program that includes the headers of Linux 7.3; where there are headers and a compiler,
all that is declared is compared with what the compiler says.
"""

import ctypes
import re
from pathlib import Path
from types import ModuleType

import pytest

from iommuctl.iommufd import uapi, vfio_uapi
from tests.iommufd.compiled import compiled, constants, declared, fields, header, structures

IOMMUFD = {
    "iommu_destroy": "8: size 0 id 4",
    "iommu_ioas_alloc": "12: size 0 flags 4 out_ioas_id 8",
    "iommu_iova_range": "16: start 0 last 8",
    "iommu_ioas_iova_ranges": "32: size 0 ioas_id 4 num_iovas 8 __reserved 12 allowed_iovas 16 out_iova_alignment 24",
    "iommu_ioas_allow_iovas": "24: size 0 ioas_id 4 num_iovas 8 __reserved 12 allowed_iovas 16",
    "iommu_ioas_map": "40: size 0 flags 4 ioas_id 8 __reserved 12 user_va 16 length 24 iova 32",
    "iommu_ioas_noiommu_get_pa": "40: size 0 flags 4 ioas_id 8 __reserved 12 iova 16 length 24 out_phys 32",
    "iommu_ioas_map_file": "40: size 0 flags 4 ioas_id 8 fd 12 start 16 length 24 iova 32",
    "iommu_ioas_copy": "40: size 0 flags 4 dst_ioas_id 8 src_ioas_id 12 length 16 dst_iova 24 src_iova 32",
    "iommu_ioas_unmap": "24: size 0 ioas_id 4 iova 8 length 16",
    "iommu_option": "24: size 0 option_id 4 op 8 __reserved 10 object_id 12 val64 16",
    "iommu_vfio_ioas": "12: size 0 ioas_id 4 op 8 __reserved 10",
    "iommu_hwpt_alloc": (
        "48: size 0 flags 4 dev_id 8 pt_id 12 out_hwpt_id 16 __reserved 20 data_type 24 data_len 28 data_uptr "
        "32 fault_id 40 __reserved2 44"
    ),
    "iommu_hw_info": (
        "40: size 0 flags 4 dev_id 8 data_len 12 data_uptr 16 in_data_type 24 out_data_type 24 "
        "out_max_pasid_log2 28 __reserved 29 out_capabilities 32"
    ),
    "iommu_hwpt_set_dirty_tracking": "16: size 0 flags 4 hwpt_id 8 __reserved 12",
    "iommu_hwpt_get_dirty_bitmap": "48: size 0 hwpt_id 4 flags 8 __reserved 12 iova 16 length 24 page_size 32 data 40",
    "iommu_hwpt_invalidate": "32: size 0 hwpt_id 4 data_uptr 8 data_type 16 entry_len 20 entry_num 24 __reserved 28",
    "iommu_hwpt_pgfault": "40: flags 0 dev_id 4 pasid 8 grpid 12 perm 16 __reserved 20 addr 24 length 32 cookie 36",
    "iommu_hwpt_page_response": "8: cookie 0 code 4",
    "iommu_fault_alloc": "16: size 0 flags 4 out_fault_id 8 out_fault_fd 12",
    "iommu_viommu_alloc": (
        "40: size 0 flags 4 type 8 dev_id 12 hwpt_id 16 out_viommu_id 20 data_len 24 __reserved 28 data_uptr 32"
    ),
    "iommu_vdevice_alloc": "24: size 0 viommu_id 4 dev_id 8 out_vdevice_id 12 virt_id 16",
    "iommu_ioas_change_process": "8: size 0 __reserved 4",
    "iommufd_vevent_header": "8: flags 0 sequence 4",
    "iommu_veventq_alloc": (
        "32: size 0 flags 4 viommu_id 8 type 12 veventq_depth 16 out_veventq_id 20 out_veventq_fd 24 __reserved 28"
    ),
    "iommu_hw_queue_alloc": (
        "40: size 0 flags 4 viommu_id 8 type 12 index 16 out_hw_queue_id 20 nesting_parent_iova 24 length 32"
    ),
}

VFIO = {
    "vfio_device_info": "24: argsz 0 flags 4 num_regions 8 num_irqs 12 cap_offset 16 pad 20",
    "vfio_region_info": "32: argsz 0 flags 4 index 8 cap_offset 12 size 16 offset 24",
    "vfio_device_feature": "8: argsz 0 flags 4 data 8",
    "vfio_device_bind_iommufd": "24: argsz 0 flags 4 iommufd 8 out_devid 12 token_uuid_ptr 16",
    "vfio_device_attach_iommufd_pt": "16: argsz 0 flags 4 pt_id 8 pasid 12",
    "vfio_device_detach_iommufd_pt": "12: argsz 0 flags 4 pasid 8",
    "vfio_region_dma_range": "16: offset 0 length 8",
    "vfio_device_feature_dma_buf": "16: region_index 0 open_flags 4 flags 8 nr_ranges 12 dma_ranges 16",
}

NUMBERS = {
    "IOMMU_DESTROY": 0x3B80,
    "IOMMU_IOAS_ALLOC": 0x3B81,
    "IOMMU_IOAS_ALLOW_IOVAS": 0x3B82,
    "IOMMU_IOAS_COPY": 0x3B83,
    "IOMMU_IOAS_IOVA_RANGES": 0x3B84,
    "IOMMU_IOAS_MAP": 0x3B85,
    "IOMMU_IOAS_UNMAP": 0x3B86,
    "IOMMU_OPTION": 0x3B87,
    "IOMMU_VFIO_IOAS": 0x3B88,
    "IOMMU_HWPT_ALLOC": 0x3B89,
    "IOMMU_GET_HW_INFO": 0x3B8A,
    "IOMMU_HWPT_SET_DIRTY_TRACKING": 0x3B8B,
    "IOMMU_HWPT_GET_DIRTY_BITMAP": 0x3B8C,
    "IOMMU_HWPT_INVALIDATE": 0x3B8D,
    "IOMMU_FAULT_QUEUE_ALLOC": 0x3B8E,
    "IOMMU_IOAS_MAP_FILE": 0x3B8F,
    "IOMMU_VIOMMU_ALLOC": 0x3B90,
    "IOMMU_VDEVICE_ALLOC": 0x3B91,
    "IOMMU_IOAS_CHANGE_PROCESS": 0x3B92,
    "IOMMU_VEVENTQ_ALLOC": 0x3B93,
    "IOMMU_HW_QUEUE_ALLOC": 0x3B94,
    "IOMMU_IOAS_NOIOMMU_GET_PA": 0x3B95,
    "IOMMU_IOAS_MAP_FIXED_IOVA": 1,
    "IOMMU_IOAS_MAP_WRITEABLE": 2,
    "IOMMU_IOAS_MAP_READABLE": 4,
    "IOMMU_OPTION_RLIMIT_MODE": 0,
    "IOMMU_OPTION_HUGE_PAGES": 1,
    "IOMMU_OPTION_OP_SET": 0,
    "IOMMU_OPTION_OP_GET": 1,
    "IOMMU_VFIO_IOAS_GET": 0,
    "IOMMU_VFIO_IOAS_SET": 1,
    "IOMMU_VFIO_IOAS_CLEAR": 2,
    "IOMMU_HWPT_ALLOC_NEST_PARENT": 1,
    "IOMMU_HWPT_ALLOC_DIRTY_TRACKING": 2,
    "IOMMU_HWPT_FAULT_ID_VALID": 4,
    "IOMMU_HWPT_ALLOC_PASID": 8,
    "IOMMU_HWPT_DATA_NONE": 0,
    "IOMMU_HW_INFO_TYPE_NONE": 0,
    "IOMMU_HW_INFO_TYPE_DEFAULT": 0,
    "IOMMU_HW_INFO_FLAG_INPUT_TYPE": 1,
    "IOMMU_HW_CAP_DIRTY_TRACKING": 1,
    "IOMMU_HW_CAP_PCI_PASID_EXEC": 2,
    "IOMMU_HW_CAP_PCI_PASID_PRIV": 4,
    "IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED": 8,
    "IOMMU_HWPT_DIRTY_TRACKING_ENABLE": 1,
    "IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR": 1,
    "IOMMU_PGFAULT_FLAGS_PASID_VALID": 1,
    "IOMMU_PGFAULT_FLAGS_LAST_PAGE": 2,
    "IOMMU_PGFAULT_PERM_READ": 1,
    "IOMMU_PGFAULT_PERM_WRITE": 2,
    "IOMMU_PGFAULT_PERM_EXEC": 4,
    "IOMMU_PGFAULT_PERM_PRIV": 8,
    "IOMMUFD_PAGE_RESP_SUCCESS": 0,
    "IOMMUFD_PAGE_RESP_INVALID": 1,
    "IOMMU_VIOMMU_TYPE_DEFAULT": 0,
    "IOMMU_VEVENTQ_TYPE_DEFAULT": 0,
    "IOMMU_VEVENTQ_FLAG_LOST_EVENTS": 1,
    "IOMMU_HW_QUEUE_TYPE_DEFAULT": 0,
}

VFIO_NUMBERS = {
    "VFIO_DEVICE_GET_INFO": 0x3B6B,
    "VFIO_DEVICE_GET_REGION_INFO": 0x3B6C,
    "VFIO_DEVICE_FEATURE": 0x3B75,
    "VFIO_DEVICE_BIND_IOMMUFD": 0x3B76,
    "VFIO_DEVICE_ATTACH_IOMMUFD_PT": 0x3B77,
    "VFIO_DEVICE_DETACH_IOMMUFD_PT": 0x3B78,
    "VFIO_DEVICE_FLAGS_RESET": 1,
    "VFIO_DEVICE_FLAGS_PCI": 2,
    "VFIO_REGION_INFO_FLAG_READ": 1,
    "VFIO_REGION_INFO_FLAG_WRITE": 2,
    "VFIO_REGION_INFO_FLAG_MMAP": 4,
    "VFIO_PCI_BAR0_REGION_INDEX": 0,
    "VFIO_PCI_BAR5_REGION_INDEX": 5,
    "VFIO_PCI_CONFIG_REGION_INDEX": 7,
    "VFIO_DEVICE_BIND_FLAG_TOKEN": 1,
    "VFIO_DEVICE_ATTACH_PASID": 1,
    "VFIO_DEVICE_DETACH_PASID": 1,
    "VFIO_DEVICE_FEATURE_MASK": 0xFFFF,
    "VFIO_DEVICE_FEATURE_GET": 0x10000,
    "VFIO_DEVICE_FEATURE_SET": 0x20000,
    "VFIO_DEVICE_FEATURE_PROBE": 0x40000,
    "VFIO_DEVICE_FEATURE_DMA_BUF": 11,
}

OF_VENDORS = re.compile(r"VTD|ARM_SMMUV3|TEGRA241|AMD", re.IGNORECASE)
"""What the vendors' packages declare."""


def layout(kind: type) -> str:
    outer = [(name, offset) for name, offset, _ in fields(kind) if "." not in name]
    return f"{ctypes.sizeof(kind)}: " + " ".join(f"{name} {offset}" for name, offset in outer)


@pytest.mark.parametrize(("module", "literals"), [(uapi, IOMMUFD), (vfio_uapi, VFIO)], ids=["iommufd", "vfio"])
def test_sizes_and_offsets(module: ModuleType, literals: dict[str, str]) -> None:
    assert {name: layout(kind) for name, kind in structures(module).items()} == literals


@pytest.mark.parametrize(("module", "literals"), [(uapi, NUMBERS), (vfio_uapi, VFIO_NUMBERS)], ids=["iommufd", "vfio"])
def test_numbers(module: ModuleType, literals: dict[str, int]) -> None:
    assert constants(module) == literals


def test_fields_of_vfio_that_follow_a_structure() -> None:
    """They have no size of their own, so that the sizes are those that the calls take."""
    assert ctypes.sizeof(vfio_uapi.vfio_device_feature) == vfio_uapi.vfio_device_feature.data.offset
    assert (
        ctypes.sizeof(vfio_uapi.vfio_device_feature_dma_buf) == vfio_uapi.vfio_device_feature_dma_buf.dma_ranges.offset
    )


@pytest.mark.parametrize(("module", "name"), [(uapi, "iommufd.h"), (vfio_uapi, "vfio.h")], ids=["iommufd", "vfio"])
def test_the_compiler_sees_the_same(module: ModuleType, name: str, tmp_path: Path) -> None:
    ours = declared(module)
    assert compiled(header(f"include/uapi/linux/{name}"), list(ours), tmp_path) == ours


def of_the_header() -> str:
    """The kernel's header without its comments."""
    return re.sub(r"/\*.*?\*/", "", header("include/uapi/linux/iommufd.h").read_text(), flags=re.DOTALL)


def test_no_call_of_the_header_is_missing() -> None:
    calls = set(re.findall(r"#define\s+(\w+)\s*\\?\s*_IO\(", of_the_header()))
    assert len(calls) >= 22
    assert calls == {name for name, number in NUMBERS.items() if number >> 8 == ord(";")}


def test_no_structure_of_the_header_is_missing() -> None:
    names = set(re.findall(r"^struct (\w+) \{", of_the_header(), re.MULTILINE))
    assert names - set(structures(uapi)) == {name for name in names if OF_VENDORS.search(name)}


def test_no_flag_of_the_header_is_missing() -> None:
    names = {name for name in re.findall(r"^\s+(IOMMU\w+)\s*=", of_the_header(), re.MULTILINE) if "_CMD_" not in name}
    assert len(names) > 50
    assert names - set(constants(uapi)) == {name for name in names if OF_VENDORS.search(name)}

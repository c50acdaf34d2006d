# SPDX-License-Identifier: Apache-2.0
"""What the tests on the mock driver declare of its interface is the kernel's, as in test_uapi.py."""

from pathlib import Path

from tests.hardware.mock import uapi
from tests.iommufd.compiled import compiled, declared, header, structures
from tests.iommufd.test_uapi import layout

MOCK = {
    "iommu_test_cmd": (
        "72: size 0 op 4 id 8 __reserved 12 add_reserved 16 mock_domain 16 mock_domain_flags 16 "
        "mock_domain_replace 16 check_map 16 check_refs 16 create_access 16 destroy_access_pages 16 "
        "access_pages 16 access_rw 16 memory_limit 16 access_replace_ioas 16 dirty 16 check_iotlb 16 "
        "trigger_iopf 16 check_dev_cache 16 trigger_vevent 16 pasid_attach 16 pasid_replace 16 pasid_detach "
        "16 pasid_check 16 dmabuf_get 16 dmabuf_revoke 16 last 64"
    ),
    "iommu_test_hw_info": "8: flags 0 test_reg 4",
    "iommu_hwpt_selftest": "8: iotlb 0 pagetable_type 4",
    "iommu_hwpt_invalidate_selftest": "8: flags 0 iotlb_id 4",
    "iommu_viommu_selftest": "24: in_data 0 out_data 4 out_mmap_offset 8 out_mmap_length 16",
    "iommu_viommu_invalidate_selftest": "12: flags 0 vdev_id 4 cache_id 8",
    "iommu_viommu_event_selftest": "4: virt_id 0",
}


def test_sizes_and_offsets() -> None:
    assert {name: layout(kind) for name, kind in structures(uapi).items()} == MOCK


def test_the_call() -> None:
    assert uapi.IOMMU_TEST_CMD == 0x3BA0


def test_the_compiler_sees_the_same(tmp_path: Path) -> None:
    ours = declared(uapi)
    assert compiled(header("drivers/iommu/iommufd/iommufd_test.h"), list(ours), tmp_path) == ours

# SPDX-License-Identifier: Apache-2.0
"""SMMUv3's payloads in calls of iommufd are the kernel's, by literals and by the compiler."""

import re
from pathlib import Path

from iommuctl_smmuv3 import uapi
from tests.iommufd.compiled import compiled, constants, declared, header, structures
from tests.iommufd.test_uapi import layout

HEADER = "include/uapi/linux/iommufd.h"


def test_sizes_and_offsets() -> None:
    assert {name: layout(kind) for name, kind in structures(uapi).items()} == {
        "iommu_hw_info_arm_smmuv3": "40: flags 0 __reserved 4 idr 8 iidr 32 aidr 36",
        "iommu_hwpt_arm_smmuv3": "16: ste 0",
        "iommu_viommu_arm_smmuv3_invalidate": "16: cmd 0",
        "iommu_vevent_arm_smmuv3": "32: evt 0",
    }


def test_numbers() -> None:
    assert constants(uapi) == {
        "IOMMU_HW_INFO_TYPE_ARM_SMMUV3": 2,
        "IOMMU_HWPT_DATA_ARM_SMMUV3": 2,
        "IOMMU_VIOMMU_TYPE_ARM_SMMUV3": 1,
        "IOMMU_VEVENTQ_TYPE_ARM_SMMUV3": 1,
        "IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3": 1,
    }


def test_the_compiler_sees_the_same(tmp_path: Path) -> None:
    ours = declared(uapi)
    assert compiled(header(HEADER), list(ours), tmp_path) == ours


def test_no_structure_of_the_header_is_missing() -> None:
    found = set(re.findall(r"^struct (\w*arm_smmuv3\w*) \{", header(HEADER).read_text(), flags=re.MULTILINE))
    assert found == set(structures(uapi))

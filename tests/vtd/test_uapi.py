# SPDX-License-Identifier: Apache-2.0
"""VT-d's payloads in calls of iommufd are the kernel's, by literals and by the compiler."""

import re
from pathlib import Path

from iommuctl_vtd import uapi
from tests.iommufd.compiled import compiled, constants, declared, header, structures
from tests.iommufd.test_uapi import layout

HEADER = "include/uapi/linux/iommufd.h"


def test_sizes_and_offsets() -> None:
    assert {name: layout(kind) for name, kind in structures(uapi).items()} == {
        "iommu_hw_info_vtd": "24: flags 0 __reserved 4 cap_reg 8 ecap_reg 16",
        "iommu_hwpt_vtd_s1": "24: flags 0 pgtbl_addr 8 addr_width 16 __reserved 20",
        "iommu_hwpt_vtd_s1_invalidate": "24: addr 0 npages 8 flags 16 __reserved 20",
    }


def test_numbers() -> None:
    assert constants(uapi) == {
        "IOMMU_HW_INFO_TYPE_INTEL_VTD": 1,
        "IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17": 1,
        "IOMMU_HWPT_DATA_VTD_S1": 1,
        "IOMMU_VTD_S1_SRE": 1,
        "IOMMU_VTD_S1_EAFE": 2,
        "IOMMU_VTD_S1_WPE": 4,
        "IOMMU_HWPT_INVALIDATE_DATA_VTD_S1": 0,
        "IOMMU_VTD_INV_FLAGS_LEAF": 1,
    }


def test_the_compiler_sees_the_same(tmp_path: Path) -> None:
    ours = declared(uapi)
    assert compiled(header(HEADER), list(ours), tmp_path) == ours


def test_no_structure_of_the_header_is_missing() -> None:
    found = set(re.findall(r"^struct (\w*vtd\w*) \{", header(HEADER).read_text(), flags=re.MULTILINE))
    assert found == set(structures(uapi))

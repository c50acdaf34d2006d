# SPDX-License-Identifier: Apache-2.0
"""VT-d for these tests: the kernel prints its tables itself, in debugfs."""

from tests.linux.architecture import Architecture
from tests.linux.devices import NEEDED
from tests.linux.vtd.comparison import Comparison
from tests.linux.vtd.devices import MODES
from tests.linux.vtd.kernel_dump import parse

ARCHITECTURE = Architecture(
    processor="x86_64",
    needed=("intel-iommu", *NEEDED),
    modes=MODES,
    dumped={
        "/sys/kernel/debug/iommu/intel": (
            "iommu_regset",
            "dmar_translation_struct",
            "**/domain_translation_struct",
        ),
        "/sys/firmware/acpi/tables": ("DMAR",),
    },
    parse=parse,
    compare=Comparison,
    registers={},
)

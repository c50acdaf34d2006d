# SPDX-License-Identifier: Apache-2.0
"""SMMUv3 for these tests: the kernel notes its mappings, and the registers say where its tables are."""

from tests.linux.architecture import Architecture
from tests.linux.devices import NEEDED
from tests.linux.smmuv3.comparison import Comparison
from tests.linux.smmuv3.devices import MODES
from tests.linux.smmuv3.kernel_trace import parse

_UNIT = 0x0C00_0000
"""Where QEMU's machine `virt` has the first device of its platform bus. Offsets: IHI0070 G.b section 6.3."""

ARCHITECTURE = Architecture(
    processor="aarch64",
    needed=("arm-smmuv3", *NEEDED),
    modes=MODES,
    dumped={"/sys/kernel/tracing": ("trace",), "/sys/bus/pci/devices": ("*/iommu_group/type",)},
    parse=parse,
    compare=Comparison,
    registers={
        "IDR0": (_UNIT + 0x0, 4),
        "IDR1": (_UNIT + 0x4, 4),
        "IDR3": (_UNIT + 0xC, 4),
        "IDR5": (_UNIT + 0x14, 4),
        "CR0": (_UNIT + 0x20, 4),
        "CR1": (_UNIT + 0x28, 4),
        "CR2": (_UNIT + 0x2C, 4),
        "STRTAB_BASE": (_UNIT + 0x80, 8),
        "STRTAB_BASE_CFG": (_UNIT + 0x88, 4),
    },
)

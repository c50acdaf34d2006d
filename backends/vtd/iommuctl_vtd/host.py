# SPDX-License-Identifier: Apache-2.0
"""The units of the host, as the kernel shows them in /sys/class/iommu.

Source: drivers/iommu/intel/iommu.c of Linux 7.3; registers are those of VT-d 4.1 section 11.4.
"""

import re
from typing import Final

from iommuctl.errors import BackendUnavailable
from iommuctl.iommufd.sysfs import Unit
from iommuctl_vtd.registers import VER

KIND: Final = "intel-iommu"
"""What the driver calls itself, in `Unit.kind`."""


def registers(unit: Unit) -> dict[str, int]:
    """The registers that the kernel shows of a unit: VER, CAP and ECAP. Raises BackendUnavailable.

    CAP and ECAP are in hexadecimal there, the version is `major:minor` in decimal.
    """
    cap = re.fullmatch(r"[0-9a-f]{1,16}", unit.attributes.get("cap", ""))
    ecap = re.fullmatch(r"[0-9a-f]{1,16}", unit.attributes.get("ecap", ""))
    version = re.fullmatch(r"([0-9]|1[0-5]):([0-9]|1[0-5])", unit.attributes.get("version", ""))
    if unit.kind != KIND or not (cap and ecap and version):
        raise BackendUnavailable(
            f"unit {unit.name} shows no VT-d registers",
            because=f"its driver is {unit.kind}, with {', '.join(sorted(unit.attributes)) or 'no attributes'}",
            hint="look at /sys/class/iommu",
        )
    major, minor = (int(number) for number in version.groups())
    return {"VER": VER.encode(MAX=major, MIN=minor), "CAP": int(cap[0], 16), "ECAP": int(ecap[0], 16)}

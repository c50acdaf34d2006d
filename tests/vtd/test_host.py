# SPDX-License-Identifier: Apache-2.0
"""Registers of the host's units, out of the texts that the kernel writes."""

import pytest

from iommuctl.errors import BackendUnavailable
from iommuctl.iommufd.sysfs import Unit
from iommuctl_vtd.host import registers

ATTRIBUTES = {"address": "fed90000", "cap": "81d2008c222f0606", "ecap": "8d9a20f00f4e", "version": "6:15"}


def test_registers_of_a_unit() -> None:
    """`version` is in decimal, as `%d:%d` of the register's two fields; the rest is in hexadecimal."""
    unit = Unit("dmar0", "intel-iommu", ATTRIBUTES, ())
    assert registers(unit) == {"VER": 0x6F, "CAP": 0x81D2_008C_222F_0606, "ECAP": 0x8D9A_20F0_0F4E}


@pytest.mark.parametrize(
    "unit",
    [
        Unit("ivhd0", "amd-iommu", {"cap": "14", "features": "0:0"}, ()),
        Unit("smmu3.0", "arm-smmu-v3", {}, ()),
        *(
            Unit("dmar0", "intel-iommu", ATTRIBUTES | wrong, ())
            for wrong in ({"cap": "zz"}, {"ecap": ""}, {"version": "16:0"}, {"version": "1"}, {"cap": "1" * 17})
        ),
    ],
)
def test_what_shows_no_registers(unit: Unit) -> None:
    with pytest.raises(BackendUnavailable, match="shows no VT-d registers"):
        registers(unit)

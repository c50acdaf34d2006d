# SPDX-License-Identifier: Apache-2.0
"""The units that are compared: QEMU's options, and what our unit is told so that it has the same capabilities."""

from typing import NamedTuple

from iommuctl_vtd.registers import ECAP

SSTS, SMPWCS = ECAP.SSTS.mask, ECAP.SMPWCS.mask


class Kind(NamedTuple):
    """One sort of unit. `haw` is what QEMU takes for the host address width: its `aw-bits`.

    `more` are bits of ECAP that ours has and QEMU's lacks: SSTS, without which our driver does not start (on such a
    kind, the tables are made by hand), and SMPWCS, which makes accessed and dirty bits possible.
    """

    name: str
    options: str = ""
    legacy: bool = False
    first_stage: bool = False
    haw: int = 48
    more: int = 0

    @property
    def device(self) -> str:
        """The argument of -device."""
        width = f",aw-bits={self.haw}" if self.haw != 48 else ""
        return f"intel-iommu,intremap=off{width}{self.options}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Second-stage widths that QEMU offers."""
        return (39,) if self.haw == 39 else (39, 48)

    @property
    def snoops(self) -> bool:
        """Whether our unit may set accessed and dirty bits."""
        return bool(self.more & SMPWCS)


_SCALABLE = ",scalable-mode=on"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("legacy", legacy=True),
        Kind("legacy-39", legacy=True, haw=39),
        Kind("legacy-snoop", ",snoop-control=on,device-iotlb=on", legacy=True),
        Kind("legacy-on-scalable", _SCALABLE, legacy=True),
        Kind("scalable", _SCALABLE),
        Kind("scalable-39", _SCALABLE, haw=39),
        Kind("scalable-rich", _SCALABLE + ",snoop-control=on,device-iotlb=on,pasid-bits=20"),
        Kind("first-stage", _SCALABLE + ",fsts=on", first_stage=True, more=SSTS),
        Kind("first-stage-tracking", _SCALABLE + ",fsts=on", first_stage=True, more=SSTS | SMPWCS),
        Kind("first-stage-no-1g", _SCALABLE + ",fsts=on,fs1gp=off", first_stage=True, more=SSTS),
    )
}
"""By name."""

# SPDX-License-Identifier: Apache-2.0
"""The modes of QEMU's VT-d unit."""

from typing import NamedTuple

from tests.linux.devices import ENDPOINTS, PASIDS, ROLES, WITH_PASIDS


class Mode(NamedTuple):
    """A sort of unit: properties of QEMU's device, and what tells it apart."""

    unit: str
    scalable: bool = True

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of QEMU. Without remapped interrupts Linux gives no device to user space."""
        unit = f"intel-iommu,intremap=on,device-iotlb=on,{self.unit}"
        return "-machine", "q35,memory-backend=ram", "-device", unit, *ENDPOINTS, *WITH_PASIDS

    @property
    def parameters(self) -> str:
        """Parameters of the kernel."""
        return f"intel_iommu=on,{'sm_on' if self.scalable else 'sm_off'}"

    @property
    def roles(self) -> dict[str, list[str]]:
        """What becomes of whom: the same in all modes."""
        return ROLES | PASIDS


MODES = {
    "scalable, first stage": Mode("aw-bits=48,scalable-mode=on,fsts=on,pasid-bits=20,snoop-control=on"),
    "scalable, second stage": Mode("aw-bits=48,scalable-mode=on,pasid-bits=20,snoop-control=on"),
    "scalable, second stage, 39 bits": Mode("aw-bits=39,scalable-mode=on"),
    "legacy": Mode("aw-bits=48,scalable-mode=off,snoop-control=on", scalable=False),
    "legacy, 39 bits": Mode("aw-bits=39,scalable-mode=off", scalable=False),
}

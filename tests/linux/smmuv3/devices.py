# SPDX-License-Identifier: Apache-2.0
"""The modes of QEMU's SMMUv3."""

from typing import NamedTuple

from tests.linux.devices import ENDPOINTS, PASIDS, ROLES, WITH_PASIDS

_PARENT, _NESTED = "0000:00:1b.0", "0000:00:1c.0"


class Mode(NamedTuple):
    """A sort of unit: its stages, as QEMU calls them, and whether Linux takes it for one with SubstreamIDs."""

    stage: str
    substreams: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of QEMU. The unit of `virt,iommu=smmuv3` would have both stages whatever it is told."""
        parents = [word for rid in (_PARENT, _NESTED) for word in ("-device", f"edu,addr=0x{rid[8:10]}")]
        unit = f"arm-smmuv3,primary-bus=pcie.0,stage={self.stage}"
        machine = "-machine", "virt,gic-version=3,memory-backend=ram", "-device", unit
        return *machine, *ENDPOINTS, *parents, *(WITH_PASIDS if self.substreams else ())

    @property
    def parameters(self) -> str:
        """Parameters of the kernel, which is to find the unit before the devices, and to note what it maps."""
        return "fw_devlink.strict=1 trace_event=iommu:map,iommu:unmap trace_buf_size=8M"

    @property
    def roles(self) -> dict[str, list[str]]:
        """What becomes of whom.

        Of two devices behind a bridge Linux serves one, since both share a StreamID. PASIDs need stage 1, and nesting
        needs both.
        """
        roles = ROLES | {"bridged": ROLES["bridged"][:1]}
        if self.stage == "2":
            del roles["pasid-able"]
        if self.stage == "nested":
            roles |= {"parent": [_PARENT], "nested": [_NESTED]}
        return roles | PASIDS if self.substreams else roles


MODES = {
    "stage 1": Mode("1"),
    "stage 2": Mode("2"),
    "both stages": Mode("nested"),
    "both stages, substreams": Mode("nested", substreams=True),
}

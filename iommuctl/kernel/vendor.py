# SPDX-License-Identifier: Apache-2.0
"""What a backend of real hardware brings: its devices, its capabilities, and the payloads that are its vendor's own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from iommuctl.architecture import TableFormats
from iommuctl.capabilities import Capabilities
from iommuctl.model import Binding, Device, Rid

if TYPE_CHECKING:
    from iommuctl.kernel.machine import Machine


class Payload(NamedTuple):
    """What a nested HWPT is made of: a number IOMMU_HWPT_DATA_*, and the vendor's structure."""

    type: int
    data: bytes


class Entry(NamedTuple):
    """One request to invalidate, as the kernel takes it, with the vendor's name for it and its fields."""

    name: str
    raw: bytes
    fields: dict[str, int]


class Port(Protocol):
    """A device that is ours: what its slots hold is changed through it."""

    @property
    def dev_id(self) -> int:
        """Its object in the iommufd."""

    @property
    def unit(self) -> str:
        """The IOMMU that it is behind. HWPTs can be shared by the devices of one unit."""

    @property
    def pasid_bits(self) -> int: ...

    def attach(self, pt_id: int, pasid: int | None = None) -> None:
        """Put a HWPT into a slot; one that is there is replaced. Raises KernelRefused."""

    def detach(self, pasid: int | None = None) -> None:
        """Empty a slot; nothing happens where it is. Raises KernelRefused."""


class Devices(Protocol):
    """The devices of one folder's machine, within one transaction."""

    def find(self, rid: Rid | None) -> list[Device]:
        """All devices, or the one with that RID (an empty list when there is none)."""

    def port(self, rid: Rid) -> Port:
        """A device that is ours. Raises DeviceNotBound, Lost."""

    def bind(self, rid: Rid) -> Device:
        """Make a device ours. Raises GroupNotViable, KernelRefused, InUse."""

    def unbind(self, rid: Rid) -> Device:
        """Let a device go; its slots are empty."""

    def object_ids(self) -> set[int]:
        """The objects of the iommufd that the rows of devices name."""

    def repair(self, intent: dict[str, Any]) -> None:
        """Bring what an intent of `bind` or `unbind` names to what the rows say. Idempotent."""

    def reopen(self) -> None:
        """After all was lost: make every device ours again that rows name, with new ids."""

    def descriptor(self, rid: Rid) -> int:
        """The file descriptor that a program needs to use the device. Raises DeviceNotBound, Lost."""

    def dma_buf(self, rid: Rid, bar: int, size: int) -> int:
        """The first `size` bytes of a BAR as a dma-buf. Raises DeviceNotBound, KernelRefused."""

    def problems(self) -> list[str]:
        """Sentences about where rows and devices disagree."""


class Vendor(Protocol):
    """A backend of real hardware, but for what is the same with all of them."""

    @property
    def name(self) -> str:
        """The backend's. Its rows are of kinds that begin with it."""

    @property
    def invalidation_type(self) -> int:
        """IOMMU_HWPT_INVALIDATE_DATA_* of `invalidations`."""

    @property
    def parents_take_pasids(self) -> bool:
        """Whether a nest parent can be attached to PASIDs."""

    def devices(self, machine: "Machine") -> Devices: ...

    def capabilities(self) -> Capabilities: ...

    def formats(self) -> TableFormats: ...

    def payload(self, binding: Binding) -> Payload:
        """What makes the nested HWPT of a binding. Raises Unsupported."""

    def invalidations(self, span: tuple[int, int] | None, *, leaf: bool) -> Sequence[Entry]:
        """The requests for one nested HWPT: input addresses first..last, or everything."""

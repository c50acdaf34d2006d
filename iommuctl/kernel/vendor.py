# SPDX-License-Identifier: Apache-2.0
"""What a backend of real hardware brings: its devices, its capabilities, and how its slots are filled."""

from typing import TYPE_CHECKING, Any, Protocol

from iommuctl.architecture import TableFormats
from iommuctl.capabilities import Capabilities
from iommuctl.hookspecs import CheckRequest, InvalidateRequest, SlotChange, Truth
from iommuctl.model import Device, Rid, Slot

if TYPE_CHECKING:
    from iommuctl.iommufd.session import HwInfo
    from iommuctl.kernel.machine import Machine


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

    @property
    def ats(self) -> bool:
        """Whether the device and what is between have ATS."""

    def attach(self, pt_id: int, pasid: int | None = None) -> None:
        """Put a HWPT into a slot; one that is there is replaced. Raises KernelRefused."""

    def detach(self, pasid: int | None = None) -> None:
        """Empty a slot; nothing happens where it is. Raises KernelRefused."""


class Devices(Protocol):
    """The devices of one folder's machine, within one transaction."""

    def find(self, rid: Rid | None) -> list[Device]:
        """All devices, or the one with that RID (an empty list when there is none).

        Raises NoSuchDevice for one that is there, and behind no IOMMU of this backend.
        """

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


class Slots(Protocol):
    """What is in the slots of devices, within one transaction. Vendors derive theirs from iommuctl.kernel.slots."""

    def install(self, change: SlotChange) -> None:
        """Attach, replace, bind, unbind, detach. What the slot held before is destroyed after the commit.

        Raises KernelRefused, DeviceNotBound, Lost; InUse for a slot that devices of one group cannot share.
        """

    def invalidate(self, request: InvalidateRequest) -> None:
        """Have the kernel tell the caches that page tables have changed. Raises KernelRefused, Lost."""

    def repair(self, slot: Slot) -> None:
        """Bring the kernel to what the row of a slot says. Idempotent."""

    def recover(self, truth: Truth) -> None:
        """After all was lost: put into every slot again what the rows say."""

    def refresh(self, intent: dict[str, Any]) -> None:
        """Invalidate what an intent `stale` says that caches may still have."""

    def problems(self, request: CheckRequest) -> list[str]:
        """Sentences about where rows and slots disagree."""


class Vendor(Protocol):
    """A backend of real hardware, but for what is the same with all of them."""

    @property
    def name(self) -> str:
        """The backend's. Its rows are of kinds that begin with it."""

    @property
    def parents_take_pasids(self) -> bool:
        """Whether a nest parent can be attached to PASIDs."""

    def devices(self, machine: "Machine") -> Devices: ...

    def slots(self, machine: "Machine") -> Slots: ...

    def capabilities(self, machine: "Machine") -> Capabilities: ...

    def formats(self, machine: "Machine") -> TableFormats: ...

    def learn(self, machine: "Machine", unit: str, dev_id: int, info: "HwInfo") -> None:
        """Note what the kernel tells of the unit that a device is behind which was made ours just now."""

# SPDX-License-Identifier: Apache-2.0
"""What only real hardware has: drivers that are changed, memory that comes from elsewhere, objects that can be lost."""

from collections.abc import Iterator, Sequence

from iommuctl.errors import Unsupported
from iommuctl.model import Device, Dirty, DomainRanges, Rid
from iommuctl.requests import DirtyRequest, MemorySource, SetupRequest
from iommuctl.session import Operation
from iommuctl.simulation import Simulation
from iommuctl.slots import take_off


class Hardware(Simulation):
    """The part of class Iommu that needs a machine which is real."""

    @property
    def is_real(self) -> bool:
        """Whether the folder's machine is real; before the first use, whether it would be."""
        with self._read() as operation:
            used = operation.transaction.meta("backend")
            return operation.real if used else self._would_be() is not None

    def device_bind(self, rid: Rid | str) -> Device:
        """Give a device to vfio-pci, and hold it: its slots are ours then. Its driver is remembered.

        Raises GroupNotViable, KernelRefused, PermissionRefused; InUse for a device that another program holds.
        """
        with self._change(f"device bind {rid}") as operation:
            device = operation.device(rid)
            bound: Device = operation.call("device_bind", rid=device.rid)
            return bound

    def device_unbind(self, rid: Rid | str, *, force: bool = False) -> Device:
        """Let a device go, and give it back to its driver; `force` empties its slots first. Raises InUse."""
        with self._change(f"device unbind {rid}") as operation:
            device = operation.device(rid)
            take_off(operation, f"device {device.rid}", operation.books.slots(rid=device.rid), force=force)
            free: Device = operation.call("device_unbind", rid=device.rid)
            return free

    def memory_source(self, selector: str) -> MemorySource:
        """Where named memory comes from. Raises NoSuchMemory, Unsupported on a simulator."""
        with self._read() as operation:
            source: MemorySource = operation.call("memory_source", memory=operation.books.memory(selector))
            return source

    def ranges(self, domain: str) -> DomainRanges:
        """Which input addresses a domain can map. Raises NoSuchDomain."""
        with self._read() as operation:
            target = operation.books.domain(domain)
            if operation.real:
                found: DomainRanges = operation.call("ranges", domain=target)
                return found
            return DomainRanges(((0, (1 << target.width) - 1),), operation.capabilities.reserved)

    def dirty_tracking(self, domain: str, *, on: bool) -> None:
        """Switch dirty tracking of a domain, which was created for it, on or off. Raises Unsupported."""
        with self._change(f"domain dirty {domain} {'on' if on else 'off'}") as operation:
            target = operation.books.domain(domain)
            operation.call("dirty", request=DirtyRequest(target, "on" if on else "off"))

    def read_dirty(self, domain: str) -> Dirty:
        """What devices wrote since the last time, or since tracking was switched on; it is forgotten by that."""
        with self._change(f"domain dirty {domain} read") as operation:
            target = operation.books.domain(domain)
            request = DirtyRequest(target, "read", operation.books.mappings(target))
            found: Dirty = operation.call("dirty", request=request)
            return found

    def descriptors(self, rids: Sequence[Rid | str]) -> dict[str, int]:
        """File descriptors for a program that is to use these devices: `iommufd`, and `vfio:RID` of each.

        They are closed with the folder. Raises DeviceNotBound, Unsupported on a simulator.
        """
        with self._read() as operation:
            devices = [operation.device(rid).rid for rid in rids]
            if not operation.real:
                raise Unsupported(
                    "no program can be given a simulated device",
                    because="only the kernel has file descriptors that stand for devices",
                    hint="`iommuctl sim dma` has simulated devices do DMA",
                )
            found: dict[str, int] = operation.call("descriptors", rids=devices)
            return found

    def lost(self) -> str:
        """Why the kernel's objects are gone that the rows tell of; "" while they are there, and on a simulator."""
        with self._read() as operation:
            if not operation.transaction.meta("backend") or not operation.real:
                return ""
            because: str = operation.call("lost")
            return because

    def rebuild_lost(self) -> list[str]:
        """Make all that is lost again; returns sentences about what is not as it was. Raises Unsupported."""
        from iommuctl.named_memory import truth
        from iommuctl.page_faults import end_lost

        with self._change("recover") as operation:
            if not operation.call("lost"):
                return []
            if not self.dry_run:
                end_lost(operation)
            told: list[str] = operation.call("recover", truth=truth(operation))
            return told if self.dry_run else [*told, *_begun_anew(operation)]

    def forget_lost(self) -> bool:
        """Forget every object where the kernel's part of them is lost; devices are given back to their drivers.

        The folder is then as after its first use. Returns whether anything was lost. Raises Unsupported on a simulator.
        """
        from iommuctl.first_use import set_up

        with self._change("recover --forget") as operation:
            transaction = operation.transaction
            if not operation.real:
                raise Unsupported("a simulated machine is never lost", hint="`iommuctl sim reset` forgets everything")
            if not operation.call("lost"):
                return False
            devices: list[Device] = operation.call("devices", rid=None)
            for device in devices:
                if device.bound:
                    take_off(operation, "", operation.books.slots(rid=device.rid), force=True)
                    operation.call("device_unbind", rid=device.rid)
            name, saved = transaction.meta("backend"), transaction.meta("setup")
            transaction.clear()
            set_up(self, transaction, SetupRequest(saved[0], options=saved[3]), name)
            return True


def _begun_anew(operation: Operation) -> Iterator[str]:
    """Have page tables whose memory came back empty begin anew: only their roots are there.

    Yields a sentence about each that lost something.
    """
    from iommuctl.guest import GuestTable

    for table in operation.books.pgtables():
        if GuestTable(operation, table).give_back_if_empty():
            yield f"page table {table.name} maps nothing any more"

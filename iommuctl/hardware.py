# SPDX-License-Identifier: Apache-2.0
"""What only real hardware has: drivers that are changed, memory that comes from elsewhere, objects that can be lost."""

from collections.abc import Sequence

from iommuctl.errors import BadNumber, Usage
from iommuctl.model import Device, Dirty, DomainRanges, Rid
from iommuctl.requests import DirtyRequest, MemorySource
from iommuctl.simulation import Simulation
from iommuctl.slots import take_off


class Hardware(Simulation):
    """The part of class Iommu that needs a machine which is real."""

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
        """File descriptors for a program that is to use these devices: `iommufd`, and `vfio:RID` of each."""
        with self._read() as operation:
            devices = [operation.device(rid).rid for rid in rids]
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

        with self._change("recover") as operation:
            told: list[str] = operation.call("recover", truth=truth(operation))
            return told


def memory_source(
    *, path: str | None = None, fd: str | None = None, dma_buf: str | None = None, hugepages: bool = False
) -> MemorySource:
    """A source as it is typed: `fd` is PID:FD, `dma_buf` RID:BAR. Raises Usage, BadNumber, BadRid."""
    given = [name for name, value in (("--path", path), ("--fd", fd), ("--dma-buf", dma_buf)) if value is not None]
    if len(given) + (hugepages and bool(given)) > 1:
        raise Usage(
            "memory comes from one place",
            because=f"{' and '.join([*given, *(['--hugepages'] if hugepages else [])])} are given",
            hint="--hugepages is for memory that is made for the purpose",
        )
    process = None if fd is None else _pair(fd, "PID:FD")
    bar = None if dma_buf is None else (Rid.parse(dma_buf.rpartition(":")[0]), _number(dma_buf.rpartition(":")[2]))
    return MemorySource(path, process, bar, hugepages)


def _pair(text: str, form: str) -> tuple[int, int]:
    first, colon, second = text.partition(":")
    if not colon:
        raise Usage(f"{text!r} is not of the form {form}")
    return _number(first), _number(second)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        raise BadNumber(f"{text!r} is not a number")
    return int(text)

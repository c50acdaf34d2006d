# SPDX-License-Identifier: Apache-2.0
"""Named memory of real hardware: files of the kernel's memory, at the addresses by which rows know them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from iommuctl.cd_pools import guests
from iommuctl.errors import NoSuchDevice, OutsideMemory
from iommuctl.formats.memory import FileMemory
from iommuctl.model import NO_PHYSICAL, Memory, MemoryWrite, Rid
from iommuctl.page_faults import is_served
from iommuctl.requests import Truth
from iommuctl.session import Operation
from iommuctl.state.page_groups import PageGroupRows


class NamedMemory:
    """All named memory of a folder as one Overlay's backing, each piece a file that the backend has open.

    A range never spans two of them, as no mapping does.
    """

    base = size = NO_PHYSICAL

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._files: dict[int, FileMemory] = {}

    def read(self, address: int, size: int) -> bytes:
        memory, file = self._find(address)
        try:
            return file.read(address, size)
        except OutsideMemory:
            # The file's own words would show an address that nobody else knows.
            raise OutsideMemory(
                f"memory {memory.name} cannot be read at {address - memory.pa:#x}+{size:#x}",
                because="the file behind it is shorter than it was",
            ) from None

    def write(self, address: int, data: bytes) -> None:
        self._find(address)[1].write(address, data)

    def write_pages(self, address: int, pages: Sequence[bytearray | memoryview]) -> None:
        self._find(address)[1].write_pages(address, pages)

    def reserve(self, address: int, size: int) -> None:
        self._find(address)[1].reserve(address, size)

    def _find(self, address: int) -> tuple[Memory, FileMemory]:
        if memory := memory_at(self._operation.books.memories(), address):
            if memory.id not in self._files:
                descriptor = self._operation.call("memory_descriptor", memory=memory)
                self._files[memory.id] = FileMemory(descriptor, memory.pa, memory.size)
            return memory, self._files[memory.id]
        raise OutsideMemory("a page table lies in memory that was destroyed", hint="`iommuctl check` tells of more")


def memory_at(memories: Iterable[Memory], address: int) -> Memory | None:
    """The named memory that an address is in."""
    return next((memory for memory in memories if memory.pa <= address < memory.pa + memory.size), None)


def placed(operation: Operation, writes: Iterable[MemoryWrite]) -> tuple[MemoryWrite, ...]:
    """The writes with the named memory that each goes to."""
    memories = operation.books.memories()
    found = []
    for write in writes:
        memory = memory_at(memories, write.address)
        found.append(write._replace(memory=memory.name, offset=write.address - memory.pa) if memory else write)
    return tuple(found)


def truth(operation: Operation) -> Truth:
    """All that the rows say."""
    books = operation.books
    domains = books.domains()
    mappings = {domain.id: books.mappings(domain) for domain in domains}
    slots = {held.slot: held for held in books.slots()}
    asking = {slot for slot, held in slots.items() if is_served(operation, held) and _asks(operation, slot.rid)}
    tokens = [group.token for group in PageGroupRows(operation.transaction.connection).waiting()]
    return Truth(domains, mappings, slots, books.memories(), guests(operation), asking, tokens)


def _asks(operation: Operation, rid: Rid) -> bool:
    """Whether a device asks for pages. One that is gone does not, and keeps nothing else from being repaired."""
    with suppress(NoSuchDevice):
        return operation.device(rid).pri
    return False

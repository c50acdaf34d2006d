# SPDX-License-Identifier: Apache-2.0
"""Named memory of real hardware: files of the kernel's memory, at the addresses by which rows know them."""

from collections.abc import Sequence

from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import FileMemory
from iommuctl.model import NO_PHYSICAL
from iommuctl.requests import Truth
from iommuctl.session import Operation


class NamedMemory:
    """All named memory of a folder as one Overlay's backing, each piece a file that the backend has open.

    A range never spans two of them, as no mapping does.
    """

    base = size = NO_PHYSICAL

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._files: dict[int, FileMemory] = {}

    def read(self, address: int, size: int) -> bytes:
        return self._file(address).read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._file(address).write(address, data)

    def write_pages(self, address: int, pages: Sequence[bytearray | memoryview]) -> None:
        self._file(address).write_pages(address, pages)

    def reserve(self, address: int, size: int) -> None:
        self._file(address).reserve(address, size)

    def _file(self, address: int) -> FileMemory:
        for memory in self._operation.books.memories():
            if memory.pa <= address < memory.pa + memory.size:
                if memory.id not in self._files:
                    descriptor = self._operation.call("memory_descriptor", memory=memory)
                    self._files[memory.id] = FileMemory(descriptor, memory.pa, memory.size)
                return self._files[memory.id]
        raise OutsideMemory("a page table lies in memory that was destroyed", hint="`iommuctl check` tells of more")


def truth(operation: Operation) -> Truth:
    """All that the rows say."""
    books = operation.books
    domains = books.domains()
    mappings = {domain.id: books.mappings(domain) for domain in domains}
    return Truth(domains, mappings, {held.slot: held for held in books.slots()}, books.memories())

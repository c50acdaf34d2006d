# SPDX-License-Identifier: Apache-2.0
"""QEMU's side of a comparison: a machine with our devices, that gets its tables and its queue from ours."""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from iommuctl.formats.memory import FileMemory
from tests.differential.devices import EDU, EDU_BUFFER, IDENTITIES, Answer, Edu, TestDevice
from tests.differential.outcome import Faulted
from tests.differential.pci import Pci
from tests.differential.plans import BRIDGES, DEVICES
from tests.differential.qemu import Installed, Qemu
from tests.differential.qtest import Qtest

READS = _HALF = EDU_BUFFER // 2
"""The first half of an edu's buffer has what it writes, the second what it reads."""
TOKENS = Random("what edu writes").randbytes(_HALF)
"""The bytes of the first half; no eight of them occur twice."""


class Board(NamedTuple):
    """A machine of QEMU's. Extents are (first address, size).

    `options` follow the name of the machine, `tables` are where tables can be, and `scratch` is a page of RAM that only
    the harness uses.
    """

    options: str
    ram: tuple[int, int]
    tables: tuple[tuple[int, int], ...]
    scratch: int
    ecam: int
    bars: tuple[int, int]


class TheirUnit(Protocol):
    """An IOMMU of QEMU's, as far as DMAs and what becomes of them go."""

    def take_fault(self) -> Faulted | None:
        """The fault that is recorded, which then is not any more; None without one."""

    def stop(self) -> None:
        """Translation off, from whatever state the unit is in; no fault stays recorded."""


Unit = TypeVar("Unit", bound=TheirUnit)


class TheirMachine(Generic[Unit]):
    """A machine with one unit, for many configurations."""

    def __init__(
        self,
        installed: Installed,
        board: Board,
        device: Sequence[str],
        unit: Callable[[Qtest, FileMemory], Unit],
    ) -> None:
        """`device` are the arguments that give the machine its unit, which `unit` makes ready to be used."""
        self.board = board
        self._qemu = Qemu(installed, ["-M", f"{board.options},memory-backend=ram", *device, *_devices()], *board.ram)
        try:
            self.ram = self._qemu.ram
            self.unit = unit(self._qemu.qtest, self.ram)
            self._devices = _start_devices(Pci(self._qemu.qtest, board.ecam, board.bars), self._qemu.qtest)
            self.ram.write(board.scratch, TOKENS)
            for device_found in self._devices:
                if isinstance(device_found, Edu):
                    device_found.read(board.scratch, _HALF, 0)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._qemu.__exit__(kind, error, at)

    def close(self) -> None:
        """End QEMU."""
        self._qemu.close()

    def copy(self, source: FileMemory, extents: Sequence[tuple[int, int]]) -> None:
        """Make RAM the same as ours in these ranges (first address, size)."""
        for first, size in extents:
            self.ram.write(first, source.read(first, size))

    def write(self, device: int, iova: int, size: int, offset: int, expected: int) -> Answer:
        """Have a device write: an edu what it has at `offset`, the other what it always writes."""
        found = self._devices[device]
        if isinstance(found, TestDevice):
            return found.write(iova, size, expected)
        found.write(iova, size, offset)
        return Answer.NOT_TOLD

    def read(self, device: int, iova: int, size: int, offset: int) -> None:
        """Have an edu read, for `buffers` to show at `offset`."""
        found = self._devices[device]
        assert isinstance(found, Edu)
        found.read(iova, size, _HALF + offset)

    def buffers(self) -> dict[int, bytes]:
        """What each edu has read. Translation is off."""
        found = {}
        for number, device in enumerate(self._devices):
            if isinstance(device, Edu):
                device.write(self.board.scratch, _HALF, _HALF)
                found[number] = self.ram.read(self.board.scratch, _HALF)
        return found

    def search(self, data: bytes) -> tuple[int, ...]:
        """Where in RAM these bytes are, in the pages that anybody has written."""
        return tuple(at + start for start, content in self._qemu.written() for at in _occurrences(content, data))


def payload(device: int, size: int, offset: int) -> bytes:
    """What a device writes."""
    return TOKENS[offset : offset + size] if DEVICES[device][1] == EDU else TestDevice.data(size)


def _occurrences(content: bytes, data: bytes) -> Iterator[int]:
    at = content.find(data)
    while at >= 0:
        yield at
        at = content.find(data, at + 1)


def _devices() -> Iterator[str]:
    for number, (rid, bus) in enumerate(BRIDGES):
        yield "-device"
        yield f"pcie-root-port,id=bus{bus},chassis={number},slot={number},addr={rid.device:#x}"
    for rid, model in DEVICES:
        bus_name = f"bus{rid.bus}" if rid.bus else "pcie.0"
        several = any(other.device == rid.device and other.bus == rid.bus and other != rid for other, _ in DEVICES)
        multifunction = ",multifunction=on" if several else ""
        options = f",{Edu.OPTIONS}" if model == EDU else ""
        yield "-device"
        yield f"{model},bus={bus_name},addr={rid.device:#x}.{rid.function}{multifunction}{options}"


def _start_devices(root: Pci, qtest: Qtest) -> list[TestDevice | Edu]:
    buses = {0: root, **{bus: root.open_bridge(rid, bus) for rid, bus in BRIDGES}}
    found: list[TestDevice | Edu] = []
    for rid, model in DEVICES:
        identity = buses[rid.bus].identity(rid)
        assert identity == IDENTITIES[model], f"{rid} is {identity}, not {model}"
        bar = buses[rid.bus].enable(rid)
        found.append(Edu(qtest, bar) if model == EDU else TestDevice(qtest, bar))
    return found

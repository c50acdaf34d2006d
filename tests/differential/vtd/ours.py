# SPDX-License-Identifier: Apache-2.0
"""Our side of a comparison: a simulated machine, built and asked through class Iommu.

What has no public call is in `_Commands` below: registers, and descriptors that our driver would never send.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from iommuctl.architecture import Completion, PageResponse, Unit
from iommuctl.errors import OutsideMemory
from iommuctl.iommu import Iommu
from iommuctl.model import Access, Piece, Rid, Step
from iommuctl.simulation import MAX_DMA
from iommuctl_vtd import ARCHITECTURE
from iommuctl_vtd.fault_record import REASONS, FaultRecord
from iommuctl_vtd.queue import descriptor_size
from iommuctl_vtd.registers import FSTS, IQA
from tests.differential.outcome import Faulted, Landed, Nowhere, Ours, Outcome
from tests.differential.plans import DEVICES, Dma
from tests.differential.vtd.kinds import Kind
from tests.differential.vtd.plans import RAM, TABLES

_FPD = 1 << 1
"""In the first word of context, PASID directory and PASID entries."""
_QUALIFYING = ("vtd.context-entry", "vtd.scalable-context-entry", "vtd.pasid-directory-entry", "vtd.pasid-entry")


class Walk(NamedTuple):
    """What the tables say: the outcome, the entries on the way, and of a page its size and what it allows."""

    outcome: Outcome
    steps: tuple[Step, ...]
    size: int
    prot: str


class OurMachine:
    """A simulated machine with one unit, in a state folder of its own."""

    def __init__(self, folder: Path, kind: Kind, cap: int, ecap: int) -> None:
        self.kind = kind
        self.iommu = Iommu(folder, backend="sim")
        options = {"cap": f"{cap:#x}", "ecap": f"{ecap | kind.more:#x}", "haw": f"{kind.haw}"}
        options["mode"] = "legacy" if kind.legacy else "scalable"
        self.iommu.setup(architecture="vtd", ram=(0, RAM), tables=TABLES, options=options)

    def close(self) -> None:
        """Close the state folder."""
        self.iommu.close()

    # Memory, as another program sees it

    def read(self, address: int, size: int) -> bytes:
        """Bytes of RAM."""
        return b"".join(
            self.iommu.read_memory(at, min(MAX_DMA, address + size - at))
            for at in range(address, address + size, MAX_DMA)
        )

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into RAM."""
        self.iommu.write_memory(address, data)

    def word(self, address: int) -> int:
        """A word of 64 bits."""
        return int.from_bytes(self.iommu.read_memory(address, 8), "little")

    def put(self, address: int, word: int) -> None:
        """Store a word of 64 bits."""
        self.iommu.write_memory(address, word.to_bytes(8, "little"))

    # Registers

    def registers(self) -> dict[str, int]:
        """All registers by name."""
        registers: dict[str, int] = self.iommu.describe()["registers"]
        return registers

    def queue(self, descriptors: Sequence[int]) -> tuple[int, bool]:
        """Put descriptors into the queue. Returns IQH, and whether the unit has stopped at one."""
        return _Commands(self.iommu).queue(descriptors)

    def ring(self, tail: int) -> tuple[int, bool]:
        """Write IQT. Returns IQH, and whether the unit has stopped."""
        return _Commands(self.iommu).ring(tail)

    def clear_queue_error(self) -> None:
        """Have the unit go on with its queue."""
        _Commands(self.iommu).clear_error()

    def take_record(self) -> int | None:
        """The fault that is recorded, and free its record; None without one."""
        return _Commands(self.iommu).take_record()

    # Questions

    def steps(self, rid: Rid, iova: int, access: Access = "r") -> tuple[Step, ...]:
        """The entries on the way to an address."""
        return self.iommu.translate(rid, iova, access=access).steps

    def walk(self, event: Dma) -> Walk:
        """What tables alone say to a request within one page."""
        answer = self.iommu.translate(DEVICES[event.device][0], event.iova, access=event.access)
        if answer.fault:
            return Walk(fault(event, answer.fault.code, answer.steps), answer.steps, 0, "")
        assert answer.pa is not None
        assert answer.page_size
        assert answer.prot
        landed = Landed((Piece(event.iova, answer.pa, event.size),))
        outcome = landed if answer.pa + event.size <= RAM else Nowhere(answer.pa)
        return Walk(outcome, answer.steps, answer.page_size, answer.prot)

    def dma(self, event: Dma, data: bytes) -> Ours:
        """Carry out a DMA within one page; `data` is what it writes."""
        walk, rid = self.walk(event), DEVICES[event.device][0]
        try:
            if event.access == "w":
                result = self.iommu.dma(rid, event.iova, data=data)
            else:
                result = self.iommu.dma(rid, event.iova, size=event.size)
        except OutsideMemory:
            # The operation is undone, with what it left in the caches.
            return Ours(walk.outcome if isinstance(walk.outcome, Nowhere) else Nowhere(None), False, False, walk.steps)
        if result.fault:
            return Ours(fault(event, result.fault.code, walk.steps), False, False, walk.steps)
        return Ours(Landed(result.pieces), bool(result.hits), result.stale, walk.steps)


def fault(event: Dma, code: int, steps: tuple[Step, ...]) -> Faulted:
    """A fault with what FRCD holds after it: VT-d 4.1 section 11.4.7.6. FPD on the way silences it (7.1.3)."""
    silent = any(step.structure in _QUALIFYING and step.raw[0] & _FPD for step in steps)
    if silent and REASONS[code].qualified:
        return Faulted(code, None)
    source = DEVICES[event.device][0].source_id
    return Faulted(code, FaultRecord.encode(FI=event.iova & -4096, SID=source, T1=event.access == "r", FR=code, F=1))


class _Bus:
    """QEMU's devices answer each invalidation at once; our simulator's that have no TLB never do."""

    def respond(self, source_id: int, pasid: int | None, group: int, response: PageResponse) -> None:
        """No device has asked for pages."""

    def invalidate(self, source_id: int, pasid: int | None, first: int, last: int) -> Completion:  # noqa: ARG002
        return "done"

    def invalidate_pasids(self, source_id: int, first: int, last: int) -> Completion:  # noqa: ARG002
        return "done"


_BUS = _Bus()


class _Commands:
    """The registers of our unit. It is the one user of class Unit in this folder."""

    def __init__(self, iommu: Iommu) -> None:
        self._iommu = iommu

    def queue(self, descriptors: Sequence[int]) -> tuple[int, bool]:
        with self._iommu._change() as operation:
            unit, memory = ARCHITECTURE.unit(operation.transaction, _BUS), operation.transaction.memory
            iqa, tail = unit.read_register("IQA"), unit.read_register("IQT")
            size = descriptor_size(iqa)
            for raw in descriptors:
                memory.write(IQA.IQA.get(iqa) + tail, raw.to_bytes(32, "little")[:size])
                tail = (tail + size) % (4096 << IQA.QS.get(iqa))
            return _ring(unit, tail)

    def ring(self, tail: int) -> tuple[int, bool]:
        with self._iommu._change() as operation:
            return _ring(ARCHITECTURE.unit(operation.transaction, _BUS), tail)

    def take_record(self) -> int | None:
        with self._iommu._change() as operation:
            unit = ARCHITECTURE.unit(operation.transaction, _BUS)
            record = unit.read_register("FRCD0")
            if not FaultRecord.F.get(record):
                return None
            unit.write_register("FRCD0", FaultRecord.F.mask)
            unit.write_register("FSTS", FSTS.PFO.mask)
            return record

    def clear_error(self) -> None:
        with self._iommu._change() as operation:
            ARCHITECTURE.unit(operation.transaction, _BUS).write_register("FSTS", FSTS.IQE.mask)


def _ring(unit: Unit, tail: int) -> tuple[int, bool]:
    unit.write_register("IQT", tail)
    return unit.read_register("IQH"), bool(FSTS.IQE.get(unit.read_register("FSTS")))

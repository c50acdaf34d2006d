# SPDX-License-Identifier: Apache-2.0
"""What only a simulator can do: DMA at will, and a look at the machine from outside."""

from typing import Any

from iommuctl.errors import NoAts, Unsupported, Usage, ZeroSize
from iommuctl.model import Binding, DmaResult, Rid, Slot
from iommuctl.pgtables import PageTables
from iommuctl.requests import DmaRequest, MemoryPlan, SetupRequest
from iommuctl.rules import check_numbers, check_pasid
from iommuctl.session import Operation

MAX_DMA = 16 << 20
"""Bytes that one DMA may have, so that no number that was typed can fill memory."""


class Simulation(PageTables):
    """The part of class Iommu that needs a simulated machine."""

    def dma(
        self,
        rid: Rid | str,
        iova: int,
        *,
        size: int | None = None,
        data: bytes | None = None,
        pasid: int | None = None,
        privileged: bool = False,
        translated: bool = False,
    ) -> DmaResult:
        """Have a device read `size` bytes, or write `data`. A fault is an answer, not an error.

        With `translated` it translates the addresses by itself, through its own TLB. Raises NoAts.
        """
        if (size is None) == (data is None):
            raise Usage("a DMA reads a number of bytes, or writes some", hint="give a size or data, not both")
        length = size if data is None else len(data)
        assert length is not None
        check_numbers(iova=iova, size=length)
        if length == 0:
            raise ZeroSize("a DMA of no bytes", hint="it has at least one")
        if length > MAX_DMA:
            raise Usage(f"a DMA of {length:#x} bytes", because=f"one DMA has at most {MAX_DMA:#x}")
        if iova + length - 1 >> 64:
            raise Usage(f"a DMA at {iova:#x}+{length:#x} wraps around the end of the address space")
        with self._change(f"sim dma {rid} {iova:#x}") as operation:
            device = operation.device(rid)
            if pasid is not None:
                check_pasid(device, pasid)
            if translated and not device.ats:
                raise NoAts(
                    f"{device.rid} has no device TLB",
                    because="it was added without ATS",
                    hint="`iommuctl device add … --ats` makes one that has it",
                )
            slot = Slot(device.rid, pasid)
            request = DmaRequest(slot, iova, length, data, privileged, translated)
            result: DmaResult = operation.call("dma", request=request)
            holders = _holders(operation, slot)
            return result._replace(changed=tuple(each._replace(table=holders[each.stage]) for each in result.changed))

    def read_memory(self, pa: int, size: int) -> bytes:
        """Bytes of RAM. Raises OutsideMemory."""
        check_numbers(pa=pa, size=size)
        if size > MAX_DMA:
            raise Usage(f"{size:#x} bytes at once", because=f"one read has at most {MAX_DMA:#x}")
        with self._change() as operation:
            self._check_ram(operation)
            return operation.transaction.overlay.read(pa, size)

    def write_memory(self, pa: int, data: bytes) -> None:
        """Put bytes into RAM, as another program could. Raises OutsideMemory."""
        check_numbers(pa=pa)
        with self._change(f"sim write {pa:#x}") as operation:
            self._check_ram(operation)
            operation.transaction.overlay.write(pa, data)

    def machine(self) -> SetupRequest | None:
        """The simulated machine as `setup` would make it again; None for real hardware and before the first use."""
        with self._read() as operation:
            transaction = operation.transaction
            plan, saved = transaction.memory_plan(), transaction.meta("setup")
            if plan is None:
                return None
            return SetupRequest(transaction.meta("architecture"), plan.ram, plan.tables, dict(saved[3]))

    def describe(self) -> dict[str, Any]:
        """The machine: `arch`, `memory` {file, base, size, tables}, `registers` {name: value}, `caches` {name: count}.

        The first use of a folder makes one.
        """
        with self._change() as operation:
            plan = self._check_ram(operation)
            transaction = operation.transaction
            (base, size), (low, extent) = plan
            return {
                "arch": transaction.meta("architecture"),
                "memory": {
                    "file": str(transaction.memory_path().absolute()),
                    "base": base,
                    "size": size,
                    "tables": {"base": low, "size": extent},
                },
                **operation.call("describe"),
            }

    def _check_ram(self, operation: Operation) -> MemoryPlan:
        plan = operation.transaction.memory_plan()
        if plan is None or not operation.capabilities.simulates:
            raise Unsupported("this backend has no simulated machine", hint="use --backend sim in a folder of its own")
        return plan


def _holders(operation: Operation, slot: Slot) -> tuple[str, str, str]:
    """What a structure on a slot's way belongs to, by its stage: the slot, a page table, a domain."""
    held = operation.books.slot(slot)
    first = second = str(slot)
    if held:
        second = f"domain {held.domain.name}"
    if isinstance(held, Binding):
        first = f"page table {held.pgtable}" if held.pgtable else f"the page table at GPA {held.root:#x}"
    return str(slot), first, second

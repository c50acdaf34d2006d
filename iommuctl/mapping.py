# SPDX-License-Identifier: Apache-2.0
"""What every new mapping of a domain passes: its rules, the backend, the row."""

from typing import TYPE_CHECKING

from iommuctl.errors import BadStructure, OutOfAperture, OutsideMemory, Overlap, ReservedRange, Unsupported
from iommuctl.model import Domain, Mapping, Memory
from iommuctl.requests import MapRequest
from iommuctl.rules import check_aperture, check_execute, check_prot, check_range, check_ranges
from iommuctl.session import Operation

if TYPE_CHECKING:
    from iommuctl.formats.radix import Format


def map_range(  # noqa: PLR0917 - they are what Iommu.map takes, in its order
    operation: Operation, domain: Domain, iova: int, size: int, start: int, memory: Memory | None, prot: str
) -> Mapping:
    """Map `size` bytes at `iova`: to `start`, which counts from the start of `memory`, or is a physical address.

    Raises OutsideMemory, Overlap, Misaligned, OutOfAperture, ReservedRange, ZeroSize, Unsupported.
    """
    books, capabilities = operation.books, operation.capabilities
    if memory and start + size > memory.size:
        raise OutsideMemory(
            f"{start:#x}+{size:#x} is not in memory {memory.name}", because=f"it has {memory.size:#x} bytes"
        )
    if memory is None and not capabilities.physical_addresses:
        raise Unsupported("this backend maps named memory only", hint="`iommuctl memory create`, then --memory")
    pa = memory.pa + start if memory else start
    granule = domain.page_sizes[0]
    check_range("iova", iova, size, granule)
    if operation.real:
        check_range("offset", start, size, granule)
    else:
        check_range("pa", pa, size, granule)
    check_aperture(iova, size, domain.width, capabilities.reserved)
    table = operation.formats.domain_format(domain)
    check_execute(prot, capabilities)
    check_prot(prot, table)
    if operation.real:
        check_ranges(iova, size, operation.call("ranges", domain=domain))
    else:
        _check_physical(table, pa, size)
    check_hidden(operation, pa, size)
    if clash := books.mappings_in(domain, iova, iova + size - 1):
        raise Overlap(
            f"{iova:#x}+{size:#x} overlaps a mapping of {domain.name}",
            because=", ".join(f"{m.iova:#x}+{m.size:#x} is mapped" for m in clash[:3]),
            hint="unmap it first",
        )
    mapping = Mapping(iova, size, pa, memory.name if memory else None, start if memory else 0, prot)
    # In this order: a physical address that no entry holds may be one that no row holds either.
    operation.call("map", request=MapRequest(domain, mapping))
    books.add_mapping(domain, mapping, memory)
    return mapping


def check_hidden(operation: Operation, pa: int, size: int) -> None:
    """Physical addresses are not those of the IOMMU's tables, which no device may reach. Raises ReservedRange."""
    plan = operation.transaction.memory_plan()
    if plan is None:
        return
    low, extent = plan.tables
    if pa < low + extent and low < pa + size:
        raise ReservedRange(
            f"physical addresses {pa:#x}+{size:#x} touch the memory of the tables",
            because=f"{low:#x}+{extent:#x} holds the IOMMU's tables, which no device may reach",
            hint="map other memory; `sim init --tables` moves the tables",
        )


def _check_physical(table: "Format", pa: int, size: int) -> None:
    try:
        table.leaf(1, pa + size - table.page_sizes[0], "r")
    except BadStructure as error:
        raise OutOfAperture(
            f"physical addresses {pa:#x}+{size:#x} are beyond what the tables can hold", because=error.what
        ) from None

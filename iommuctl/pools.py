# SPDX-License-Identifier: Apache-2.0
"""Pools: the parts of guest memory that iommuctl builds tables in, and what may become one."""

from collections.abc import Iterator

from iommuctl.errors import OutsideMemory, Overlap, ReservedRange
from iommuctl.model import Domain
from iommuctl.rules import check_aperture
from iommuctl.session import Operation


def check_pool(operation: Operation, domain: Domain, start: int, size: int) -> None:
    """A new pool is memory of the parent, mapped read-write for accessed and dirty bits, and touches no other pool.

    Raises OutOfAperture, OutsideMemory, Overlap.
    """
    check_aperture(start, size, domain.width, ())
    if not operation.books.maps_writable(domain, start, size):
        raise OutsideMemory(
            f"GPA {start:#x}+{size:#x} cannot be a pool",
            because=f"{domain.name} does not map all of it read-write",
            hint=f"`iommuctl domain map {domain.name} --iova {start:#x} --size {size:#x} …` first",
        )
    for name, first, length in _overlapped(operation, domain, start, size):
        raise Overlap(
            f"the pool {start:#x}+{size:#x} overlaps that of {name}",
            because=f"that is GPA {first:#x}+{length:#x}",
        )


def check_no_pool(operation: Operation, domain: Domain, start: int, size: int) -> None:
    """Guest memory that devices are led to holds no tables that iommuctl builds. Raises ReservedRange."""
    for name, first, length in _overlapped(operation, domain, start, size):
        raise ReservedRange(
            f"GPA {start:#x}+{size:#x} touches the pool of {name}",
            because=f"that is GPA {first:#x}+{length:#x}, where a device could write over the tables",
            hint="take other memory",
        )


def _overlapped(operation: Operation, domain: Domain, start: int, size: int) -> Iterator[tuple[str, int, int]]:
    """The pools that a range touches: whose they are, GPA, size."""
    others = [(f"page table {table.name}", table.pool, table.pool_size) for table in operation.books.pgtables(domain)]
    others += [(f"the CD table of {pool.rid}", pool.start, pool.size) for pool in operation.books.cd_pools(domain)]
    return (each for each in others if start < each[1] + each[2] and each[1] < start + size)

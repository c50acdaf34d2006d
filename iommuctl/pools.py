# SPDX-License-Identifier: Apache-2.0
"""Pools: the parts of guest memory that iommuctl builds tables in, and what may become one."""

from iommuctl.errors import OutsideMemory, Overlap
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
    others = [(f"page table {table.name}", table.pool, table.pool_size) for table in operation.books.pgtables(domain)]
    others += [(f"the CD table of {pool.rid}", pool.start, pool.size) for pool in operation.books.cd_pools(domain)]
    for name, first, length in others:
        if start < first + length and first < start + size:
            raise Overlap(
                f"the pool {start:#x}+{size:#x} overlaps that of {name}",
                because=f"that is GPA {first:#x}+{length:#x}",
            )

# SPDX-License-Identifier: Apache-2.0
"""What `check` of every driver does: page tables are compared with mappings, and findings stay a bearable number."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from iommuctl.formats import radix
from iommuctl.formats.memory import Memory
from iommuctl.model import Domain
from iommuctl.requests import CheckRequest

if TYPE_CHECKING:
    from iommuctl.architecture import Driver

_ENOUGH = 20
"""So many problems of one kind tell what is wrong."""


def some(problems: Iterator[str]) -> Iterator[str]:
    """The first of many that are alike."""
    last = ""
    for last in islice(problems, _ENOUGH):
        yield last
    if next(problems, None):
        yield f"there are more problems like this one: {last}"


def audit_domain(driver: "Driver", memory: Memory, domain: Domain, request: CheckRequest) -> Iterator[str]:
    """Sentences about what is wrong with a domain's tables, and about pages that no mapping has, or the reverse."""
    fmt, root = driver.domain_format(domain), driver.domain_root(domain)
    for finding in radix.check(fmt, memory, root):
        yield f"{domain.name}: {finding}"
    wanted = set(_merged((m.iova, m.size, m.pa, m.prot) for m in request.mappings[domain.id]))
    found = set(_merged(iter(radix.leaves(fmt, memory, root))))
    yield from some(
        f"{domain.name}: {iova:#x}+{size:#x} -> {pa:#x} {prot} is in "
        + ("the rows but not the tables" if (iova, size, pa, prot) in wanted else "the tables but not the rows")
        for iova, size, pa, prot in sorted(wanted ^ found)
    )


def words(entry: int) -> str:
    """A structure as `table decode` takes it: 64-bit words, lowest first, without the zero ones at the end."""
    found = []
    while entry:
        found.append(f"{entry & (1 << 64) - 1:#x}")
        entry >>= 64
    return " ".join(found) or "0x0"


def _merged(ranges: Iterable[tuple[int, int, int, str]]) -> list[tuple[int, int, int, str]]:
    """Ascending ranges with those joined that continue one another."""
    merged: list[tuple[int, int, int, str]] = []
    for iova, size, pa, prot in ranges:
        if merged:
            before_iova, before_size, before_pa, before_prot = merged[-1]
            if (before_iova + before_size, before_pa + before_size, before_prot) == (iova, pa, prot):
                merged[-1] = (before_iova, before_size + size, before_pa, prot)
                continue
        merged.append((iova, size, pa, prot))
    return merged

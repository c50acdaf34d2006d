# SPDX-License-Identifier: Apache-2.0
"""The page tables that a unit can walk: formats for domains and page tables, by what its registers say."""

from collections.abc import Sequence

from iommuctl.errors import Unsupported
from iommuctl.model import Domain
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.stage1 import Stage1Format
from iommuctl_smmuv3.stage2 import Stage2Format
from iommuctl_smmuv3.vmsa import VmsaFormat

_WIDTHS = (39, 48)
"""Those of Linux with three and four levels of 4 KB tables."""
_PAGE_TABLE_WIDTH = 48


class PageTables:
    """The formats of one unit. Tables of 4 and 16 KB have 48 bits of output addresses, those of 64 KB up to 52."""

    def __init__(self, features: Features) -> None:
        self._features = features

    @property
    def widths(self) -> tuple[int, ...]:
        """Input address bits of domains, ascending: no more than stage 2 can have, where there is stage 2."""
        most = min(_PAGE_TABLE_WIDTH, self._features.ias) if self._features.s2p else _PAGE_TABLE_WIDTH
        return tuple(sorted({most, *(width for width in _WIDTHS if width < most)}))

    @property
    def stage_1_widths(self) -> tuple[int, ...]:
        """Input address bits of domains that nothing nests on, ascending."""
        return tuple(sorted({*self.widths, _PAGE_TABLE_WIDTH}))

    def output(self, granule: int) -> int:
        """Width of output addresses in bits."""
        return min(self._features.oas, 52 if granule == 1 << 16 else 48)

    def stage1(self, granule: int, width: int = _PAGE_TABLE_WIDTH) -> Stage1Format:
        return Stage1Format(granule, width, output=self.output(granule), oas=self._features.oas)

    def stage2(self, granule: int, width: int) -> Stage2Format:
        features = self._features
        return Stage2Format(granule, width, output=self.output(granule), oas=features.oas, xnx=features.xnx)

    def of(self, domain: Domain) -> VmsaFormat:
        """The format of a domain. Raises Unsupported where no granule has all of its page sizes."""
        make = self.stage2 if domain.nest_parent else self.stage1
        return make(self.granule(domain.page_sizes), domain.width)

    def granule(self, page_sizes: Sequence[int]) -> int:
        """The granule of the tables that have pages of these sizes: the smallest, if it is one. Raises Unsupported."""
        having = [
            granule for granule in self._features.granules if set(page_sizes) <= set(self.stage1(granule).page_sizes)
        ]
        if not having:
            sets = "; ".join(
                ", ".join(f"{size:#x}" for size in self.stage1(granule).page_sizes)
                for granule in self._features.granules
            )
            raise Unsupported("no page table has pages of all these sizes", because=f"those that there are have {sets}")
        return min(page_sizes) if min(page_sizes) in having else having[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Formats of page tables that can be bound."""
        return tuple(self.stage1(granule).name for granule in self._features.granules)

    def named(self, name: str) -> Stage1Format:
        """The stage 1 format of that name. Raises Unsupported."""
        for granule in self._features.granules:
            if (fmt := self.stage1(granule)).name == name:
                return fmt
        raise Unsupported(f"the unit has no page tables of format {name}")

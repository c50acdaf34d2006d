# SPDX-License-Identifier: Apache-2.0
"""All caches of one unit, and where the entries in them lead."""

from collections.abc import Iterator

from iommuctl.hookspecs import Rows
from iommuctl_vtd.config_caches import CONTEXTS, DIRECTORY, ContextCache, PasidCache
from iommuctl_vtd.context_entry import PASSES_THROUGH, ContextEntry, ScalableContextEntry
from iommuctl_vtd.iotlb import Iotlb
from iommuctl_vtd.paging_cache import PagingCache
from iommuctl_vtd.pasid_entry import NESTED, SECOND_STAGE, PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.root_entry import RootEntry
from iommuctl_vtd.second_stage import SecondStageEntry


class Caches:
    """The caches; each can be looked at by itself."""

    def __init__(self, rows: Rows) -> None:
        self.contexts = ContextCache(rows)
        self.pasids = PasidCache(rows)
        self.paging = PagingCache(rows)
        self.iotlb = Iotlb(rows)

    def drop_all(self) -> None:
        """What a new root table does to them on units with ESRTPS."""
        for cache in (self.contexts, self.pasids, self.paging, self.iotlb):
            cache.drop_all()

    def sizes(self) -> dict[str, int]:
        return {
            "iotlb": self.iotlb.size(),
            "paging": self.paging.size(),
            "pasid": self.pasids.size(),
            "context": self.contexts.size(),
        }

    def tables(self, *, legacy: bool) -> Iterator[int]:
        """The addresses of the tables that cached entries point to. Those of guests are not among them."""
        for kind, entry in self.contexts.entries():
            if kind == CONTEXTS and not legacy:
                yield ScalableContextEntry.PASIDDIRPTR.get(entry.raw)
            elif kind == CONTEXTS:
                if ContextEntry.TT.get(entry.raw) != PASSES_THROUGH:
                    yield ContextEntry.SSPTPTR.get(entry.raw)
            else:
                # Both halves of a scalable root entry hold their pointer as the entry of legacy mode does.
                yield from (RootEntry.CTP.get(half) for half in RootEntry.to_words(entry.raw) if half & 1)
        for kind, entry in self.pasids.entries():
            if kind == DIRECTORY:
                yield PasidDirectoryEntry.SMPTBLPTR.get(entry.raw)
            elif PasidEntry.PGTT.get(entry.raw) in (SECOND_STAGE, NESTED):
                yield PasidEntry.SSPTPTR.get(entry.raw)
        yield from (SecondStageEntry.ADDR.get(raw) for raw in self.paging.second_stage())

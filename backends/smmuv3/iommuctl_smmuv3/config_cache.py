# SPDX-License-Identifier: Apache-2.0
"""What the unit remembers of stream tables and CD tables: IHI0070 G.b sections 3.21 and 4.3.

Nothing is evicted, and the caches keep all that hardware may: also structures that are not valid, so that every change
needs its command. Only what could not be read is not kept.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from iommuctl.hookspecs import Rows
from iommuctl_smmuv3.ste import Ste

L1STDS = "smmuv3.l1std-cache"
STES = "smmuv3.ste-cache"
L1CDS = "smmuv3.l1cd-cache"
CDS = "smmuv3.cd-cache"


class Cached(NamedTuple):
    """A structure: where it was read, what it was, and the first and last stream or substream that it is for.

    `guest` says that what it points to is named by an intermediate physical address.
    """

    address: int
    raw: int
    first: int
    last: int
    guest: bool = False


class ConfigCache:
    """STEs and level 1 descriptors by StreamID, CDs and their level 1 descriptors by StreamID and SubstreamID."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, kind: str, stream: int, substream: int = 0) -> Cached | None:
        found: Any = self._rows.get(kind, _key(stream, substream))
        return Cached(*found) if found else None

    def conflicting(self, stream: int, ste: int) -> Cached | None:
        """An STE of the span that an STE tells which differs in more than the span: IHI0070 G.b section 3.20.2."""
        if not (order := Ste.CONT.get(ste)):
            return None
        first, told = stream >> order << order, Ste.told(ste) & ~Ste.CONT.mask
        for _, value in self._rows.scan(STES, _key(first, 0), _key(first + (1 << order) - 1, 0)):
            found = Cached(*value)
            if Ste.told(found.raw) & ~Ste.CONT.mask != told:
                return found
        return None

    def fill(self, kind: str, entry: Cached, stream: int, substream: int = 0) -> None:
        self._rows.put(kind, _key(stream, substream), entry)

    def drop_streams(self, first: int, last: int, *, leaf: bool) -> None:
        """CFGI_STE and CFGI_STE_RANGE: the CDs of a stream go with its STE."""
        for kind in (STES, L1CDS, CDS):
            self._drop(kind, f"{first:08x}", f"{last:08x}~", lambda _: True)
        if not leaf:
            self._drop(L1STDS, "", "~", lambda entry: entry.first <= last and first <= entry.last)

    def drop_substream(self, stream: int, substream: int, *, leaf: bool) -> None:
        """CFGI_CD."""
        self._rows.delete(CDS, _key(stream, substream))
        if not leaf:
            self._drop(L1CDS, f"{stream:08x}", f"{stream:08x}~", lambda entry: entry.first <= substream <= entry.last)

    def drop_substreams(self, stream: int) -> None:
        """CFGI_CD_ALL."""
        for kind in (L1CDS, CDS):
            self._drop(kind, f"{stream:08x}", f"{stream:08x}~", lambda _: True)

    def sizes(self) -> dict[str, int]:
        return {"ste": self._rows.count(STES), "cd": self._rows.count(CDS)}

    def entries(self, kind: str) -> Iterator[Cached]:
        return (Cached(*value) for _, value in self._rows.scan(kind))

    def _drop(self, kind: str, first: str, last: str, concerns: Callable[[Cached], bool]) -> None:
        for key, value in self._rows.scan(kind, first, last):
            if concerns(Cached(*value)):
                self._rows.delete(kind, key)


def _key(stream: int, substream: int) -> str:
    return f"{stream:08x}.{substream:05x}"

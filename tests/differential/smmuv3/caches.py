# SPDX-License-Identifier: Apache-2.0
"""What a unit may have cached of tables that have changed since, and which commands take it away.

IHI0070 G.b sections 3.17 and 4.4. A unit may forget more, and need not keep anything.
"""

from collections.abc import Iterable
from typing import NamedTuple

from iommuctl.model import Piece
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.tlb_commands import (
    TlbiNhAll,
    TlbiNhAsid,
    TlbiNhVa,
    TlbiNhVaa,
    TlbiNsnhAll,
    TlbiS2Ipa,
    TlbiS12Vmall,
)
from tests.differential.outcome import Landed, Nowhere, Outcome
from tests.differential.plans import Dma
from tests.differential.smmuv3.commands import is_refused
from tests.differential.smmuv3.plans import is_ram

TG = {1 << 12: 1, 1 << 14: 2, 1 << 16: 3}
"""Granules as commands tell them."""


class Tag(NamedTuple):
    """By what a unit finds a translation, besides the address. Without stage 1, there is no ASID."""

    vmid: int
    asid: int | None = None


class Translation(NamedTuple):
    """A page or block that was translated: input and output, size and granule in bytes."""

    tag: Tag
    first: int
    output: int
    size: int
    granule: int

    def at(self, address: int) -> int:
        """The output of an input that it has."""
        return self.output + address - self.first


class Asked(NamedTuple):
    """By what the answer to a request can be cached; `ipa` is what stage 2 gets, where it gets anything."""

    tag: Tag
    ipa: int | None


def outcome_at(event: Dma, address: int) -> Landed | Nowhere:
    """What becomes of a request that goes to an address."""
    if not is_ram(address, event.size):
        return Nowhere(address)
    return Landed((Piece(event.iova, address, event.size),))


class Translations:
    """All that a unit may have cached, of whole translations and of stage 2 alone."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._known: list[Translation] = []

    def remember(self, found: Iterable[Translation]) -> None:
        """A request was translated."""
        self._known += [one for one in found if one not in self._known]

    def told(self, words: Iterable[int]) -> None:
        """The unit has carried out these commands, but for those that are refused."""
        for raw in words:
            if not is_refused(raw, self._features):
                self._known = [one for one in self._known if not self._is_gone(one, raw)]

    def answers(self, event: Dma, asked: Asked | None) -> dict[Outcome, Translation]:
        """Where a request may land by what is cached, and what is cached then."""
        found: dict[Outcome, Translation] = {}
        for one in self._known if asked else ():
            assert asked
            alone = one.tag == Tag(asked.tag.vmid) and asked.ipa is not None
            address = asked.ipa if alone else event.iova if one.tag == asked.tag else None
            if address is not None and one.first <= address < one.first + one.size:
                first = one.first + event.iova - address
                found[outcome_at(event, one.at(address))] = one._replace(tag=asked.tag, first=first)
        return found

    def _is_gone(self, one: Translation, raw: int) -> bool:
        """Whether a command must have taken a translation away."""
        code, (vmid, asid) = raw & 0xFF, one.tag
        same_vmid, same_asid = TlbiNhAll.VMID.get(raw) == vmid, TlbiNhAsid.ASID.get(raw) == asid
        meant = {
            TlbiNsnhAll.Opcode.value: True,
            TlbiS12Vmall.Opcode.value: same_vmid,
            TlbiS2Ipa.Opcode.value: same_vmid and asid is None and self._is_meant(one, raw),
            TlbiNhAll.Opcode.value: same_vmid and asid is not None,
            TlbiNhAsid.Opcode.value: same_vmid and same_asid,
            TlbiNhVa.Opcode.value: same_vmid and same_asid and self._is_meant(one, raw),
            TlbiNhVaa.Opcode.value: same_vmid and asid is not None and self._is_meant(one, raw),
        }
        return meant.get(code, False)

    def _is_meant(self, one: Translation, raw: int) -> bool:
        """Whether the addresses of a command are those of a translation. A hint that is wrong means nothing."""
        first, tg = TlbiNhVa.Addr.get(raw), TlbiNhVa.TG.get(raw)
        if not tg:
            return one.first <= first < one.first + one.size
        if tg != TG[one.granule] or TlbiNhVa.TTL.get(raw):
            return False
        size = TlbiNhVa.NUM.get(raw) + 1 << TlbiNhVa.SCALE.get(raw)
        return one.first < first + size * one.granule and first < one.first + one.size

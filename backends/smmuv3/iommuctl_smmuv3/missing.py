# SPDX-License-Identifier: Apache-2.0
"""From a cache entry that is not true any more to the command that would have taken it away.

The table of rules says what each change requires; which change it was is told by the structure that differs.
"""

from collections.abc import Sequence

from iommuctl.architecture import Stale
from iommuctl.model import Rid, Slot, Step
from iommuctl_smmuv3.cd import Cd, L1Cd
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.invalidation import Span, Target, commands
from iommuctl_smmuv3.rules import INVALIDATIONS, Change, Scope
from iommuctl_smmuv3.ste import WITH_STAGE_2, Ste
from iommuctl_smmuv3.stream_table import L1Std
from iommuctl_smmuv3.tags import NO_STAGE_2, Tag
from iommuctl_smmuv3.tlb import IPA

_NO_TAG = Tag(NO_STAGE_2)
_CHANGES = {
    L1Std.name: Change.STREAM_TABLE_CHANGED,
    Ste.name: Change.STE_WRITTEN,
    L1Cd.name: Change.CD_LEAF_REMOVED,
    Cd.name: Change.CD_WRITTEN,
}
_ORDER = list(Scope)
_TLB = ("tlb", "walk")


def missing(slot: Slot, stale: Sequence[Stale], features: Features, *, stage_2_alone: bool) -> list[int]:
    """The commands, in the order of the rules. Entries that need the same scope share one for all addresses.

    `stage_2_alone` says that the slot's addresses are intermediate ones; otherwise nobody knows these any more.
    """
    spans: dict[tuple[Scope, Slot, Tag], Span | None] = {}
    for entry in _on_the_way(stale):
        for needed, tag, span in _needed(entry):
            scope = Scope.VMID if needed is Scope.IPAS and not stage_2_alone else needed
            key = scope, _owner(entry, slot), tag
            spans[key] = _joined(spans.get(key, span), span)
    scopes = {key[0] for key in spans}
    if scopes & {Scope.STREAM, Scope.BUS}:
        # CDs are forgotten with the STE.
        spans = {key: span for key, span in spans.items() if key[0].cache != "cd"}
    if Scope.BUS in scopes:
        spans = {key: span for key, span in spans.items() if key[0] is not Scope.STREAM}
    ordered = sorted(spans.items(), key=lambda item: _ORDER.index(item[0][0]))
    targets = ((scope, Target(owner, tag, span)) for (scope, owner, tag), span in ordered)
    return list(dict.fromkeys(raw for scope, target in targets for raw in commands(scope, target, features)))


def _owner(entry: Stale, slot: Slot) -> Slot:
    """Whose entry it is: an STE that conflicts with the slot's is of another stream."""
    if entry.cache != "ste" or entry.tag[0] == slot.rid.source_id:
        return slot
    stream = entry.tag[0]
    return Slot(Rid(slot.rid.segment, stream >> 8, stream >> 3 & 0x1F, stream & 7))


def _on_the_way(stale: Sequence[Stale]) -> list[Stale]:
    """The entries without those of the TLB that a request came to only because an earlier one is wrong.

    The TLB knows no StreamID: what it has for a VMID and an ASID may well be true where an STE or a CD is not, and what
    it has of stage 2 where stage 1 is not.
    """
    if any(entry.cache in ("ste", "cd") for entry in stale):
        return [entry for entry in stale if entry.cache not in _TLB]
    if any(entry.cache in _TLB and entry.tag[0] != IPA for entry in stale):
        return [entry for entry in stale if entry.cache not in _TLB or entry.tag[0] != IPA]
    return list(stale)


def _needed(entry: Stale) -> list[tuple[Scope, Tag, Span | None]]:
    """What the entry's own cache had to be told."""
    cache, first = "tlb" if entry.cache == "walk" else entry.cache, entry.changed[0]
    tag, nested = _NO_TAG, False
    if cache in ("tlb", "device_tlb"):
        world, vmid, asid, _ = entry.tag
        tag = Tag(vmid) if world == IPA else Tag(vmid, asid)
        nested = world != IPA and vmid != NO_STAGE_2
    change = _change(first, nested=nested, cache=cache)
    leaf = entry.leaf and entry.cache != "walk"
    span = Span(entry.iova & -4096, entry.iova + entry.size - 1 | 4095, leaf)
    scopes = [scope for scope in INVALIDATIONS[change] if scope.cache == cache]
    if change is Change.PARENT_REMOVED and cache == "tlb":
        # The address is not one of stage 2, of which both caches of the TLB may have something.
        scopes = [Scope.VMID]
    return [(scope, tag, span) for scope in scopes]


def _change(first: Step, *, nested: bool, cache: str) -> Change:
    """What was done, seen from a cache whose entry has `first` as it was."""
    change = _CHANGES.get(first.structure)
    if first.structure == L1Cd.name and not L1Cd.V.get(first.raw[0]):
        change = Change.CD_LEAF_ADDED
    if first.stage:
        if first.stage == 1:
            return Change.STAGE_1_REMOVED
        return Change.PARENT_REMOVED if nested else Change.STAGE_2_REMOVED
    assert change is not None, first.structure
    if cache in ("ste", "cd"):
        return change
    if first.structure == Ste.name and Ste.Config.get(Ste.from_words(first.raw)) in WITH_STAGE_2:
        return Change.STAGE_2_LEFT
    return Change.PAGE_TABLE_LEFT if nested else Change.STAGE_1_LEFT


def _joined(one: Span | None, other: Span | None) -> Span | None:
    if one is None or other is None:
        return None
    return Span(min(one.first, other.first), max(one.last, other.last), one.leaf and other.leaf)

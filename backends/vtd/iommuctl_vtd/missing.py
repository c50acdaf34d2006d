# SPDX-License-Identifier: Apache-2.0
"""From a cache entry that is not true any more to the command that would have taken it away.

The table of rules says what each change requires; which change it was is told by the structure that differs.
"""

from collections.abc import Sequence

from iommuctl.architecture import Stale
from iommuctl.model import Slot
from iommuctl_vtd.capability import Capability
from iommuctl_vtd.commands import Span, Target, command
from iommuctl_vtd.context_entry import ContextEntry, ScalableContextEntry
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.pasid_entry import NESTED, PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.root_entry import RootEntry, ScalableRootEntry
from iommuctl_vtd.rules import INVALIDATIONS, Change, Scope
from iommuctl_vtd.second_stage import SecondStageEntry

_CHANGES = {
    ScalableRootEntry.name: Change.ROOT_TABLE_SET,
    ScalableContextEntry.name: Change.CONTEXT_ENTRY_REMOVED,
    RootEntry.name: Change.LEGACY_CONTEXT_TABLE_REPLACED,
    ContextEntry.name: Change.LEGACY_CONTEXT_ENTRY_REMOVED,
    PasidDirectoryEntry.name: Change.PASID_TABLE_REPLACED,
    PasidEntry.name: Change.PASID_ENTRY_REMOVED,
    SecondStageEntry.name: Change.SECOND_STAGE_REMOVED,
    FirstStageEntry.name: Change.FIRST_STAGE_REMOVED,
}
_ORDER = list(Scope)


def missing(slot: Slot, stale: Sequence[Stale], capability: Capability) -> list[int]:
    """The descriptors, in the order of the rules. Entries that need the same scope share one for all addresses."""
    spans: dict[tuple[Scope, int, int], Span] = {}
    contexts = any(entry.cache == "context" for entry in stale)
    for entry in stale:
        if contexts and entry.changed[0].structure == PasidDirectoryEntry.name:
            # It is forgotten with the context entry that leads to it.
            continue
        did, pasid, nested = _tag(entry)
        change = _CHANGES[entry.changed[0].structure]
        if change is Change.SECOND_STAGE_REMOVED and nested:
            change = Change.PARENT_REMOVED
        leaf = entry.leaf and entry.cache != "paging"
        first, last = entry.iova & -4096, (entry.iova + entry.size - 1) | 4095
        for scope in INVALIDATIONS[change]:
            if scope.cache != ("iotlb" if entry.cache == "paging" else entry.cache):
                continue
            if nested and scope is Scope.DOMAIN_PAGES:
                # The address is not one of the parent's.
                scope = Scope.DOMAIN  # noqa: PLW2901
            span = spans.get((scope, did, pasid), Span(first, last, leaf))
            spans[scope, did, pasid] = Span(min(first, span.first), max(last, span.last), leaf and span.leaf)
    ordered = sorted(spans.items(), key=lambda item: _ORDER.index(item[0][0]))
    targets = ((scope, Target(slot, pasid, did, span)) for (scope, did, pasid), span in ordered)
    return list(dict.fromkeys(command(scope, target, capability) for scope, target in targets))


def _tag(entry: Stale) -> tuple[int, int, bool]:
    """DID, PASID, and whether it is a translation through both stages, by the tags that the walks give."""
    if entry.cache == "context":
        # Source id, and in legacy mode the DID.
        return (entry.tag[1] if len(entry.tag) > 1 else 0), 0, False
    if entry.cache == "pasid":
        did, pasid = entry.tag
        return did, pasid, False
    did, pgtt, pasid = entry.tag
    return did, pasid, pgtt == NESTED

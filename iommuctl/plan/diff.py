# SPDX-License-Identifier: Apache-2.0
"""What has to change, so that a state holds what a document says."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from iommuctl.plan.cd_pools import Pools, settled, table_pools
from iommuctl.plan.document import (
    KINDS,
    AttachmentEntry,
    BindingEntry,
    DeviceEntry,
    Document,
    DomainEntry,
    Entry,
    Key,
    MappingEntry,
    PageTableEntry,
    slot_of,
)
from iommuctl.plan.guest_ranges import together

Action = Literal["add", "change", "replace", "remove"]

IN_PLACE: Mapping[type[Entry], frozenset[str]] = {
    DomainEntry: frozenset({"label"}),
    PageTableEntry: frozenset({"label", "mappings"}),
    AttachmentEntry: frozenset({"label", "domain"}),
    BindingEntry: frozenset({"label"}),
}
"""What of an object can change while it lives. Everything else makes it anew."""


MAY_BE_LEFT_OUT: Mapping[type[Entry], frozenset[str]] = {
    DomainEntry: frozenset(DomainEntry._fields),
    MappingEntry: frozenset({"prot"}),
    PageTableEntry: frozenset({"label", "format"}),
    DeviceEntry: frozenset(DeviceEntry._fields),
    AttachmentEntry: frozenset({"label"}),
    BindingEntry: frozenset({"label", "format", "cd_pool"}),
}
"""What of an object stays as it is where a document does not say it."""


class Change(NamedTuple):
    """A change of one object, and why."""

    action: Action
    key: Key
    old: Entry | None
    new: Entry | None
    because: str


def changes(current: Document, wanted: Document, *, prune: bool = False) -> list[Change]:
    """The changes, objects in the order in which they can be made. What is as it should be is not among them."""
    target = _target(current.objects, wanted.objects, prune=prune)
    reasons = _taken_down(current.objects, target)
    found = []
    for key in sorted({**current.objects, **target}, key=lambda key: KINDS.index(key.kind)):
        change = _change(key, current.objects.get(key), target.get(key), reasons.get(key))
        if change:
            found.append(change)
    return found


def _target(current: Mapping[Key, Entry], wanted: Mapping[Key, Entry], *, prune: bool) -> dict[Key, Entry]:
    """What there is in the end."""
    target: dict[Key, Entry] = {} if prune else dict(current)
    for key, entry in wanted.items():
        old = current.get(key)
        filled = _filled(entry, old, prune=prune)
        if isinstance(filled, PageTableEntry):
            kept = old.mappings if isinstance(old, PageTableEntry) and not prune else ()
            filled = filled._replace(mappings=together(filled.mappings, kept))
        target[key] = filled
    return settled(current, wanted, target)


def _filled(entry: Entry, old: Entry | None, *, prune: bool) -> Entry:
    """The entry, with what it leaves out as it is. A label that it leaves out is one that it does not name."""
    may = MAY_BE_LEFT_OUT.get(type(entry), frozenset()) if type(old) is type(entry) else frozenset()
    if prune:
        may -= {"label"}
    if isinstance(entry, BindingEntry) and entry.pgtable is not None:
        # It has its own; the format that was there is of a table at an address.
        may -= {"format"}
    filled = entry._replace(**{name: getattr(old, name) for name in may if getattr(entry, name) is None})
    return filled._replace(prot="rw") if isinstance(filled, MappingEntry) and filled.prot is None else filled


def _taken_down(current: Mapping[Key, Entry], target: Mapping[Key, Entry]) -> dict[Key, str]:
    """What cannot stay as it is, even for a moment, and why."""
    reasons: dict[Key, str] = {}
    for key, old in current.items():
        new = target.get(key)
        if new is None:
            reasons[key] = "the document does not name it"
        elif fields := sorted(set(differing(old, new)) - IN_PLACE.get(type(old), frozenset())):
            reasons[key] = f"{' and '.join(fields).replace('_', ' ')} cannot change in place"
    users = _users(current)
    pending = list(reasons)
    while pending:
        key = pending.pop()
        for user in users.get(key, ()):
            if user not in reasons and not _moves_away(user, key, current, target):
                verb = "replaced" if key in target else "removed"
                reasons[user] = f"{key} is {verb}"
                pending.append(user)
    for key in current:
        if key.kind == "binding" and key not in reasons and _loses_its_ground(key, current, target):
            reasons[key] = "the attachment below it changes"
    return reasons


def _users(current: Mapping[Key, Entry]) -> dict[Key, list[Key]]:
    """By object, what cannot be without it."""
    users: dict[Key, list[Key]] = {}
    by_domain: dict[str, list[tuple[Key, int]]] = {}
    for key, entry in current.items():
        if isinstance(entry, MappingEntry):
            by_domain.setdefault(key.name[0], []).append((key, entry.size))
    pools = table_pools(current)
    for key, entry in current.items():
        for needed in _needs(key, entry, by_domain, pools):
            users.setdefault(needed, []).append(key)
    return users


def _needs(key: Key, entry: Entry, mappings: Mapping[str, Iterable[tuple[Key, int]]], pools: Pools) -> Iterable[Key]:
    match entry:
        case MappingEntry():
            yield Key("domain", key.name[0])
            if entry.memory is not None:
                yield Key("memory", entry.memory)
        case PageTableEntry():
            yield Key("domain", entry.parent)
            yield from _mappings_of(entry.pool, mappings.get(entry.parent, ()))
        case AttachmentEntry() | BindingEntry():
            yield Key("device", slot_of(key).rid)
            yield Key("domain", entry.domain)
            if isinstance(entry, BindingEntry) and entry.pgtable is not None:
                yield Key("pgtable", entry.pgtable)
            if isinstance(entry, BindingEntry) and entry.cd_pool:
                yield from _mappings_of(entry.cd_pool, mappings.get(entry.domain, ()))
                if table := pools.get((entry.domain, entry.cd_pool)):
                    yield table


def _mappings_of(pool: tuple[int, int], mappings: Iterable[tuple[Key, int]]) -> Iterable[Key]:
    """Those that a pool lies in, wholly or in part."""
    first, size = pool
    for mapping, length in mappings:
        iova = mapping.name[1]
        if iova < first + size and first < iova + length:
            yield mapping


def _moves_away(user: Key, needed: Key, current: Mapping[Key, Entry], target: Mapping[Key, Entry]) -> bool:
    """Whether an attachment goes to another domain while the old one is still there."""
    old, new = current[user], target.get(user)
    if needed in target or not isinstance(old, AttachmentEntry) or not isinstance(new, AttachmentEntry):
        return False
    return needed == Key("domain", old.domain) != Key("domain", new.domain)


def _loses_its_ground(key: Key, current: Mapping[Key, Entry], target: Mapping[Key, Entry]) -> bool:
    """Whether the attachment in the slot of a binding comes, goes, or gets another domain."""
    below = Key("attachment", key.name)
    old, new = current.get(below), target.get(below)
    if isinstance(old, AttachmentEntry) and isinstance(new, AttachmentEntry):
        return old.domain != new.domain
    return (old is None) != (new is None)


def _change(key: Key, old: Entry | None, new: Entry | None, reason: str | None) -> Change | None:
    if old is None:
        return Change("add", key, None, new, "it is not there yet")
    if new is None:
        return Change("remove", key, old, None, reason or "")
    if reason:
        lost = ", and what it holds is lost" if key.kind == "memory" else ""
        return Change("replace", key, old, new, reason + lost)
    if old == new:
        return None
    return Change("change", key, old, new, "it differs")


def differing(old: Entry, new: Entry) -> list[str]:
    """The names of the fields in which two entries of a kind differ."""
    return [name for name, before, after in zip(old._fields, old, new, strict=True) if before != after]

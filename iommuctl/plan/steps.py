# SPDX-License-Identifier: Apache-2.0
"""Carrying changes out: in which order, and by which calls of class Iommu."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from iommuctl.plan.diff import Change
from iommuctl.plan.document import (
    AttachmentEntry,
    BindingEntry,
    DeviceEntry,
    DomainEntry,
    Entry,
    GuestMapping,
    Key,
    MappingEntry,
    MemoryEntry,
    PageTableEntry,
    rid_of,
    slot_of,
)
from iommuctl.plan.guest_ranges import pages, way

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu

LAST = ("memory", "domain", "device")
"""What is removed after all else was done: until then an attachment may have to leave it, without a gap."""


class Step(NamedTuple):
    """One part of a change: what was there goes, what should be there comes, or something is altered in place."""

    verb: Literal["take down", "make", "alter"]
    change: Change


def steps(changes: Sequence[Change]) -> list[Step]:
    """The changes in an order in which nothing is made before what it needs, or taken down before what needs it."""
    taken = [change for change in reversed(changes) if change.action in _TAKEN]
    domains = {change.key.name for change in taken if change.key.kind == "domain"}
    memory = {change.key.name for change in taken if change.key.kind == "memory" and change.action == "replace"}
    down = [change for change in taken if not _goes_along(change, domains, memory)]
    first = [Step("take down", change) for change in down if not _goes_last(change)]
    second = [Step("alter" if change.action == "change" else "make", change) for change in changes if change.new]
    last = [Step("take down", change) for change in down if _goes_last(change)]
    return [*first, *second, *last]


_TAKEN = ("replace", "remove")


def _goes_last(change: Change) -> bool:
    return change.action == "remove" and change.key.kind in LAST


def _goes_along(change: Change, domains: Container[str], memory: Container[str]) -> bool:
    """Mappings go with their domain, but for those of memory that is replaced, as a domain may go after that."""
    old = change.old
    return isinstance(old, MappingEntry) and change.key.name[0] in domains and old.memory not in memory


def carry_out(iommu: "Iommu", step: Step) -> None:
    """Do one step. Raises what the calls raise."""
    key, old, new = step.change.key, step.change.old, step.change.new
    if step.verb == "take down":
        assert old
        _take_down(iommu, key, old)
    elif step.verb == "make":
        assert new
        _make(iommu, key, new)
    else:
        assert old
        assert new
        _alter(iommu, key, old, new)


def _take_down(iommu: "Iommu", key: Key, entry: Entry) -> None:
    match entry:
        case MemoryEntry():
            iommu.memory_destroy(key.name)
        case DomainEntry():
            iommu.domain_destroy(key.name)
        case MappingEntry():
            domain, iova = key.name
            iommu.unmap(domain, iova=iova, size=entry.size)
        case PageTableEntry():
            iommu.pgtable_destroy(key.name)
        case DeviceEntry():
            iommu.device_remove(rid_of(key))
        case AttachmentEntry():
            iommu.detach(entry.domain, slot_of(key).rid, pasid=slot_of(key).pasid)
        case BindingEntry():
            iommu.unbind_pgtable(entry.domain, slot_of(key).rid, pasid=slot_of(key).pasid)


def _make(iommu: "Iommu", key: Key, entry: Entry) -> None:
    match entry:
        case MemoryEntry():
            iommu.memory_create(key.name, entry.size)
        case DomainEntry():
            iommu.domain_create(
                key.name,
                nest_parent=bool(entry.nest_parent),
                width=entry.width,
                page_sizes=entry.page_sizes,
                label=entry.label,
            )
        case MappingEntry():
            assert entry.prot
            domain, iova = key.name
            iommu.map(
                domain,
                iova=iova,
                size=entry.size,
                pa=entry.pa,
                memory=entry.memory,
                offset=entry.offset,
                prot=entry.prot,
            )
        case PageTableEntry():
            pool, size = entry.pool
            iommu.pgtable_create(
                key.name, parent=entry.parent, pool=pool, pool_size=size, format=entry.format, label=entry.label
            )
            _map(iommu, key.name, entry.mappings)
        case DeviceEntry():
            iommu.device_add(rid_of(key), ats=bool(entry.ats), pri=bool(entry.pri), pasid_bits=entry.pasid_bits or 0)
        case AttachmentEntry():
            slot = slot_of(key)
            iommu.attach(entry.domain, slot.rid, pasid=slot.pasid, label=entry.label)
        case BindingEntry():
            slot = slot_of(key)
            iommu.bind_pgtable(
                entry.domain,
                slot.rid,
                pasid=slot.pasid,
                addr=entry.addr,
                pgtable=entry.pgtable,
                format=entry.format,
                cd_pool=entry.cd_pool,
                label=entry.label,
            )


def _alter(iommu: "Iommu", key: Key, old: Entry, new: Entry) -> None:
    match old, new:
        case DomainEntry(), DomainEntry():
            iommu.relabel_domain(key.name, new.label)
        case PageTableEntry(), PageTableEntry():
            if old.label != new.label:
                iommu.relabel_pgtable(key.name, new.label)
            if old.mappings != new.mappings:
                _remap(iommu, key.name, new)
        case AttachmentEntry(), AttachmentEntry() if old.domain != new.domain:
            slot = slot_of(key)
            iommu.attach(new.domain, slot.rid, pasid=slot.pasid, label=new.label, replace=True)
        case AttachmentEntry(), AttachmentEntry():
            iommu.relabel_attachment(slot_of(key), new.label)
        case BindingEntry(), BindingEntry():
            iommu.relabel_binding(slot_of(key), new.label)


def _remap(iommu: "Iommu", name: str, entry: PageTableEntry) -> None:
    """Bring what a page table maps to what it should, and tell the caches what is gone."""
    unmap, more = way(pages(iommu.pgtable_mappings(name)), entry.mappings)
    for gone in unmap:
        iommu.pgtable_unmap(name, iova=gone.iova, size=gone.size)
    _map(iommu, name, more)
    if not unmap:
        return
    first, end = unmap[0].iova, unmap[-1].iova + unmap[-1].size
    for occupant in iommu.bindings_of(name):
        iommu.invalidate(
            occupant.domain.name, device=occupant.slot.rid, pasid=occupant.slot.pasid, iova=first, size=end - first
        )


def _map(iommu: "Iommu", name: str, mappings: Sequence[GuestMapping]) -> None:
    for one in mappings:
        prot, privileged = one.prot.removesuffix("p"), one.prot.endswith("p")
        iommu.pgtable_map(name, iova=one.iova, size=one.size, gpa=one.gpa, prot=prot, privileged=privileged)

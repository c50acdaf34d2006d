# SPDX-License-Identifier: Apache-2.0
"""From a state folder to the Document that describes it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from iommuctl.model import Attachment, Binding, Mapping, Occupant
from iommuctl.plan.document import (
    AttachmentEntry,
    BindingEntry,
    DeviceEntry,
    Document,
    DomainEntry,
    Entry,
    Key,
    MappingEntry,
    MemoryEntry,
    PageTableEntry,
)
from iommuctl.plan.guest_ranges import joined, pages

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu


def describe(iommu: "Iommu") -> Document:
    """Everything that is there, in the order in which it was made; devices and slots by RID and PASID."""
    with iommu.reading():
        return Document(iommu.backend_name, iommu.machine(), dict(_objects(iommu)))


def _objects(iommu: "Iommu") -> Iterator[tuple[Key, Entry]]:
    for memory in iommu.memories():
        yield Key("memory", memory.name), MemoryEntry(memory.size)
    for domain in iommu.domains():
        entry = DomainEntry(domain.label, domain.nest_parent, domain.width, domain.page_sizes)
        yield Key("domain", domain.name), entry
        for mapping in iommu.mappings(domain.name):
            yield Key("mapping", (domain.name, mapping.iova)), _mapping(mapping)
    for table in iommu.pgtables():
        mappings = joined(pages(iommu.pgtable_mappings(table.name)))
        pool = (table.pool, table.pool_size)
        yield Key("pgtable", table.name), PageTableEntry(table.parent.name, pool, table.format, table.label, mappings)
    for device in iommu.devices():
        yield Key("device", device.rid), DeviceEntry(device.ats, device.pri, device.pasid_bits)
    for occupant in iommu.slots():
        yield from _slot(occupant)


def _mapping(mapping: Mapping) -> MappingEntry:
    if mapping.memory is None:
        return MappingEntry(mapping.size, pa=mapping.pa, prot=mapping.prot)
    return MappingEntry(mapping.size, mapping.memory, mapping.offset, prot=mapping.prot)


def _slot(occupant: Occupant) -> Iterator[tuple[Key, Entry]]:
    """What a slot holds: a binding stands beside the attachment that it is nested on, unless it made that."""
    slot, domain = occupant.slot, occupant.domain.name
    if isinstance(occupant, Attachment):
        yield Key("attachment", slot), AttachmentEntry(domain, occupant.label)
        return
    if not occupant.implicit:
        yield Key("attachment", slot), AttachmentEntry(domain, occupant.attachment_label)
    yield Key("binding", slot), _binding(occupant)


def _binding(binding: Binding) -> BindingEntry:
    domain = binding.domain.name
    if binding.pgtable is not None:
        return BindingEntry(domain, binding.pgtable, label=binding.label, cd_pool=binding.cd_pool)
    return BindingEntry(domain, None, binding.root, binding.format, binding.label, binding.cd_pool)

# SPDX-License-Identifier: Apache-2.0
"""From a Document to TOML, in one spelling: what is the same reads the same, byte for byte."""

from collections.abc import Iterator
from typing import Any

from iommuctl.numbers import unit
from iommuctl.plan.document import (
    AttachmentEntry,
    BindingEntry,
    DeviceEntry,
    Document,
    DomainEntry,
    GuestMapping,
    Key,
    MappingEntry,
    MemoryEntry,
    PageTableEntry,
    rid_of,
    slot_of,
)
from iommuctl.plan.shape import SCHEMA
from iommuctl.requests import SetupRequest


def text(document: Document) -> str:
    """The document as TOML."""
    import tomli_w

    return tomli_w.dumps(plain(document))


def plain(document: Document) -> dict[str, Any]:
    """The document as TOML holds it."""
    machine = document.machine
    top = {
        "schema": SCHEMA,
        "backend": document.backend,
        "machine": _machine(machine) if machine else None,
        "memory": dict(_memories(document)),
        "domain": dict(_domains(document)),
        "pgtable": dict(_pgtables(document)),
        "device": dict(_devices(document)),
    }
    return {name: value for name, value in top.items() if value not in (None, {})}


def _machine(machine: SetupRequest) -> dict[str, Any]:
    return _given(
        architecture=machine.architecture,
        ram=_range(machine.ram),
        tables=_range(machine.tables),
        options=dict(sorted(machine.options.items())) or None,
    )


def _memories(document: Document) -> Iterator[tuple[str, Any]]:
    for key, entry in document.objects.items():
        if isinstance(entry, MemoryEntry):
            yield key.name, _given(size=_size(entry.size))


def _domains(document: Document) -> Iterator[tuple[str, Any]]:
    mappings: dict[str, list[Any]] = {}
    for key, entry in document.objects.items():
        if isinstance(entry, MappingEntry):
            domain, iova = key.name
            mappings.setdefault(domain, []).append(_mapping(iova, entry))
    for key, entry in document.objects.items():
        if isinstance(entry, DomainEntry):
            yield (
                key.name,
                _given(
                    label=entry.label,
                    nest_parent=entry.nest_parent,
                    width=entry.width,
                    page_sizes=None if entry.page_sizes is None else ",".join(map(unit, entry.page_sizes)),
                    mappings=mappings.get(key.name),
                ),
            )


def _mapping(iova: int, entry: MappingEntry) -> dict[str, Any]:
    memory = entry.memory and entry.memory + (f"+{entry.offset:#x}" if entry.offset else "")
    return _given(iova=_address(iova), size=_size(entry.size), memory=memory, pa=_address(entry.pa), prot=entry.prot)


def _pgtables(document: Document) -> Iterator[tuple[str, Any]]:
    for key, entry in document.objects.items():
        if isinstance(entry, PageTableEntry):
            yield (
                key.name,
                _given(
                    label=entry.label,
                    parent=entry.parent,
                    pool=_range(entry.pool),
                    format=entry.format,
                    mappings=list(map(_guest_mapping, entry.mappings)) or None,
                ),
            )


def _guest_mapping(mapping: GuestMapping) -> dict[str, Any]:
    prot, privileged = mapping.prot.removesuffix("p"), mapping.prot.endswith("p")
    return _given(
        iova=_address(mapping.iova),
        size=_size(mapping.size),
        gpa=_address(mapping.gpa),
        prot=prot,
        privileged=privileged or None,
    )


def _devices(document: Document) -> Iterator[tuple[str, Any]]:
    slots: dict[Any, dict[str, list[Any]]] = {}
    for key, entry in document.objects.items():
        if isinstance(entry, AttachmentEntry | BindingEntry):
            array = "attachments" if isinstance(entry, AttachmentEntry) else "bindings"
            slots.setdefault(slot_of(key).rid, {}).setdefault(array, []).append(_slot(key, entry))
    for key, entry in document.objects.items():
        if isinstance(entry, DeviceEntry):
            yield str(key.name), {**_given(**entry._asdict()), **slots.get(rid_of(key), {})}


def _slot(key: Key, entry: AttachmentEntry | BindingEntry) -> dict[str, Any]:
    values = entry._asdict()
    if isinstance(entry, BindingEntry):
        values["addr"] = _address(entry.addr)
    return _given(pasid=slot_of(key).pasid, **values)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _address(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _size(value: int | None) -> str | None:
    return None if value is None else unit(value)


def _range(value: tuple[int, int] | None) -> str | None:
    return None if value is None else f"{value[0]:#x}+{unit(value[1])}"

# SPDX-License-Identifier: Apache-2.0
"""From a Document to TOML, in one spelling: what is the same reads the same, byte for byte."""

from typing import Any

from iommuctl.numbers import unit, units
from iommuctl.plan.document import (
    AttachmentEntry,
    BindingEntry,
    Document,
    DomainEntry,
    Entry,
    GuestMapping,
    Key,
    MappingEntry,
    MemoryEntry,
    PageTableEntry,
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
    tables: dict[str, dict[str, dict[str, Any]]] = {"memory": {}, "domain": {}, "pgtable": {}, "device": {}}
    inside: list[tuple[Key, Entry]] = []
    for key, entry in document.objects.items():
        if key.kind in tables:
            tables[key.kind][str(key.name)] = values(key, entry)
        else:
            inside.append((key, entry))
    for key, entry in inside:
        if isinstance(entry, MappingEntry):
            holder, array = tables["domain"][key.name[0]], "mappings"
        else:
            holder, array = tables["device"][str(slot_of(key).rid)], f"{key.kind}s"
        holder.setdefault(array, []).append(values(key, entry))
    machine = machine_values(document.machine) if document.machine else None
    top = {"schema": SCHEMA, "backend": document.backend, "machine": machine, **tables}
    return {name: value for name, value in top.items() if value not in (None, {})}


def values(key: Key, entry: Entry) -> dict[str, Any]:
    """One object as its table, without its name where that is a key by itself."""
    table: dict[str, Any] = entry._asdict()
    match entry:
        case MemoryEntry():
            table["size"] = unit(entry.size)
        case DomainEntry():
            table["page_sizes"] = entry.page_sizes and units(entry.page_sizes)
        case MappingEntry():
            memory = entry.memory and entry.memory + (f"+{entry.offset:#x}" if entry.offset else "")
            target = {"memory": memory, "pa": _address(entry.pa)}
            table = {"iova": _address(key.name[1]), "size": unit(entry.size), **target, "prot": entry.prot}
        case PageTableEntry():
            table["pool"] = _range(entry.pool)
            table["mappings"] = [_guest_mapping(one) for one in entry.mappings] or None
        case AttachmentEntry():
            table = {"pasid": slot_of(key).pasid, **table}
        case BindingEntry():
            ranges = {"addr": _address(entry.addr), "cd_pool": _range(entry.cd_pool)}
            table = {"pasid": slot_of(key).pasid, **table, **ranges}
    return _given(table)


def machine_values(machine: SetupRequest) -> dict[str, Any]:
    """A machine as its table."""
    options = dict(sorted(machine.options.items()))
    ranges = {"ram": _range(machine.ram), "tables": _range(machine.tables)}
    return _given({"architecture": machine.architecture, **ranges, "options": options or None})


def _guest_mapping(mapping: GuestMapping) -> dict[str, Any]:
    iova, size, gpa, prot = mapping
    mode = {"privileged": True} if prot.endswith("p") else {}
    return {"iova": f"{iova:#x}", "size": unit(size), "gpa": f"{gpa:#x}", "prot": prot.removesuffix("p"), **mode}


def _given(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}


def _address(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _range(value: tuple[int, int] | None) -> str | None:
    return None if value is None else f"{value[0]:#x}+{unit(value[1])}"

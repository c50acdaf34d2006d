# SPDX-License-Identifier: Apache-2.0
"""The JSON documents. Addresses and raw words are strings, `"0x…"`; sizes, ids, PASIDs and counts are integers."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from iommuctl.model import (
    NO_PHYSICAL,
    Attachment,
    Binding,
    Call,
    Changed,
    Command,
    Device,
    Domain,
    Fault,
    Memory,
    MemoryWrite,
    PageTable,
    Rid,
    Step,
)
from iommuctl.model import Mapping as DomainMapping

if TYPE_CHECKING:
    from iommuctl.inspect.decode import Decoded
    from iommuctl.requests import MemorySource
    from iommuctl.session import Outcome

SCHEMA = 1


def write(parts: Iterable[Any], *, one_line: bool = False) -> None:
    """Print a document, merged from its parts; the documents of a stream stand on one line each."""
    document: dict[str, Any] = {"schema": SCHEMA}
    for part in parts:
        document.update(plain(part))
    sys.stdout.write(json.dumps(document, indent=None if one_line else 2) + "\n")


def plain(value: Any) -> Any:
    """Objects of the model as what JSON holds, wherever they stand in a document."""
    if convert := _CONVERTERS.get(type(value)):
        return convert(value)
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def address(value: int | None) -> str | None:
    """An address or a raw word."""
    return None if value is None else f"{value:#x}"


def physical(value: int | None) -> str | None:
    """A physical address; None where only the kernel knows it, and rows have an address of their own."""
    return None if value is None or value >= NO_PHYSICAL else f"{value:#x}"


def fields_of(values: Mapping[str, int]) -> dict[str, str]:
    """The fields of a structure."""
    return {name: f"{value:#x}" for name, value in values.items()}


def device(value: Device) -> dict[str, Any]:
    """A device and what it can do."""
    return {
        "rid": str(value.rid),
        "ats": value.ats,
        "pri": value.pri,
        "pasid_bits": value.pasid_bits,
        "bound": value.bound,
        "driver": value.driver or None,
        "owner": value.owner or None,
        "siblings": [str(rid) for rid in value.siblings],
    }


def domain(value: Domain) -> dict[str, Any]:
    """A domain by itself."""
    return {
        "name": value.name,
        "id": value.id,
        "label": value.label,
        "nest_parent": value.nest_parent,
        "width": value.width,
        "page_sizes": list(value.page_sizes),
    }


def mapping(value: DomainMapping) -> dict[str, Any]:
    """A mapping of a domain."""
    return {
        "iova": address(value.iova),
        "size": value.size,
        "pa": physical(value.pa),
        "memory": value.memory,
        "offset": value.offset,
        "prot": value.prot,
    }


def memory(value: Memory) -> dict[str, Any]:
    """Named memory."""
    return {"name": value.name, "id": value.id, "pa": physical(value.pa), "size": value.size}


def memory_source(value: "MemorySource") -> dict[str, Any]:
    """Where named memory comes from."""
    return {
        "path": value.path,
        "fd": value.fd and {"pid": value.fd[0], "fd": value.fd[1]},
        "dma_buf": value.dma_buf and {"rid": str(value.dma_buf[0]), "bar": value.dma_buf[1]},
        "hugepages": value.hugepages,
    }


def pgtable(value: PageTable) -> dict[str, Any]:
    """A page table that we build."""
    return {
        "name": value.name,
        "id": value.id,
        "label": value.label,
        "parent": value.parent.name,
        "format": value.format,
        "pool": address(value.pool),
        "pool_size": value.pool_size,
        "root": address(value.root),
    }


def slot(value: Attachment | Binding, *, of_device: bool = False) -> dict[str, Any]:
    """What a slot holds, as a row of its domain or of its device."""
    where = {"domain": value.domain.name} if of_device else {"rid": str(value.slot.rid)}
    bound = isinstance(value, Binding)
    cd_pool, cd_pool_size = (isinstance(value, Binding) and value.cd_pool) or (None, None)
    return {
        **where,
        "pasid": value.slot.pasid,
        "kind": "bind" if bound else "attach",
        "pgtable": address(value.root) if isinstance(value, Binding) else None,
        "pgtable_name": value.pgtable if isinstance(value, Binding) else None,
        "format": value.format if isinstance(value, Binding) else None,
        "cd_pool": address(cd_pool),
        "cd_pool_size": cd_pool_size,
        "label": value.label,
        "implicit": value.implicit if isinstance(value, Binding) else False,
    }


def fault(value: Fault) -> dict[str, Any]:
    """Why a request was refused."""
    return {
        "code": address(value.code),
        "name": value.name,
        "reason": value.reason,
        "rid": str(value.rid),
        "pasid": value.pasid,
        "iova": address(value.iova),
        "access": value.access,
    }


def step(value: Step) -> dict[str, Any]:
    """An entry that a walk visited."""
    return {
        "structure": value.structure,
        "address": address(value.address),
        "raw": [f"{word:#x}" for word in value.raw],
        "fields": fields_of(value.fields),
    }


def command(value: Command) -> dict[str, Any]:
    """A command as bytes in memory order and decoded."""
    return {"name": value.name, "raw": value.raw.hex(), "fields": fields_of(value.fields)}


def changed(value: Changed) -> dict[str, Any]:
    """A structure that a cache holds as it was."""
    return {
        "structure": value.structure,
        "address": address(value.address),
        "old": [f"{word:#x}" for word in value.old],
        "new": [f"{word:#x}" for word in value.new],
        "table": value.table,
        "cache": value.cache,
        "operation": value.operation,
    }


def decoded(value: "Decoded") -> dict[str, Any]:
    """The bits of a structure, field by field."""
    return {
        "fields": fields_of({field.name: field.value for field in value.fields}),
        "meanings": {field.name: field.meaning for field in value.fields if field.meaning},
        "problems": value.problems,
    }


def call(value: Call) -> dict[str, Any]:
    """A call to the kernel."""
    return {"ioctl": value.name, "fields": fields_of(value.fields)}


def memory_write(value: MemoryWrite) -> dict[str, Any]:
    """A word of memory that changes; in named memory of real hardware, which one and where in it."""
    place = {"memory": value.memory, "offset": value.offset} if value.memory else {}
    return {"address": physical(value.address), **place, "old": address(value.old), "new": address(value.new)}


def outcome(value: "Outcome") -> dict[str, Any]:
    """What the hardware and the kernel were told, and what was written."""
    calls = {"calls": plain(value.calls)} if value.calls else {}
    return {"commands": plain(value.commands), **calls, "writes": plain(value.writes)}


_CONVERTERS: dict[type, Callable[[Any], Any]] = {
    Rid: str,
    Device: device,
    Domain: domain,
    DomainMapping: mapping,
    Memory: memory,
    PageTable: pgtable,
    Attachment: slot,
    Binding: slot,
    Fault: fault,
    Step: step,
    Command: command,
    Call: call,
    Changed: changed,
    MemoryWrite: memory_write,
}

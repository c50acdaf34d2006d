# SPDX-License-Identifier: Apache-2.0
"""Named memory: files that the keeper holds between commands, as mappings must not die with a process."""

import os

from iommuctl.errors import Lost, Unsupported
from iommuctl.hookspecs import MemoryRequest, MemorySource
from iommuctl.iommufd import memory as sources
from iommuctl.kernel.machine import Machine
from iommuctl.model import Memory, Rid


def create(machine: Machine, request: MemoryRequest) -> None:
    """Make, open or take over memory, and have the keeper hold it."""
    memory, source = request
    kept = f"memory-{memory.id}"
    record = {"kept": kept, "source": _written(source)}
    if not machine.dry:
        machine.intend({"kept": kept})
        _hold(machine, kept, memory, source)
    machine.records.put_memory(memory, record)


def destroy(machine: Machine, memory: Memory) -> None:
    """Let memory go after the commit. What has it mapped keeps its pages."""
    record = machine.records.memory(memory.name)
    assert record
    machine.records.put_memory(memory, None)
    if not machine.dry and not machine.lost():
        machine.intend({"kept": record["kept"]})
        machine.context.after_commit(lambda: machine.drop(record["kept"]))


def descriptor(machine: Machine, name: str) -> int:
    """The file of named memory. Raises Lost."""
    record = machine.records.memory(name)
    assert record
    held = machine.kept(record["kept"])
    if held is None and machine.dry:
        return -1
    if held is None:
        raise Lost(
            f"memory {name} is gone",
            because="the keeper does not hold its file",
            hint="`iommuctl recover` makes it again",
        )
    return held


def readable(machine: Machine, memory: Memory) -> int:
    """The same, of memory whose bytes can be read and written. Raises Unsupported for that of a device."""
    if source(machine, memory).dma_buf:
        raise Unsupported(
            f"memory {memory.name} is a device's",
            because="a BAR can be mapped for DMA, and not be read as a file",
            hint="tables lie in memory of the host: `iommuctl memory create`",
        )
    return descriptor(machine, memory.name)


def source(machine: Machine, memory: Memory) -> MemorySource:
    """Where it comes from."""
    record = machine.records.memory(memory.name)
    assert record
    path, process, bar, hugepages = record["source"]
    return MemorySource(
        path, tuple(process) if process else None, (Rid.parse(bar[0]), bar[1]) if bar else None, hugepages
    )


def reopen(machine: Machine, memory: Memory) -> str:
    """After all was lost: memory of that name again. Returns what is not as it was, or ""."""
    record = machine.records.memory(memory.name)
    assert record
    found = source(machine, memory)
    gone = found.fd is not None
    _hold(machine, record["kept"], memory, MemorySource() if gone else found)
    if gone:
        machine.records.put_memory(memory, {**record, "source": _written(MemorySource())})
        return f"memory {memory.name} was a process's and is memory of our own now, and empty"
    return "" if found.path or found.dma_buf else f"memory {memory.name} is empty"


def _hold(machine: Machine, kept: str, memory: Memory, source: MemorySource) -> None:
    if source.dma_buf:
        rid, bar = source.dma_buf
        opened = machine.devices.dma_buf(rid, bar, memory.size)
    elif source.fd:
        opened = sources.of_process(*source.fd, memory.size)
    elif source.path is not None:
        opened = sources.of_file(source.path, memory.size)
    else:
        opened = sources.new(memory.name, memory.size, hugepages=source.hugepages)
    try:
        machine.keep(kept, opened)
    finally:
        os.close(opened)


def _written(source: MemorySource) -> list[object]:
    bar = [str(source.dma_buf[0]), source.dma_buf[1]] if source.dma_buf else None
    return [source.path, source.fd, bar, source.hugepages]

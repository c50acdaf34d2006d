# SPDX-License-Identifier: Apache-2.0
"""`iommuctl memory`: memory with a name, so that mappings need no physical address."""

from typing import Annotated, Any

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief, Force, Size
from iommuctl.cli.render import Column
from iommuctl.cli.session import session_of
from iommuctl.errors import BadNumber, Usage
from iommuctl.model import NO_PHYSICAL, Memory, Rid
from iommuctl.requests import NEW_MEMORY, MemorySource

EXAMPLES = """
# 16 MiB of the simulated machine's RAM; on real hardware a memory file of the kernel's
iommuctl memory create buffers --size 16M
iommuctl domain map domain1 --iova 0x100000 --size 64K --memory buffers+4K
iommuctl memory list
# with what maps it
iommuctl memory destroy buffers --force
# real hardware: a file that survives, what another process has open as descriptor 12, a BAR of a device
iommuctl memory create disk --size 16M --path /dev/shm/disk
iommuctl memory create guest --size 1G --fd 4711:12
iommuctl memory create doorbells --size 64K --dma-buf 0000:00:10.0:2
iommuctl memory create big --size 1G --hugepages
"""

LONGEST = 10
"""Digits of the number of a process, a descriptor or a BAR."""

app = module_app("Named memory, for mappings.", EXAMPLES)


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new memory.", show_default=False)],
    *,
    size: Size,
    path: Annotated[
        str | None, typer.Option("--path", metavar="FILE", help="Real hardware: a file.", show_default=False)
    ] = None,
    fd: Annotated[
        str | None,
        typer.Option("--fd", metavar="PID:FD", help="Real hardware: a process's memfd.", show_default=False),
    ] = None,
    dma_buf: Annotated[
        str | None, typer.Option("--dma-buf", metavar="RID:BAR", help="Real hardware: a BAR.", show_default=False)
    ] = None,
    hugepages: Annotated[bool, typer.Option("--hugepages", help="Real hardware: in huge pages.")] = False,
) -> None:
    """Set memory aside and give it a name."""
    session = session_of(ctx)
    source = _source(path=path, fd=fd, dma_buf=dma_buf, hugepages=hugepages)
    memory = session.iommu.memory_create(name, size, source=source)
    place = f"of {_source_words(source)}" if _is_real(memory) else f"at {memory.pa:#x}"
    told = _document(memory, source) if session.json else {}
    session.changed(f"{memory.name}: created, {numbers.human(memory.size)} {place}", told)


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the named memory."""
    session = session_of(ctx)
    iommu = session.iommu
    with iommu.reading():
        memories = iommu.memories()
        real = iommu.is_real
        sources = [iommu.memory_source(memory.name) if real else NEW_MEMORY for memory in memories]
    held = list(zip(memories, sources, strict=True))
    if session.json:
        session.document({"memories": [_document(memory, source) for memory, source in held]})
    elif brief:
        session.out.lines(memory.name for memory in memories)
    else:
        place = Column("SOURCE") if real else Column("PA", "address")
        session.out.table(
            [Column("NAME", "name"), Column("ID"), place, Column("SIZE")],
            [
                [
                    memory.name,
                    str(memory.id),
                    _source_words(source) if real else f"{memory.pa:#x}",
                    numbers.unit(memory.size),
                ]
                for memory, source in held
            ],
            empty="no named memory",
        )


@app.command("destroy")
def destroy(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MEM", help="Name of memory, or id:N.", show_default=False)],
    force: Force = False,
) -> None:
    """Give named memory back. Refused while a domain maps it."""
    session = session_of(ctx)
    memory = session.iommu.memory_destroy(name, force=force)
    session.changed(f"{memory.name}: destroyed", memory)


def _source(*, path: str | None, fd: str | None, dma_buf: str | None, hugepages: bool) -> MemorySource:
    """A source as it is typed. Raises Usage, BadNumber, BadRid."""
    options = {"--path": path, "--fd": fd, "--dma-buf": dma_buf, "--hugepages": hugepages or None}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        raise Usage(
            "memory comes from one place",
            because=f"{' and '.join(given)} are given",
            hint="--hugepages is for memory that is made for the purpose",
        )
    process = bar = None
    if fd is not None:
        pid, number = _pair(fd, "--fd", "PID:FD")
        process = _decimal(pid), _decimal(number)
    if dma_buf is not None:
        rid, number = _pair(dma_buf, "--dma-buf", "RID:BAR")
        bar = Rid.parse(rid), _decimal(number)
    return MemorySource(path, process, bar, hugepages)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    first, colon, second = text.rpartition(":")
    if not colon:
        raise Usage(f"{option} {text!r} is not of the form {form}")
    return first, second


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > LONGEST:
        raise BadNumber(f"{text!r} is not a number", hint="it is a decimal number, as 12")
    return int(text)


def _source_words(source: MemorySource) -> str:
    if source.path is not None:
        return f"file {source.path}"
    if source.fd is not None:
        return f"descriptor {source.fd[1]} of process {source.fd[0]}"
    if source.dma_buf is not None:
        return f"BAR {source.dma_buf[1]} of {source.dma_buf[0]}"
    return "memory file in huge pages" if source.hugepages else "memory file"


def _is_real(memory: Memory) -> bool:
    """Whether only the kernel knows where it lies."""
    return memory.pa >= NO_PHYSICAL


def _document(memory: Memory, source: MemorySource) -> dict[str, Any]:
    """What JSON says of memory: on real hardware also where it comes from."""
    from iommuctl.cli import jsonout

    return jsonout.memory(memory) | ({"source": jsonout.memory_source(source)} if _is_real(memory) else {})

# SPDX-License-Identifier: Apache-2.0
"""`iommuctl memory`: memory with a name, so that mappings need no physical address."""

from typing import Annotated

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief, Force, Size
from iommuctl.cli.render import Column
from iommuctl.cli.session import session_of
from iommuctl.errors import Unsupported

EXAMPLES = """
# 16 MiB of the simulated machine's RAM
iommuctl memory create buffers --size 16M
iommuctl domain map domain1 --iova 0x100000 --size 64K --memory buffers+4K
iommuctl memory list
# with what maps it
iommuctl memory destroy buffers --force
"""

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
    asked = {"--path": path, "--fd": fd, "--dma-buf": dma_buf, "--hugepages": hugepages or None}
    for option, value in asked.items():
        if value is not None:
            raise Unsupported(
                f"{option} needs real hardware",
                because=f"named memory of the backend {session.iommu.backend_name!r} is a range of the machine's RAM",
                hint=f"leave {option} away",
            )
    memory = session.iommu.memory_create(name, size)
    session.changed(f"{memory.name}: created, {numbers.human(memory.size)} at {memory.pa:#x}", memory)


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the named memory."""
    session = session_of(ctx)
    memories = session.iommu.memories()
    if session.json:
        session.document({"memories": memories})
    elif brief:
        session.out.lines(memory.name for memory in memories)
    else:
        session.out.table(
            [Column("NAME", "name"), Column("ID"), Column("PA", "address"), Column("SIZE")],
            [[memory.name, str(memory.id), f"{memory.pa:#x}", numbers.unit(memory.size)] for memory in memories],
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

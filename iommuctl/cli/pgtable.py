# SPDX-License-Identifier: Apache-2.0
"""`iommuctl pgtable`: stage-1 page tables that iommuctl builds in guest memory."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief, Force, Format, Iova, Label, PgtableName, Prot, Size
from iommuctl.cli.render import Column, Node
from iommuctl.cli.session import session_of
from iommuctl.model import Binding

if TYPE_CHECKING:
    from iommuctl.formats.radix import Leaf

EXAMPLES = """
# a page table for a process of vm1, in 1 MiB of guest memory that domain2 maps
iommuctl pgtable create sva-a --parent domain2 --pool 0x100000+1M
iommuctl pgtable map sva-a --iova 0x7f0000000000 --size 64K --gpa 0x400000 --user
iommuctl bind-pgtable domain2 0000:00:01.0 --pasid 3 --pgtable sva-a
iommuctl pgtable list
iommuctl pgtable show sva-a
# unmapping leaves the caches alone: invalidate says it
iommuctl pgtable unmap sva-a --iova 0x7f0000000000 --size 64K
iommuctl invalidate domain2 --pasid 3 --iova 0x7f0000000000 --size 64K
iommuctl pgtable destroy sva-a --force
"""

app = module_app(
    "Page tables: user-managed stage 1, built in guest memory.\n\nTheir addresses go through a parent domain.", EXAMPLES
)


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new page table.", show_default=False)],
    *,
    parent: Annotated[
        str,
        typer.Option("--parent", metavar="DOMAIN", help="The nest parent whose memory holds it.", show_default=False),
    ],
    pool: Annotated[
        str,
        typer.Option(
            "--pool", metavar="A+S", help="Guest memory to build it in, mapped read-write.", show_default=False
        ),
    ],
    format_: Format = None,
    label: Label = None,
) -> None:
    """Create an empty page table in guest memory of its parent domain."""
    session = session_of(ctx)
    first, size = numbers.byte_range(pool)
    table = session.iommu.pgtable_create(name, parent=parent, pool=first, pool_size=size, format=format_, label=label)
    session.changed(f"{table.name}: created, {table.format}, root at GPA {table.root:#x} of {table.parent.name}", table)


@app.command("map")
def map_(
    ctx: typer.Context,
    name: PgtableName,
    *,
    iova: Iova,
    size: Size,
    gpa: Annotated[
        int,
        typer.Option("--gpa", metavar="A", parser=numbers.number, help="Guest physical address.", show_default=False),
    ],
    prot: Prot = "rw",
    privileged: Annotated[
        bool, typer.Option("--privileged/--user", help="Who may use it: privileged requests only, or all.")
    ] = False,
) -> None:
    """Map a range of input addresses to guest memory."""
    session = session_of(ctx)
    session.iommu.pgtable_map(name, iova=iova, size=size, gpa=gpa, prot=prot, privileged=privileged)
    who = " privileged" if privileged else ""
    session.changed(
        f"{name}: mapped {iova:#x}..{iova + size - 1:#x} -> GPA {gpa:#x} {prot}{who}",
        {
            "pgtable": name,
            "iova": f"{iova:#x}",
            "size": size,
            "gpa": f"{gpa:#x}",
            "prot": prot,
            "privileged": privileged,
        },
    )


@app.command("unmap")
def unmap(ctx: typer.Context, name: PgtableName, *, iova: Iova, size: Size) -> None:
    """Unmap a range. Caches keep what they have until `invalidate`.

    Tables that became empty go as well; then `invalidate --leaf` is not enough.
    """
    session = session_of(ctx)
    parent = session.iommu.pgtable(name).parent.name
    freed = session.iommu.pgtable_unmap(name, iova=iova, size=size)
    went = f"{freed} table{'s' if freed > 1 else ''} went, too"
    call = f"`iommuctl invalidate {parent} --iova {iova:#x} --size {size:#x}{'' if freed else ' --leaf'}`"
    call += f"; not --leaf, as {went}" if freed else ""
    session.changed(
        f"{name}: unmapped {iova:#x}..{iova + size - 1:#x}; caches keep it until {call}",
        {"pgtable": name, "iova": f"{iova:#x}", "size": size, "freed_tables": freed},
    )


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the page tables that were built here."""
    session = session_of(ctx)
    tables = session.iommu.pgtables()
    if session.json:
        session.document({"pgtables": tables})
    elif brief:
        session.out.lines(table.name for table in tables)
    else:
        columns = [Column("NAME", "name"), Column("ID"), Column("PARENT", "name"), Column("FORMAT")]
        session.out.table(
            [*columns, Column("ROOT", "address"), Column("POOL", "address"), Column("LABEL")],
            [
                [
                    table.name,
                    str(table.id),
                    table.parent.name,
                    table.format,
                    f"{table.root:#x}",
                    f"{table.pool:#x}+{numbers.unit(table.pool_size)}",
                    table.label or "",
                ]
                for table in tables
            ],
            empty="no page tables",
        )


@app.command("show")
def show(ctx: typer.Context, name: PgtableName) -> None:
    """Show a page table: its mappings, and where it is bound."""
    session = session_of(ctx)
    iommu = session.iommu
    with iommu.reading():
        table = iommu.pgtable(name)
        mappings = _ranges(iommu.pgtable_mappings(name))
        slots = iommu.slots(domain=table.parent.name)
    bound = [held for held in slots if isinstance(held, Binding) and held.pgtable == table.name]
    if session.json:
        rows = [
            {
                "iova": f"{leaf.iova:#x}",
                "size": leaf.size,
                "gpa": f"{leaf.pa:#x}",
                "prot": leaf.prot.replace("p", ""),
                "privileged": "p" in leaf.prot,
            }
            for leaf in mappings
        ]
        session.document(table, {"mappings": rows, "slots": bound})
        return
    out = session.out
    out.line(("name", table.name), ("", f"  id {table.id}"))
    out.pairs(
        [
            *([("label", table.label)] if table.label else []),
            ("parent", table.parent.name),
            ("format", table.format),
            ("root", f"GPA {table.root:#x}"),
            ("pool", f"GPA {table.pool:#x}..{table.pool + table.pool_size - 1:#x}"),
            ("mappings", str(len(mappings))),
            ("bindings", str(len(bound))),
        ]
    )
    if mappings:
        out.line()
        out.table(
            [Column("IOVA", "address"), Column("SIZE"), Column("GPA", "address"), Column("PROT")],
            [
                [f"{leaf.iova:#x}", numbers.unit(leaf.size), f"{leaf.pa:#x}", leaf.prot.replace("p", " privileged")]
                for leaf in mappings
            ],
        )
    if bound:
        out.line()
        out.tree(
            Node([("rid", str(held.slot)), *([("dim", f'  "{held.label}"')] if held.label else [])]) for held in bound
        )


@app.command("destroy")
def destroy(ctx: typer.Context, name: PgtableName, force: Force = False) -> None:
    """Destroy a page table; its pool is free again. Refused while it is bound."""
    session = session_of(ctx)
    table = session.iommu.pgtable_destroy(name, force=force)
    session.changed(f"{table.name}: destroyed", table)


def _ranges(pages: Iterable["Leaf"]) -> list["Leaf"]:
    """Pages that continue each other, as one."""
    ranges: list[Leaf] = []
    for page in pages:
        last = ranges[-1] if ranges else None
        if last and (last.iova + last.size, last.pa + last.size, last.prot) == (page.iova, page.pa, page.prot):
            ranges[-1] = last._replace(size=last.size + page.size)
        else:
            ranges.append(page)
    return ranges

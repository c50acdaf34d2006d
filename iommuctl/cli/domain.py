# SPDX-License-Identifier: Apache-2.0
"""`iommuctl domain`: kernel-managed I/O page tables."""

from typing import Annotated, Any, Literal

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief, DomainName, Force, Iova, Label, Prot, Size
from iommuctl.cli.render import Column, memory_place
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import Usage
from iommuctl.model import Domain, Mapping

EXAMPLES = """
iommuctl domain create domain1 --label "the host's own DMA"
# vm1's guest memory: GPA 0..1 GiB at PA 0x80000000; page tables of the guest can nest on it
iommuctl domain create domain2 --nest-parent
iommuctl domain map domain2 --iova 0 --size 1G --pa 0x80000000
iommuctl domain map domain1 --iova 0x100000 --size 64K --memory buffers+4K --prot r
iommuctl domain list
iommuctl domain show domain2
iommuctl domain unmap domain1 --iova 0x100000 --size 64K
iommuctl domain destroy domain1 --force
# real hardware: what do devices write?
iommuctl domain create domain3 --dirty
iommuctl domain dirty domain3 on
iommuctl domain dirty domain3 read
iommuctl domain dirty domain3 off
"""

app = module_app(
    "Domains: kernel-managed I/O page tables.\n\nA change of a domain is seen by every slot that uses it.", EXAMPLES
)


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new domain.", show_default=False)],
    *,
    nest_parent: Annotated[bool, typer.Option("--nest-parent", help="Page tables can be nested on it.")] = False,
    width: Annotated[
        int | None,
        typer.Option("--width", metavar="BITS", parser=numbers.number, help="Input address bits.", show_default=False),
    ] = None,
    page_sizes: Annotated[
        str | None,
        typer.Option("--page-sizes", metavar="4K,2M,1G", help="Use no other page sizes.", show_default=False),
    ] = None,
    dirty: Annotated[bool, typer.Option("--dirty", help="Track which pages devices wrote.")] = False,
    label: Label = None,
) -> None:
    """Create an empty domain."""
    session = session_of(ctx)
    sizes = numbers.page_sizes(page_sizes) if page_sizes is not None else None
    domain = session.iommu.domain_create(
        name, nest_parent=nest_parent, width=width, page_sizes=sizes, dirty=dirty, label=label
    )
    session.changed(f"{domain.name}: created{_kind(domain)}, id {domain.id}", *_parts(session, domain))


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the domains."""
    session = session_of(ctx)
    domains = session.iommu.domains()
    if session.json:
        session.document({"domains": domains})
    elif brief:
        session.out.lines(domain.name for domain in domains)
    else:
        columns = [Column("NAME", "name"), Column("ID"), Column("NEST PARENT"), Column("WIDTH"), Column("PAGES")]
        session.out.table(
            [*columns, Column("LABEL")],
            [
                [
                    domain.name,
                    str(domain.id),
                    "yes" if domain.nest_parent else "no",
                    str(domain.width),
                    _sizes(domain),
                    domain.label or "",
                ]
                for domain in domains
            ],
            empty="no domains",
        )


@app.command("show")
def show(ctx: typer.Context, name: DomainName) -> None:
    """Show a domain: its aperture, its mappings and the slots that it is in."""
    session = session_of(ctx)
    iommu = session.iommu
    with iommu.reading():
        domain = iommu.domain(name)
        mappings, slots = iommu.mappings(name), iommu.slots(domain=name)
        ranges, real = iommu.ranges(name), iommu.is_real
    if session.json:
        apertures, reserved = ([[f"{end:#x}" for end in each] for each in part] for part in ranges)
        # A simulated machine has one range, without a hole; of real ones there may be several.
        session.document(
            *_parts(session, domain),
            {"aperture": apertures if real else apertures[0], "reserved": reserved},
            {"mappings": mappings, "slots": slots},
        )
        return
    from iommuctl.cli.topology import slots_of_domain

    out = session.out
    out.line(("name", domain.name), ("", f"  id {domain.id}{_kind(domain)}"))
    out.pairs(
        [
            *([("label", domain.label)] if domain.label else []),
            ("backend", iommu.backend_name or ""),
            *[("aperture", _aperture(first, last)) for first, last in ranges.aperture],
            *[("reserved", f"{first:#x}..{last:#x}") for first, last in ranges.reserved],
            ("page sizes", _sizes(domain)),
            ("mappings", str(len(mappings))),
            ("slots", str(len(slots))),
        ]
    )
    if mappings:
        out.line()
        out.table(
            [Column("IOVA", "address"), Column("LAST"), Column("SIZE"), Column("TO", "address"), Column("PROT")],
            [
                [
                    f"{mapping.iova:#x}",
                    f"{mapping.iova + mapping.size - 1:#x}",
                    numbers.unit(mapping.size),
                    _target(mapping),
                    mapping.prot,
                ]
                for mapping in mappings
            ],
        )
    if slots:
        out.line()
        out.tree(slots_of_domain(slots))


@app.command("destroy")
def destroy(ctx: typer.Context, name: DomainName, force: Force = False) -> None:
    """Destroy a domain with all its mappings.

    Refused while it is attached somewhere or page tables are nested on it.
    """
    session = session_of(ctx)
    domain = session.iommu.domain_destroy(name, force=force)
    session.changed(f"{domain.name}: destroyed", *_parts(session, domain))


@app.command("map")
def map_(
    ctx: typer.Context,
    name: DomainName,
    *,
    iova: Iova,
    size: Size,
    pa: Annotated[
        int | None,
        typer.Option("--pa", metavar="A", parser=numbers.number, help="Physical address.", show_default=False),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="MEM[+OFFSET]", help="Named memory.", show_default=False)
    ] = None,
    prot: Prot = "rw",
) -> None:
    """Map a range of input addresses; every slot that uses the domain sees it at once."""
    session = session_of(ctx)
    if (pa is None) == (memory is None):
        raise Usage(
            "a mapping needs either --pa or --memory",
            because="one of them is needed" if pa is None else "both are given",
        )
    place, offset = numbers.memory_place(memory) if memory is not None else (None, 0)
    mapping = session.iommu.map(name, iova=iova, size=size, pa=pa, memory=place, offset=offset, prot=prot)
    last = mapping.iova + mapping.size - 1
    session.changed(
        f"{name}: mapped {mapping.iova:#x}..{last:#x} -> {_target(mapping)} {mapping.prot}", {"domain": name}, mapping
    )


@app.command("unmap")
def unmap(ctx: typer.Context, name: DomainName, *, iova: Iova, size: Size) -> None:
    """Unmap a range of whole mappings, and flush it from all caches."""
    session = session_of(ctx)
    mappings = session.iommu.unmap(name, iova=iova, size=size)
    count = "1 mapping" if len(mappings) == 1 else f"{len(mappings)} mappings"
    session.changed(
        f"{name}: unmapped {iova:#x}..{iova + size - 1:#x}, {count}",
        {"domain": name, "iova": f"{iova:#x}", "size": size, "mappings": mappings},
    )


@app.command("dirty")
def dirty(
    ctx: typer.Context,
    name: DomainName,
    action: Annotated[
        Literal["on", "off", "read"],
        typer.Argument(metavar="on|off|read", help="Begin, end, or say what was written.", show_default=False),
    ],
) -> None:
    """Track what devices write to a domain that was created with --dirty; real hardware only.

    `read` lists the ranges that were written since the last time, or since `on`, and forgets them.
    """
    session = session_of(ctx)
    if action != "read":
        session.iommu.dirty_tracking(name, on=action == "on")
        session.changed(f"{name}: dirty tracking is {action}", {"domain": name, "tracking": action == "on"})
        return
    found = session.iommu.read_dirty(name)
    if session.json:
        ranges = [{"iova": f"{iova:#x}", "size": size} for iova, size in found.ranges]
        session.changed("", {"domain": name, "granule": found.granule, "ranges": ranges})
        return
    count = "1 range" if len(found.ranges) == 1 else f"{len(found.ranges)} ranges"
    session.changed(f"{name}: {count} written since the last time, in units of {numbers.unit(found.granule)}")
    if found.ranges:
        session.out.table(
            [Column("IOVA", "address"), Column("LAST"), Column("SIZE")],
            [[f"{iova:#x}", f"{iova + size - 1:#x}", numbers.unit(size)] for iova, size in found.ranges],
        )


def _parts(session: Session, domain: Domain) -> tuple[Any, ...]:
    return domain, {"backend": session.iommu.backend_name}


def _aperture(first: int, last: int) -> str:
    bits = f" ({(last + 1).bit_length() - 1} bits)" if not first and not last & (last + 1) else ""
    return f"{first:#x}..{last:#x}{bits}"


def _kind(domain: Domain) -> str:
    return ", nest parent" if domain.nest_parent else ""


def _sizes(domain: Domain) -> str:
    return numbers.units(domain.page_sizes)


def _target(mapping: Mapping) -> str:
    if mapping.memory is None:
        return f"{mapping.pa:#x}"
    return memory_place(mapping.memory, mapping.offset)

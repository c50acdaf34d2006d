# SPDX-License-Identifier: Apache-2.0
"""`iommuctl table`: hardware structures by themselves, and the tables of a domain entry by entry."""

from typing import TYPE_CHECKING, Annotated

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief
from iommuctl.cli.render import Column, field_list
from iommuctl.cli.session import Session, session_of

if TYPE_CHECKING:
    from iommuctl.formats.format import Entry

EXAMPLES = """
iommuctl table list
# words of 64 bits, lowest first; what is missing is zero
iommuctl table decode vtd.pasid-entry 0x8000001000c9 0x1
iommuctl table decode smmuv3.ste 0x9 0x100000000000
# as VT-d's revision 3 had it, with fields that are reserved now
iommuctl table decode vtd.pasid-entry 0x8000001000e9 0x1 --revision 3
# the bytes of a command, as `commands[].raw` has them
iommuctl invalidate domain2 -j | jq -r '.commands[0].raw'
# what is wrong with a structure, and which section says so
iommuctl table decode vtd.context-entry 0xd 0x0
# every present entry of a domain's tables; every structure of a device, from the root to its PASIDs
iommuctl table dump domain2
iommuctl table dump 0000:00:01.0
iommuctl table dump 0000:00:01.0 -j | jq -r '.entries[] | select(.problems != [])'
"""

app = module_app("Hardware structures, and tables entry by entry.", EXAMPLES)


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the structures that are known by name."""
    from iommuctl import plugins
    from iommuctl.inspect import decode as decoder

    session = session_of(ctx)
    known = plugins.structures()
    docs = {name: decoder.summary(layout) for name, layout in known.items()}
    if session.json:
        rows = [
            {"name": name, "bits": layout.bits, "revisions": sorted(layout.revisions), "doc": docs[name]}
            for name, layout in known.items()
        ]
        session.document({"structures": rows})
    elif brief:
        session.out.lines(known)
    else:
        session.out.table(
            [Column("STRUCTURE", "name"), Column("BITS"), Column("REVISIONS"), Column("WHAT IT IS")],
            [
                [name, str(layout.bits), ", ".join(map(str, sorted(layout.revisions))), docs[name]]
                for name, layout in known.items()
            ],
        )


@app.command("decode")
def decode(
    ctx: typer.Context,
    structure: Annotated[str, typer.Argument(metavar="STRUCTURE", help="A name of `table list`.", show_default=False)],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="HEX…",
            help="Words of 64 bits, lowest first; or 0x and all digits; or, without 0x, the bytes as in memory: all of"
            " them, or of two words and more.",
            show_default=False,
        ),
    ],
    revision: Annotated[
        int | None,
        typer.Option(
            "--revision",
            metavar="N",
            help="Revision of the specification, where they differ: 3 or 4 for VT-d. Default: the newest.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Decode the bits of a structure, field by field.

    Words and bytes that are missing at the end are zero. Reserved bits, values without a meaning and fields that do not
    go together are listed as problems, with the section of the specification; what hardware does not look at, as in an
    entry that is not present, is no problem.
    """
    from iommuctl.inspect import decode as decoder

    session = session_of(ctx)
    layout = decoder.find(structure, revision)
    found = decoder.decode(layout, decoder.parse(layout, words))
    if session.json:
        from iommuctl.cli import jsonout

        session.document(
            {
                "structure": found.structure,
                "revision": found.revision,
                "raw": [f"{word:#x}" for word in found.words],
                **jsonout.decoded(found),
            }
        )
        return
    out = session.out
    out.line(("name", found.structure), ("", f"  {decoder.summary(layout)}"))
    for first in range(0, len(found.words), 4):
        out.line(("dim", " ".join(f"{word:#018x}" for word in found.words[first : first + 4])))
    out.table(
        [Column("BITS", "dim"), Column("FIELD", "name"), Column("VALUE", "address"), Column("MEANING")],
        [
            [
                str(field.lsb) if field.msb == field.lsb else f"{field.msb}:{field.lsb}",
                field.name,
                f"{field.value:#x}",
                field.meaning,
            ]
            for field in found.fields
        ],
    )
    for problem in found.problems:
        out.line(("bad", "problem: "), ("", problem))


@app.command("dump")
def dump(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="DOMAIN|PGTABLE|RID", help="A domain, a page table, or a device.", show_default=False),
    ],
) -> None:
    """Dump what is present: all entries of a domain or page table, or the structures of a device.

    The addresses of a domain and of a device are physical; those of a page table are guest physical addresses of its
    parent. A device's structures are those between the root and its page tables. What is wrong is called out.
    """
    session = session_of(ctx)
    # Names of objects have no colon.
    if ":" in name and not name.startswith("id:"):
        _dump_device(session, name)
    else:
        _dump_table(session, name)


def _dump_device(session: Session, rid: str) -> None:
    from iommuctl.formats.checks import problems
    from iommuctl.inspect.decode import find

    entries = []
    for placed in session.iommu.device_structures(rid):
        layout = find(placed.step.structure)
        entries.append((placed, problems(layout, layout.from_words(placed.step.raw))))
    if session.json:
        from iommuctl.cli import jsonout

        session.document(
            {
                "entries": [
                    {
                        **jsonout.step(placed.step),
                        "depth": placed.depth,
                        "pasids": placed.pasids,
                        "problems": found,
                    }
                    for placed, found in entries
                ]
            }
        )
        return
    for placed, found in entries:
        indent = "  " * placed.depth
        session.out.line(
            ("", indent),
            ("address", f"{placed.step.address:#x}"),
            ("name", f"  {placed.step.structure}"),
            ("", f"  {_pasids(placed.pasids)}{field_list(placed.step.fields)}"),
        )
        for problem in found:
            session.out.line(("bad", f"{indent}problem: "), ("", problem))


def _pasids(pasids: tuple[int, int] | None) -> str:
    if pasids is None:
        return ""
    first, last = pasids
    return f"PASID {first}  " if first == last else f"PASIDs {first}..{last}  "


def _dump_table(session: Session, name: str) -> None:
    from iommuctl.formats.checks import cited

    with session.iommu.reading():
        visits = session.iommu.table_entries(name)
        fmt = session.iommu.table_format(name)
    layout = fmt.layout
    if session.json:
        session.document(
            {
                "entries": [
                    {
                        "structure": layout.name,
                        "level": fmt.numbered(visit.level),
                        "address": f"{visit.address:#x}",
                        "raw": f"{visit.raw:#x}",
                        "iova": f"{visit.iova:#x}",
                        "size": visit.size,
                        "kind": visit.entry.kind,
                        "to": f"{visit.entry.address:#x}",
                        "prot": visit.entry.prot,
                        "problems": [cited(layout, visit.entry.fault())] if visit.entry.kind == "reserved" else [],
                    }
                    for visit in visits
                ]
            }
        )
        return
    top = max((visit.level for visit in visits), default=1)
    width = max((len(f"{visit.iova:#x}") for visit in visits), default=0)
    for visit in visits:
        entry, bad = visit.entry, visit.entry.kind == "reserved"
        session.out.line(
            ("", "  " * (top - visit.level)),
            ("address", f"{visit.address:#x}"),
            ("", f"  level {fmt.numbered(visit.level)}  IOVA {visit.iova:<#{width}x} +{numbers.unit(visit.size):<4}  "),
            ("dim", f"{visit.raw:#018x}"),
            ("bad", f"  {cited(layout, entry.fault())}") if bad else ("", f"  {_meaning(entry)}"),
        )


def _meaning(entry: "Entry") -> str:
    to = "table" if entry.kind == "table" else "page"
    return f"{to} {entry.address:#x} {entry.prot.replace('p', ' privileged')}"

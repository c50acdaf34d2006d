# SPDX-License-Identifier: Apache-2.0
"""`iommuctl table`: hardware structures by themselves, and the tables of a domain entry by entry."""

from typing import Annotated

import typer

from iommuctl.cli import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief
from iommuctl.cli.render import Column
from iommuctl.cli.session import session_of

EXAMPLES = """
iommuctl table list
# words of 64 bits, lowest first; what is missing is zero
iommuctl table decode vtd.pasid-entry 0x8000001000c9 0x1
# as VT-d's revision 3 had it, with fields that are reserved now
iommuctl table decode vtd.pasid-entry 0x8000001000e9 0x1 --revision 3
# the bytes of a command, as `commands[].raw` has them
iommuctl invalidate domain2 -j | jq -r '.commands[0].raw'
# every present entry of a domain's tables
iommuctl table dump domain2
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
            help="Words of 64 bits, lowest first; or 0x and all digits; or, without 0x, bytes as in memory.",
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

    Words and bytes that are missing at the end are zero. Bits that must not be set are listed as problems.
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
        str, typer.Argument(metavar="DOMAIN|PGTABLE", help="A domain or a page table.", show_default=False)
    ],
) -> None:
    """Dump every present entry of the tables of a domain or page table, with its address.

    The addresses of a domain are physical; those of a page table are guest physical addresses of its parent.
    """
    session = session_of(ctx)
    visits = session.iommu.table_entries(name)
    if session.json:
        session.document(
            {
                "entries": [
                    {
                        "level": visit.level,
                        "address": f"{visit.address:#x}",
                        "raw": f"{visit.raw:#x}",
                        "iova": f"{visit.iova:#x}",
                        "size": visit.size,
                        "kind": visit.entry.kind,
                        "to": f"{visit.entry.address:#x}",
                        "prot": visit.entry.prot,
                    }
                    for visit in visits
                ]
            }
        )
        return
    top = max((visit.level for visit in visits), default=1)
    width = max((len(f"{visit.iova:#x}") for visit in visits), default=0)
    for visit in visits:
        reserved = visit.entry.kind == "reserved"
        session.out.line(
            ("", "  " * (top - visit.level)),
            ("address", f"{visit.address:#x}"),
            ("", f"  level {visit.level}  IOVA {visit.iova:<#{width}x} +{numbers.unit(visit.size):<4}  "),
            ("dim", f"{visit.raw:#018x}"),
            ("bad" if reserved else "", f"  {_meaning(visit.entry.kind, visit.entry.address, visit.entry.prot)}"),
        )


def _meaning(kind: str, address: int, prot: str) -> str:
    if kind == "reserved":
        return "reserved bits are set"
    return f"{'table' if kind == 'table' else 'page'} {address:#x} {prot.replace('p', ' privileged')}"

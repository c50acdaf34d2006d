# SPDX-License-Identifier: Apache-2.0
"""`iommuctl sim`: what only a simulated machine can do."""

from typing import Annotated

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Pasid, RidText
from iommuctl.cli.render import Output, field_list
from iommuctl.cli.session import Session, session_of
from iommuctl.cli.translate import Address, fault_sentence
from iommuctl.errors import Usage
from iommuctl.model import DmaResult

EXAMPLES = """
# a machine with 4 GiB of RAM at 0, its tables in the last 64 MiB
iommuctl sim init --arch vtd --ram 0+4G --tables 0xfc000000+64M
# an SMMUv3; options are idr0, idr1, idr3, idr5 and mpamidr, its identification registers
iommuctl sim init --arch smmuv3
# a unit of VT-d in legacy mode; other options are haw, cap and ecap
iommuctl sim init --option mode=legacy
iommuctl sim show
iommuctl sim write 0x40001000 68656c6c6f
iommuctl sim dma 0000:00:01.0 0x1000 --read --size 5
iommuctl sim dma 0000:00:01.0 0x1000 --write --data 00ff12 --pasid 1
# by a device that translates addresses itself (added with --ats)
iommuctl sim dma 0000:00:01.0 0x1000 --read --size 5 --translated
iommuctl sim read 0x40001000 16
iommuctl sim reset
"""

app = module_app("The simulated machine: DMA at will, memory, registers.", EXAMPLES)

PhysicalAddress = Annotated[
    int, typer.Argument(metavar="PA", parser=numbers.number, help="Physical address.", show_default=False)
]


@app.command("init")
def init(
    ctx: typer.Context,
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="ARCH", help="Architecture of its IOMMU; default vtd.", show_default=False),
    ] = None,
    ram: Annotated[
        str | None, typer.Option("--ram", metavar="A+S", help="Where its RAM is.", show_default=False)
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option("--tables", metavar="A+S", help="The part of RAM for the IOMMU's tables.", show_default=False),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="A detail of the IOMMU; repeatable.", show_default=False),
    ] = None,
) -> None:
    """Make a simulated machine, in a state folder that has no objects yet."""
    session = session_of(ctx)
    session.simulate()
    session.iommu.setup(
        architecture=arch,
        ram=numbers.byte_range(ram) if ram is not None else None,
        tables=numbers.byte_range(tables) if tables is not None else None,
        options=_options(option or []),
    )
    if session.dry_run:
        session.changed("a machine could be made")
        return
    _report(session, "made")


@app.command("show")
def show(ctx: typer.Context) -> None:
    """Show the machine: its memory, the IOMMU's registers, how full its caches are."""
    session = session_of(ctx)
    session.simulate()
    machine = session.iommu.describe()
    memory, registers, caches = machine["memory"], machine["registers"], machine["caches"]
    if session.json:
        session.document(
            {
                **machine,
                "memory": {
                    **memory,
                    "base": f"{memory['base']:#x}",
                    "tables": {**memory["tables"], "base": f"{memory['tables']['base']:#x}"},
                },
                "registers": {name: f"{value:#x}" for name, value in registers.items()},
            }
        )
        return
    out = session.out
    out.pairs(
        [
            ("architecture", machine["arch"]),
            ("memory file", memory["file"]),
            ("RAM", _extent(memory)),
            ("tables", _extent(memory["tables"])),
        ]
    )
    out.line()
    out.pairs([(name, f"{value:#x}") for name, value in registers.items()])
    out.line()
    out.pairs([(f"cache {name}", f"{count} entries") for name, count in caches.items()])


@app.command("reset")
def reset(ctx: typer.Context) -> None:
    """Make the machine new: no device, no domain, memory and caches empty."""
    session = session_of(ctx)
    session.iommu.reset()
    session.changed("the machine is as new: no device, no domain, memory is zero")


@app.command("dma")
def dma(
    ctx: typer.Context,
    rid: RidText,
    iova: Address,
    *,
    read: Annotated[bool, typer.Option("--read", help="The device reads --size bytes.")] = False,
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="S", parser=numbers.size, help="Bytes to read.", show_default=False),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="The device writes --data.")] = False,
    data: Annotated[
        str | None, typer.Option("--data", metavar="HEX", help="Bytes to write, as in memory.", show_default=False)
    ] = None,
    pasid: Pasid = None,
    privileged: Annotated[
        bool, typer.Option("--privileged", help="As a privileged request; PCIe has them with PASID only.")
    ] = False,
    translated: Annotated[
        bool, typer.Option("--translated", help="The device translates by itself, in its own TLB (ATS).")
    ] = False,
) -> None:
    """Have a device do a DMA, through the caches as hardware does. Exits 1 when it faults.

    When a cache answers what the tables do not say any more, the DMA is stale: the answer names what changed and the
    invalidations that are missing. The exit code does not tell: look at `stale` of -j.
    """
    session = session_of(ctx)
    if read == write or (read and data is not None) or (write and size is not None):
        raise Usage("a DMA reads or writes", hint="give --read --size S, or --write --data HEX")
    if (read and size is None) or (write and data is None):
        raise Usage(f"{'--size' if read else '--data'} is missing", hint="give --read --size S, or --write --data HEX")
    payload = numbers.hex_data(data) if data is not None else None
    result = session.iommu.dma(
        rid, iova, size=size, data=payload, pasid=pasid, privileged=privileged, translated=translated
    )
    if session.json:
        session.changed(
            "",
            {
                "ok": result.fault is None,
                "pieces": [
                    {"iova": f"{piece.iova:#x}", "pa": f"{piece.pa:#x}", "size": piece.size} for piece in result.pieces
                ],
                "data": result.data.hex() if read else None,
                "fault": result.fault,
                "stale": result.stale,
                "changed": result.changed,
                "missing": result.missing,
                "iotlb": {"hits": result.hits, "misses": result.misses},
                "device_tlb": {"hits": result.device_hits, "misses": result.device_misses},
            },
        )
    elif not session.quiet:
        out = session.out
        for piece in result.pieces:
            what = "read" if read else "wrote"
            arrow = "<-" if read else "->"
            out.line(
                ("", f"{what} {numbers.human(piece.size)}: "),
                ("address", f"{piece.iova:#x} {arrow} {piece.pa:#x}"),
            )
        if translated:
            out.line(("dim", f"device TLB: {_hits(result.device_hits, result.device_misses)}"))
        if result.hits or result.misses:
            out.line(("dim", f"IOTLB: {_hits(result.hits, result.misses)}"))
        show_stale(out, result)
        if result.fault:
            out.line(("bad", "fault "), ("", fault_sentence(result.fault)))
        if read:
            out.hexdump(result.data, iova)
        if session.dry_run:
            out.line(("dim", "dry run: nothing was written, and no cache was filled"))
            out.outcome(session.iommu.last, dry_run=True)
    if result.fault:
        raise typer.Exit(1)


@app.command("read")
def read_(
    ctx: typer.Context,
    pa: PhysicalAddress,
    size: Annotated[
        int, typer.Argument(metavar="SIZE", parser=numbers.size, help="Bytes, as 64 or 4K.", show_default=False)
    ],
) -> None:
    """Read the machine's memory, as the processor sees it."""
    session = session_of(ctx)
    data = session.iommu.read_memory(pa, size)
    if session.json:
        session.document({"pa": f"{pa:#x}", "size": size, "data": data.hex()})
    else:
        session.out.hexdump(data, pa)


@app.command("write")
def write_(
    ctx: typer.Context,
    pa: PhysicalAddress,
    data: Annotated[
        str, typer.Argument(metavar="HEX", help="Bytes as in memory, for example 00ff12.", show_default=False)
    ],
) -> None:
    """Write to the machine's memory, as the processor does. No cache notices."""
    session = session_of(ctx)
    payload = numbers.hex_data(data)
    session.iommu.write_memory(pa, payload)
    session.changed(f"wrote {numbers.human(len(payload))} to {pa:#x}", {"pa": f"{pa:#x}", "size": len(payload)})


def _report(session: Session, done: str) -> None:
    machine = session.iommu.describe()
    memory = machine["memory"]
    session.changed(
        f"{machine['arch']} machine {done}, RAM {_extent(memory)}, tables {_extent(memory['tables'])}",
        {"arch": machine["arch"], "file": memory["file"]},
    )


def _extent(place: dict[str, int]) -> str:
    return f"{place['base']:#x}..{place['base'] + place['size'] - 1:#x} ({numbers.human(place['size'])})"


def show_stale(out: Output, result: DmaResult) -> None:
    """What made a DMA go where the tables do not lead any more, and what would have prevented it."""
    if not result.stale:
        return
    caches = " and ".join(dict.fromkeys(each.cache for each in result.changed)) or "a cache"
    out.line(("bad", "stale: "), ("", f"{caches} answered, and the tables say something else"))
    # Caches that hold the same entry as it was are one line: the caches are named above.
    for structure, address, table, operation in dict.fromkeys(
        (each.structure, each.address, each.table, each.operation) for each in result.changed
    ):
        by = f", last by `{operation}`" if operation else ""
        out.line(("", "  changed  "), ("name", structure), ("address", f" {address:#x}"), ("", f" of {table}{by}"))
    for command in result.missing:
        out.line(("", "  missing  "), ("name", command.name), ("", f"  {field_list(command.fields)}"))


def _hits(hits: int, misses: int) -> str:
    return f"{_times(hits, 'hit')}, {_times(misses, 'miss', 'misses')}"


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _options(texts: list[str]) -> dict[str, str]:
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise Usage(f"{text!r} is not an option", hint="write --option KEY=VALUE")
        options[key] = value
    return options

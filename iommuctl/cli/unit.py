# SPDX-License-Identifier: Apache-2.0
"""`iommuctl unit`: the IOMMUs of the machine, their capabilities and registers in words."""

from typing import TYPE_CHECKING, Annotated

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief
from iommuctl.cli.render import Column, Node
from iommuctl.cli.session import session_of

if TYPE_CHECKING:
    from iommuctl.formats.bits import Layout
    from iommuctl.inspect.decode import Decoded

EXAMPLES = """
iommuctl unit list
# what it can do and what it is doing, then its registers, field by field
iommuctl unit show sim0
iommuctl unit show sim0 -j | jq -r '.words.nesting, .registers.ECAP.fields.NEST'
# a simulated unit with registers of your choice
iommuctl sim init --option ecap=0x480080000f42 && iommuctl unit show sim0
"""

app = module_app("IOMMU units: what each can do, and is doing.", EXAMPLES)


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the IOMMU units of the machine."""
    session = session_of(ctx)
    units = session.iommu.units()
    if session.json:
        session.document({"units": [{"name": unit.name, "architecture": unit.architecture} for unit in units]})
    elif brief:
        session.out.lines(unit.name for unit in units)
    else:
        session.out.table(
            [Column("UNIT", "name"), Column("ARCHITECTURE")],
            [[unit.name, unit.architecture] for unit in units],
            empty="no units",
        )


@app.command("show")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="UNIT", help="A name of `unit list`.", show_default=False)],
) -> None:
    """Show a unit: its capabilities and its state in words, then its registers.

    Of each register those fields that are not zero. Hardware may give a few of its registers only.
    """
    from iommuctl import plugins

    session = session_of(ctx)
    unit = session.iommu.unit(name)
    architecture = plugins.architecture(unit.architecture)
    words = dict(architecture.unit_words(unit.registers)) | dict(unit.words)
    registers = [
        (name, value, _explained(architecture.register_layout(name), value)) for name, value in unit.registers.items()
    ]
    if session.json:
        from iommuctl.cli import jsonout

        session.document(
            {
                "name": unit.name,
                "architecture": unit.architecture,
                "words": words,
                "registers": {
                    name: {"value": f"{value:#x}", **jsonout.decoded(found)} for name, value, found in registers
                },
            }
        )
        return
    out = session.out
    out.line(("name", unit.name), ("", f"  {unit.architecture}"))
    out.pairs(list(words.items()))
    out.line()
    out.tree(_register(name, value, found) for name, value, found in registers)


def _explained(layout: "type[Layout] | None", value: int) -> "Decoded":
    from iommuctl.inspect import decode

    return decode.decode(layout, value) if layout else decode.Decoded("", None, (value,), (), ())


def _register(name: str, value: int, found: "Decoded") -> Node:
    """A register with its fields that are not zero, and what is wrong with it."""
    fields = [field for field in found.fields if field.value]
    names = max((len(field.name) for field in fields), default=0)
    values = max((len(f"{field.value:#x}") for field in fields), default=0)
    lines = [
        Node(
            [
                ("name", f"{field.name:<{names}}"),
                ("address", f"  {field.value:<#{values}x}"),
                ("", f"  {field.meaning}"),
            ]
        )
        for field in fields
    ]
    problems = [Node([("bad", "problem: "), ("", problem)]) for problem in found.problems]
    return Node([("name", name), ("address", f"  {value:#x}")], [*lines, *problems])

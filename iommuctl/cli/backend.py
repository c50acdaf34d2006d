# SPDX-License-Identifier: Apache-2.0
"""`iommuctl backend`: what can drive an IOMMU here, and what it declares."""

from typing import Annotated, Any

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief
from iommuctl.cli.render import Column
from iommuctl.cli.session import Session, session_of

EXAMPLES = """
iommuctl backend list
iommuctl backend show sim
iommuctl backend show sim -j | jq .capabilities.nesting
"""

app = module_app("Backends: what can drive an IOMMU here.", EXAMPLES)


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the backends that are installed, and whether each works here."""
    from iommuctl import plugins

    session = session_of(ctx)
    found = plugins.backend_list()
    if session.json:
        rows = [{**each._asdict(), "api": _version(each.api)} for each in found]
        session.document({"backends": rows})
    elif brief:
        session.out.lines(each.name for each in found)
    else:
        columns = [Column("NAME", "name"), Column("AVAILABLE"), Column("ARCHITECTURE"), Column("API")]
        session.out.table(
            [*columns, Column("BECAUSE")],
            [
                [
                    each.name,
                    "yes" if each.available else "no",
                    each.architecture or "",
                    _version(each.api),
                    each.because,
                ]
                for each in found
            ],
        )


@app.command("show")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="BACKEND", help="A name of `backend list`.", show_default=False)],
) -> None:
    """Show what a backend declares: what it can do, and its limits.

    For the backend of the state folder the answer is about this folder, otherwise about a new one.
    """
    session = session_of(ctx)
    capabilities = _capabilities(session, name)
    flags, limits = capabilities.flags(), capabilities.limits()
    if session.json:
        session.document({"name": name, "capabilities": flags, "limits": limits})
        return
    session.out.line(("name", name))
    session.out.pairs([(key.replace("_", " "), _words(key, value)) for key, value in {**flags, **limits}.items()])


def _capabilities(session: Session, name: str) -> Any:
    if session.iommu.backend_name == name:
        return session.iommu.capabilities()
    from iommuctl.iommu import Iommu

    return Iommu.declared(name)


def _version(api: tuple[int, int]) -> str:
    return f"{api[0]}.{api[1]}"


def _words(key: str, value: Any) -> str:
    if key == "page_sizes":
        return numbers.units(value)
    if key == "granules":
        return " or ".join(map(numbers.units, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_item, value)) or "none"
    return str(value)


def _item(value: object) -> str:
    """A range of addresses, or a word."""
    match value:
        case [str(first), str(last)]:
            return f"{first}..{last}"
        case _:
            return str(value)

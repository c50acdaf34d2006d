# SPDX-License-Identifier: Apache-2.0
"""`iommuctl fault handler`: who answers page requests."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iommuctl import numbers
from iommuctl.cli.command import Command, module_app
from iommuctl.cli.params import Pasid
from iommuctl.cli.render import Column
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import Usage
from iommuctl.handlers import Handler, HandlerKind, HandlerOf, Pages
from iommuctl.model import Rid, Slot

if TYPE_CHECKING:
    from iommuctl.model import Occupant

EXAMPLES = """
# pages of named memory, for all slots of a domain
iommuctl fault handler set domain1 --demand-map --from buffers
# guest memory, for a slot that has a page table
iommuctl fault handler set 0000:00:01.0 --pasid 3 --demand-map --from 0x600000+64K
# a program for each group: what follows --exec is its own
iommuctl fault handler set 0000:00:01.0 --pasid 4 --exec jq -n '{response: "invalid"}'
iommuctl fault handler set 0000:00:02.0 --queue
iommuctl fault handler show
iommuctl fault handler clear domain1
"""

_RANGE = re.compile(r"[0-9]\w*(\+|\.\.)", re.ASCII)
"""How a range begins: names begin with a digit, too, but have neither + nor two dots."""

app = module_app("Handlers: who answers the page requests of a slot, or of all slots of a domain.", EXAMPLES)

Owner = Annotated[str, typer.Argument(metavar="DOMAIN|RID", help="A domain, or a device.", show_default=False)]


class _EndsWithProgram(Command):
    """A command whose option --exec takes all words that follow."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        plain = args[: args.index("--")] if "--" in args else args
        if "--exec" in plain:
            at = plain.index("--exec") + 1
            args = [*args[:at], "--", *args[at:]]
        return super().parse_args(ctx, args)


@app.command("set", cls=_EndsWithProgram)
def set_(
    ctx: typer.Context,
    owner: Owner,
    program: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROGRAM…", help="After --exec: the program and its arguments.", show_default=False),
    ] = None,
    *,
    pasid: Pasid = None,
    queue: Annotated[bool, typer.Option("--queue", help="They wait for `fault respond`.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="They are answered invalid.")] = False,
    exec_: Annotated[
        bool, typer.Option("--exec", help="A program answers each group; all that follows is its.")
    ] = False,
    demand_map: Annotated[bool, typer.Option("--demand-map", help="The pages are mapped to those of --from.")] = False,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MEM|A+S", help="Named memory; a range of guest or physical memory.", show_default=False
        ),
    ] = None,
) -> None:
    """Say who answers page requests of a slot, or of all slots of a domain that have no handler of their own.

    `fault run` carries it out, all but --queue. --exec: a process for each group, which gets a JSON document on stdin:
    id, rid, pasid, domain, pgtable, pgtable_name, kind, requests[]. It prints {"response": "success"}, "invalid" or
    "failure"; anything else is answered invalid. IOMMUCTL_STATE is set for it. --demand-map: pages of named memory or
    of a range, one after the other, are mapped read-write in the domain; where the slot holds a page table, --from is
    guest memory, and the pages are mapped there. On real hardware a slot that had no handler gets a new table in place
    of its own.
    """
    session = session_of(ctx)
    chosen: dict[HandlerKind, bool] = {"queue": queue, "reject": reject, "exec": exec_, "demand-map": demand_map}
    kinds = [kind for kind, given in chosen.items() if given]
    if len(kinds) != 1:
        raise Usage(
            "a handler is of one kind",
            because="none is given" if not kinds else f"{' and '.join(f'--{kind}' for kind in kinds)} are given",
            hint="--queue, --reject, --exec PROGRAM or --demand-map --from MEM|A+S",
        )
    if program and not exec_:
        raise Usage(f"{program[0]!r} stands for nothing", hint="a program follows --exec")
    if exec_ and not program:
        raise Usage("--exec without a program")
    if demand_map != (from_ is not None):
        raise Usage("--demand-map and --from go together", because="pages are mapped, and taken from somewhere")
    handler = Handler(kinds[0], tuple(program or ()), _pages(session, from_) if from_ is not None else None)
    replaced = session.iommu.handler_set(owner, handler, pasid=pasid)
    where, place = _whose(owner, pasid)
    told, slots = _replaced(replaced)
    session.changed(f"{where}: page requests are answered by {kinds[0]}{told}", place, _document(handler), slots)


@app.command("clear")
def clear(ctx: typer.Context, owner: Owner, *, pasid: Pasid = None) -> None:
    """Take a handler away: nobody answers then, unless the domain of the slot has a handler."""
    session = session_of(ctx)
    replaced = session.iommu.handler_clear(owner, pasid=pasid)
    where, place = _whose(owner, pasid)
    told, slots = _replaced(replaced)
    session.changed(f"{where}: no handler of page requests{told}", place, {"kind": None}, slots)


@app.command("show")
def show(
    ctx: typer.Context,
    owner: Annotated[
        str | None, typer.Argument(metavar="DOMAIN|RID", help="Only those of this one.", show_default=False)
    ] = None,
    *,
    pasid: Pasid = None,
) -> None:
    """Show the handlers: those of domains, then those of slots, and how much of their pages is in use."""
    session = session_of(ctx)
    with session.iommu.reading():
        found = _of(session, owner, pasid, session.iommu.handlers())
    if session.json:
        session.document({"handlers": [handler_of(each) for each in found]})
        return
    session.out.table(
        [Column("OF", "name"), Column("KIND"), Column("WHAT")],
        [[each.domain or str(each.slot), each.handler.kind, _words(each.handler)] for each in found],
        empty="no handlers",
    )


def handler_of(found: HandlerOf) -> dict[str, Any]:
    """A handler, and whose it is, as JSON."""
    slot = found.slot
    return {
        "domain": found.domain,
        "rid": str(slot.rid) if slot else None,
        "pasid": slot.pasid if slot else None,
        **_document(found.handler),
    }


def _document(handler: Handler) -> dict[str, Any]:
    pages = handler.pages
    return {
        "kind": handler.kind,
        "program": list(handler.program),
        "from": pages
        and {"memory": pages.memory, "start": f"{pages.start:#x}", "size": pages.size, "used": pages.used},
    }


def _words(handler: Handler) -> str:
    if handler.pages:
        memory, start, size, used = handler.pages
        place = memory or f"{start:#x}+{size:#x}"
        return f"{place}, {numbers.human(used) if used else 'nothing'} of {numbers.human(size)} in use"
    import shlex

    return shlex.join(handler.program)


def _pages(session: Session, text: str) -> Pages:
    if _RANGE.match(text):
        return Pages(None, *numbers.byte_range(text))
    memory = session.iommu.memory(text)
    return Pages(memory.name, 0, memory.size)


def _of(session: Session, owner: str | None, pasid: int | None, found: list[HandlerOf]) -> list[HandlerOf]:
    if owner is None:
        if pasid is not None:
            raise Usage("a PASID without its device", hint="give the RID")
        return found
    if _is_rid(owner):
        rid: Rid = session.iommu.device(owner).rid
        slots = [each for each in found if each.slot and each.slot.rid == rid]
        return [each for each in slots if each.slot == Slot(rid, pasid)] if pasid is not None else slots
    name = session.iommu.domain(owner).name
    return [each for each in found if each.domain == name]


def _whose(owner: str, pasid: int | None) -> tuple[str, dict[str, Any]]:
    """Slot or domain in words, and as JSON."""
    if _is_rid(owner):
        slot = Slot(Rid.parse(owner), pasid)
        return str(slot), {"domain": None, **_place(slot)}
    return owner, {"domain": owner, "rid": None, "pasid": None}


def _replaced(slots: "list[Occupant]") -> tuple[str, dict[str, Any]]:
    names = ", ".join(str(each.slot) for each in slots)
    told = f"; a new table is in {names} in place of the old one" if slots else ""
    return told, {"replaced": [_place(each.slot) for each in slots]}


def _place(slot: Slot) -> dict[str, Any]:
    return {"rid": str(slot.rid), "pasid": slot.pasid}


def _is_rid(owner: str) -> bool:
    return ":" in owner and not owner.startswith("id:")

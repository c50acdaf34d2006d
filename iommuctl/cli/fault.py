# SPDX-License-Identifier: Apache-2.0
"""`iommuctl fault`: requests of devices that were refused, and page requests that wait for an answer."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from iommuctl.cli import fault_handler, fault_run, fault_watch
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief
from iommuctl.cli.render import Column, safe
from iommuctl.cli.session import session_of
from iommuctl.model import Slot

if TYPE_CHECKING:
    from iommuctl.architecture import PageRequest
    from iommuctl.page_requests import PageGroup
    from iommuctl.recorded import Incomplete, KnownFault

EXAMPLES = """
iommuctl fault list
# the device may use the pages of group 7 now
iommuctl fault respond 7 success
# have what waits answered as handlers say (`fault handler set`); without --once also what comes
iommuctl fault run --once --jobs 8 --timeout 2
# what is there now; with --follow also what comes
iommuctl fault watch
# the records themselves, as `table decode` takes them
iommuctl fault list -j | jq -r '.faults[] | [.structure, .raw[]] | join(" ")'
"""

app = module_app("Faults: requests of devices that were refused, and page requests that wait for an answer.", EXAMPLES)


@app.command("respond")
def respond(
    ctx: typer.Context,
    id_: Annotated[int, typer.Argument(metavar="ID", help="The group, by its number in `fault list`.")],
    response: Annotated[Literal["success", "invalid", "failure"], typer.Argument(help="What the device is told.")],
) -> None:
    """Answer a group of page requests, for which its device waits.

    success: the pages can be used now, it may ask for them again. invalid: it may not use them. failure: nothing can be
    told, which the device takes for the end of all its page requests; not every backend has it. A group is answered
    once. What waits in a slot is answered invalid by itself when the slot changes.
    """
    session = session_of(ctx)
    group = session.iommu.respond(id_, response)
    session.changed(
        f"{group.slot}: page request group {id_} was answered {response}", {**page_group(group), "response": response}
    )


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the page requests that wait, and the faults that hardware recorded, the last one at the end.

    What is in the hardware's queues is taken out of them and kept in the state folder, so that it is listed again the
    next time. The same fault again is counted: that of the same slot, with the same code and access, in the same 4 KiB.
    LAST is when it was read, as records have no time. 1000 are kept. What was lost is said on stderr.
    """
    session = session_of(ctx)
    faults, incomplete, waiting = session.iommu.faults()
    if session.json:
        session.document(
            {
                "faults": [fault(each) for each in faults],
                "page_requests": [page_group(each) for each in waiting],
                "lost": [each._asdict() for each in incomplete],
            }
        )
        return
    for each in incomplete:
        for text in _missing(each):
            sys.stderr.write(f"warning: {safe(text)}\n")
    if brief:
        session.out.lines(str(key) for key in (*(each.id for each in waiting), *(each.id for each in faults)))
        return
    if waiting:
        session.out.table(
            [Column("ID"), Column("AGE"), Column("SLOT", "rid"), Column("PAGES", "address"), Column("ACCESS")],
            [_waiting_row(each) for each in waiting],
            empty="",
        )
        if not faults:
            return
        session.out.line()
    session.out.table(
        [
            Column("ID"),
            Column("LAST"),
            Column("SLOT", "rid"),
            Column("IOVA", "address"),
            Column("ACCESS"),
            Column("COUNT"),
            Column("FAULT"),
        ],
        [_row(each) for each in faults],
        empty="no faults",
    )


def fault(known: "KnownFault") -> dict[str, Any]:
    """A fault as JSON."""
    what = known.fault
    return {
        "id": known.id,
        "code": f"{what.code:#x}",
        "name": what.name,
        "reason": what.reason,
        "rid": what.rid,
        "pasid": what.pasid,
        "iova": None if what.iova is None else f"{what.iova:#x}",
        "access": what.access,
        "count": known.times,
        "first": timestamp(known.first),
        "last": timestamp(known.last),
        "source": known.source,
        "structure": what.structure or None,
        "raw": [f"{word:#x}" for word in what.raw],
    }


def page_group(group: "PageGroup") -> dict[str, Any]:
    """A group of page requests as JSON."""
    return {
        "id": group.id,
        "rid": group.slot.rid,
        "pasid": group.slot.pasid,
        "since": timestamp(group.since),
        "age": _age(group),
        "requests": [
            {"iova": f"{each.iova:#x}", "access": letters(each), "privileged": each.privileged}
            for each in group.requests
        ],
    }


def _waiting_row(group: "PageGroup") -> list[str]:
    pages = [f"{each.iova:#x}" for each in group.requests[:4]]
    if more := len(group.requests) - len(pages):
        pages.append(f"and {more} more")
    access = dict.fromkeys(letters(each) for each in group.requests)
    return [str(group.id), f"{_age(group)} s", str(group.slot), ", ".join(pages), ", ".join(access)]


def letters(request: "PageRequest") -> str:
    """What a device wants to do with a page, of r, w and x."""
    allowed = {"r": request.read, "w": request.write, "x": request.execute}
    return "".join(letter for letter, asked in allowed.items() if asked)


def _age(group: "PageGroup") -> int:
    return max(0, int(time.time()) - group.since)


def _row(known: "KnownFault") -> list[str]:
    what = known.fault
    return [
        str(known.id),
        timestamp(known.last),
        str(Slot(what.rid, what.pasid)),
        "-" if what.iova is None else f"{what.iova:#x}",
        what.access or "-",
        str(known.times),
        f"{what.code:#x} {what.name}: {what.reason}",
    ]


def _missing(source: "Incomplete") -> list[str]:
    from iommuctl.state.faults import KEPT

    told = []
    if source.lost:
        number = source.lost if source.exact else f"at least {source.lost}"
        told.append(f"events of {source.source} that were lost before they were read: {number}")
    if source.dropped:
        told.append(f"faults of {source.source} that made room for newer ones: {source.dropped} ({KEPT} are kept)")
    return told


def timestamp(seconds: int) -> str:
    """Seconds since 1970 as people and programs read them."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


app.command("run")(fault_run.run)
app.command("watch")(fault_watch.watch)
app.add_typer(fault_handler.app, name="handler")

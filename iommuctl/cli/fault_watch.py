# SPDX-License-Identifier: Apache-2.0
"""`iommuctl fault watch`: what IOMMUs tell, as it comes."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iommuctl.cli.render import Span
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import Usage
from iommuctl.model import Slot

if TYPE_CHECKING:
    from iommuctl.serving.watching import Told

DRIVERS = ("DMAR", "arm-smmu-v3", "AMD-Vi", "iommu")
"""What lines of the kernel's log begin with that drivers of IOMMUs wrote."""


def watch(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until interrupted.")] = False,
) -> None:
    """Show faults, page requests, how they were answered, and what the kernel's log has of IOMMUs.

    First what there is now: lines of the log, faults, page requests. An event on each line, with -j one JSON document.
    What is in the hardware's queues is taken out of them and kept, as by `fault list`. The log is left out where it
    cannot be read.
    """
    session = session_of(ctx)
    if follow and session.parent is not None:
        raise Usage("`fault watch --follow` stands in a batch", because="it ends when it is interrupted")
    from iommuctl.serving.watching import Watch

    with Watch(session.iommu, DRIVERS) as watching:
        for told in watching.follow(lambda: False) if follow else watching.look():
            _tell(session, told)


def _tell(session: Session, told: "Told") -> None:
    if session.json:
        from iommuctl.cli import jsonout

        jsonout.write([{"event": told.event}, _document(told)], one_line=True)
    else:
        session.out.line(*_line(told))
    sys.stdout.flush()


def _document(told: "Told") -> dict[str, Any]:
    from iommuctl.cli.fault import fault, page_group, timestamp
    from iommuctl.iommufd.kernel_log import Record
    from iommuctl.recorded import KnownFault

    what = told.what
    if isinstance(what, Record):
        return {"sequence": what.sequence, "text": what.text}
    if isinstance(what, KnownFault):
        return fault(what)
    if told.event == "page-request":
        return page_group(what)
    return {**page_group(what), "response": what.answer, "by": what.by, "answered": timestamp(what.answered)}


def _line(told: "Told") -> list[Span]:
    from iommuctl.cli.fault import letters, timestamp
    from iommuctl.iommufd.kernel_log import Record
    from iommuctl.recorded import KnownFault

    what = told.what
    if isinstance(what, Record):
        return [("dim", "kernel  "), ("", what.text)]
    if isinstance(what, KnownFault):
        known = what.fault
        where = "" if known.iova is None else f"  {known.iova:#x}"
        text = f"{where}  {known.access or '-'}  {known.code:#x} {known.name}: {known.reason}"
        again = f" ({what.times} times)" if what.times > 1 else ""
        return [
            ("bad", "fault"),
            ("", f"  {timestamp(what.last)}  "),
            ("rid", str(Slot(known.rid, known.pasid))),
            ("", text + again),
        ]
    if told.event == "answer":
        text = f"  group {what.id} was answered {what.answer} by {what.by}"
        return [("good", "answer"), ("", f"  {timestamp(what.answered)}  "), ("rid", str(what.slot)), ("", text)]
    pages = ", ".join(f"{each.iova:#x} {letters(each)}" for each in what.requests)
    return [
        ("key", "request"),
        ("", f"  {timestamp(what.since)}  "),
        ("rid", str(what.slot)),
        ("", f"  group {what.id}: {pages}"),
    ]

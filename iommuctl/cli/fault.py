# SPDX-License-Identifier: Apache-2.0
"""`iommuctl fault`: requests of devices that were refused."""

import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief
from iommuctl.cli.render import Column, safe
from iommuctl.cli.session import session_of
from iommuctl.model import Slot

if TYPE_CHECKING:
    from iommuctl.recorded import Incomplete, KnownFault

EXAMPLES = """
iommuctl fault list
# the records themselves, as `table decode` takes them
iommuctl fault list -j | jq -r '.faults[] | [.structure, .raw[]] | join(" ")'
"""

app = module_app("Faults: requests of devices that were refused.", EXAMPLES)


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the faults that hardware recorded, the last one at the end.

    What is in the hardware's queues is taken out of them and kept in the state folder, so that it is listed again the
    next time. The same fault again is counted: that of the same slot, with the same code and access, in the same 4 KiB.
    LAST is when it was read, as records have no time. 1000 are kept. What was lost is said on stderr.
    """
    session = session_of(ctx)
    faults, incomplete = session.iommu.faults()
    if session.json:
        session.document({"faults": [fault(each) for each in faults], "lost": [each._asdict() for each in incomplete]})
        return
    for each in incomplete:
        for text in _missing(each):
            sys.stderr.write(f"warning: {safe(text)}\n")
    if brief:
        session.out.lines(str(each.id) for each in faults)
        return
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
        "first": _time(known.first),
        "last": _time(known.last),
        "source": known.source,
        "structure": what.structure or None,
        "raw": [f"{word:#x}" for word in what.raw],
    }


def _row(known: "KnownFault") -> list[str]:
    what = known.fault
    return [
        str(known.id),
        _time(known.last),
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


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

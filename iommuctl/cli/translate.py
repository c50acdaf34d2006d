# SPDX-License-Identifier: Apache-2.0
"""`iommuctl translate`: where would this address go? The tables answer; no cache is asked."""

from typing import Annotated, Any, Literal

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Pasid, RidText
from iommuctl.cli.render import Output, field_list, memory_place
from iommuctl.cli.session import Session, session_of
from iommuctl.model import NO_PHYSICAL, Fault, Memory, Step, Translation

EXAMPLES = """
iommuctl translate 0000:00:01.0 0x1000
# a guest's process, through its page table and the parent domain, every entry on a line
iommuctl translate 0000:00:01.0 0x7f0000000000 --pasid 3 --access w
iommuctl translate 0000:00:01.0 0x1000 -j | jq -r '.pa // .fault.reason'
"""

app = module_app("Walk the tables: where would this address go?", EXAMPLES)

Address = Annotated[
    int, typer.Argument(metavar="IOVA", parser=numbers.number, help="Input address.", show_default=False)
]


@app.command("translate")
def translate(
    ctx: typer.Context,
    rid: RidText,
    iova: Address,
    *,
    pasid: Pasid = None,
    access: Annotated[
        Literal["r", "w", "x"], typer.Option("--access", metavar="r|w|x", help="Read, write or execute.")
    ] = "r",
    privileged: Annotated[
        bool, typer.Option("--privileged", help="Ask as a privileged request; PCIe has them with PASID only.")
    ] = False,
) -> None:
    """Walk the tables: where would this address go?

    Shows each entry that the hardware would read. No cache is asked or filled, nothing is marked accessed.
    An address that faults is an answer, too: the exit code is 0. On real hardware nobody can read the tables that the
    kernel manages: what they map is known, and named memory with an offset stands for where that lies.
    """
    session = session_of(ctx)
    with session.iommu.reading():
        answer = session.iommu.translate(rid, iova, pasid=pasid, access=access, privileged=privileged)
        place = _memory_at(session, answer.pa)
    if session.json:
        session.document(document(answer, place))
        return
    session.out.line(("rid", str(answer.slot)), ("", f"  IOVA {answer.iova:#x}  {access}"))
    show_steps(session.out, answer.steps)
    show_end(session.out, answer, place)


def show_steps(out: Output, steps: tuple[Step, ...]) -> None:
    """A line for each entry of a walk: what it is, where it lies, its words, the fields that are not zero.

    An entry that was shown before is dim.
    """
    name_width = max((len(step.structure) for step in steps), default=0)
    address_width = max((len(f"{step.address:#x}") for step in steps), default=0)
    seen = set()
    for step in steps:
        again = (step.structure, step.address) in seen
        seen.add((step.structure, step.address))
        words = step.raw
        while len(words) > 1 and not words[-1]:
            words = words[:-1]
        out.line(
            ("", "  "),
            ("dim" if again else "name", f"{step.structure:<{name_width}}"),
            ("dim" if again else "address", f"  {step.address:<#{address_width}x}"),
            ("dim", f"  {' '.join(f'{word:#x}' for word in words)}"),
            ("dim" if again else "", f"  {field_list(step.fields)}"),
        )


def show_end(out: Output, answer: Translation, place: tuple[Memory, int] | None = None) -> None:
    """The last line of an answer."""
    if answer.fault is not None:
        out.line(("bad", "fault "), ("", fault_sentence(answer.fault)))
        return
    assert answer.pa is not None
    if place and answer.pa >= NO_PHYSICAL:
        where, memory = memory_place(place[0].name, place[1]), ""
    else:
        where, memory = f"{answer.pa:#x}", f"  ({place[0].name}+{place[1]:#x})" if place else ""
    page = f"  {numbers.human(answer.page_size)} page" if answer.page_size else ""
    out.line(("good", "-> "), ("address", where), ("", f"{memory}  {answer.prot or ''}{page}"))


def fault_sentence(fault: Fault) -> str:
    """A fault in words."""
    return f"{fault.code:#x} {fault.name}: {fault.reason} (IOVA {fault.iova:#x}, access {fault.access})"


def _memory_at(session: Session, pa: int | None) -> tuple[Memory, int] | None:
    from iommuctl.named_memory import memory_at

    memory = None if pa is None else memory_at(session.iommu.memories(), pa)
    return None if pa is None or memory is None else (memory, pa - memory.pa)


def document(answer: Translation, place: tuple[Memory, int] | None = None) -> dict[str, Any]:
    """The answer as JSON."""
    from iommuctl.cli import jsonout

    return {
        "rid": answer.slot.rid,
        "pasid": answer.slot.pasid,
        "iova": f"{answer.iova:#x}",
        "pa": jsonout.physical(answer.pa),
        "memory": place[0].name if place else None,
        "offset": place[1] if place else None,
        "page_size": answer.page_size,
        "prot": answer.prot,
        "fault": answer.fault,
        "steps": answer.steps,
    }

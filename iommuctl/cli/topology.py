# SPDX-License-Identifier: Apache-2.0
"""`iommuctl topology`: who is attached to what. The kernel has no call that lists it; the rows do."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.render import Node, Span
from iommuctl.cli.session import session_of
from iommuctl.model import Binding, Device, Domain, Occupant, Rid

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu

EXAMPLES = """
# every domain with the slots that it is in
iommuctl topology
# every device with what its slots hold
iommuctl topology --by device
iommuctl topology -j | jq '.domains[].slots[] | select(.kind == "bind")'
"""

app = module_app("Show who is attached to what.", EXAMPLES)


@app.command("topology")
def topology(
    ctx: typer.Context,
    by: Annotated[
        Literal["domain", "device"], typer.Option("--by", metavar="domain|device", help="What stands at the roots.")
    ] = "domain",
    format_: Annotated[Literal["tree"], typer.Option("--format", metavar="tree", help="How it is drawn.")] = "tree",  # noqa: ARG001
) -> None:
    """Show who is attached to what.

    A page table that is bound to a slot is nested on the domain under which it stands. Of a device of real hardware
    that is not bound, the kernel's driver and what it uses are shown.
    """
    session = session_of(ctx)
    if session.json:
        session.document(document(session.iommu))
        return
    iommu = session.iommu
    with iommu.reading():
        domains, devices, slots = iommu.domains(), iommu.devices(), iommu.slots()
        lost = iommu.lost()
    if lost:
        session.out.line(("bad", "lost: "), ("", f"{lost}; `iommuctl recover` makes what follows again"))
    session.out.tree(tree_by_domain(domains, devices, slots) if by == "domain" else tree_by_device(devices, slots))
    if not domains and not devices:
        session.out.line(("dim", "no domains and no devices"))


def slots_of_domain(slots: Iterable[Occupant]) -> list[Node]:
    """The slots that a domain is in: RIDs, and below each its PASIDs."""
    nodes = []
    for rid, group in groupby(slots, key=lambda held: held.slot.rid):
        rows = list(group)
        own: list[Span] = [("rid", str(rid))]
        if rows[0].slot.pasid is None:
            own += [("", "  "), *_held(rows.pop(0))]
        nodes.append(Node(own, [Node([("rid", f"PASID {row.slot.pasid}"), ("", "  "), *_held(row)]) for row in rows]))
    return nodes


def slots_of_device(slots: Iterable[Occupant]) -> list[Node]:
    """What the slots of one device hold, the RID's own first."""
    nodes = []
    for held in slots:
        name = "RID" if held.slot.pasid is None else f"PASID {held.slot.pasid}"
        nodes.append(Node([("rid", name), ("", "  "), *_held(held, name_domain=True)]))
    return nodes


def tree_by_domain(domains: Sequence[Domain], devices: Sequence[Device], slots: Sequence[Occupant]) -> list[Node]:
    """Every domain with its slots, the devices that are attached to nothing, and how many are the kernel's."""
    held: dict[int, list[Occupant]] = {domain.id: [] for domain in domains}
    for slot in slots:
        held[slot.domain.id].append(slot)
    nodes = []
    for domain in domains:
        kind = "  nest parent" if domain.nest_parent else ""
        line: list[Span] = [("name", domain.name), ("dim", kind), *_label(domain.label)]
        nodes.append(Node(line, slots_of_domain(held[domain.id])))
    used = {slot.slot.rid for slot in slots}
    idle = [device for device in devices if device.rid not in used]
    if free := [Node([("rid", str(device.rid))]) for device in idle if device.bound]:
        nodes.append(Node([("dim", "attached to nothing")], free))
    if others := sum(not device.bound for device in idle):
        # A host has dozens of them, and this is about domains.
        words = f"{others} device{'s are' if others > 1 else ' is'} the kernel's: `iommuctl topology --by device`"
        nodes.append(Node([("dim", words)]))
    return nodes


def tree_by_device(devices: Sequence[Device], slots: Sequence[Occupant]) -> list[Node]:
    """Every device with what its slots hold."""
    held: dict[Rid, list[Occupant]] = {device.rid: [] for device in devices}
    there = {device.rid: device for device in devices}
    for slot in slots:
        held.setdefault(slot.slot.rid, []).append(slot)
    nodes = []
    for rid, rows in held.items():
        device = there.get(rid, Device(rid))
        kernel: list[Span] = [] if device.bound else [("", f"  {kernel_words(device)}")]
        below = slots_of_device(rows) or ([Node([("dim", "attached to nothing")])] if device.bound else [])
        nodes.append(Node([("rid", str(rid)), *kernel], below))
    return nodes


def kernel_words(device: Device) -> str:
    """Whose the slots of a device are that is not bound, and what they hold."""
    return f"kernel: {', '.join([device.driver or 'no driver', *filter(None, [device.owner])])}"


def _held(held: Occupant, *, name_domain: bool = False) -> list[Span]:
    domain: list[Span] = [("", " "), ("name", held.domain.name)] if name_domain else []
    if not isinstance(held, Binding):
        return [("", "attached"), *domain, *_label(held.label)]
    spans: list[Span] = [("", "bound to page table ")]
    spans += [("name", held.pgtable), ("", " at ")] if held.pgtable else []
    spans.append(("address", f"{held.root:#x}"))
    if name_domain:
        spans += [("", " nested on"), *domain]
    return [*spans, *_label(held.label)]


def _label(label: str | None) -> list[Span]:
    return [("dim", f'  "{label}"')] if label else []


def document(iommu: "Iommu") -> dict[str, Any]:
    """The whole topology, by domain and by device; `lost` is why the kernel has nothing of it any more."""
    from iommuctl.cli import jsonout

    with iommu.reading():
        domains, devices, slots = iommu.domains(), iommu.devices(), iommu.slots()
        backend, lost = iommu.backend_name, iommu.lost()
    by_domain: dict[int, list[Any]] = {domain.id: [] for domain in domains}
    by_rid: dict[Rid, list[Any]] = {device.rid: [] for device in devices}
    for slot in slots:
        by_domain[slot.domain.id].append(jsonout.slot(slot))
        by_rid.setdefault(slot.slot.rid, []).append(jsonout.slot(slot, of_device=True))
    return {
        "backend": backend,
        "lost": lost or None,
        "domains": [
            {**jsonout.domain(domain), "backend": backend, "slots": by_domain[domain.id]} for domain in domains
        ],
        "devices": [{**jsonout.device(device), "slots": by_rid[device.rid]} for device in devices],
    }

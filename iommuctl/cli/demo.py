# SPDX-License-Identifier: Apache-2.0
"""`iommuctl demo`: the reference topology on a simulated machine, and what one can see there.

Every step is a function that does something and returns what happened; what is printed comes from there.
"""

import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.render import Column, Output, field_list
from iommuctl.cli.session import session_of
from iommuctl.cli.topology import document, tree_by_domain
from iommuctl.cli.translate import fault_sentence, show_end, show_steps
from iommuctl.errors import IommuError
from iommuctl.model import Binding, Command, DmaResult, Slot, Translation

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu

EXAMPLES = """
iommuctl demo
# as much of it as one stage 2 for each device allows, and why not the rest
iommuctl demo --arch smmuv3
"""

RID1, RID2 = "0000:00:01.0", "0000:00:02.0"
X, Y, A, B, C = 1, 2, 3, 4, 5
"""The PASIDs of the reference topology: two virtual machines, and three processes of their guests."""

MEMORY = {"host": 2 << 20, "vm1": 16 << 20, "vm2": 16 << 20}
HOST_IOVA = 0x100000
GUEST_BUFFER = 0x200000
"""A GPA that a device reaches by itself; the guests' processes have their buffers above it."""
POOLS = 0x800000
SVA_IOVA = 0x7F00_0000_0000
NOWHERE = 0x100_0000_0000

app = module_app("See it work on a simulated machine.", EXAMPLES)


class Landing(NamedTuple):
    """A DMA of one slot, and in which memory it ended."""

    slot: Slot
    iova: int
    result: DmaResult
    memory: str
    offset: int


class Nested(NamedTuple):
    """A page table of the topology, and the device that reaches it by PASID A."""

    rid: str
    parent: str
    table: str


class Refusal(NamedTuple):
    """A part of the topology that cannot be: the command for it, and the answer."""

    command: str
    error: IommuError


class Removal(NamedTuple):
    """A mapping that was taken away: a DMA before the caches were told, the commands, a DMA after."""

    slot: Slot
    iova: int
    before: DmaResult
    commands: tuple[Command, ...]
    after: DmaResult


@app.command("demo")
def demo(
    ctx: typer.Context,
    *,
    arch: Annotated[str | None, typer.Option("--arch", metavar="A", help="Architecture.", show_default=False)] = None,
) -> None:
    """See it work on a simulated machine.

    Builds two devices, three domains and page tables of guests in a throw-away folder, has every slot do a DMA, and
    explains one. Nothing of yours is touched.
    """
    from iommuctl.iommu import Iommu

    session = session_of(ctx)
    with tempfile.TemporaryDirectory(prefix="iommuctl-demo-") as folder, Iommu(folder, backend="sim") as iommu:
        if arch:
            iommu.setup(architecture=arch)
        nested = build(iommu)
        refusals = what_cannot_be(iommu)
        landings = one_dma_per_slot(iommu)
        walk = iommu.translate(nested.rid, SVA_IOVA, pasid=A, access="w")
        removal = take_away(iommu, nested)
        refused = iommu.dma(RID2, NOWHERE, data=b"nobody home")
        if session.json:
            session.document(_document(iommu, landings, walk, removal, refused, refusals=refusals))
            return
        out = session.out
        _section(out, "1. Who uses which table", "iommuctl topology")
        out.tree(tree_by_domain(iommu.domains(), iommu.devices(), iommu.slots()))
        _show_refusals(out, refusals)
        _section(out, "2. One DMA from every slot, and where it landed", f"iommuctl sim dma {RID1} {HOST_IOVA:#x} …")
        _show_landings(out, landings)
        by_hand = f"iommuctl translate {nested.rid} {SVA_IOVA:#x} --pasid {A} --access w"
        _section(out, "3. One of them explained: a guest's process, through two stages of tables", by_hand)
        _show_walk(out, walk)
        by_hand = f"iommuctl pgtable unmap {nested.table} --iova {SVA_IOVA:#x} --size 64K"
        _section(out, "4. A mapping is taken away; the caches are not told, then they are", by_hand)
        _show_removal(out, removal, nested.parent)
        _section(out, "5. A write to an address that nothing maps", f"iommuctl sim dma {RID2} {NOWHERE:#x} …")
        _show_answer(out, f"{RID2}: ", refused)


def build(iommu: "Iommu") -> Nested:
    """The reference topology: the host, two virtual machines, and processes of their guests, on two devices.

    Where all that is nested of a device shares its parent, only the part that holds: vm1 has a stage-1 domain for its
    queue, and page tables are those of vm2's own device.
    """
    apart = _nests_apart(iommu)
    memories = {name: iommu.memory_create(name, size) for name, size in MEMORY.items()}
    for rid in (RID1, RID2):
        iommu.device_add(rid, ats=True, pasid_bits=16)
    iommu.domain_create("domain1", label="the host's own DMA")
    iommu.domain_create("domain2", nest_parent=apart, label="vm1's memory")
    iommu.domain_create("domain3", nest_parent=True, label="vm2's memory")
    iommu.map("domain1", iova=HOST_IOVA, size=memories["host"].size, memory="host")
    iommu.map("domain2", iova=0, size=memories["vm1"].size, memory="vm1")
    iommu.map("domain3", iova=0, size=memories["vm2"].size, memory="vm2")
    iommu.attach("domain1", RID1)
    iommu.attach("domain2", RID1, pasid=X, label="vm1")
    if apart:
        iommu.attach("domain3", RID1, pasid=Y, label="vm2")
    iommu.attach("domain3", RID2, label="vm2")
    processes = [("a1", "vm1", RID1, A), ("b1", "vm1", RID1, B), ("c1", "vm2", RID1, C), ("a2", "vm2", RID2, A)]
    for number, (name, guest, rid, pasid) in enumerate(processes if apart else processes[-1:]):
        parent = {"vm1": "domain2", "vm2": "domain3"}[guest]
        iommu.pgtable_create(name, parent=parent, pool=POOLS + number * 0x40000, pool_size=0x40000)
        iommu.pgtable_map(name, iova=SVA_IOVA, size=0x10000, gpa=GUEST_BUFFER + (number + 1) * 0x100000)
        iommu.bind_pgtable(parent, rid, pgtable=name, pasid=pasid, label=f"a process of {guest}")
    return Nested(RID1, "domain2", "a1") if apart else Nested(RID2, "domain3", "a2")


def what_cannot_be(iommu: "Iommu") -> list[Refusal]:
    """The rest of the topology, tried, where all that is nested of a device shares its parent."""
    if _nests_apart(iommu):
        return []
    iommu.domain_create("domain4", nest_parent=True, label="vm1's memory, as a parent")
    refusals = []
    for domain, pasid, root in (
        ("domain3", Y, None),
        ("domain4", A, POOLS),
        ("domain4", B, POOLS),
        ("domain3", C, POOLS),
    ):
        try:
            if root is None:
                command = f"attach {domain} {RID1} --pasid {pasid}"
                iommu.attach(domain, RID1, pasid=pasid)
            else:
                command = f"bind-pgtable {domain} {RID1} --addr {root:#x} --pasid {pasid}"
                iommu.bind_pgtable(domain, RID1, addr=root, pasid=pasid)
        except IommuError as error:
            refusals.append(Refusal(f"iommuctl {command}", error))
    iommu.domain_destroy("domain4")
    return refusals


def _nests_apart(iommu: "Iommu") -> bool:
    """Whether each slot is nested on a parent of its own."""
    return iommu.capabilities().nesting != "device"


def one_dma_per_slot(iommu: "Iommu") -> list[Landing]:
    """Every slot writes once; the addresses are the same wherever the kind of table is the same."""
    landings = []
    for held in iommu.slots():
        plain = HOST_IOVA if held.domain.name == "domain1" else GUEST_BUFFER
        iova = SVA_IOVA if isinstance(held, Binding) else plain
        result = iommu.dma(held.slot.rid, iova, pasid=held.slot.pasid, data=f"DMA of {held.slot}".encode())
        memory, offset = _place(iommu, result)
        landings.append(Landing(held.slot, iova, result, memory, offset))
    return landings


def take_away(iommu: "Iommu", nested: Nested) -> Removal:
    """Unmap in a guest's page table. A page table is the user's: nobody tells the caches but the user."""
    rid = nested.rid
    iommu.pgtable_unmap(nested.table, iova=SVA_IOVA, size=0x10000)
    before = iommu.dma(rid, SVA_IOVA, pasid=A, size=8)
    iommu.invalidate(nested.parent, device=rid, pasid=A, iova=SVA_IOVA, size=0x10000)
    commands = iommu.last.commands
    slot = next(held.slot for held in iommu.slots(rid=rid) if held.slot.pasid == A)
    return Removal(slot, SVA_IOVA, before, commands, iommu.dma(rid, SVA_IOVA, pasid=A, size=8))


def _place(iommu: "Iommu", result: DmaResult) -> tuple[str, int]:
    for memory in iommu.memories():
        if result.pieces and memory.pa <= result.pieces[0].pa < memory.pa + memory.size:
            return memory.name, result.pieces[0].pa - memory.pa
    return "", 0


def _section(out: Output, title: str, command: str) -> None:
    if not title.startswith("1"):
        out.line()
    out.line(("key", title))
    out.line(("dim", f"   $ {command}"))
    out.line()


def _show_refusals(out: Output, refusals: list[Refusal]) -> None:
    if not refusals:
        return
    out.line()
    out.paragraph("A device has one stage 2 here, so the rest of the topology is refused; domain4 is a parent for vm1:")
    out.line()
    for command, error in refusals:
        out.line(("dim", f"   $ {command}"))
        out.paragraph(f"{error.what}: {error.because}.")


def _show_landings(out: Output, landings: list[Landing]) -> None:
    out.table(
        [Column("SLOT", "rid"), Column("IOVA"), Column("PA", "address"), Column("MEMORY", "name")],
        [
            [
                str(landing.slot),
                f"{landing.iova:#x}",
                f"{landing.result.pieces[0].pa:#x}" if landing.result.pieces else "fault",
                f"{landing.memory}+{landing.offset:#x}",
            ]
            for landing in landings
        ],
    )
    places: dict[tuple[str, int], list[Slot]] = {}
    same: dict[tuple[int | None, int], list[Landing]] = {}
    for landing in landings:
        places.setdefault((landing.memory, landing.offset), []).append(landing.slot)
        same.setdefault((landing.slot.pasid, landing.iova), []).append(landing)
    out.line()
    for (memory, _), slots in places.items():
        if len(slots) > 1:
            out.line(("", f"{' and '.join(map(str, slots))} meet in {memory}."))
    for (pasid, iova), group in same.items():
        if len(group) > 1 and len({(each.memory, each.offset) for each in group}) == len(group):
            rids = " and of ".join(str(each.slot.rid) for each in group)
            out.line(("", f"PASID {pasid} of {rids} use the same address, {iova:#x}, for different places."))


def _show_walk(out: Output, walk: Translation) -> None:
    out.line(("rid", str(walk.slot)), ("", f"  IOVA {walk.iova:#x}  w"))
    show_steps(out, walk.steps)
    show_end(out, walk)
    out.line()
    kinds = Counter(step.structure for step in walk.steps)
    out.line(("", f"{len(walk.steps)} entries: {', '.join(f'{count} {name}' for name, count in kinds.items())}."))
    out.line(
        ("", "What a guest's table calls an address goes through the parent domain, the table's own address, too.")
    )


def _show_removal(out: Output, removal: Removal, parent: str) -> None:
    before, slot, where = removal.before, removal.slot, f"--iova {removal.iova:#x} --size 64K"
    out.paragraph(
        " ".join(
            [
                f"The mapping is gone, and {slot} still reaches {before.pieces[0].pa:#x}: a cache answered.",
                *(
                    f"It holds the {each.structure} at {each.address:#x}, of {each.table}, as it was before"
                    f" `{each.operation}`."
                    for each in before.changed
                ),
                "Hardware would not tell; the simulator compares every such answer with the tables.",
                *(f"What is missing is {each.name} with {field_list(each.fields)}." for each in before.missing),
                f"`iommuctl invalidate {parent} --device {slot.rid} --pasid {slot.pasid} {where}` sends it, and then",
                "tells the device, which has a TLB of its own:",
            ]
        )
    )
    out.line()
    for command in removal.commands:
        out.line(("", "  "), ("name", command.name), ("", f"  {field_list(command.fields)}"))
    out.line()
    _show_answer(out, f"{slot}, now: ", removal.after)


def _show_answer(out: Output, what: str, result: DmaResult) -> None:
    if result.fault:
        out.line(("", what), ("bad", "fault "), ("", fault_sentence(result.fault)))
    else:
        out.line(("", what), ("", f"the DMA goes to {result.pieces[0].pa:#x}"))


def _dma(result: DmaResult) -> dict[str, Any]:
    pieces = [{"iova": f"{piece.iova:#x}", "pa": f"{piece.pa:#x}", "size": piece.size} for piece in result.pieces]
    return {
        "ok": result.fault is None,
        "pieces": pieces,
        "stale": result.stale,
        "changed": result.changed,
        "missing": result.missing,
        "fault": result.fault,
    }


def _document(
    iommu: "Iommu",
    landings: list[Landing],
    walk: Translation,
    removal: Removal,
    refused: DmaResult,
    *,
    refusals: list[Refusal],
) -> dict[str, Any]:
    from iommuctl.cli.translate import document as translation

    return {
        "topology": document(iommu),
        "dma": [
            {
                "rid": landing.slot.rid,
                "pasid": landing.slot.pasid,
                "memory": landing.memory,
                "offset": landing.offset,
                **_dma(landing.result),
            }
            for landing in landings
        ],
        "walk": translation(walk),
        "without_invalidation": _dma(removal.before),
        "commands": removal.commands,
        "with_invalidation": _dma(removal.after),
        "unmapped": _dma(refused),
        "refused": [
            {"command": command, "id": error.id, "what": error.what, "because": error.because, "exit": error.exit}
            for command, error in refusals
        ],
    }

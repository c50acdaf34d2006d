# SPDX-License-Identifier: Apache-2.0
"""The verbs that change what a slot holds, and the one that tells the caches."""

from typing import Annotated

import typer

from iommuctl import numbers
from iommuctl.cli.command import module_app
from iommuctl.cli.params import DomainName, Format, Label, ParentName, Pasid, RidText
from iommuctl.cli.session import session_of
from iommuctl.errors import Usage
from iommuctl.model import Rid, Slot

EXAMPLES = """
iommuctl attach domain1 0000:00:01.0
iommuctl attach domain2 0000:00:01.0 --pasid 1 --label "vm1, GPA"
iommuctl attach domain2 0000:00:01.0 --pasid auto -j | jq .pasid
iommuctl attach domain3 0000:00:01.0 --replace
iommuctl detach domain2 0000:00:01.0 --pasid 1
# a page table that iommuctl built, and one of which only the address is known
iommuctl bind-pgtable domain2 0000:00:01.0 --pasid 3 --pgtable sva-a
iommuctl bind-pgtable domain3 0000:00:02.0 --pasid 3 --addr 0x200000
# one page of one binding; then everything that is bound on domain2
iommuctl invalidate domain2 --device 0000:00:01.0 --pasid 3 --iova 0x7f0000000000 --size 4K --leaf
iommuctl invalidate domain2
iommuctl unbind-pgtable domain2 0000:00:01.0 --pasid 3
"""

app = module_app("Slots: what each device, and each of its PASIDs, uses.", EXAMPLES)


@app.command("attach")
def attach(
    ctx: typer.Context,
    domain: DomainName,
    rid: RidText,
    *,
    pasid: Annotated[
        str | None,
        typer.Option(
            "--pasid", metavar="PASID|auto", help="PASID of the slot; auto takes a free one.", show_default=False
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what the slot holds, in one step.")] = False,
    label: Label = None,
) -> None:
    """Attach a domain to a device or to one of its PASIDs."""
    session = session_of(ctx)
    wanted = numbers.pasid_or_auto(pasid) if pasid is not None else None
    held = session.iommu.attach(domain, rid, pasid=wanted, replace=replace, label=label)
    hitless = session.iommu.capabilities().hitless_replace if replace else None
    how = {None: "", True: ", replaced without a gap", False: ", replaced with a gap in between"}[hitless]
    session.changed(
        f"{held.slot}: attached to {held.domain.name}{how}",
        {"domain": held.domain.name},
        held,
        {"hitless": hitless} if replace else {},
    )


@app.command("detach")
def detach(
    ctx: typer.Context,
    domain: DomainName,
    rid: RidText,
    *,
    pasid: Pasid = None,
    force: Annotated[bool, typer.Option("--force", help="Unbind a page table that is bound there first.")] = False,
) -> None:
    """Detach a domain from a device or from one of its PASIDs."""
    session = session_of(ctx)
    session.iommu.detach(domain, rid, pasid=pasid, force=force)
    slot = Slot(Rid.parse(rid), pasid)
    session.changed(f"{slot}: detached from {domain}", {"domain": domain, "rid": slot.rid, "pasid": pasid})


@app.command("bind-pgtable")
def bind_pgtable(
    ctx: typer.Context,
    domain: ParentName,
    rid: RidText,
    *,
    addr: Annotated[
        int | None,
        typer.Option(
            "--addr",
            metavar="GPA",
            parser=numbers.number,
            help="Its root, or the cd-table itself.",
            show_default=False,
        ),
    ] = None,
    pgtable: Annotated[
        str | None,
        typer.Option("--pgtable", metavar="PGTABLE", help="One of `pgtable list`.", show_default=False),
    ] = None,
    format_: Format = None,
    cd_pool: Annotated[
        str | None,
        typer.Option("--cd-pool", metavar="A+S", help="Guest memory for the CD table (SMMUv3).", show_default=False),
    ] = None,
    pasid: Pasid = None,
    label: Label = None,
) -> None:
    """Bind a page table to a slot, nested on its parent domain.

    The RID's own slot must be attached to the domain; a PASID's slot is attached to it by the bind. Where PASIDs are
    looked up in guest memory (SMMUv3's CD table), the first page table of a RID says which: its own pool, or --cd-pool.
    With --format cd-table (SMMUv3 hardware) the RID is given a CD table that the guest owns, with all its PASIDs.
    """
    session = session_of(ctx)
    if (addr is None) == (pgtable is None):
        raise Usage(
            "a page table is named by --addr or by --pgtable",
            because="one of them is needed" if addr is None else "both are given",
        )
    pool = None if cd_pool is None else numbers.byte_range(cd_pool)
    held = session.iommu.bind_pgtable(
        domain, rid, addr=addr, pgtable=pgtable, format=format_, pasid=pasid, cd_pool=pool, label=label
    )
    name = f"{held.pgtable} at {held.root:#x}" if held.pgtable else f"{held.root:#x}"
    session.changed(
        f"{held.slot}: bound to page table {name}, nested on {held.domain.name}", {"domain": held.domain.name}, held
    )


@app.command("unbind-pgtable")
def unbind_pgtable(ctx: typer.Context, domain: ParentName, rid: RidText, *, pasid: Pasid = None) -> None:
    """Take a page table out of a slot, which goes back to what it was."""
    session = session_of(ctx)
    left = session.iommu.unbind_pgtable(domain, rid, pasid=pasid)
    slot = Slot(Rid.parse(rid), pasid)
    now = f"attached to {left.domain.name}" if left else "empty"
    session.changed(
        f"{slot}: unbound, now {now}",
        {"domain": domain, "rid": slot.rid, "pasid": pasid, "now": left},
    )


@app.command("invalidate")
def invalidate(
    ctx: typer.Context,
    domain: ParentName,
    *,
    device: Annotated[
        str | None, typer.Option("--device", metavar="RID", help="Only what is bound there.", show_default=False)
    ] = None,
    pasid: Annotated[
        int | None,
        typer.Option("--pasid", metavar="PASID", parser=numbers.number, help="Only this PASID.", show_default=False),
    ] = None,
    iova: Annotated[
        int | None,
        typer.Option(
            "--iova", metavar="A", parser=numbers.number, help="First input address that changed.", show_default=False
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="S", parser=numbers.size, help="How many bytes changed.", show_default=False),
    ] = None,
    leaf: Annotated[bool, typer.Option("--leaf", help="Only leaf entries changed.")] = False,
) -> None:
    """Tell the caches that a bound page table changed.

    It concerns the page tables that are bound on DOMAIN, and addresses are their input addresses. Domains that are
    attached need none: `domain map` and `domain unmap` flush what they change.
    """
    session = session_of(ctx)
    if (iova is None) != (size is None):
        raise Usage("a range needs --iova and --size", hint="leave both away to invalidate everything")
    bindings = session.iommu.invalidate(domain, device=device, pasid=pasid, iova=iova, size=size, leaf=leaf)
    commands = len(session.iommu.last.commands)
    what = "everything" if iova is None or size is None else f"{iova:#x}..{iova + size - 1:#x}"
    slots = ", ".join(str(held.slot) for held in bindings)
    session.changed(
        f"{domain}: invalidated {what} of {slots} with {commands} command{'' if commands == 1 else 's'}",
        {"domain": domain, "bindings": bindings},
        commands=True,
    )

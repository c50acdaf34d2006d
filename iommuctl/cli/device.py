# SPDX-License-Identifier: Apache-2.0
"""`iommuctl device`: what uses I/O page tables."""

from typing import Annotated

import typer

from iommuctl import numbers
from iommuctl.cli import topology
from iommuctl.cli.command import module_app
from iommuctl.cli.params import Brief, Force, NewRid, RidText
from iommuctl.cli.render import Column, Node
from iommuctl.cli.session import session_of
from iommuctl.model import Device

EXAMPLES = """
# a device of the simulated machine, with ATS and 16 bits of PASIDs
iommuctl device add 0000:00:01.0 --ats --pasid-bits 16
iommuctl device list
# what it can do, and what each of its slots holds
iommuctl device show 0000:00:01.0
iommuctl device remove 0000:00:01.0 --force
# real hardware: to vfio-pci, so that its slots can be used, and back to the driver that it had
iommuctl device bind 0000:00:10.0
iommuctl device unbind 0000:00:10.0 --force
"""

app = module_app("Devices: what uses I/O page tables.", EXAMPLES)


@app.command("add")
def add(
    ctx: typer.Context,
    rid: NewRid,
    ats: Annotated[bool, typer.Option("--ats", help="It has ATS: it caches translations itself.")] = False,
    pri: Annotated[bool, typer.Option("--pri", help="It has PRI: it can ask for pages.")] = False,
    pasid_bits: Annotated[
        int | None,
        typer.Option("--pasid-bits", metavar="N", parser=numbers.number, help="Width of its PASIDs; default: none."),
    ] = None,
) -> None:
    """Add a device to the simulated machine."""
    session = session_of(ctx)
    device = session.iommu.device_add(rid, ats=ats, pri=pri, pasid_bits=pasid_bits or 0)
    session.changed(f"{device.rid}: added, {_abilities(device)}", device)


@app.command("remove")
def remove(ctx: typer.Context, rid: RidText, force: Force = False) -> None:
    """Remove a device from the simulated machine."""
    session = session_of(ctx)
    device = session.iommu.device(rid)
    session.iommu.device_remove(device.rid, force=force)
    session.changed(f"{device.rid}: removed", device)


@app.command("bind")
def bind(ctx: typer.Context, rid: RidText) -> None:
    """Give a device of real hardware to vfio-pci, and hold it, so that its slots can be used.

    Its driver lets go of it, which `device unbind` undoes. No other device of its IOMMU group may be with a driver of
    the kernel's own.
    """
    session = session_of(ctx)
    device = session.iommu.device_bind(rid)
    session.changed(f"{device.rid}: bound to {device.driver or 'no driver'}, its slots can be used", device)


@app.command("unbind")
def unbind(ctx: typer.Context, rid: RidText, force: Force = False) -> None:
    """Let a device of real hardware go, and give it back to the driver that it had.

    Refused while its slots hold something.
    """
    session = session_of(ctx)
    device = session.iommu.device_unbind(rid, force=force)
    session.changed(f"{device.rid}: unbound, {topology.kernel_words(device)}", device)


@app.command("list")
def list_(ctx: typer.Context, brief: Brief = False) -> None:
    """List the devices."""
    session = session_of(ctx)
    with session.iommu.reading():
        devices, real = session.iommu.devices(), session.iommu.is_real
    if session.json:
        session.document({"devices": devices})
    elif brief:
        session.out.lines(str(device.rid) for device in devices)
    else:
        columns = [Column("RID", "rid"), Column("ATS"), Column("PRI"), Column("PASID BITS")]
        columns += [Column("BOUND"), Column("DRIVER"), Column("OWNER"), Column("GROUP WITH")] if real else []
        session.out.table(
            columns,
            [
                [
                    str(device.rid),
                    _yes(device.ats),
                    _yes(device.pri),
                    str(device.pasid_bits),
                    *([_yes(device.bound), device.driver, device.owner, _siblings(device)] if real else []),
                ]
                for device in devices
            ],
            empty="no devices",
        )


@app.command("show")
def show(ctx: typer.Context, rid: RidText) -> None:
    """Show a device and what its slots hold."""
    session = session_of(ctx)
    iommu = session.iommu
    with iommu.reading():
        device, real = iommu.device(rid), iommu.is_real
        # A real device is there before the first use, and has no slots then.
        slots = iommu.slots(rid=rid) if iommu.backend_name else []
    if session.json:
        from iommuctl.cli import jsonout

        session.document({**jsonout.device(device), "slots": [jsonout.slot(slot, of_device=True) for slot in slots]})
        return
    held = topology.slots_of_device(slots)
    words = [_abilities(device), *(_situation(device) if real else [])]
    session.out.tree([Node([("rid", str(device.rid)), ("", f"  {', '.join(words)}")], held)])
    if device.siblings:
        session.out.line(("", f"in one IOMMU group with {_siblings(device)}: what its own slot holds is theirs, too"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _abilities(device: Device) -> str:
    words = [f"ATS {_yes(device.ats)}", f"PRI {_yes(device.pri)}"]
    return ", ".join([*words, f"{device.pasid_bits} PASID bits" if device.pasid_bits else "no PASIDs"])


def _situation(device: Device) -> list[str]:
    """With which driver a real device is, and whose its slots are."""
    return [f"bound to {device.driver}"] if device.bound else [topology.kernel_words(device)]


def _siblings(device: Device) -> str:
    return " ".join(str(rid) for rid in device.siblings)

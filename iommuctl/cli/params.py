# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share, so that they read and complete alike.

A metavar is what completion goes by: DOMAIN, PGTABLE, MEM, RID and PASID are what the state folder holds, BACKEND,
ARCH, FORMAT and STRUCTURE what is installed, FILE and DIR what the file system has. What is to be
new is a NAME or a NEW-RID.
"""

from typing import Annotated, Literal

import typer

from iommuctl import numbers

DomainName = Annotated[str, typer.Argument(metavar="DOMAIN", help="Name of a domain, or id:N.", show_default=False)]
ParentName = Annotated[
    str,
    typer.Argument(metavar="DOMAIN", help="Name of the parent domain, or id:N.", show_default=False),
]
RidText = Annotated[str, typer.Argument(metavar="RID", help="Device, as 0000:00:01.0 or 00:01.0.", show_default=False)]
NewRid = Annotated[
    str, typer.Argument(metavar="NEW-RID", help="RID of the new device, as 0000:00:01.0.", show_default=False)
]
PgtableName = Annotated[
    str, typer.Argument(metavar="PGTABLE", help="Name of a page table, or id:N.", show_default=False)
]
Pasid = Annotated[
    int | None,
    typer.Option("--pasid", metavar="PASID", parser=numbers.number, help="PASID of the slot.", show_default=False),
]
Iova = Annotated[
    int,
    typer.Option("--iova", metavar="A", parser=numbers.number, help="First input address.", show_default=False),
]
Size = Annotated[
    int,
    typer.Option("--size", metavar="S", parser=numbers.size, help="Bytes, as 4096, 4K or 1G.", show_default=False),
]
Prot = Annotated[
    Literal["r", "w", "rw", "rx", "rwx"],
    typer.Option("--prot", metavar="r|w|rw|rx|rwx", help="What a device may do there."),
]
Label = Annotated[str | None, typer.Option("--label", metavar="TEXT", help="A note for people.", show_default=False)]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="Page-table format; default: the backend's first.", show_default=False
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Take its users off first.")]
Brief = Annotated[bool, typer.Option("--brief", help="Only the names or ids, one to a line.")]

# SPDX-License-Identifier: Apache-2.0
"""The checks of the generic layer that need no rows: numbers, ranges, names, PASIDs."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from iommuctl.errors import (
    BadNumber,
    Misaligned,
    NoPasidSupport,
    OutOfAperture,
    PasidTooWide,
    PasidZero,
    ReservedRange,
    Unsupported,
    Usage,
    ZeroSize,
)
from iommuctl.model import MAX_ADDRESS, Device
from iommuctl.numbers import units
from iommuctl.spelling import NAME

if TYPE_CHECKING:
    from iommuctl.capabilities import Capabilities
    from iommuctl.formats.radix import Format
    from iommuctl.model import DomainRanges

PROTS = ("r", "w", "rw", "rx", "rwx")


def check_name(name: str) -> None:
    """Names are typed at a shell and stand in ranges (`MEM+OFFSET`) and selectors (`id:N`)."""
    if not NAME.fullmatch(name):
        raise Usage(
            f"{name!r} cannot be a name",
            because="a name has up to 63 letters, digits, and . _ @ -, and begins with a letter, a digit or _",
        )


def check_label(label: str | None) -> None:
    """A label is any text, but it is text: what a shell hands over may not be."""
    try:
        (label or "").encode()
    except UnicodeEncodeError:
        raise Usage("the label is not text", because="it holds bytes that are not UTF-8") from None


def check_numbers(**numbers: int | None) -> None:
    """Every address and size is a number of 64 bits."""
    for what, number in numbers.items():
        if number is not None and not 0 <= number <= MAX_ADDRESS:
            raise BadNumber(f"{what} {number:#x} is not a number of 64 bits")


def check_range(what: str, start: int, size: int, granule: int) -> None:
    """A range is not empty, of whole pages, and does not wrap around."""
    check_numbers(**{what: start})
    check_size(size, granule)
    if start % granule:
        raise Misaligned(
            f"{what} {start:#x} is not a multiple of {granule:#x}", because=f"the smallest page has {granule:#x} bytes"
        )
    if start + size - 1 > MAX_ADDRESS:
        raise OutOfAperture(f"{what} {start:#x} and size {size:#x} wrap around the end of the address space")


def check_size(size: int, granule: int) -> None:
    """A size is some whole pages."""
    check_numbers(size=size)
    if size == 0:
        raise ZeroSize("the size is zero", hint="it has to be at least one page")
    if size % granule:
        raise Misaligned(
            f"the size {size:#x} is not a multiple of {granule:#x}", because=f"the smallest page has {granule:#x} bytes"
        )


def check_aperture(start: int, size: int, width: int, reserved: Iterable[tuple[int, int]]) -> None:
    """Input addresses are below 2**width and touch no reserved range."""
    last = start + size - 1
    if last >> width:
        raise OutOfAperture(
            f"{start:#x}..{last:#x} is outside the aperture",
            because=f"the domain has {width} address bits, 0x0..{(1 << width) - 1:#x}",
            hint="use lower addresses; `iommuctl backend show` tells how wide domains can be",
        )
    for first, end in reserved:
        if start <= end and last >= first:
            raise ReservedRange(
                f"{start:#x}..{last:#x} touches the reserved range {first:#x}..{end:#x}",
                because="the platform keeps these addresses for interrupts",
                hint="map below and above it",
            )


def check_ranges(start: int, size: int, ranges: "DomainRanges") -> None:
    """Input addresses are ones that the kernel maps in this domain, as its devices are now."""
    last = start + size - 1
    check_aperture(start, size, 64, ranges.reserved)
    if not any(first <= start and last <= end for first, end in ranges.aperture):
        raise OutOfAperture(
            f"{start:#x}..{last:#x} is outside the aperture",
            because=f"the kernel maps {', '.join(f'{first:#x}..{end:#x}' for first, end in ranges.aperture[:5])} here",
            hint="use addresses inside one of these ranges",
        )


def check_execute(prot: str, capabilities: "Capabilities") -> None:
    """Whether a domain's tables can tell what may be executed. Raises Unsupported."""
    if "x" in prot and prot in PROTS and not capabilities.execute_permission:
        raise Unsupported(
            f"no mapping can be {prot}",
            because="the backend's domains have no execute permission",
            hint=f"use --prot {prot.replace('x', '')}",
        )


def check_prot(prot: str, table: "Format") -> None:
    """The format can express exactly these permissions."""
    if prot not in PROTS:
        raise Usage(f"{prot!r} is not a protection", hint=f"it is one of {', '.join(PROTS)}")
    possible = table.decode(1, table.leaf(1, 0, prot)).prot
    if possible != prot:
        raise Unsupported(
            f"{table.name} tables cannot hold a mapping that is exactly {prot}",
            because=f"an entry for it would allow {possible or 'nothing'}",
            hint=f"use --prot {possible}" if possible in PROTS else "",
        )


def check_page_sizes(wanted: Iterable[int] | None, capabilities: "Capabilities") -> tuple[int, ...]:
    """The page sizes of a new domain, ascending, all of one granule. Raises Unsupported."""
    granules = capabilities.page_sizes_by_granule
    sizes = tuple(sorted(set(capabilities.page_sizes if wanted is None else wanted)))
    if sizes and any(set(sizes) <= set(granule) for granule in granules):
        return sizes
    there = [units(granule) for granule in granules]
    shown = units(sizes) or "(none)"
    if sizes and set(sizes) <= {size for granule in granules for size in granule}:
        raise Unsupported(
            f"page sizes {shown} cannot be in one domain",
            because=f"its tables are of one granule, with pages of {' or of '.join(there)}",
            hint="choose those of one granule",
        )
    raise Unsupported(f"page sizes {shown} are not all available", because=f"the backend has {', or '.join(there)}")


def check_width(wanted: int | None, capabilities: "Capabilities", *, nest_parent: bool = False) -> int:
    """The address width of a new domain: 48 bits where there are, unless told. Raises Unsupported."""
    widths = (nest_parent and capabilities.parent_widths) or capabilities.widths
    if wanted is None:
        return 48 if 48 in widths else max(widths)
    if wanted not in widths:
        raise Unsupported(
            f"no {'nest parent' if nest_parent else 'domain'} of {wanted} address bits",
            because=f"the backend has widths of {', '.join(map(str, widths))} bits",
        )
    return wanted


def check_pasid_number(pasid: int) -> None:
    """A PASID that is named is positive."""
    if pasid == 0:
        raise PasidZero(
            "PASID 0 cannot be named", because="it is the slot of the RID itself", hint="leave --pasid away"
        )
    if pasid < 0:
        raise BadNumber(f"PASID {pasid} is negative")


def check_pasid(device: Device, pasid: int) -> None:
    """The kernel accepts PASIDs on devices that have none, so the check is ours."""
    check_pasid_number(pasid)
    if device.pasid_bits == 0:
        raise NoPasidSupport(
            f"{device.rid} has no PASIDs",
            because="it has no such capability, or the IOMMU that it is behind has none",
            hint=""
            if device.driver or device.owner
            else "a simulated device gets them with `iommuctl device add RID --pasid-bits N`",
        )
    if pasid >> device.pasid_bits:
        raise PasidTooWide(
            f"PASID {pasid} is too wide for {device.rid}",
            because=f"the device has {device.pasid_bits} PASID bits, 1..{(1 << device.pasid_bits) - 1}",
        )

# SPDX-License-Identifier: Apache-2.0
"""Domains: an IOAS each, and a HWPT for each IOMMU whose devices are attached to it.

The IOAS itself is never attached: what the kernel makes then can neither nest nor take PASIDs. A slot whose page
requests are queued has a HWPT of its own over the same IOAS: a fault queue is fixed when a HWPT is made.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence

from iommuctl.errors import Unsupported
from iommuctl.hookspecs import DirtyRequest, MapRequest, UnmapRequest
from iommuctl.iommufd import uapi
from iommuctl.kernel import objects
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.memories import descriptor
from iommuctl.kernel.vendor import Port
from iommuctl.model import Dirty, Domain, DomainRanges, Mapping, Slot
from iommuctl.numbers import units


def create(machine: Machine, domain: Domain, *, dirty: bool) -> None:
    """An empty IOAS. Raises Unsupported for page sizes that the kernel gives no choice of."""
    capabilities = machine.vendor.capabilities(machine)
    small = domain.page_sizes == capabilities.page_sizes[:1] != capabilities.page_sizes
    if not small and domain.page_sizes != capabilities.page_sizes:
        raise Unsupported(
            f"the kernel does not build tables of pages of {units(domain.page_sizes)} alone",
            because="it can leave large pages away, and has no other choice",
            hint=f"--page-sizes {units(capabilities.page_sizes[:1])}, or leave it away",
        )
    ioas = objects.make(machine, machine.iommufd.ioas_alloc)
    machine.records.put_domain(domain, {"ioas": ioas, "hwpts": {}, "dirty": dirty, "tracking": False})
    _prepare(machine, domain, ioas)


def _prepare(machine: Machine, domain: Domain, ioas: int) -> None:
    """What an IOAS needs to be that of a domain."""
    capabilities = machine.vendor.capabilities(machine)
    if domain.page_sizes != capabilities.page_sizes:
        machine.iommufd.option_set(uapi.IOMMU_OPTION_HUGE_PAGES, 0, ioas)
    if domain.width < max((domain.nest_parent and capabilities.parent_widths) or capabilities.widths):
        # What devices keep for interrupts must be left out, or they could not be attached any more.
        machine.iommufd.ioas_allow_iovas(ioas, _without(domain.width, capabilities.reserved))


def remake(machine: Machine, domain: Domain, mappings: Sequence[Mapping]) -> None:
    """After all was lost: the IOAS of a domain with all its mappings. HWPTs come with the devices."""
    ioas = objects.make(machine, machine.iommufd.ioas_alloc)
    machine.records.put_domain(domain, {**machine.records.domain(domain), "ioas": ioas, "hwpts": {}})
    _prepare(machine, domain, ioas)
    for mapping in mappings:
        map_again(machine, ioas, mapping)


def destroy(machine: Machine, domain: Domain) -> None:
    """The IOAS goes with its HWPTs, after the commit. Nothing uses the domain any more."""
    from iommuctl.kernel import viommus

    record = machine.records.domain(domain)
    machine.records.put_domain(domain, None)
    viommus.destroy_later(machine, domain)
    objects.destroy_later(machine, *record["hwpts"].values(), record["ioas"])


def hwpt(machine: Machine, domain: Domain, port: Port) -> int:
    """The domain's table for the IOMMU of a device, made with the first such device."""
    pasids = bool(port.pasid_bits) and (machine.vendor.parents_take_pasids or not domain.nest_parent)
    key = f"{port.unit} with PASIDs" if pasids else port.unit
    if key not in machine.records.domain(domain)["hwpts"]:
        flags = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT if domain.nest_parent else 0
        flags |= uapi.IOMMU_HWPT_ALLOC_PASID if pasids else 0
        _make(machine, domain, key, lambda ioas, more: machine.iommufd.hwpt_alloc(port.dev_id, ioas, flags | more))
    found: int = machine.records.domain(domain)["hwpts"][key]
    return found


def own_hwpt(machine: Machine, domain: Domain, port: Port, slot: Slot, fault_id: int) -> int:
    """A table of the domain for one slot alone, whose page requests go to a fault queue. What is mapped is the same."""
    flags = uapi.IOMMU_HWPT_FAULT_ID_VALID | (uapi.IOMMU_HWPT_ALLOC_PASID if port.pasid_bits else 0)
    alloc = machine.iommufd.hwpt_alloc
    return _make(
        machine, domain, str(slot), lambda ioas, more: alloc(port.dev_id, ioas, flags | more, fault_id=fault_id)
    )


def disown(machine: Machine, domain: Domain, table: int) -> None:
    """A table that was one slot's alone is not the domain's any more."""
    record = machine.records.domain(domain)
    left = {key: made for key, made in record["hwpts"].items() if made != table}
    machine.records.put_domain(domain, {**record, "hwpts": left})


def _make(machine: Machine, domain: Domain, key: str, alloc: Callable[[int, int], int]) -> int:
    """A table of the domain, which `alloc` makes of an IOAS with these flags besides."""
    record = machine.records.domain(domain)
    flags = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING if record["dirty"] else 0
    made = objects.make(machine, lambda: alloc(record["ioas"], flags))
    machine.records.put_domain(domain, {**record, "hwpts": {**record["hwpts"], key: made}})
    if record["tracking"]:
        machine.iommufd.hwpt_set_dirty_tracking(made, True)
    return made


def map_(machine: Machine, request: MapRequest) -> None:
    """Map named memory. Raises KernelRefused, Lost."""
    ioas, mapping = machine.records.domain(request.domain)["ioas"], request.mapping
    _intend(machine, request.domain, mapping)
    map_again(machine, ioas, mapping)


def map_again(machine: Machine, ioas: int, mapping: Mapping) -> None:
    """Map what rows say is mapped."""
    flags = (uapi.IOMMU_IOAS_MAP_READABLE if "r" in mapping.prot else 0) | (
        uapi.IOMMU_IOAS_MAP_WRITEABLE if "w" in mapping.prot else 0
    )
    assert mapping.memory is not None
    held = descriptor(machine, mapping.memory)
    iommufd = machine.iommufd
    if machine.dry or iommufd.has(uapi.IOMMU_IOAS_MAP_FILE):
        iommufd.ioas_map_file(ioas, mapping.iova, mapping.size, held, start=mapping.offset, flags=flags)
        return
    machine.context.warn(
        f"this kernel maps no files: {mapping.iova:#x}+{mapping.size:#x} is mapped through this process, and is usable"
        " only if a device is attached to the domain already, as pages are pinned then"
    )
    import ctypes

    with mmap.mmap(held, mapping.size, offset=mapping.offset) as view:
        first = ctypes.c_char.from_buffer(view)
        try:
            iommufd.ioas_map(ioas, mapping.iova, mapping.size, ctypes.addressof(first), flags)
        finally:
            del first


def unmap(machine: Machine, request: UnmapRequest) -> None:
    """Take whole mappings away. The kernel flushes every cache that may hold them."""
    if machine.lost():
        return
    ioas = machine.records.domain(request.domain)["ioas"]
    for mapping in request.mappings:
        _intend(machine, request.domain, mapping)
        machine.iommufd.ioas_unmap(ioas, mapping.iova, mapping.size)


def ranges(machine: Machine, domain: Domain) -> DomainRanges:
    """What the kernel allows in a domain, and what the devices in it keep."""
    record = machine.records.domain(domain)
    aperture, _ = machine.iommufd.ioas_iova_ranges(record["ioas"])
    last = (1 << domain.width) - 1
    inside = [(first, min(end, last)) for first, end in aperture if first <= last]
    return DomainRanges(tuple(inside), machine.vendor.capabilities(machine).reserved)


def dirty(machine: Machine, request: DirtyRequest) -> Dirty:
    """Dirty tracking of all HWPTs of a domain. Raises Unsupported for one that was not made for it."""
    record = machine.records.domain(request.domain)
    if not record["dirty"]:
        raise Unsupported(
            f"domain {request.domain.name} does not track what devices write",
            because="that is chosen when it is made",
            hint="`iommuctl domain create NAME --dirty`",
        )
    granule = request.domain.page_sizes[0]
    if request.action != "read":
        _track(machine, request.domain, on=request.action == "on")
    found: list[tuple[int, int]] = []
    for table in record["hwpts"].values() if request.action == "read" else ():
        for mapping in request.mappings:
            bitmap = machine.iommufd.hwpt_get_dirty_bitmap(table, mapping.iova, mapping.size, granule)
            found += _runs(bitmap, mapping.iova, granule)
    return Dirty(_joined(sorted(found)), granule)


def _track(machine: Machine, domain: Domain, *, on: bool) -> None:
    record = machine.records.domain(domain)
    machine.intend({"tracking": domain.id})
    machine.records.put_domain(domain, {**record, "tracking": on})
    for table in record["hwpts"].values():
        machine.iommufd.hwpt_set_dirty_tracking(table, on)


def _intend(machine: Machine, domain: Domain, mapping: Mapping) -> None:
    machine.intend({"range": [domain.id, machine.records.domain(domain)["ioas"], mapping.iova, mapping.size]})


def _without(width: int, reserved: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The addresses of that width, but for these ranges."""
    found, first, end = [], 0, (1 << width) - 1
    for low, high in sorted(reserved):
        if first <= min(low - 1, end):
            found.append((first, min(low - 1, end)))
        first = max(first, high + 1)
    return [*found, (first, end)] if first <= end else found


def _runs(bitmap: bytes, iova: int, granule: int) -> Iterator[tuple[int, int]]:
    """The pages whose bits are set, those of a byte together where they are neighbours, as (IOVA, size)."""
    for number, byte in enumerate(bitmap):
        bit = 0
        while byte >> bit:
            if byte >> bit & 1:
                begin = bit
                while byte >> bit & 1:
                    bit += 1
                yield iova + (8 * number + begin) * granule, (bit - begin) * granule
            bit += 1


def _joined(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges that touch or overlap as one, ascending."""
    found: list[tuple[int, int]] = []
    for start, size in ranges:
        if found and start <= sum(found[-1]):
            first = found[-1][0]
            found[-1] = first, max(sum(found[-1]), start + size) - first
        else:
            found.append((start, size))
    return tuple(found)

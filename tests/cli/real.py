# SPDX-License-Identifier: Apache-2.0
"""A backend as that of a real machine looks from above: no RAM of its own, no tables that can be read.

What it was asked for it keeps in its rows; named memory is files in the state folder. A file `lost` there says, as its
text, why the kernel's objects are gone. A file `events` is a queue, with the IOVA of a refused read on each line. Two
of its devices share an IOMMU group and are with a driver of the kernel's.
"""

import os
from pathlib import Path
from typing import Any

from iommuctl.capabilities import Capabilities
from iommuctl.errors import DeviceNotBound, Lost, Unsupported
from iommuctl.formats.radix import Format
from iommuctl.hookspecs import API_VERSION, HardwareContext, hookimpl
from iommuctl.model import Call, Command, Device, Dirty, Domain, DomainRanges, IommuUnit, Memory, Rid, Slot
from iommuctl.page_requests import AskedPages
from iommuctl.recorded import Events, RecordedFault
from iommuctl.requests import (
    Availability,
    CheckRequest,
    DirtyRequest,
    FaultsRequest,
    InvalidateRequest,
    MapRequest,
    MemoryRequest,
    MemorySource,
    RepairRequest,
    SetupRequest,
    SlotChange,
    Truth,
    UnmapRequest,
)
from iommuctl_vtd.first_stage import FirstStageFormat
from iommuctl_vtd.second_stage import SecondStageFormat

NAME = "real"
ONE, TWO, NIC, SIBLING = (Rid.parse(text) for text in ("00:10.0", "00:11.0", "00:02.0", "00:02.1"))
FIRST_STAGE = "vtd.first-stage-4"
INTERRUPTS = (0xFEE0_0000, 0xFEEF_FFFF)
DIRTY_PAGE = 0x1000
QUEUE = "queue0"

KERNELS = {"driver": "e1000e", "owner": "DMA-FQ"}
DEVICES: dict[Rid, dict[str, Any]] = {
    NIC: {**KERNELS, "siblings": [SIBLING]},
    SIBLING: {**KERNELS, "siblings": [NIC]},
    ONE: {"ats": True, "pri": True, "pasid_bits": 16, "owner": "identity"},
    TWO: {"driver": "e1000e", "owner": "DMA"},
}


class Files:
    """The descriptors of one command, which are closed with the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, int] = {}

    def named(self, name: str, path: str | Path | None = None) -> int:
        """A descriptor of a file in the folder, or of another one; what it holds is its name where it is new."""
        if name not in self._open:
            path = path or self.folder / name
            if not os.path.exists(path):
                Path(path).write_text(name)
            self._open[name] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return self._open[name]

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


class Formats:
    def stage1_format(self, name: str) -> Format:
        assert name == FIRST_STAGE
        return FirstStageFormat(4, haw=46, one_gib_pages=True)

    def domain_format(self, domain: Domain) -> Format:
        return SecondStageFormat(domain.width, haw=46, page_sizes=domain.page_sizes, snoop_control=False)


def call(context: HardwareContext, ioctl: str, **fields: int) -> None:
    """What every call to the kernel passes. Raises Lost."""
    if because := iommuctl_lost(context):
        raise Lost("the kernel has none of it any more", because=because, hint="`iommuctl recover` builds it again")
    context.log_call(Call(ioctl, fields))


@hookimpl
def iommuctl_probe() -> Availability:
    return Availability(NAME, True, "", "vtd", API_VERSION)


@hookimpl
def iommuctl_plan_memory(request: SetupRequest) -> None:
    return None


@hookimpl
def iommuctl_setup(context: HardwareContext, request: SetupRequest) -> str:
    for rid, facts in DEVICES.items():
        row = {"bound": False, **facts, "siblings": [str(each) for each in facts.get("siblings", ())]}
        context.rows.put(f"{NAME}.device", str(rid), row)
    return "vtd"


@hookimpl
def iommuctl_capabilities(context: HardwareContext) -> Capabilities:
    return Capabilities(
        nesting="slot",
        dirty_tracking=True,
        widths=(48,),
        page_sizes=(1 << 12, 1 << 21, 1 << 30),
        pasid_bits=16,
        pgtable_formats=(FIRST_STAGE,),
        fault_records=(context.folder / "events").exists(),
    )


@hookimpl
def iommuctl_formats(context: HardwareContext) -> Formats:
    return Formats()


@hookimpl
def iommuctl_devices(context: HardwareContext, rid: Rid | None) -> list[Device]:
    rows = context.rows.scan(f"{NAME}.device")
    found = [_device(key, row) for key, row in rows]
    return [device for device in found if rid in (None, device.rid)]


def _device(key: str, row: dict[str, Any]) -> Device:
    shown = {name: value for name, value in row.items() if name != "was"}
    return Device(Rid.parse(key), **{**shown, "siblings": tuple(map(Rid.parse, row["siblings"]))})


@hookimpl
def iommuctl_units(context: HardwareContext) -> list[IommuUnit]:
    return [IommuUnit("dmar0", "vtd", {"CAP": 0xD2008C40660462, "ECAP": 0xF050DA})]


def _rebind(context: HardwareContext, rid: Rid, **change: Any) -> Device:
    row = {**context.rows.get(f"{NAME}.device", str(rid)), **change}
    context.rows.put(f"{NAME}.device", str(rid), row)
    return _device(str(rid), row)


@hookimpl
def iommuctl_device_bind(context: HardwareContext, rid: Rid) -> Device:
    call(context, "VFIO_DEVICE_BIND_IOMMUFD", iommufd=4)
    row = context.rows.get(f"{NAME}.device", str(rid))
    was = [row.get("driver", ""), row.get("owner", "")]
    return _rebind(context, rid, bound=True, driver="vfio-pci", owner="", was=was)


@hookimpl
def iommuctl_device_unbind(context: HardwareContext, rid: Rid) -> Device:
    row = context.rows.get(f"{NAME}.device", str(rid))
    if not row["bound"]:
        raise DeviceNotBound(f"{rid} is not bound", hint=f"`iommuctl device bind {rid}` binds it")
    driver, owner = row["was"]
    return _rebind(context, rid, bound=False, driver=driver, owner=owner)


@hookimpl
def iommuctl_domain_create(context: HardwareContext, domain: Domain, dirty: bool) -> bool:
    call(context, "IOMMU_IOAS_ALLOC", size=12)
    context.rows.put(f"{NAME}.domain", str(domain.id), {"dirty": dirty, "written": False})
    return True


@hookimpl
def iommuctl_domain_destroy(context: HardwareContext, domain: Domain) -> bool:
    call(context, "IOMMU_DESTROY", id=domain.id)
    context.rows.delete(f"{NAME}.domain", str(domain.id))
    return True


@hookimpl
def iommuctl_map(context: HardwareContext, request: MapRequest) -> bool:
    mapping = request.mapping
    call(context, "IOMMU_IOAS_MAP_FILE", iova=mapping.iova, length=mapping.size, start=mapping.offset)
    return True


@hookimpl
def iommuctl_unmap(context: HardwareContext, request: UnmapRequest) -> bool:
    for mapping in request.mappings:
        call(context, "IOMMU_IOAS_UNMAP", iova=mapping.iova, length=mapping.size)
    return True


@hookimpl
def iommuctl_install(context: HardwareContext, change: SlotChange) -> bool:
    (device,) = iommuctl_devices(context, change.slot.rid)
    if not device.bound:
        raise DeviceNotBound(f"{device.rid} is not bound", hint=f"`iommuctl device bind {device.rid}` first")
    if change.new or not iommuctl_lost(context):
        verb = "ATTACH" if change.new else "DETACH"
        call(context, f"VFIO_DEVICE_{verb}_IOMMUFD_PT", pasid=change.slot.pasid or 0)
    _note(context, change.slot, change.new is not None)
    return True


def _note(context: HardwareContext, slot: Slot, held: bool) -> None:
    if held:
        context.rows.put(f"{NAME}.slot", str(slot), True)
    else:
        context.rows.delete(f"{NAME}.slot", str(slot))


@hookimpl
def iommuctl_invalidate(context: HardwareContext, request: InvalidateRequest) -> bool:
    for binding in request.bindings:
        first = request.first or 0
        context.log(Command("vtd.invalidate", first.to_bytes(8, "little"), {"ADDR": first}))
        call(context, "IOMMU_HWPT_INVALIDATE", hwpt_id=binding.slot.pasid or 0, entry_num=1)
    return True


@hookimpl
def iommuctl_check(context: HardwareContext, request: CheckRequest) -> list[str]:
    return [f"{slot}: the kernel has nothing there" for slot in request.slots if not _held(context, slot)]


def _held(context: HardwareContext, slot: Slot) -> bool:
    return bool(context.rows.get(f"{NAME}.slot", str(slot)))


@hookimpl
def iommuctl_lost(context: HardwareContext) -> str:
    path = context.folder / "lost"
    return path.read_text() if path.exists() else ""


@hookimpl
def iommuctl_page_requests(context: HardwareContext) -> AskedPages:
    return AskedPages()


@hookimpl
def iommuctl_faults(context: HardwareContext, request: FaultsRequest) -> list[Events]:
    queue = context.folder / "events"
    addresses = [int(line, 16) for line in queue.read_text().split()]
    queue.write_text("")
    read = request.positions.get(QUEUE, 0) + len(addresses)
    return [Events(QUEUE, [refused_read(iova) for iova in addresses], position=read)]


def refused_read(iova: int) -> RecordedFault:
    return RecordedFault(0x71, "SFS.2", "Nothing is there.", ONE, 3, iova, "r", "vtd.fault-record", (iova, 1 << 63))


@hookimpl
def iommuctl_repair(context: HardwareContext, request: RepairRequest) -> bool:
    return True


@hookimpl
def iommuctl_recover(context: HardwareContext, truth: Truth) -> list[str]:
    context.log_call(Call("IOMMU_IOAS_ALLOC", {"size": 12}))
    if context.dry_run:
        return []
    (context.folder / "lost").unlink()
    for slot in truth.slots:
        _note(context, slot, True)
    sources = [(memory.name, iommuctl_memory_source(context, memory)) for memory in truth.memories]
    return [f"memory {name} is empty: no file was behind it" for name, source in sources if source.path is None]


@hookimpl
def iommuctl_memory_create(context: HardwareContext, request: MemoryRequest) -> bool:
    memory, source = request
    row = {**source._asdict(), "dma_buf": source.dma_buf and [str(source.dma_buf[0]), source.dma_buf[1]]}
    context.rows.put(f"{NAME}.memory", str(memory.id), row)
    if source == MemorySource() and not context.dry_run:
        with open(context.folder / f"named-{memory.id}", "wb") as file:
            file.truncate(memory.size)
    return True


@hookimpl
def iommuctl_memory_destroy(context: HardwareContext, memory: Memory) -> bool:
    context.rows.delete(f"{NAME}.memory", str(memory.id))
    return True


@hookimpl
def iommuctl_memory_descriptor(context: HardwareContext, memory: Memory) -> int:
    source = iommuctl_memory_source(context, memory)
    if because := iommuctl_lost(context):
        raise Lost(f"memory {memory.name} is gone", because=because)
    if source.dma_buf:
        raise Unsupported(f"memory {memory.name} cannot be read", because="it is a device's")
    return context.kept(Files).named(f"named-{memory.id}", source.path)


@hookimpl
def iommuctl_memory_source(context: HardwareContext, memory: Memory) -> MemorySource:
    row = context.rows.get(f"{NAME}.memory", str(memory.id))
    fd, bar = row["fd"], row["dma_buf"]
    return MemorySource(
        row["path"], fd and (fd[0], fd[1]), bar and (Rid.parse(bar[0]), bar[1]), hugepages=row["hugepages"]
    )


@hookimpl
def iommuctl_ranges(context: HardwareContext, domain: Domain) -> DomainRanges:
    first, last = INTERRUPTS
    return DomainRanges(((0, first - 1), (last + 1, (1 << domain.width) - 1)), (INTERRUPTS,))


@hookimpl
def iommuctl_dirty(context: HardwareContext, request: DirtyRequest) -> Dirty:
    """The first page of each mapping counts as written whenever tracking is switched on."""
    key = str(request.domain.id)
    row = context.rows.get(f"{NAME}.domain", key)
    if not row["dirty"]:
        raise Unsupported(f"{request.domain.name} does not track what is written", hint="create it with --dirty")
    call(context, "IOMMU_HWPT_SET_DIRTY_TRACKING", hwpt_id=request.domain.id, flags=request.action == "on")
    written = [(mapping.iova, DIRTY_PAGE) for mapping in request.mappings] if row["written"] else []
    context.rows.put(f"{NAME}.domain", key, {**row, "written": request.action == "on"})
    return Dirty(tuple(written), DIRTY_PAGE)


@hookimpl
def iommuctl_descriptors(context: HardwareContext, rids: list[Rid]) -> dict[str, int]:
    files = context.kept(Files)
    for rid in rids:
        if not iommuctl_devices(context, rid)[0].bound:
            raise DeviceNotBound(f"{rid} is not bound", hint=f"`iommuctl device bind {rid}` first")
    names = {f"vfio:{rid}": f"vfio-{rid}" for rid in rids}
    return {"iommufd": files.named("iommufd"), **{name: files.named(file) for name, file in names.items()}}

# SPDX-License-Identifier: Apache-2.0
"""What is SMMUv3's own on real hardware: capabilities by what the kernel tells of bound devices, formats, slots."""

import mmap
from collections.abc import Iterator
from typing import Any

from iommuctl.capabilities import Capabilities
from iommuctl.errors import Unsupported
from iommuctl.formats.memory import Memory, Run, TableMemory
from iommuctl.formats.radix import Format
from iommuctl.iommufd.session import HwInfo
from iommuctl.iommufd.sysfs import Sysfs, Unit
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.vfio_devices import VfioDevices
from iommuctl.model import Domain, IommuUnit, Rid, Translation
from iommuctl.requests import TranslateRequest
from iommuctl_smmuv3 import host
from iommuctl_smmuv3.cd_tables import CdTable
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.guest_contexts import CONTEXT_FORMATS
from iommuctl_smmuv3.guest_walk import walk
from iommuctl_smmuv3.kernel_slots import SmmuSlots
from iommuctl_smmuv3.slots import owner
from iommuctl_smmuv3.streams import Streams
from iommuctl_smmuv3.tables import PageTables

_SOFTWARE_MSI = (0x0800_0000, 0x080F_FFFF)
"""Where Linux maps doorbells of interrupts: MSI_IOVA_BASE and MSI_IOVA_LENGTH of drivers/iommu/arm-smmu-v3.c."""


class SmmuFormats:
    """The formats of domains and page tables, by what all units can do, and what is in guest memory."""

    def __init__(self, machine: Machine) -> None:
        self._rows = machine.context.rows
        self._machine = machine

    def stage1_format(self, name: str) -> Format:
        return PageTables(host.all_features(self._rows)).named(name)

    def domain_format(self, domain: Domain) -> Format:
        return PageTables(host.all_features(self._rows)).of(domain)

    def used_in_guest(self, rid: Rid, guest: TableMemory) -> Iterator[Run]:
        """Every page of guest memory that holds a device's CD table, by GPA: rows tell."""
        stream = Streams(self._rows).get(rid)
        if stream and stream.contexts and not stream.foreign:
            features = self._features(rid)
            yield from CdTable(guest, self._rows, features, owner(rid, stream), stream.contexts).runs()

    def translate_in_guest(self, request: TranslateRequest, guest: Memory) -> Translation:
        """As GuestWalk."""
        stream = Streams(self._rows).get(request.slot.rid)
        assert stream
        return walk(self._features(request.slot.rid), stream, guest, request)

    def _features(self, rid: Rid) -> Features:
        record = self._machine.records.device(rid)
        assert record
        return host.features_of(host.records(self._rows)[record["unit"]])


class Smmuv3:
    """SMMUv3 as a `Vendor` of iommuctl.kernel."""

    name = "smmuv3"
    parents_take_pasids = False

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    def _found(self) -> list[Unit]:
        return [unit for unit in self._sysfs.units() if unit.kind == host.KIND]

    def units(self, machine: Machine) -> list[IommuUnit]:
        """The units that the kernel's driver has announced, with the registers that it told of."""
        known = host.records(machine.context.rows)
        return [_unit(unit.name, known.get(unit.name)) for unit in self._found()]

    def devices(self, machine: Machine) -> VfioDevices:
        return VfioDevices(machine, host.KIND, self._sysfs)

    def slots(self, machine: Machine) -> SmmuSlots:
        return SmmuSlots(machine)

    def formats(self, machine: Machine) -> SmmuFormats:
        return SmmuFormats(machine)

    def learn(self, machine: Machine, unit: str, dev_id: int, info: HwInfo) -> None:
        host.learn(machine, unit, dev_id, info)

    def capabilities(self, machine: Machine) -> Capabilities:
        """Raises DeviceNotBound before the first device is bound."""
        rows = machine.context.rows
        features, obstacle = host.all_features(rows), host.obstacle(rows)
        tables = PageTables(features)
        return Capabilities(
            nesting="none" if obstacle else "device",
            nesting_obstacle=obstacle,
            context_tables_in_guest=not obstacle,
            widths=tables.stage_1_widths,
            parent_widths=tables.widths,
            page_sizes=_page_sizes(tables.stage1(_granule(features))),
            reserved=(_SOFTWARE_MSI,),
            pasid_bits=features.ssid_bits,
            fault_records=True,
            pgtable_formats=() if obstacle else tables.names,
            context_formats=() if obstacle else CONTEXT_FORMATS,
        )


def _unit(name: str, record: dict[str, Any] | None) -> IommuUnit:
    if record is None:
        hint = "not known: the kernel tells them of a device that is bound"
        return IommuUnit(name, "smmuv3", {}, {"unit": hint})
    return IommuUnit(name, "smmuv3", record["registers"], {"nesting": record["obstacle"] or "yes"})


def _page_sizes(fmt: Format) -> tuple[int, ...]:
    """Those of single descriptors: Linux makes no contiguous runs."""
    return tuple(
        size for size in fmt.page_sizes if size in {1 << fmt.shift(level) for level in range(1, fmt.levels + 1)}
    )


def _granule(features: Features) -> int:
    """That of the tables that Linux builds: its own pages, else the next smaller, else the next larger.

    Source: drivers/iommu/io-pgtable-arm.c, arm_lpae_restrict_pgsizes.
    """
    own = mmap.PAGESIZE
    if smaller := [size for size in features.granules if size <= own]:
        return max(smaller)
    if not features.granules:
        raise Unsupported("no tables suit all SMMUs here", because="they have no granule in common")
    return min(features.granules)

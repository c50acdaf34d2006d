# SPDX-License-Identifier: Apache-2.0
"""What is VT-d's own on real hardware: capabilities by its registers, first stages as payloads, invalidations."""

from collections.abc import Sequence
from functools import cached_property

from iommuctl.capabilities import Capabilities
from iommuctl.errors import BackendUnavailable, Unsupported
from iommuctl.formats.memory import PAGE
from iommuctl.formats.radix import Format
from iommuctl.iommufd.session import HwInfo
from iommuctl.iommufd.sysfs import Sysfs, Unit
from iommuctl.kernel.fault_queues import RESPONSES
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.slots import Entry, NestedBySlot, Payload
from iommuctl.kernel.vfio_devices import VfioDevices
from iommuctl.model import Binding, Domain, IommuUnit
from iommuctl_vtd import uapi
from iommuctl_vtd.capability import INTERRUPT_RANGE, Capability, capability
from iommuctl_vtd.host import KIND, registers
from iommuctl_vtd.registers import CAP, ECAP

_HAW = 52
"""No register tells how many bits host addresses have; named memory has none that could be too wide."""
_APERTURES = (32, 39, 48, 57)
_LEVELS = {48: 4, 57: 5}


class VtdFormats:
    """The formats of domains and page tables, by what all units can do."""

    def __init__(self, units: Sequence[Capability]) -> None:
        self._units = units

    def stage1_format(self, name: str) -> Format:
        for levels in self.levels:
            fmt = self._weakest.first_stage(levels)
            if fmt.name == name:
                return fmt
        raise Unsupported(f"no page tables of format {name}", because="not every unit here walks them")

    def domain_format(self, domain: Domain) -> Format:
        """A nest parent is a second stage; else Linux prefers a first stage where the unit has it."""
        unit = self._weakest
        if domain.nest_parent or not (unit.has("SMTS") and unit.has("FSTS")):
            return unit.second_stage(max(unit.widths))
        return unit.first_stage(4)

    @cached_property
    def _weakest(self) -> Capability:
        """The unit that walks the fewest page sizes: tables with larger ones would be faults there."""
        return min(self._units, key=lambda unit: (CAP.FS1GP.get(unit.cap), len(unit.page_sizes)))

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The levels of first stages that all units walk."""
        return tuple(levels for levels in (4, 5) if all(levels in unit.first_stage_levels for unit in self._units))


class Vtd:
    """VT-d as a `Vendor` of iommuctl.kernel."""

    name = "vtd"
    parents_take_pasids = True

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    @cached_property
    def _found(self) -> list[Unit]:
        return [unit for unit in self._sysfs.units() if unit.kind == KIND]

    @cached_property
    def units_found(self) -> list[Capability]:
        """Raises BackendUnavailable where there are none, as when the machine was started without its IOMMU."""
        shown = [registers(unit) for unit in self._found]
        if not shown:
            raise BackendUnavailable(
                "the machine has no VT-d unit any more",
                because="the kernel's driver announces none in /sys/class/iommu",
                hint="start it with intel_iommu=on, and the IOMMU switched on in the firmware",
            )
        return [capability(each["CAP"], each["ECAP"], _HAW) for each in shown]

    def units(self) -> list[IommuUnit]:
        """The units that the kernel's driver has announced, with the registers that it shows."""
        return [IommuUnit(unit.name, "vtd", registers(unit)) for unit in self._found]

    def devices(self, machine: Machine) -> VfioDevices:
        return VfioDevices(machine, KIND, self._sysfs)

    def slots(self, machine: Machine) -> "VtdSlots":
        return VtdSlots(machine, self.units_found)

    def learn(self, machine: Machine, unit: str, dev_id: int, info: HwInfo) -> None:
        """Nothing: /sys shows the registers."""

    def formats(self, machine: Machine) -> VtdFormats:  # noqa: ARG002 - the registers tell
        return VtdFormats(self.units_found)

    def capabilities(self, machine: Machine) -> Capabilities:  # noqa: ARG002
        units = self.units_found
        scalable = _all(units, "SMTS", "SSTS")
        nests = scalable and _all(units, "NEST")
        widest = min(unit.mgaw for unit in units)
        formats = VtdFormats(units)
        return Capabilities(
            nesting="slot" if nests else "none",
            dirty_tracking=scalable and _all(units, "SSADS", "SMPWCS"),
            widths=(*(width for width in _APERTURES if width < widest), widest),
            page_sizes=tuple(sorted(set[int].intersection(*(set(unit.page_sizes) for unit in units)))),
            reserved=(INTERRUPT_RANGE,),
            pasid_bits=min(ECAP.PSS.get(unit.ecap) + 1 for unit in units) if scalable and _all(units, "PASID") else 0,
            pgtable_formats=tuple(units[0].first_stage(levels).name for levels in formats.levels) if nests else (),
            page_responses=() if (obstacle := _no_page_requests(units)) else RESPONSES,
            page_request_obstacle=obstacle,
        )


class VtdSlots(NestedBySlot):
    """First stages as payloads, each of a nested HWPT of its own."""

    invalidation_type = uapi.IOMMU_HWPT_INVALIDATE_DATA_VTD_S1

    def __init__(self, machine: Machine, units: Sequence[Capability]) -> None:
        super().__init__(machine)
        self._units = units

    def payload(self, binding: Binding) -> Payload:
        fmt = VtdFormats(self._units).stage1_format(binding.format)
        width = next(width for width, levels in _LEVELS.items() if levels == fmt.levels)
        # As the simulator's driver: requests with privilege are possible, and respect pages that are read-only.
        flags = uapi.IOMMU_VTD_S1_SRE | uapi.IOMMU_VTD_S1_WPE if _all(self._units, "SRS") else 0
        data = uapi.iommu_hwpt_vtd_s1(flags=flags, pgtbl_addr=binding.root, addr_width=width)
        return Payload(uapi.IOMMU_HWPT_DATA_VTD_S1, bytes(data))

    def entries(self, span: tuple[int, int] | None, *, leaf: bool) -> Sequence[Entry]:
        """One request: the kernel rounds a range to the aligned block that covers it, and tells the device TLB."""
        if span is None:
            address, pages = 0, 2**64 - 1
        else:
            address = span[0] & -PAGE
            pages = (span[1] - address) // PAGE + 1
        fields = {"addr": address, "npages": pages, "flags": uapi.IOMMU_VTD_INV_FLAGS_LEAF if leaf else 0}
        raw = bytes(uapi.iommu_hwpt_vtd_s1_invalidate(**fields))
        return [Entry("vtd.hwpt-vtd-s1-invalidate", raw, fields)]


def _no_page_requests(units: Sequence[Capability]) -> str:
    """Why Linux takes no page requests of devices: intel_iommu_probe_device, drivers/iommu/intel/iommu.c."""
    lacking = [name for name in ("SMTS", "PRS", "PDS") if not _all(units, name)]
    return f"not every VT-d unit here has what Linux needs for it: ECAP.{', ECAP.'.join(lacking)}" if lacking else ""


def _all(units: Sequence[Capability], *names: str) -> bool:
    return all(unit.has(name) for unit in units for name in names)

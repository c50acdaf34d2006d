# SPDX-License-Identifier: Apache-2.0
"""What a program that nests does: memory from GPA 0 on, a stage 2 for it, and a vIOMMU with one device.

Tables and CDs are those that iommuctl_smmuv3 makes. Nothing of its backend takes part.
"""

import struct
from copy import copy
from typing import NamedTuple

from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, FileMemory, Run
from iommuctl.iommufd import uapi
from iommuctl.iommufd.session import Iommufd
from iommuctl_smmuv3.entries import Contexts, context_descriptor, stream_entry
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.ste import Ste
from iommuctl_smmuv3.tables import PageTables

SIZE, TABLES = 4 << 20, 2 << 20
"""Of the memory in bytes, and where in it tables are put."""
KIND = 2
"""IOMMU_HW_INFO_TYPE_ARM_SMMUV3 and IOMMU_HWPT_DATA_ARM_SMMUV3."""
VIOMMU = COMMANDS = VEVENTQ = 1
"""IOMMU_VIOMMU_TYPE_ARM_SMMUV3, IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, IOMMU_VEVENTQ_TYPE_ARM_SMMUV3."""
VSID = 0x4200
"""The StreamID that the guest knows the device by; the kernel's is another one."""
READ_WRITE = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE
_REGISTERS = ("IDR0", "IDR1", "IDR2", "IDR3", "IDR4", "IDR5", "IIDR", "AIDR")


def registers(session: Iommufd, device: int) -> dict[str, int]:
    """The registers of iommu_hw_info_arm_smmuv3, by name."""
    info = session.get_hw_info(device)
    assert info.type == KIND
    flags, reserved, *values = struct.unpack("<10I", info.data)
    assert (flags, reserved) == (0, 0)
    return dict(zip(_REGISTERS, values, strict=True))


class GuestMemory(FileMemory):
    """Memory in a file, whose pages are handed out from TABLES on."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, 0, SIZE)
        self.fd = fd
        self._next = TABLES

    def allocate(self, pages: int) -> list[Run]:
        return [Run(self.allocate_run(pages), pages)]

    def allocate_run(self, pages: int) -> int:
        address, self._next = self._next, self._next + pages * PAGE
        return address

    def free(self, run: Run) -> None:
        """Nothing is used twice."""


class Stage1(NamedTuple):
    """A stage 1 in guest memory, and the CD that leads to it."""

    format: radix.Format
    root: int
    cd: int
    memory: GuestMemory

    def map(self, iova: int, gpa: int, size: int = 1 << 16, prot: str = "rw") -> None:
        """Map a range; the default is a page of the largest granule."""
        radix.map_range(self.format, self.memory, self.root, iova, size, gpa, prot, self.format.page_sizes)

    def unmap(self, iova: int, size: int = 1 << 16) -> None:
        radix.unmap_range(self.format, self.memory, self.root, iova, size)


class Guest:
    """A nest parent with the guest's memory, a vIOMMU on it, and a device that is attached to the parent."""

    def __init__(self, session: Iommufd, device: int, memory: GuestMemory) -> None:
        self.session, self.device, self.memory = session, device, memory
        self.features = Features.of(registers(session, device))
        self.ioas = session.ioas_alloc()
        session.ioas_map_file(self.ioas, 0, SIZE, self.memory.fd, start=0, flags=READ_WRITE)
        self.parent = session.hwpt_alloc(device, self.ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT)
        self.viommu = session.viommu_alloc(device, self.parent, VIOMMU)[0]
        self.vdevice = 0

    def beside(self, device: int) -> "Guest":
        """The same guest, with another of its devices."""
        other = copy(self)
        other.device = device
        return other

    def stage_1(self, granule: int = PAGE, asid: int = 1) -> Stage1:
        """A new empty stage 1, with a CD."""
        tables = PageTables(self.features)
        fmt = tables.stage1(granule)
        root = radix.new_root(fmt, self.memory)
        cd = self.memory.allocate_run(1)
        self.write_cd(cd, context_descriptor(fmt, root, asid, tables.output(granule)))
        return Stage1(fmt, root, cd, self.memory)

    def write_cd(self, at: int, value: int) -> None:
        self.memory.write(at, value.to_bytes(64, "little"))

    def translating(self, stage_1: Stage1) -> bytes:
        """The payload of a stage 1 with one CD."""
        contexts = Contexts(stage_1.cd, 0)
        return payload(stream_entry(self.features, ats=False, contexts=contexts, dss=0, stage_2_fields=0))

    def nested(self, data: bytes, **changed: int) -> int:
        """A nested page table with that payload."""
        values = {"dev_id": self.device, "pt_id": self.viommu, "data_type": KIND} | changed
        return self.session.hwpt_alloc(**values, data=data)

    def invalidate(self, *commands: int) -> int:
        """Pass commands, as iommu_viommu_arm_smmuv3_invalidate has them."""
        return self.session.hwpt_invalidate(
            self.viommu, COMMANDS, [command.to_bytes(16, "little") for command in commands]
        )


def payload(ste: int) -> bytes:
    """iommu_hwpt_arm_smmuv3 of an STE, whose other words are 0."""
    return ste.to_bytes(Ste.bits // 8, "little")[:16]

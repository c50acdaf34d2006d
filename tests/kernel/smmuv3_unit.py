# SPDX-License-Identifier: Apache-2.0
"""What the driver of an SMMUv3 adds to the rules of iommufd, with masks written down apart from those under test.

Source: drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-iommufd.c and arm_smmu_domain_alloc_paging_flags of arm-smmu-v3.c,
Linux 7.3.
"""

import errno
import struct
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from iommuctl.iommufd import uapi
from tests.kernel.files import failure
from tests.kernel.units import Unit

HW_INFO_TYPE, HWPT_TYPE, VIOMMU_TYPE, INVALIDATE_TYPE, VEVENTQ_TYPE = 2, 2, 1, 1, 1
"""IOMMU_HW_INFO_TYPE_ARM_SMMUV3 and its like, include/uapi/linux/iommufd.h."""

QEMU = {"IDR0": 0x0D44101B, "IDR1": 0x02730010, "IDR3": 0x1414, "IDR5": 0x74, "AIDR": 1}
"""QEMU 11.1 with stage=nested: no PASIDs, no ATS."""
SUBSTREAMS = QEMU | {"IDR0": 0x0D4C141B, "IDR1": 0x02730410}
"""The same with ATS, two levels of CDs and 16 bits of SubstreamID."""

_STAGE1_FLAGS = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING | uapi.IOMMU_HWPT_ALLOC_PASID
_ALLOWED_STE = 0xF80F_FFFF_FFFF_FFFF, 0x3800_00FF
_ABORT, _BYPASS, _STAGE1 = 0, 4, 5

CFGI_CD, CFGI_CD_ALL, TLBI_NH_ALL, TLBI_NH_ASID, TLBI_NH_VA, TLBI_NH_VAA = 0x05, 0x06, 0x10, 0x11, 0x12, 0x13
TLBI_NSNH_ALL, ATC_INV = 0x30, 0x40
_OPCODE = 0xFF
_SID, _SSID, _SSV, _GLOBAL = 0xFFFF_FFFF << 32, 0xF_FFFF << 12, 1 << 11, 1 << 9
_VMID, _ASID8, _ASID16 = 0xFFFF << 32, 0xFF << 48, 0xFFFF << 48
_NUM, _SCALE, _SCALE_HIGH, _TTL, _TG, _LEAF, _ADDRESS = 0x1F << 12, 0x3F << 20, 1 << 25, 3 << 8, 3 << 10, 1, -1 << 12
_SIZE, _LARGEST = 0x3F, 52


@dataclass(frozen=True)
class Smmuv3Unit(Unit):
    """A unit with these `registers`; `coherent` devices need no stage 2 that forces write-back (IDR3.FWB)."""

    registers: tuple[tuple[str, int], ...] = ()
    coherent: bool = True

    nests_on_parents = False

    @classmethod
    def of(cls, registers: dict[str, int], name: str = "unit0", *, coherent: bool = True) -> "Smmuv3Unit":
        return cls(name, registers["IDR1"] >> 6 & 0x1F, tuple(registers.items()), coherent)

    @cached_property
    def _idr(self) -> dict[str, int]:
        return dict(self.registers)

    def _bit(self, register: str, bit: int) -> bool:
        return bool(self._idr[register] >> bit & 1)

    @property
    def _nests(self) -> bool:
        return self._idr["IDR0"] & 3 == 3

    def hw_info(self) -> tuple[int, bytes]:
        """arm_smmu_hw_info: `flags`, 0, IDR0 to IDR5, IIDR, AIDR."""
        names = ("IDR0", "IDR1", "IDR2", "IDR3", "IDR4", "IDR5", "IIDR", "AIDR")
        return HW_INFO_TYPE, struct.pack("<10I", 0, 0, *(self._idr.get(name, 0) for name in names))

    def takes(self, flags: int) -> bool:
        """A nest parent is a stage 2, and what takes PASIDs or tells of writes a stage 1: none is both."""
        if flags == uapi.IOMMU_HWPT_ALLOC_NEST_PARENT:
            return self._nests
        return not flags or (not flags & ~_STAGE1_FLAGS and self._bit("IDR0", 1))

    def viommu_types(self) -> tuple[int, ...]:
        """arm_smmu_get_viommu_size."""
        return (VIOMMU_TYPE,) if self._nests and (self.coherent or self._bit("IDR3", 8)) else ()

    def vste(self, flags: int, data_type: int, data: bytes) -> bytes:
        """arm_vsmmu_alloc_domain_nested: two words of an STE; those of one that is not valid are kept as 0."""
        if flags & ~uapi.IOMMU_HWPT_FAULT_ID_VALID:
            raise failure(errno.EOPNOTSUPP)
        if data_type != HWPT_TYPE or len(data) != 16:
            raise failure(errno.EINVAL)
        first, second = struct.unpack("<QQ", data)
        if not first & 1:
            return bytes(16)
        excess = first & ~_ALLOWED_STE[0] or second & ~_ALLOWED_STE[1]
        if excess or first >> 1 & 7 not in (_ABORT, _BYPASS, _STAGE1) or second >> 28 & 3 > 1:
            raise failure(errno.EIO)
        return data

    def check_attach(self, vste: bytes, number: int | None) -> None:
        """arm_smmu_attach_prepare_vmaster: what translates needs the device's number on the vIOMMU."""
        if number is None and vste[0] >> 1 & 7 not in (_ABORT, _BYPASS):
            raise failure(errno.ENOENT)

    def refuses(self, command: bytes, numbers: Collection[int]) -> bool:
        """arm_vsmmu_validate_user_cmd and arm_vsmmu_convert_user_cmd, for a vIOMMU whose devices have these numbers."""
        first, second = struct.unpack("<QQ", command)
        opcode = first & _OPCODE
        allowed = self._allowed.get(opcode)
        if allowed is None or first & ~(allowed[0] | _OPCODE) or second & ~allowed[1]:
            return True
        if opcode in (TLBI_NH_VA, TLBI_NH_VAA):
            return self._bit("IDR3", 10) and self._reserved_range(first, second)
        if opcode == ATC_INV and second & _SIZE > _LARGEST:
            return True
        return opcode in (CFGI_CD, CFGI_CD_ALL, ATC_INV) and first >> 32 not in numbers

    @cached_property
    def _allowed(self) -> dict[int, tuple[int, int]]:
        """The bits of a command that may be set, by its opcode."""
        asid = _ASID16 if self._bit("IDR0", 12) else _ASID8
        ssid = _SSID if self.pasid_bits else 0
        scale = _SCALE if self._bit("IDR5", 7) else _SCALE & ~_SCALE_HIGH
        span = (_NUM | scale, _TTL | _TG) if self._bit("IDR3", 10) else (0, 0)
        found = {
            TLBI_NSNH_ALL: (0, 0),
            TLBI_NH_ALL: (_VMID, 0),
            TLBI_NH_ASID: (_VMID | asid, 0),
            TLBI_NH_VA: (_VMID | asid | span[0], _LEAF | _ADDRESS | span[1]),
            TLBI_NH_VAA: (_VMID | span[0], _LEAF | _ADDRESS | span[1]),
            CFGI_CD: (_SID | ssid, _LEAF),
            CFGI_CD_ALL: (_SID, 0),
        }
        if self._bit("IDR0", 10):
            found[ATC_INV] = _SID | (_SSV | _SSID | _GLOBAL if self.pasid_bits else 0), _SIZE | _ADDRESS
        return found

    def _reserved_range(self, first: int, second: int) -> bool:
        some, level, granule = bool(first & (_NUM | _SCALE)), second >> 8 & 3, second >> 10 & 3
        if granule == 0:
            return some or level != 0
        return not (some or level) or (granule == 2 and level == 1 and not self._bit("IDR5", 7))


def seen_by_guest(event: bytes, number: int) -> bytes:
    """arm_vmaster_report_event: the StreamID is the device's number there, and the rest as it was."""
    return event[:4] + struct.pack("<I", number) + event[8:]

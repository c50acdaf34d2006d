# SPDX-License-Identifier: Apache-2.0
"""Commands that a vIOMMU carries out, and those that it refuses: arm_vsmmu_validate_user_cmd of Linux 7.3.

Each is taken by BOTH units of smmuv3_unit.py, by that with substreams and ATS alone (RICH), or by NONE; VSID is the
number of a device.
"""

from tests.kernel.calling import VSID, Command

BOTH, RICH, NONE = "both", "rich", "none"
_SID, _VA = VSID << 32, 0x1234_5000

COMMANDS: tuple[tuple[str, Command], ...] = (
    # TLBI_NSNH_ALL, TLBI_NH_ALL, TLBI_NH_ASID
    (BOTH, (0x30, 0)),
    (NONE, (0x30 | 1 << 32, 0)),
    (BOTH, (0x10 | 0xFFFF << 32, 0)),
    (NONE, (0x10 | 1 << 48, 0)),
    (NONE, (0x10 | 1 << 8, 0)),
    (BOTH, (0x11 | 0xFFFF << 48, 0)),
    (NONE, (0x11, 1)),
    # TLBI_NH_VA: Leaf, and ranges of NUM, SCALE, TTL and TG
    (BOTH, (0x12 | 0xFFFF << 48, _VA | 1)),
    (BOTH, (0x12 | 0x1F << 12 | 0x1F << 20, _VA | 1 << 10)),
    (BOTH, (0x12, _VA | 1 << 10 | 1 << 8)),
    (NONE, (0x12, _VA | 1 << 10)),
    (NONE, (0x12, _VA | 1 << 8)),
    (NONE, (0x12 | 1 << 12, _VA)),
    (NONE, (0x12 | 1 << 25, _VA | 1 << 10)),
    (NONE, (0x12, _VA | 2 << 10 | 1 << 8)),
    (NONE, (0x12, _VA | 2)),
    # TLBI_NH_VAA
    (BOTH, (0x13, _VA)),
    (NONE, (0x13 | 1 << 48, _VA)),
    # CFGI_CD, CFGI_CD_ALL
    (BOTH, (0x05 | _SID, 1)),
    (RICH, (0x05 | _SID | 0xFFFF << 12, 1)),
    (NONE, (0x05 | _SID | 1 << 11, 1)),
    (NONE, (0x05 | _SID + (1 << 32), 1)),
    (BOTH, (0x06 | _SID, 0)),
    (NONE, (0x06 | _SID, 1)),
    # ATC_INV
    (RICH, (0x40 | _SID, _VA | 52)),
    (RICH, (0x40 | _SID | 7 << 12 | 1 << 11 | 1 << 9, 52)),
    (NONE, (0x40 | _SID, 53)),
    (NONE, (0x40 | _SID + (1 << 32), 52)),
    # CFGI_STE, CFGI_ALL, SYNC, TLBI_S12_VMALL, TLBI_S2_IPA, TLBI_EL2_ALL
    (NONE, (0x03 | _SID, 0)),
    (NONE, (0x04, 0)),
    (NONE, (0x46, 0)),
    (NONE, (0x28, 0)),
    (NONE, (0x2A, _VA)),
    (NONE, (0x20, 0)),
)

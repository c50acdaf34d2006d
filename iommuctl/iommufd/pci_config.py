# SPDX-License-Identifier: Apache-2.0
"""What a PCI Express device says of itself in its extended configuration space: ATS, PRI, PASID.

Source: PCI Express Base Specification 6.0, sections 7.6.3 (the list), 7.8.9 (PASID), 10.5.1 (ATS) and 10.5.2 (PRI).
"""

from typing import Final, NamedTuple

CONVENTIONAL_SIZE: Final = 256
"""Bytes of the configuration space of a device that has no extended one."""
EXTENDED_SIZE: Final = 4096
ATS: Final = 0x0F
PRI: Final = 0x13
PASID: Final = 0x1B
MAX_PASID_BITS: Final = 20


class Extended(NamedTuple):
    """What the extended capabilities tell; `pasid_bits` is 0 for a device without PASIDs."""

    ats: bool
    pri: bool
    pasid_bits: int


def extended_capabilities(config: bytes) -> dict[int, int]:
    """The byte offsets of extended capabilities by their ids, of the first one where an id occurs again.

    The list may loop or lead astray: no header is read twice, and none outside of the extended space.
    """
    found: dict[int, int] = {}
    seen: set[int] = set()
    at = CONVENTIONAL_SIZE
    while CONVENTIONAL_SIZE <= at <= min(len(config), EXTENDED_SIZE) - 4 and at not in seen:
        seen.add(at)
        header = int.from_bytes(config[at : at + 4], "little")
        if header in (0, 0xFFFF_FFFF):
            break
        found.setdefault(header & 0xFFFF, at)
        at = header >> 20 & 0xFFC
    return found


def extended(config: bytes) -> Extended | None:
    """Read ATS, PRI and PASID out of a whole configuration space. None where the device did not answer (all ones)."""
    if config[:2] == b"\xff\xff":
        return None
    found = extended_capabilities(config)
    bits = 0
    if (at := found.get(PASID)) is not None:
        bits = min(int.from_bytes(config[at + 4 : at + 6], "little") >> 8 & 0x1F, MAX_PASID_BITS)
    return Extended(ATS in found, PRI in found, bits)

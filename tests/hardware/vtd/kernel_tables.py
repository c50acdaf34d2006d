# SPDX-License-Identifier: Apache-2.0
"""The tables of VT-d as the kernel shows them in debugfs: the PASID-table entry of a slot."""

import subprocess
from pathlib import Path

from iommuctl.model import Rid, Slot
from iommuctl_vtd.pasid_entry import PasidEntry
from tests.linux.vtd.kernel_dump import parse_devices

_DEBUGFS = Path("/sys/kernel/debug")
_DUMP = _DEBUGFS / "iommu/intel/dmar_translation_struct"


def entries() -> dict[Slot, dict[str, int]]:
    """The fields of every PASID-table entry that is present, as far as the kernel shows them: its first three words."""
    if not _DUMP.exists():
        subprocess.run(["mount", "-t", "debugfs", "none", str(_DEBUGFS)], check=True)
    _, devices = parse_devices(_DUMP.read_text())
    found = {}
    for device in devices:
        raw = sum(word << 64 * number for number, word in enumerate(device.entry))
        fields = PasidEntry.values(raw)
        if fields["P"]:
            found[Slot(device.rid, device.pasid or None)] = fields
    return found


def slot(rid: str, pasid: int | None = None) -> Slot:
    return Slot(Rid.parse(rid), pasid)

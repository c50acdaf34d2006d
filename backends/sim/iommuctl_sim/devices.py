# SPDX-License-Identifier: Apache-2.0
"""The simulated devices, as rows."""

from iommuctl.hookspecs import Rows
from iommuctl.model import Device, Rid

KIND = "sim.device"


def find(rows: Rows, rid: Rid | None) -> list[Device]:
    """All devices in the order of their RIDs, or the one with this RID."""
    if rid is not None:
        found = rows.get(KIND, str(rid))
        return [Device(rid, *found)] if found else []
    return [Device(Rid.parse(key), *value) for key, value in rows.scan(KIND)]


def add(rows: Rows, device: Device) -> None:
    rows.put(KIND, str(device.rid), device[1:])


def remove(rows: Rows, device: Device) -> None:
    rows.delete(KIND, str(device.rid))

# SPDX-License-Identifier: Apache-2.0
"""Mock devices as devices of a machine: two RIDs, each made when it is bound.

The kernel makes a mock device attached to something, and its slot is never empty. What stands for an empty slot is the
device's own HWPT of an IOAS without mappings; it takes PASIDs, or none could be attached beside it.
"""

from typing import Any

from iommuctl.errors import DeviceNotBound, InUse, Unsupported
from iommuctl.iommufd import uapi as kernel
from iommuctl.kernel import objects
from iommuctl.kernel.machine import Machine
from iommuctl.model import Call, Rid, Slot
from iommuctl.model import Device as Known
from tests.hardware.mock import uapi
from tests.hardware.mock.driver import Device, Mock

RIDS = tuple(map(Rid.parse, ("0000:00:01.0", "0000:00:02.0")))
PASIDS = range(1, 64)
"""Those that `check` asks the kernel about."""


class MockPort:
    """A mock device that is bound, by its record: `stdev`, `dev`, `ioas`, `hwpt`."""

    unit = "mock"
    pasid_bits = uapi.MOCK_PASID_WIDTH
    ats = False

    def __init__(self, machine: Machine, record: dict[str, int]) -> None:
        self._machine = machine
        self._parked = record["hwpt"]
        self._device = Device(record["stdev"], record["dev"], record["hwpt"])
        self.dev_id = record["dev"]

    def attach(self, pt_id: int, pasid: int | None = None) -> None:
        mock = self._told("MOCK_DOMAIN_REPLACE" if pasid is None else "PASID_ATTACH", pt_id=pt_id, pasid=pasid or 0)
        if mock is None:
            return
        if pasid is None:
            mock.replace(self._device, pt_id)
        elif mock.pasid_has(self._device, pasid, 0):
            mock.pasid_attach(self._device, pasid, pt_id)
        else:
            mock.pasid_replace(self._device, pasid, pt_id)

    def detach(self, pasid: int | None = None) -> None:
        if pasid is None:
            self.attach(self._parked)
        elif mock := self._told("PASID_DETACH", pasid=pasid):
            mock.pasid_detach(self._device, pasid)

    def _told(self, operation: str, **fields: int) -> Mock | None:
        """The mock driver, unless nothing is to be done but to log the call."""
        self._machine.context.log_call(Call(f"IOMMU_TEST_CMD {operation}", {"id": self._device.stdev_id, **fields}))
        return None if self._machine.dry else Mock(self._machine.iommufd.fd)


class MockDevices:
    """The two devices as `Devices` of iommuctl.kernel."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def find(self, rid: Rid | None) -> list[Known]:
        return [
            Known(
                each,
                ats=True,
                pri=True,
                pasid_bits=uapi.MOCK_PASID_WIDTH,
                bound=self._machine.records.device(each) is not None,
            )
            for each in RIDS
            if rid in (None, each)
        ]

    def port(self, rid: Rid) -> MockPort:
        record = self._machine.records.device(rid)
        if record is None:
            raise DeviceNotBound(f"{rid} is not bound", because="no mock device stands for it yet")
        return MockPort(self._machine, record)

    def bind(self, rid: Rid) -> Known:
        if self._machine.records.device(rid) is not None:
            raise InUse(f"{rid} is bound already", because="a mock device stands for it")
        self._machine.records.put_device(rid, self._make())
        return self.find(rid)[0]

    def unbind(self, rid: Rid) -> Known:
        record = self._machine.records.device(rid)
        if record is None:
            raise DeviceNotBound(f"{rid} is not bound", because="no mock device stands for it")
        self._machine.records.put_device(rid, None)
        objects.destroy_later(self._machine, record["stdev"], record["hwpt"], record["ioas"])
        return self.find(rid)[0]

    def object_ids(self) -> set[int]:
        return {number for _, record in self._machine.records.devices() for number in record.values()}

    def repair(self, intent: dict[str, Any]) -> None:
        """Nothing is bound that rows do not name: what a killed `bind` made is destroyed with all that no row names."""

    def reopen(self) -> None:
        for rid, _ in list(self._machine.records.devices()):
            self._machine.records.put_device(rid, self._make())

    def descriptor(self, rid: Rid) -> int:  # noqa: ARG002
        raise Unsupported("a mock device has no file", because="it lives in the iommufd")

    def dma_buf(self, rid: Rid, bar: int, size: int) -> int:  # noqa: ARG002
        raise Unsupported("a mock device has no BARs", because="it is none of PCI")

    def problems(self) -> list[str]:
        """The mock driver can be asked what a PASID holds, so it is: the rows must say the same."""
        found = []
        for rid, record in self._machine.records.devices():
            device = Device(record["stdev"], record["dev"], record["hwpt"])
            for pasid in PASIDS:
                held = self._machine.records.slot(Slot(rid, pasid))
                if not Mock(self._machine.iommufd.fd).pasid_has(device, pasid, held["pt"] if held else 0):
                    found.append(f"{Slot(rid, pasid)} does not hold what the rows say: {held}")
        return found

    def _make(self) -> dict[str, int]:
        iommufd = self._machine.iommufd
        ioas = objects.make(self._machine, iommufd.ioas_alloc)
        if self._machine.dry:
            return {"ioas": ioas, "stdev": 0, "dev": 0, "hwpt": 0}
        mock = Mock(iommufd.fd)
        made = mock.add_device(ioas, flags=uapi.MOCK_FLAGS_DEVICE_PASID)
        # With it goes all that the driver made for it.
        self._machine.intend({"made": made.stdev_id})
        hwpt = objects.make(self._machine, lambda: iommufd.hwpt_alloc(made.dev_id, ioas, kernel.IOMMU_HWPT_ALLOC_PASID))
        mock.replace(made, hwpt)
        return {"ioas": ioas, "stdev": made.stdev_id, "dev": made.dev_id, "hwpt": hwpt}

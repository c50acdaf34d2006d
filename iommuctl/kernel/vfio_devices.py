# SPDX-License-Identifier: Apache-2.0
"""Devices of the PCI bus, given to vfio-pci and attached through their VFIO character devices."""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from iommuctl.errors import DeviceNotBound, InUse, Lost, NoSuchDevice
from iommuctl.iommufd import drivers
from iommuctl.iommufd.holders import holders, node_numbers
from iommuctl.iommufd.sysfs import Group, PciDevice, Sysfs
from iommuctl.iommufd.uapi import IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED
from iommuctl.iommufd.vfio import NO_DESCRIPTOR, Cdev
from iommuctl.iommufd.viability import VFIO_PCI, check_viable
from iommuctl.kernel.machine import Connection, Machine
from iommuctl.model import Call, Device, Rid


class VfioPort:
    """A device that the keeper holds.

    Its record: `dev_id`, `cdev`, `unit`, `pasid_bits`, `ats`; `driver` and `override` are what it had before.
    """

    def __init__(self, record: dict[str, Any], cdev: Cdev) -> None:
        self.dev_id: int = record["dev_id"]
        self.unit: str = record["unit"]
        self.pasid_bits: int = record["pasid_bits"]
        self.ats: bool = record.get("ats", False)
        self.cdev = cdev

    def attach(self, pt_id: int, pasid: int | None = None) -> None:
        self.cdev.attach(pt_id, pasid)

    def detach(self, pasid: int | None = None) -> None:
        self.cdev.detach(pasid)


class VfioDevices:
    """The PCI devices behind IOMMUs of one kind, as their driver announces it in /sys/class/iommu."""

    def __init__(self, machine: Machine, kind: str, sysfs: Sysfs) -> None:
        self._machine = machine
        self._kind = kind
        self._sysfs = sysfs

    @cached_property
    def _units(self) -> set[str]:
        return {unit.name for unit in self._sysfs.units() if unit.kind == self._kind}

    def find(self, rid: Rid | None) -> list[Device]:
        if rid is None:
            return [self._device(found) for found in self._sysfs.devices() if found.unit in self._units]
        found = None
        with suppress(NoSuchDevice):
            found = self._sysfs.device(rid)
        if not found:
            return []
        if found.unit is None or self._sysfs.kind(found.unit) != self._kind:
            raise NoSuchDevice(
                f"{rid} is behind no IOMMU of this backend",
                because=f"it is behind {found.unit}" if found.unit else "it is in no IOMMU group",
                hint="the kernel's log tells why it has left a device out, as some behind bridges",
            )
        return [self._device(found)]

    def port(self, rid: Rid) -> VfioPort:
        record = self._machine.records.device(rid)
        if record is None:
            raise DeviceNotBound(
                f"{rid} is not bound",
                because="its slots are the kernel's until it is given to vfio-pci",
                hint=f"`iommuctl device bind {rid}`; `device unbind` gives it back to its driver",
            )
        held = self._machine.kept(_kept(rid))
        if held is None and not self._machine.dry:
            raise Lost(
                f"{rid} is not held any more",
                because="the keeper does not have its VFIO device",
                hint=f"`iommuctl device unbind {rid} --force`, and bind it again",
            )
        descriptor = NO_DESCRIPTOR if held is None else held
        return VfioPort(record, self._cdev(descriptor, record["cdev"]))

    def bind(self, rid: Rid) -> Device:
        machine = self._machine
        before = self._sysfs.device(rid)
        if machine.records.device(rid) is not None:
            raise InUse(f"{rid} is bound already", because="iommuctl holds it", hint=f"`iommuctl device show {rid}`")
        check_viable(self._sysfs, before)
        for write in drivers.to_vfio(self._sysfs, before):
            machine.context.log_call(Call(f"write {write.text.strip()} to {write.path}", {}))
        record: dict[str, Any] = {"driver": before.driver, "override": before.driver_override, "unit": before.unit}
        if machine.dry:
            record |= {"dev_id": 0, "cdev": before.cdev or "vfio", "pasid_bits": before.pasid_bits or 0, "ats": False}
        else:
            # Before the driver goes: without an iommufd it would be for nothing.
            assert machine.iommufd
            machine.intend({"driver": [str(rid), before.driver, before.driver_override]})
            drivers.bind_to_vfio(self._sysfs, rid)
            machine.intend({"device": str(rid)})
            record |= self._open(rid)
        machine.records.put_device(rid, record)
        return self.find(rid)[0]._replace(driver=VFIO_PCI)

    def unbind(self, rid: Rid) -> Device:
        machine = self._machine
        record = machine.records.device(rid)
        if record is None:
            raise DeviceNotBound(f"{rid} is not bound", because="iommuctl does not hold it")
        now = self._sysfs.device(rid)
        for write in drivers.back(self._sysfs, now, record["driver"], record["override"]):
            machine.context.log_call(Call(f"write {write.text.strip()} to {write.path}", {}))
        self._check_not_lent(rid, now)
        machine.records.put_device(rid, None)
        if not machine.dry:
            machine.intend({"device": str(rid)})
            machine.intend({"driver": [str(rid), record["driver"], record["override"]]})
            machine.drop(_kept(rid))
            drivers.give_back(self._sysfs, rid, record["driver"], record["override"])
        return self.find(rid)[0]

    def object_ids(self) -> set[int]:
        return {record["dev_id"] for _, record in self._machine.records.devices()}

    def repair(self, intent: dict[str, Any]) -> None:
        # A device that is not there any more has no driver to go back to.
        with suppress(NoSuchDevice):
            if "driver" in intent:
                name, driver, override = intent["driver"]
                self._repair_driver(Rid.parse(name), driver, override)
            else:
                self._repair_device(Rid.parse(intent["device"]))

    def _repair_driver(self, rid: Rid, driver: str | None, override: str | None) -> None:
        if self._machine.records.device(rid) is None:
            drivers.give_back(self._sysfs, rid, driver, override)
        else:
            drivers.bind_to_vfio(self._sysfs, rid)

    def _repair_device(self, rid: Rid) -> None:
        """Whether the keeper holds the object of the row, or one of a later attempt, nothing tells: it is made anew."""
        record = self._machine.records.device(rid)
        self._machine.drop(_kept(rid))
        if record is not None:
            self._machine.records.put_device(rid, {**record, **self._open(rid)})

    def reopen(self) -> None:
        for rid, record in list(self._machine.records.devices()):
            drivers.bind_to_vfio(self._sysfs, rid)
            self._machine.records.put_device(rid, {**record, **self._open(rid)})

    def descriptor(self, rid: Rid) -> int:
        return self.port(rid).cdev.fd

    def dma_buf(self, rid: Rid, bar: int, size: int) -> int:
        return self.port(rid).cdev.dma_buf(bar, 0, size)

    def problems(self) -> list[str]:
        found = []
        held = set(self._machine.keeper.names()) if self._machine.records.boot else set()
        for rid, _ in self._machine.records.devices():
            with suppress(NoSuchDevice):
                driver = self._sysfs.device(rid).driver
                if driver != VFIO_PCI:
                    found.append(f"{rid} is bound, but its driver is {driver or 'none'}, not vfio-pci")
                elif _kept(rid) not in held:
                    found.append(f"{rid} is bound, but the keeper does not hold it")
                continue
            found.append(f"{rid} is bound, but not there any more")
        return found

    def _check_not_lent(self, rid: Rid, now: PciDevice) -> None:
        """A program that has a copy of the device would keep it bound, and nobody else could bind it again."""
        if now.cdev is None or self._machine.dry:
            return
        running = self._machine.context.kept(Connection).running()
        ours = {os.getpid(), *([running.pid] if running else ())}
        if others := [one for one in holders(*node_numbers(self._sysfs.node(now.cdev))).found if one.pid not in ours]:
            raise InUse(
                f"{rid} is open in {', '.join(f'{one.command} ({one.pid})' for one in others[:5])}",
                because="a device stays with vfio-pci as long as a program has it open",
                hint="end that program first",
            )

    def _open(self, rid: Rid) -> dict[str, Any]:
        """Open a VFIO device, bind it to our iommufd, and have the keeper hold it: its part of the record."""
        machine = self._machine
        found = self._sysfs.device(rid)
        cdev = Cdev.open(found.cdev or found.vfio or str(rid), self._sysfs, log=machine.log)
        try:
            dev_id = cdev.bind(machine.iommufd.fd)
            machine.keep(_kept(rid), cdev.fd)
        finally:
            cdev.close()
        machine.intend({"made": dev_id})
        info = machine.iommufd.get_hw_info(dev_id)
        if found.unit is not None:
            machine.vendor.learn(machine, found.unit, dev_id, info)
        ats = bool(found.ats) and not info.capabilities & IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED
        return {"dev_id": dev_id, "cdev": found.cdev, "pasid_bits": info.max_pasid_log2, "ats": ats}

    def _cdev(self, descriptor: int, name: str) -> Cdev:
        return Cdev(descriptor, name, self._sysfs, log=self._machine.log, dry=self._machine.dry)

    def _device(self, found: PciDevice) -> Device:
        record = self._machine.records.device(found.rid)
        group = self._group(found)
        return Device(
            found.rid,
            ats=bool(found.ats),
            pri=bool(found.pri),
            pasid_bits=record["pasid_bits"] if record else found.pasid_bits or 0,
            bound=record is not None,
            driver=found.driver or "",
            owner="" if record else (group.type if group else None) or "",
            siblings=_siblings(group, found.rid),
        )

    def _group(self, found: PciDevice) -> Group | None:
        with suppress(NoSuchDevice):
            return None if found.group is None else self._sysfs.group(found.group)
        return None


def _siblings(group: Group | None, rid: Rid) -> tuple[Rid, ...]:
    members: Sequence[Any] = group.members if group else ()
    return tuple(member.rid for member in members if member.rid not in (None, rid) and not member.bridge)


def _kept(rid: Rid) -> str:
    return f"vfio-{rid}"

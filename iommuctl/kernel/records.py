# SPDX-License-Identifier: Apache-2.0
"""The rows of a backend of real hardware: which object of the iommufd is which of ours."""

from collections.abc import Iterator, Set
from typing import Any

from iommuctl.hookspecs import Rows
from iommuctl.model import Domain, Memory, Rid, Slot


class Records:
    """The rows of one backend. What rows name exists in the kernel, unless all of it is lost.

    A domain's record: `ioas`, `hwpts` {unit and whether it takes PASIDs, or the slot whose own it is: id}, `dirty` (it
    can track) and `tracking` (it does). A slot's: `pt`, the HWPT that is attached; `nested`, whether it was made for
    this slot; where its page requests are queued, `queue`, and `kept`, the name of that queue's file with the keeper. A
    vIOMMU's: `id`; `events`, its event queue; `kept`, as for a slot; `parent`, the domain's name. A
    vDEVICE's: `id`, `virt_id`, and the `viommu` that it belongs to. A device's is for `Devices` to say; `name` is the
    backend's.
    """

    def __init__(self, rows: Rows, name: str) -> None:
        self._rows = rows
        self._name = name

    # The keeper

    @property
    def boot(self) -> str | None:
        """The boot id of the keeper that held our objects when they were made."""
        boot: str | None = self._rows.get(f"{self._name}.kernel", "boot")
        return boot

    @boot.setter
    def boot(self, boot: str) -> None:
        self._rows.put(f"{self._name}.kernel", "boot", boot)

    # Domains

    def domain(self, domain: Domain) -> dict[str, Any]:
        found: dict[str, Any] = self._rows.get(f"{self._name}.domain", str(domain.id))
        return found

    def put_domain(self, domain: Domain, record: dict[str, Any] | None) -> None:
        self._put("domain", str(domain.id), record)

    # Slots

    def slot(self, slot: Slot) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._rows.get(f"{self._name}.slot", str(slot))
        return found

    def put_slot(self, slot: Slot, record: dict[str, Any] | None) -> None:
        self._put("slot", str(slot), record)

    def queues(self) -> Iterator[tuple[Slot, dict[str, Any]]]:
        """The slots whose page requests are queued."""
        for key, record in self._rows.scan(f"{self._name}.slot"):
            if "queue" in record:
                rid, _, pasid = key.partition(" PASID ")
                yield Slot(Rid.parse(rid), int(pasid) if pasid else None), record

    # Devices

    def device(self, rid: Rid) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._rows.get(f"{self._name}.device", str(rid))
        return found

    def put_device(self, rid: Rid, record: dict[str, Any] | None) -> None:
        self._put("device", str(rid), record)

    def devices(self) -> Iterator[tuple[Rid, dict[str, Any]]]:
        for key, record in self._rows.scan(f"{self._name}.device"):
            yield Rid.parse(key), record

    # vIOMMUs, by parent and unit, and the vDEVICE that a device has

    def viommu(self, domain_id: int, unit: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._rows.get(f"{self._name}.viommu", _place(domain_id, unit))
        return found

    def put_viommu(self, domain_id: int, unit: str, record: dict[str, Any] | None) -> None:
        self._put("viommu", _place(domain_id, unit), record)

    def viommus(self, domain_id: int | None = None) -> list[tuple[int, str, dict[str, Any]]]:
        """All, or those of one parent: (its id, unit, record)."""
        bounds = () if domain_id is None else (_place(domain_id, ""), _place(domain_id, "~"))
        found = []
        for key, record in self._rows.scan(f"{self._name}.viommu", *bounds):
            number, _, unit = key.partition(" ")
            found.append((int(number), unit, record))
        return found

    def vdevice(self, rid: Rid) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._rows.get(f"{self._name}.vdevice", str(rid))
        return found

    def put_vdevice(self, rid: Rid, record: dict[str, Any] | None) -> None:
        self._put("vdevice", str(rid), record)

    def vdevice_ids(self) -> set[int]:
        """The objects that rows say are vDEVICEs."""
        return {record["id"] for _, record in self._rows.scan(f"{self._name}.vdevice")}

    def with_vdevice(self, ids: Set[int]) -> set[Rid]:
        """The devices whose vDEVICEs have these ids, as rows say."""
        found = self._rows.scan(f"{self._name}.vdevice")
        return {Rid.parse(key) for key, record in found if record["id"] in ids}

    # Named memory: by name, as mappings have it

    def memory(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._rows.get(f"{self._name}.memory", name)
        return found

    def put_memory(self, memory: Memory, record: dict[str, Any] | None) -> None:
        self._put("memory", memory.name, record)

    def kept_memories(self) -> set[str]:
        """The names under which the keeper holds them."""
        return {record["kept"] for _, record in self._rows.scan(f"{self._name}.memory")}

    def kept(self) -> set[str]:
        """The names under which the keeper holds anything but devices and the iommufd."""
        files = {record["kept"] for _, _, record in self.viommus()} | {record["kept"] for _, record in self.queues()}
        return self.kept_memories() | files

    # All of them

    def object_ids(self) -> set[int]:
        """The objects of the iommufd that rows name, but for devices and vDEVICEs."""
        found = {record["pt"] for _, record in self._rows.scan(f"{self._name}.slot")}
        found |= {record["queue"] for _, record in self.queues()}
        for _, _, record in self.viommus():
            found |= {record["id"], record["events"]}
        for _, record in self._rows.scan(f"{self._name}.domain"):
            found |= {record["ioas"], *record["hwpts"].values()}
        return found

    def _put(self, kind: str, key: str, record: dict[str, Any] | None) -> None:
        if record is None:
            self._rows.delete(f"{self._name}.{kind}", key)
        else:
            self._rows.put(f"{self._name}.{kind}", key, record)


def _place(domain_id: int, unit: str) -> str:
    return f"{domain_id} {unit}"

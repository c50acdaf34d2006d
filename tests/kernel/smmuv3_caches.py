# SPDX-License-Identifier: Apache-2.0
"""What an SMMUv3 and its devices may have cached of CDs in guest memory: all that they could have seen.

Devices are thought to do DMA with every PASID at every moment that the kernel is called. What they cached then, also of
CDs and L1CDs that are not valid (3.21.3), stays until a command drops it, a user's by a vIOMMU or the kernel's own:
CFGI_STE when it writes an STE (arm_smmu_install_ste_for_dev) and a device's whole TLB with that
(arm_smmu_attach_commit), TLBI_S12_VMALL when the last device leaves a parent (arm_smmu_install_old_domain_invs).
Source: arm-smmu-v3.c of Linux 7.3; IHI0070 G.b 5.4, 3.21.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.kernel.objects import Device, Hwpt, Ioas, Object, Vdevice, Viommu
from tests.kernel.smmuv3_unit import ATC_INV, CFGI_CD, CFGI_CD_ALL, TLBI_NH_ALL, TLBI_NH_ASID, TLBI_NSNH_ALL

_TRANSLATES = 0b1011
"""STE: V, and Config for stage 1."""
_POINTER, _TABLE, _ROOT = 0x000F_FFFF_FFFF_FFC0, 0x000F_FFFF_FFFF_F000, 0x000F_FFFF_FFFF_FFF0
"""S1ContextPtr, L2Ptr, TTB0."""
_ALL, _LEAF = 52, 1
"""ATC_INV: Size. CFGI_CD: Leaf, which leaves L1CDs alone."""
CD_SIZE = 64


class Context(NamedTuple):
    """A valid CD: its ASID and TTB0."""

    asid: int
    root: int


class Nested(NamedTuple):
    """A device whose stage 1 is a guest's: the words of its STE, and the id of its parent."""

    first: int
    second: int
    parent: int

    @property
    def levels(self) -> int:
        """STE.S1Fmt: 1 or 2."""
        return 2 if self.first >> 4 & 3 else 1

    @property
    def split(self) -> int:
        """The bits of a SubstreamID that choose a CD of a leaf."""
        return {0: self.first >> 59, 1: 6, 2: 10}[self.first >> 4 & 3]


class Caches:
    """`read` gives what is at an address of an IOAS, None where nothing is."""

    def __init__(self, read: Callable[[Ioas, int, int], bytes | None]) -> None:
        self._read = read
        self._held: dict[str, tuple[int | None, int | None]] = {}
        """By node: the table of the RID, and the parent that it is or is nested on."""
        self._splits: dict[str, int] = {}
        """By node: the bits of a SubstreamID that choose a CD of a leaf."""
        self._leaves: dict[tuple[str, int], int | None] = {}
        """By nodes and indexes: where an L1CD leads."""
        self._contexts: dict[tuple[str, int], Context | None] = {}
        self._tlb: set[tuple[int, Context]] = set()
        """By parents, as each has a VMID."""
        self._atc: set[tuple[str, int, Context]] = set()

    def live(self, objects: dict[int, Object], node: str) -> dict[int, Context]:
        """The valid CDs that a device is led to, by SubstreamID."""
        device = next((one for one in _devices(objects) if one.node == node), None)
        nested = device and _nested(objects, device)
        entries = self._entries(objects, nested, lambda _, leaf: leaf) if nested else ()
        return {number: context for number, context in entries if context}

    def watch(self, objects: dict[int, Object]) -> None:
        """DMA of all devices; and before that what the kernel did of its own since the last time."""
        held = {one.node: _held(objects, one) for one in _devices(objects)}
        for node in {node for node in self._held if self._held[node] != held.get(node)}:
            self._drop(node)
        left = {parent for _, parent in self._held.values()} - {parent for _, parent in held.values()}
        self._tlb = {entry for entry in self._tlb if entry[0] not in left}
        self._held = held
        for device in _devices(objects):
            if nested := _nested(objects, device):
                self._use(objects, device.node, nested)

    def _use(self, objects: dict[int, Object], node: str, nested: Nested) -> None:
        def through(index: int, leaf: int | None) -> int | None:
            return self._leaves.setdefault((node, index), leaf)

        self._splits[node] = nested.split
        for substream, context in self._entries(objects, nested, through):
            used = self._contexts.setdefault((node, substream), context)
            if used:
                self._tlb.add((nested.parent, used))
                if nested.second >> 28 & 3:
                    self._atc.add((node, substream, used))

    def carry_out(self, objects: dict[int, Object], viommu_id: int, command: bytes) -> None:
        """A command of a vIOMMU. One that is about a part of a table's addresses drops too little to count here."""
        first, second = struct.unpack("<QQ", command)
        viommu = objects[viommu_id]
        assert isinstance(viommu, Viommu)
        node, substream = _node(objects, viommu_id, first >> 32), first >> 12 & 0xF_FFFF
        opcode = first & 0xFF
        if opcode == CFGI_CD and node:
            self._contexts.pop((node, substream), None)
            if not second & _LEAF:
                self._leaves.pop((node, substream >> self._splits.get(node, 0)), None)
        elif opcode == CFGI_CD_ALL and node:
            self._leaves = {key: one for key, one in self._leaves.items() if key[0] != node}
            self._contexts = {key: one for key, one in self._contexts.items() if key[0] != node}
        elif opcode in (TLBI_NH_ALL, TLBI_NSNH_ALL):
            self._tlb = {entry for entry in self._tlb if entry[0] != viommu.parent}
        elif opcode == TLBI_NH_ASID:
            self._tlb = {entry for entry in self._tlb if (entry[0], entry[1].asid) != (viommu.parent, first >> 48)}
        elif opcode == ATC_INV and second & 0x3F == _ALL:
            every = not first >> 11 & 1 or first >> 9 & 1
            self._atc = {one for one in self._atc if one[0] != node or not (every or one[1] == substream)}

    def stale(self, objects: dict[int, Object]) -> list[str]:
        """What would be served to devices that memory does not say any more."""
        self.watch(objects)
        live = {(node, number): one for node in self._held for number, one in self.live(objects, node).items()}
        cached = {key: context for key, context in self._contexts.items() if context}
        found = [
            f"the SMMU has {cached.get(key)} of {key[0]}, substream {key[1]}, and memory {live.get(key)}"
            for key in sorted({*live, *cached})
            if cached.get(key) != live.get(key)
        ]
        used = {(self._held[node][1], context) for (node, _), context in live.items()}
        found += [f"the TLB has entries of parent {entry[0]} and {entry[1]}" for entry in self._tlb - used]
        seen = {(node, number, context) for (node, number), context in live.items()}
        return found + [f"{one[0]} has entries of PASID {one[1]} and {one[2]}" for one in self._atc - seen]

    def _drop(self, node: str) -> None:
        self._leaves = {key: one for key, one in self._leaves.items() if key[0] != node}
        self._contexts = {key: one for key, one in self._contexts.items() if key[0] != node}
        self._atc = {one for one in self._atc if one[0] != node}

    def _entries(
        self, objects: dict[int, Object], nested: Nested, through: Callable[[int, int | None], int | None]
    ) -> Iterator[tuple[int, Context | None]]:
        """Every CD that there is memory for, None where it is not valid; `through` says where each L1CD leads."""
        parent = objects[nested.parent]
        assert isinstance(parent, Hwpt)
        ioas = objects[parent.under]
        assert isinstance(ioas, Ioas)
        bits, split, pointer = nested.first >> 59, nested.split, nested.first & _POINTER
        for index in range(1 << max(bits - split, 0)):
            leaf: int | None = pointer
            if nested.levels == 2:
                entry = int.from_bytes(self._read(ioas, pointer + 8 * index, 8) or b"", "little")
                leaf = through(index, entry & _TABLE if entry & 1 else None)
            array = b"" if leaf is None else self._read(ioas, leaf, CD_SIZE << min(split, bits)) or b""
            for number, place in enumerate(range(0, len(array), CD_SIZE)):
                first, second = struct.unpack_from("<2Q", array, place)
                valid = first >> 31 & 1
                yield (index << split) + number, Context(first >> 48, second & _ROOT) if valid else None


def _devices(objects: dict[int, Object]) -> list[Device]:
    return [one for one in objects.values() if isinstance(one, Device)]


def _held(objects: dict[int, Object], device: Device) -> tuple[int | None, int | None]:
    table = device.slots.get(None)
    if table is None:
        return None, None
    held = objects[table]
    assert isinstance(held, Hwpt)
    if not held.nested:
        return table, table
    under = objects[held.under]
    return table, under.parent if isinstance(under, Viommu) else held.under


def _nested(objects: dict[int, Object], device: Device) -> Nested | None:
    table, parent = _held(objects, device)
    held = objects[table] if table is not None else None
    if parent is None or not isinstance(held, Hwpt) or len(held.data) != 16:
        return None
    first, second = struct.unpack("<QQ", held.data)
    return Nested(first, second, parent) if first & 0xF == _TRANSLATES else None


def _node(objects: dict[int, Object], viommu_id: int, number: int) -> str | None:
    for one in objects.values():
        if isinstance(one, Vdevice) and (one.viommu, one.virt_id) == (viommu_id, number):
            device = objects[one.device]
            assert isinstance(device, Device)
            return device.node
    return None

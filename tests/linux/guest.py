# SPDX-License-Identifier: Apache-2.0
"""Runs in the VM: gives devices to user space, maps memory for them, and tells what the kernel says of its tables.

`orders.json` in the folder of this script says what to do with which devices, and what to copy: see architecture.py.
The folder receives `mappings.json`, and folders `dump-0`, `dump-1`, … with the copies. Each but the first waits for a
file `next-0`, `next-1`, …: the host looks at memory meanwhile.
"""

import ctypes
import fcntl
import glob
import json
import mmap
import os
import shutil
import struct
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DEVICES = Path("/sys/bus/pci/devices")
LARGE = 2 << 20
# include/uapi/linux/iommufd.h and vfio.h
IOAS_ALLOC, IOAS_IOVA_RANGES, IOAS_MAP, IOAS_UNMAP, HWPT_ALLOC = 0x3B81, 0x3B84, 0x3B85, 0x3B86, 0x3B89
GET_HW_INFO, VIOMMU_ALLOC, VDEVICE_ALLOC = 0x3B8A, 0x3B90, 0x3B91
BIND_IOMMUFD, ATTACH_IOMMUFD_PT = 0x3B76, 0x3B77
FIXED, WRITEABLE, READABLE = 1, 2, 4
NEST_PARENT, PASID = 1, 8
ARM_SMMUV3, HWPT_DATA_ARM_SMMUV3 = 1, 2


def call(descriptor: int, number: int, form: str, *values: int) -> tuple[int, ...]:
    """An ioctl whose structure begins with its size, which is put in front of these values."""
    data = bytearray(struct.pack(form, struct.calcsize(form), *values))
    fcntl.ioctl(descriptor, number, data)
    return struct.unpack(form, data)


class Space:
    """An IOAS, and the memory that is mapped in it. `mappings` tells of each what `mappings.json` has."""

    def __init__(self, iommufd: int, first_mark: int) -> None:
        self.iommufd = iommufd
        self.id = call(iommufd, IOAS_ALLOC, "III", 0, 0)[2]
        self.mappings: list[dict[str, Any]] = []
        self._mark = first_mark
        self._memory: list[mmap.mmap] = []

    def ranges(self) -> list[tuple[int, int]]:
        """First and last addresses that may be mapped. Devices that are attached narrow them."""
        room = (ctypes.c_uint64 * 64)()
        count = call(self.iommufd, IOAS_IOVA_RANGES, "IIIIQQ", self.id, 32, 0, ctypes.addressof(room), 0)[2]
        return [(room[2 * n], room[2 * n + 1]) for n in range(count)]

    def map(self, iova: int, size: int, prot: str, *, large: bool = False) -> mmap.mmap | None:
        """Map new memory, of large pages or small ones, where it is allowed. Each page begins with a mark."""
        if not any(first <= iova and iova + size - 1 <= last for first, last in self.ranges()):
            return None
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x40000 if large else 0)  # MAP_HUGETLB
        memory = mmap.mmap(-1, (size + LARGE - 1) // LARGE * LARGE if large else size, flags)
        for at in range(0, size, 4096):
            memory[at : at + 8] = struct.pack("<Q", self._mark + at)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        allowed = FIXED | (READABLE if "r" in prot else 0) | (WRITEABLE if "w" in prot else 0)
        call(self.iommufd, IOAS_MAP, "IIIIQQQ", allowed, self.id, 0, address, size, iova)
        self._memory.append(memory)
        self.mappings.append({"iova": iova, "size": size, "prot": prot, "mark": self._mark})
        self._mark += len(memory)
        return memory

    def unmap(self, iova: int) -> None:
        """Take a whole mapping away."""
        for gone in [mapping for mapping in self.mappings if mapping["iova"] == iova]:
            call(self.iommufd, IOAS_UNMAP, "IIQQ", self.id, iova, gone["size"])
            self.mappings.remove(gone)


class Given:
    """A device that belongs to this process: bound to vfio-pci and to an iommufd."""

    def __init__(self, iommufd: int, rid: str) -> None:
        (DEVICES / rid / "driver_override").write_text("vfio-pci")
        Path("/sys/bus/pci/drivers_probe").write_text(rid)
        (name,) = os.listdir(DEVICES / rid / "vfio-dev")
        self.file = os.open(f"/dev/vfio/devices/{name}", os.O_RDWR)
        self.id = call(self.file, BIND_IOMMUFD, "IIiIQ", 0, iommufd, 0, 0)[3]
        self.iommufd = iommufd

    def attach(self, table: int, pasid: int = 0) -> None:
        """Attach an IOAS or a HWPT, for requests with that PASID or for those without."""
        call(self.file, ATTACH_IOMMUFD_PT, "IIII", 1 if pasid else 0, table, pasid)

    def pasid_bits(self) -> int:
        """How many bits its PASIDs have. Linux takes PASIDs of a device that has none, and does nothing."""
        return call(self.iommufd, GET_HW_INFO, "IIIIQIB3xQ", 0, self.id, 0, 0, 0, 0, 0)[6]

    def hwpt(self, ioas: int, flags: int) -> int:
        """A new HWPT for the device, whose tables have what is mapped in the IOAS."""
        return call(self.iommufd, HWPT_ALLOC, "IIIIIIIIQII", flags, self.id, ioas, 0, 0, 0, 0, 0, 0, 0)[4]

    def nested(self, parent: int, ste: tuple[int, int]) -> int:
        """A new HWPT with these words of an STE, nested on another HWPT."""
        viommu = call(self.iommufd, VIOMMU_ALLOC, "IIIIIIIIQ", 0, ARM_SMMUV3, self.id, parent, 0, 0, 0, 0)[5]
        # A StreamID of its own choice is what a VMM gives the device.
        call(self.iommufd, VDEVICE_ALLOC, "IIIIQ", viommu, self.id, 0, self.id)
        words = (ctypes.c_uint64 * 2)(*ste)
        data = HWPT_DATA_ARM_SMMUV3, ctypes.sizeof(words), ctypes.addressof(words)
        return call(self.iommufd, HWPT_ALLOC, "IIIIIIIIQII", 0, self.id, viommu, 0, 0, *data, 0, 0)[4]


def fill(space: Space) -> None:
    """Mappings of all sizes and permissions, at the ends of tables and of what can be mapped."""
    space.map(0, 0x1000, "rw")
    space.map(0x1000_0000, 0x10000, "rw")
    space.map(0x1001_0000, 0x4000, "r")
    space.map(0x1001_4000, 0x4000, "w")
    space.map(0x2000_0000, LARGE, "rw", large=True)
    space.map(0x2020_0000, 2 * LARGE, "r", large=True)
    space.map(0x2060_0000, 0x3000, "w")
    # Large pages of memory that are not at large pages of addresses.
    space.map(0x3000_1000, LARGE, "rw", large=True)
    space.map(0x3FFF_E000, 0x4000, "rw")
    space.map(0xFEDF_F000, 0x1000, "rw")
    space.map(0xFEF0_0000, 0x1000, "r")
    space.map((1 << 39) - 0x2000, 0x4000, "rw")
    space.map(space.ranges()[-1][1] - 0x0FFF, 0x1000, "rw")


def fill_shared(space: Space) -> None:
    """Fewer mappings, and the tables of some that were taken away again."""
    space.map(0x4000_0000, 0x8000, "rw")
    space.map(0x4020_0000, LARGE, "w", large=True)
    space.map(0x8000_0000, 0x2000, "r")
    space.map(0x40_0000_0000, 0x1000, "rw")
    space.map(0x50_0000_0000, 0x1000, "rw")
    space.unmap(0x8000_0000)
    space.unmap(0x50_0000_0000)


def attach_pasids(iommufd: int, rids: list[str]) -> list[tuple[str, int, Space]]:
    """Several PASIDs of each device, the same numbers, at both ends of directories and tables. Returns who has what.

    One of them has the space of the requests without PASID, the others have another one.
    """
    own, common = Space(iommufd, 0x1000D << 32), Space(iommufd, 0x1000E << 32)
    users = []
    for rid in rids:
        device = Given(iommufd, rid)
        table, several = device.hwpt(own.id, PASID), device.hwpt(common.id, PASID)
        device.attach(table)
        users.append((rid, 0, own))
        bits = device.pasid_bits()
        for pasid in (1, 63, 64, (1 << bits) - 1) if bits else ():
            space = own if pasid == 1 else common
            device.attach(table if space is own else several, pasid)
            users.append((rid, pasid, space))
    fill_shared(own)
    if len(users) > len(rids):
        fill_shared(common)
    return users


def attach_nested(iommufd: int, parents: list[str], nested: list[str]) -> list[tuple[str, int, Space]]:
    """Devices on a HWPT that is made for nesting, and others on stage 1 tables that it has in its memory.

    Returns who has what: of nested ones the addresses that go through both stages. The words are those of SMMUv3.
    """
    users, inner = [], Space(iommufd, 0)
    outer = Space(iommufd, 0x1000F << 32)
    table = 0
    for rid in parents:
        device = Given(iommufd, rid)
        table = table or device.hwpt(outer.id, NEST_PARENT)
        device.attach(table)
        users.append((rid, 0, outer))
    memory = outer.map(0x1000_0000, 0x10000, "rw")
    assert memory is not None
    outer.map(0x4000_0000, LARGE, "rw", large=True)
    outer.map(0x8000_0000, 0x2000, "r")
    small, large, read_only = outer.mappings
    # A CD of 48 bits and 4 KB granules, four levels of tables, and pages; each behind the mark of its page.
    put(memory, 0x40, 0x0001_E205_C000_3510, small["iova"] + 0x1000, 0, 0xF404_FF44)
    for level, index in enumerate((1, 2, 3), 1):
        put(memory, 0x1000 * level + 8 * index, small["iova"] + 0x1000 * (level + 1) | 3)
    iova = 1 << 39 | 2 << 30 | 3 << 21
    page, writable, readable = 0x0060_0000_0000_0F47, 0, 0x80
    for index, (target, prot, rights) in enumerate(
        ((small, "rw", writable), (small, "r", readable), (read_only, "r", writable), (large, "rw", writable)), 4
    ):
        offset = 0x5000 if target is small else 0x1000
        put(memory, 0x4000 + 8 * index, target["iova"] + offset | page | rights)
        mark = target["mark"] + offset
        inner.mappings.append({"iova": iova + 0x1000 * index, "size": 0x1000, "prot": prot, "mark": mark})
    put(memory, 0x3000 + 8 * 4, large["iova"] | page & ~2)
    inner.mappings.append({"iova": iova + LARGE, "size": LARGE, "prot": "rw", "mark": large["mark"]})
    for rid in nested:
        device = Given(iommufd, rid)
        device.attach(device.nested(table, (small["iova"] + 0x40 | 0xB, 0xD4)))
        users.append((rid, 0, inner))
    return users


def put(memory: mmap.mmap, at: int, *words: int) -> None:
    """Store words of 64 bits."""
    memory[at : at + 8 * len(words)] = struct.pack(f"<{len(words)}Q", *words)


def dump(dumped: dict[str, list[str]], to: Path) -> None:
    """Copy what the kernel tells of its tables."""
    work = to.with_name("dumping")
    shutil.rmtree(work, ignore_errors=True)
    for folder, patterns in dumped.items():
        for name in (name for pattern in patterns for name in glob.glob(pattern, root_dir=folder, recursive=True)):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(Path(folder, name).read_bytes())
    work.rename(to)


def main() -> None:
    orders = json.loads((HERE / "orders.json").read_text())
    roles = defaultdict(list, orders["roles"])
    for rid in roles["identity"]:
        (DEVICES / rid / "iommu_group/type").write_text("identity")
    iommufd = os.open("/dev/iommu", os.O_RDWR)
    alone, shared, bridged = (Space(iommufd, mark << 32) for mark in (0x1000A, 0x1000B, 0x1000C))
    users: list[tuple[str, int, Space]] = []
    for role, space, flags in (("alone", alone, None), ("shared", shared, 0), ("pasid-able", shared, PASID),
                               ("bridged", bridged, None)):  # fmt: skip
        table = space.id
        for number, rid in enumerate(roles[role]):
            device = Given(iommufd, rid)
            if number == 0 and flags is not None:
                table = device.hwpt(space.id, flags)
            device.attach(table)
            users.append((rid, 0, space))
    fill(alone)
    fill_shared(shared)
    fill_shared(bridged)
    if roles["pasids"]:
        users += attach_pasids(iommufd, roles["pasids"])
    if roles["parent"]:
        users += attach_nested(iommufd, roles["parent"], roles["nested"])
    for rid in roles["blocked"]:
        Given(iommufd, rid)
    mappings = [{"rid": rid, "pasid": pasid, **one} for rid, pasid, space in users for one in space.mappings]
    (HERE / "mappings.json").write_text(json.dumps(mappings))
    for number in range(1000):
        dump(orders["dumped"], HERE / f"dump-{number}")
        while not (HERE / f"next-{number}").exists():
            time.sleep(0.05)


if __name__ == "__main__":
    main()

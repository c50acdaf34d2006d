# SPDX-License-Identifier: Apache-2.0
"""A machine that our driver drives, and its commands as words of IHI0070 G.b chapter 4."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE, Run
from iommuctl.formats.radix import Format
from iommuctl.hookspecs import CheckRequest, SlotChange
from iommuctl.model import Access, Attachment, Binding, Command, Device, Domain, Mapping, Occupant, Rid, Slot
from iommuctl_smmuv3 import ARCHITECTURE
from iommuctl_smmuv3.driver import Driver
from iommuctl_smmuv3.unit import Unit
from tests.machine import DictRows, SilentBus, SparseMemory

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture

TABLES = (0x100_0000, 0x300_0000)
"""Table memory: 48 MiB from 16 MiB on. Below and above is RAM for everything else."""
SIZES = (1 << 12, 1 << 21, 1 << 30)
SYNC = 0x46
Sent = tuple[int, int] | str


class Guest:
    """Guest memory: GPAs from 0 on are physical addresses from `base` on; pages are taken from `pool` on."""

    def __init__(self, memory: SparseMemory, base: int, pool: int) -> None:
        self._memory = memory
        self._base = base
        self._next = pool
        self.held: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        return self._memory.read(self._base + address, size)

    def write(self, address: int, data: bytes) -> None:
        self._memory.write(self._base + address, data)

    def allocate(self, pages: int) -> list[Run]:
        return [Run(self.allocate_run(pages), pages)]

    def allocate_run(self, pages: int) -> int:
        """Pages full of garbage, none of them twice."""
        address, self._next = self._next, self._next + pages * PAGE
        self.held.update(range(address, self._next, PAGE))
        self.write(address, b"\xa5" * (pages * PAGE))
        return address

    def free(self, run: Run) -> None:
        pages = set(range(run.address, run.address + run.pages * PAGE, PAGE))
        assert pages <= self.held, "given back twice, or never taken"
        self.held -= pages


class Driven:
    """A hookspecs.Context whose unit has been started by a driver, with books of what should be there."""

    def __init__(self, **options: int) -> None:
        self.memory = SparseMemory((0, 0x1000_0000), tables=TABLES)
        self.rows = DictRows()
        self.commands: list[Command] = []
        self.warnings: list[str] = []
        self.bus = SilentBus()
        Unit.reset(self, {name: f"{value:#x}" for name, value in options.items()})
        self.unit = Unit(self, self.bus)
        self.freed_before: list[int] = []
        """How many runs of pages had been given back when each command was queued."""
        self.slots: dict[Slot, Occupant] = {}
        self.devices: list[Device] = []
        self.domains: list[Domain] = []
        self.mappings: dict[int, list[Mapping]] = {}
        self.guests: dict[int, Guest] = {}
        self.driver.start()

    # The context

    def architecture(self, name: str) -> "Architecture":
        assert name == "smmuv3"
        return ARCHITECTURE

    def log(self, command: Command) -> None:
        self.commands.append(command)
        self.freed_before.append(len(self.memory.freed))

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @property
    def driver(self) -> Driver:
        """A new one for each operation, as for each transaction."""
        return Driver(self, self.unit)

    def sent(self) -> list[Sent]:
        """The commands since the last call, as words; "sync" for CMD_SYNC."""
        found: list[Sent] = []
        for command in self.commands:
            w0, w1 = (int.from_bytes(command.raw[at : at + 8], "little") for at in (0, 8))
            found.append("sync" if (w0, w1) == (SYNC, 0) else (w0, w1))
        self.commands.clear()
        return found

    # The operations, with books

    def device(self, text: str, *, ats: bool = False, pri: bool = False, pasid_bits: int = 20) -> Rid:
        device = Device(Rid.parse(text), ats, pri, pasid_bits)
        self.driver.device_add(device)
        self.devices.append(device)
        return device.rid

    def undevice(self, rid: Rid) -> None:
        (device,) = (device for device in self.devices if device.rid == rid)
        self.driver.device_remove(device)
        self.devices.remove(device)

    def domain(self, *, width: int = 48, nest_parent: bool = False, sizes: Sequence[int] = SIZES) -> Domain:
        key = len(self.domains) + 1
        domain = Domain(key, f"domain{key}", None, nest_parent, width, tuple(sizes))
        self.driver.domain_create(domain)
        self.domains.append(domain)
        self.mappings[key] = []
        return domain

    def parent(self, *, base: int = 0x800_0000, pool: int = 0x80_0000, size: int = 0x100_0000) -> Domain:
        """A nest parent whose guest has `size` bytes of memory from `base` on."""
        domain = self.domain(nest_parent=True)
        self.map(domain, 0, base, size)
        self.guests[domain.id] = Guest(self.memory, base, pool)
        return domain

    def map(self, domain: Domain, iova: int, pa: int, size: int = 4096, prot: str = "rw") -> Mapping:
        mapping = Mapping(iova, size, pa, None, 0, prot)
        self.driver.map(domain, mapping)
        self.mappings[domain.id] = sorted([*self.mappings[domain.id], mapping])
        return mapping

    def unmap(self, domain: Domain, *mappings: Mapping) -> None:
        users = [occupant for occupant in self.slots.values() if occupant.domain == domain]
        self.driver.unmap(domain, mappings, users)
        self.mappings[domain.id] = [m for m in self.mappings[domain.id] if m not in mappings]

    def install(self, slot: Slot, new: Occupant | None) -> None:
        old = self.slots.pop(slot, None)
        bound = next((each for each in (new, old) if isinstance(each, Binding)), None)
        guest = self.guests[bound.domain.id] if bound else None
        self.driver.install(SlotChange(slot, old, new, guest))
        if new:
            self.slots[slot] = new

    def attach(self, domain: Domain, slot: Slot) -> None:
        self.install(slot, Attachment(slot, domain))

    def bind(self, domain: Domain, slot: Slot, root: int, fmt: str = "smmuv3.stage-1-4k-48") -> Binding:
        binding = Binding(slot, domain, root, fmt)
        self.install(slot, binding)
        return binding

    def page_table(self, domain: Domain, mappings: dict[int, int], fmt: str = "smmuv3.stage-1-4k-48") -> int:
        """A stage 1 in the guest's memory, page by page; the GPA of its root."""
        form: Format = self.driver.stage1_format(fmt)
        guest, size = self.guests[domain.id], form.page_sizes[0]
        root = radix.new_root(form, guest)
        for iova, gpa in mappings.items():
            radix.map_range(form, guest, root, iova, size, gpa, "rw", form.page_sizes)
        return root

    def check(self) -> list[str]:
        return self.driver.check(CheckRequest(self.devices, self.domains, self.mappings, self.slots))

    def accounts(self) -> None:
        """Every page that was taken holds something, and one thing only."""
        runs = [*self.driver.used()]
        for domain in self.domains:
            runs += radix.table_runs(self.driver.domain_format(domain), self.memory, self.driver.domain_root(domain))
        pages = [run.address + number * PAGE for run in runs for number in range(run.pages)]
        assert sorted(pages) == sorted(self.memory.held)

    # Questions

    def pa(self, slot: Slot, iova: int, access: Access = "r") -> int:
        """Where a walk ends: the physical address, or minus the number of the event."""
        answer = self.unit.walk(slot, iova, access, privileged=False)
        return -answer.fault.code if answer.fault else answer.pa or 0

    def dma(self, slot: Slot, iova: int, access: Access = "r") -> int:
        """Where a request goes, caches and all. It fails where the tables say otherwise."""
        told = self.unit.request(slot, iova, access, privileged=False).translation
        truth = self.unit.walk(slot, iova, access, privileged=False)
        assert (told.pa, told.fault and told.fault.code) == (truth.pa, truth.fault and truth.fault.code)
        return -told.fault.code if told.fault else told.pa or 0

    def entry_address(self, rid: Rid) -> int:
        """Where the STE of a device lies, by a look at memory alone."""
        base = self.unit.read_register("STRTAB_BASE") & (1 << 56) - 64
        descriptor = self.memory.word(base + 8 * (rid.source_id >> 8))
        return (descriptor & (1 << 56) - 64) + 64 * (rid.source_id & 0xFF)

    def entry(self, rid: Rid) -> tuple[int, ...]:
        """The words of the STE without the zero ones at the end."""
        return self.words(self.entry_address(rid))

    def words(self, address: int) -> tuple[int, ...]:
        """The words of a structure of 64 bytes without the zero ones at the end."""
        words = [self.memory.word(address + 8 * number) for number in range(8)]
        while words and not words[-1]:
            words.pop()
        return tuple(words)

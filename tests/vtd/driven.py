# SPDX-License-Identifier: Apache-2.0
"""A machine that our driver drives, and its commands as words of VT-d 4.1 section 6.5.2."""

from collections.abc import Sequence

from iommuctl.architecture import Driver
from iommuctl.formats import radix
from iommuctl.formats.memory import PAGE
from iommuctl.hookspecs import CheckRequest, SlotChange
from iommuctl.model import Access, Attachment, Binding, Command, Device, Domain, Mapping, Occupant, Rid, Slot
from iommuctl_vtd import ARCHITECTURE
from tests.machine import SparseMemory
from tests.vtd.machine import Machine

TABLES = (0x100_0000, 0x300_0000)
"""Table memory: 48 MiB from 16 MiB on. Below and above is RAM for everything else."""
SIZES = (1 << 12, 1 << 21, 1 << 30)
Sent = tuple[int, int] | str


class Driven(Machine):
    """A machine whose driver has been started, with books of what should be there."""

    def __init__(self, **options: int) -> None:
        super().__init__(SparseMemory((0, 0x800_0000), tables=TABLES), **options)
        self.states: list[int] = []
        """What the word at `watched` held when each command was queued."""
        self.watched: int | None = None
        self.freed_before: list[int] = []
        """How many runs of pages had been given back when each command was queued."""
        self.slots: dict[Slot, Occupant] = {}
        self.devices: list[Device] = []
        self.domains: list[Domain] = []
        self.mappings: dict[int, list[Mapping]] = {}
        self.waits = 0
        self.driver.start()

    @property
    def driver(self) -> Driver:
        """A new one for each operation, as for each transaction."""
        return ARCHITECTURE.driver(self, self.unit)

    def log(self, command: Command) -> None:
        super().log(command)
        self.freed_before.append(len(self.memory.freed))
        if self.watched is not None:
            self.states.append(self.memory.word(self.watched))

    def sent(self) -> list[Sent]:
        """The commands since the last call: their first two words, or "wait" for one that counts on."""
        found: list[Sent] = []
        for command in self.commands:
            w0, w1, *rest = (int.from_bytes(command.raw[at : at + 8], "little") for at in range(0, 32, 8))
            assert rest == [0, 0]
            if w0 & 0xF == 5:
                self.waits += 1
                assert (w0, w1) == (self.waits << 32 | 0x25, self.rows.get("vtd", "status"))
                found.append("wait")
            else:
                found.append((w0, w1))
        self.commands.clear()
        return found

    # The operations, with books

    def device(self, text: str, *, ats: bool = False, pri: bool = False, pasid_bits: int = 20) -> Rid:
        device = Device(Rid.parse(text), ats, pri, pasid_bits)
        self.driver.device_add(device)
        self.devices.append(device)
        return device.rid

    def domain(self, *, width: int = 48, nest_parent: bool = False, sizes: Sequence[int] = SIZES) -> Domain:
        key = len(self.domains) + 1
        domain = Domain(key, f"domain{key}", None, nest_parent, width, tuple(sizes))
        self.driver.domain_create(domain)
        self.domains.append(domain)
        self.mappings[key] = []
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
        self.driver.install(SlotChange(slot, self.slots.pop(slot, None), new))
        if new:
            self.slots[slot] = new

    def attach(self, domain: Domain, slot: Slot) -> None:
        self.install(slot, Attachment(slot, domain))

    def bind(self, domain: Domain, slot: Slot, root: int, fmt: str = "vtd.first-stage-4") -> Binding:
        binding = Binding(slot, domain, root, fmt)
        self.install(slot, binding)
        return binding

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
        """Where a walk ends: the physical address, or minus the reason."""
        answer = self.unit.walk(slot, iova, access, privileged=False)
        return -answer.fault.code if answer.fault else answer.pa or 0

    def dma(self, slot: Slot, iova: int, access: Access = "r") -> tuple[int, bool]:
        """Where a request goes, caches and all, and whether that is stale."""
        answer, _, stale = self.request(slot, iova, access, privileged=False)
        return -answer.fault.code if answer.fault else answer.pa or 0, stale

    def entry_address(self, slot: Slot) -> int:
        """Where the PASID entry of a slot lies, by a look at memory alone."""
        word = self.memory.word
        source, pasid = slot.rid.source_id, slot.pasid or 0
        root = self.unit.read_register("RTADDR") & -4096
        table = word(root + 16 * (source >> 8) + 8 * (source >> 7 & 1)) & -4096
        directory = word(table + 32 * (source & 0x7F)) & -4096
        return (word(directory + 8 * (pasid >> 6)) & -4096) + 64 * (pasid & 0x3F)

    def entry(self, slot: Slot) -> tuple[int, ...]:
        """The words of the PASID entry."""
        return tuple(self.memory.word(self.entry_address(slot) + 8 * number) for number in range(8))

    def did(self, slot: Slot) -> int:
        return self.entry(slot)[1] & 0xFFFF


EVERYTHING = 0x7FFFFFFFFFFFF000


def pc(did: int, pasid: int) -> Sent:
    return (pasid << 32 | did << 16 | 0x17, 0)


def iotlb(did: int) -> Sent:
    return (did << 16 | 0xE2, 0)


def iotlb_pages(did: int, address: int, order: int, *, leaf: bool) -> Sent:
    return (did << 16 | 0xF2, address | leaf << 6 | order)


def piotlb(did: int, pasid: int) -> Sent:
    return (pasid << 32 | did << 16 | 0x26, 0)


def piotlb_pages(did: int, pasid: int, address: int, order: int, *, leaf: bool) -> Sent:
    return (pasid << 32 | did << 16 | 0x36, address | leaf << 6 | order)


def device_tlb(source: int, address: int = EVERYTHING, *, several: bool = True) -> Sent:
    return (source << 32 | 3, address | several)


def pasid_device_tlb(source: int, pasid: int, address: int = EVERYTHING, *, several: bool = True) -> Sent:
    return (pasid << 32 | source << 16 | 8, address | several << 11)


PC_GLOBAL, IOTLB_GLOBAL, CC_GLOBAL = (0x37, 0), (0xD2, 0), (0x11, 0)

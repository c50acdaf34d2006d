# SPDX-License-Identifier: Apache-2.0
"""The driver side: domains are stages 1, or stages 2 that page tables nest on; STEs and CDs lead to them."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby

from iommuctl.architecture import PageRequest, PageResponse, Stale, Unit
from iommuctl.capabilities import Capabilities
from iommuctl.errors import Unsupported
from iommuctl.formats import radix
from iommuctl.formats.memory import Memory, Run
from iommuctl.hookspecs import CheckRequest, Context, SlotChange
from iommuctl.model import Binding, Command, Device, Domain, Mapping, Occupant, Placed, Rid, Slot
from iommuctl.recorded import Events
from iommuctl_smmuv3 import startup
from iommuctl_smmuv3.audit import audit
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.invalidation import Span, Target, commands
from iommuctl_smmuv3.missing import missing
from iommuctl_smmuv3.recorded_faults import take_faults
from iommuctl_smmuv3.requested_pages import answer, take_page_requests
from iommuctl_smmuv3.rules import INVALIDATIONS, Change
from iommuctl_smmuv3.ste import DSS_BYPASS
from iommuctl_smmuv3.stream_slots import StreamSlots
from iommuctl_smmuv3.stream_tables import StreamTables
from iommuctl_smmuv3.streams import Streams
from iommuctl_smmuv3.submission import logged, submit
from iommuctl_smmuv3.tables import PageTables
from iommuctl_smmuv3.tags import Tag, Tags
from iommuctl_smmuv3.vmsa import VmsaFormat

DOMAINS = "smmuv3.domain"
PASID_BITS = 20
"""No PASID has more, whatever SSIDSIZE says."""
NO_TAG = Tag(0)
"""For commands that are not about translations."""


class Driver:
    """One unit's driver, for one transaction."""

    def __init__(self, context: Context, unit: Unit) -> None:
        self._context = context
        self._unit = unit
        self.memory = context.memory
        self.rows = context.rows
        self.features = Features.of(unit.registers())
        self.page_tables = PageTables(self.features)
        self.tags = Tags(context.rows, self.features)
        self.streams = Streams(context.rows)
        self._slots = StreamSlots(self)

    @cached_property
    def stream_tables(self) -> StreamTables:
        registers = (self._unit.read_register(name) for name in ("STRTAB_BASE", "STRTAB_BASE_CFG"))
        return StreamTables(self.memory, *registers)

    def capabilities(self) -> Capabilities:
        features = self.features
        nests = features.s1p and features.s2p
        sizes = tuple(self.page_tables.stage1(granule).page_sizes for granule in features.granules)
        return Capabilities(
            nesting="device" if nests else "none",
            context_tables_in_guest=nests,
            execute_permission=True,
            physical_addresses=True,
            simulates=True,
            widths=self.page_tables.widths,
            page_sizes=sizes[0],
            granules=sizes[1:],
            pasid_bits=min(features.ssid_bits, PASID_BITS),
            pgtable_formats=self.page_tables.names if nests else (),
            fault_records=True,
            page_responses=("success", "invalid", "failure") if features.pri else (),
        )

    def start(self) -> None:
        nobody = Target(Slot(Rid(0, 0, 0, 0)), NO_TAG)
        startup.start(
            self.memory, self._unit, self.features, lambda: self.announce((Change.STREAM_TABLE_SET, [nobody]))
        )

    # Devices

    def device_add(self, device: Device) -> None:
        features, limit = self.features, self.capabilities().pasid_bits
        reasons = {
            "it serves PCI segment 0000": device.rid.segment != 0,
            f"its StreamIDs have {features.sid_bits} bits": not self.stream_tables.holds(device.rid),
            "its IDR0 lacks ATS": device.ats and not features.ats,
            "its IDR0 lacks PRI": device.pri and not features.pri,
            f"it takes PASIDs of up to {limit} bits": device.pasid_bits > limit,
        }
        for because, applies in reasons.items():
            if applies:
                raise Unsupported(f"the unit cannot serve {device.rid}", because=because)
        self._slots.add(device)

    def device_remove(self, device: Device) -> None:
        self._slots.remove(device.rid)

    # Domains

    def domain_create(self, domain: Domain) -> None:
        if domain.nest_parent and not self.features.s2p:
            raise Unsupported("no domain can be a nest parent", because="the unit has no stage 2")
        root = radix.new_root(self.domain_format(domain), self.memory)
        self.rows.put(DOMAINS, f"{domain.id}", root)
        self.tags.create(domain)

    def domain_destroy(self, domain: Domain) -> None:
        for run in radix.table_runs(self.domain_format(domain), self.memory, self.domain_root(domain)):
            self.memory.free(run)
        self.rows.delete(DOMAINS, f"{domain.id}")
        self.tags.destroy(domain)

    def map(self, domain: Domain, mapping: Mapping) -> None:
        radix.map_range(
            self.domain_format(domain),
            self.memory,
            self.domain_root(domain),
            mapping.iova,
            mapping.size,
            mapping.pa,
            mapping.prot,
            domain.page_sizes,
        )

    def unmap(self, domain: Domain, mappings: Sequence[Mapping], users: Sequence[Occupant]) -> None:
        first, last = mappings[0].iova, mappings[-1].iova + mappings[-1].size - 1
        size, fmt = last + 1 - first, self.domain_format(domain)
        gone = radix.unmap_range(fmt, self.memory, self.domain_root(domain), first, size)
        granule = fmt.page_sizes[0]
        of_one_size = gone.leaves == 1 or gone.leaves * granule == size
        span = Span(first, last, leaf=not gone.freed, granule=granule, page=size // gone.leaves if of_one_size else 0)
        nested = [user for user in users if isinstance(user, Binding)]
        plain = [self._target(user, span) for user in users if not isinstance(user, Binding)]
        self.announce(
            (Change.STAGE_2_REMOVED if domain.nest_parent else Change.STAGE_1_REMOVED, plain),
            (Change.PARENT_REMOVED, [Target(user.slot, self.tags.of_domain(domain), span) for user in nested]),
        )
        for run in gone.freed:
            self.memory.free(run)

    def domain_format(self, domain: Domain) -> VmsaFormat:
        return self.page_tables.of(domain)

    def stage1_format(self, name: str) -> radix.Format:
        return self.page_tables.named(name)

    def domain_root(self, domain: Domain) -> int:
        return self.root_of(domain.id)

    def root_of(self, domain_id: int) -> int:
        """Physical address of the root of the domain with that id."""
        root: int = self.rows.get(DOMAINS, f"{domain_id}")
        return root

    # Slots

    def install(self, change: SlotChange) -> None:
        self._slots.install(change)

    # Invalidation

    def invalidate(self, bindings: Sequence[Binding], span: tuple[int, int] | None, *, leaf: bool) -> None:
        if span is None:
            self.announce((Change.PAGE_TABLE_LEFT, [self._target(binding) for binding in bindings]))
            return
        targets = [
            self._target(binding, Span(*span, leaf, self.page_tables.named(binding.format).page_sizes[0]))
            for binding in bindings
        ]
        self.announce((Change.STAGE_1_REMOVED, targets))

    def announce(self, *changes: tuple[Change, Sequence[Target]]) -> None:
        """Invalidate what these changes require, phase by phase. Each command is sent once, however many need it."""
        needed = [
            (scope, target)
            for change, targets in changes
            for scope in INVALIDATIONS[change]
            for target in targets
            if scope.cache != "device_tlb" or self._has_ats(target.slot.rid)
        ]
        for _, group in groupby(sorted(needed, key=lambda need: need[0].phase), key=lambda need: need[0].phase):
            sent = dict.fromkeys(raw for scope, target in group for raw in commands(scope, target, self.features))
            submit(self._context, self._unit, self.features, sent)

    def missing(self, slot: Slot, stale: Sequence[Stale]) -> list[Command]:
        stream = self.streams.get(slot.rid)
        stage_2_alone = slot.pasid is None and stream is not None and stream.dss == DSS_BYPASS
        found = missing(slot, stale, self.features, stage_2_alone=stage_2_alone)
        return [logged(raw) for raw in found]

    def _target(self, occupant: Occupant, span: Span | None = None) -> Target:
        return Target(occupant.slot, self.tags.of(occupant), span)

    def _has_ats(self, rid: Rid) -> bool:
        stream = self.streams.get(rid)
        return stream is not None and stream.ats

    # Faults

    def take_faults(self, source: str) -> Events:
        return take_faults(self.memory, self._unit, self.features, source)

    # Page requests

    def take_page_requests(self) -> tuple[list[PageRequest], bool]:
        return take_page_requests(self.memory, self._unit, self.features)

    def respond(self, slot: Slot, group: int, response: PageResponse) -> None:
        submit(self._context, self._unit, self.features, [answer(slot, group, response)])

    # Looking after the tables

    def structures(self, rid: Rid) -> Iterator[Placed]:
        yield from self.stream_tables.structures(rid)
        yield from self._slots.contexts(rid)

    def check(self, request: CheckRequest) -> list[str]:
        return audit(self, self._slots, request)

    def used_in_guest(self, rid: Rid, guest: Memory) -> Iterator[Run]:  # noqa: ARG002 - rows tell
        return self._slots.runs_in_guest(rid)

    def used(self) -> Iterator[Run]:
        yield from startup.queue_runs(self._unit)
        yield from self.stream_tables.runs()
        yield from self._slots.runs()

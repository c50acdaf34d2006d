# SPDX-License-Identifier: Apache-2.0
"""A snapshot of a VM, our reading of its SMMUv3 tables, and where the kernel says otherwise."""

from collections import Counter
from collections.abc import Iterator, Mapping

from iommuctl.formats import checks, radix
from iommuctl.model import Rid, Slot
from iommuctl_smmuv3.id_registers import IDR0, IDR1
from iommuctl_smmuv3.ste import BOTH_STAGES, BYPASS, STAGE_1, STAGE_2, Ste
from tests.linux.report import Report
from tests.linux.smmuv3.devices import Mode
from tests.linux.smmuv3.kernel_trace import Dump, Event
from tests.linux.smmuv3.questions import (
    ADDR_SIZE,
    BAD_STREAM,
    NO_EVENT,
    TRANSLATION,
    Page,
    Question,
    of_pages,
    passed,
    refused,
)
from tests.linux.smmuv3.walked import Tables, Tree
from tests.linux.snapshot import Snapshot

_SMALL, _SIZES = 4096, (1 << 30, 2 << 20, 4096)
_SUBSTREAM_BITS = 16
"""What Linux takes the unit for where there are devices with PASIDs: .ci/smmuv3.c."""
_ABORT = 0


class Comparison(Report):
    """Compares at once."""

    def __init__(self, snapshot: Snapshot[Dump]) -> None:
        super().__init__()
        self._snapshot = snapshot
        mode = snapshot.mode
        assert isinstance(mode, Mode)
        self._mode = mode
        self._tables = Tables(snapshot.memory, _believed(snapshot.registers, mode))
        self.counts.update(self._tables.counts)
        self.findings += self._tables.findings
        self._pages: dict[tuple[str, int], tuple[Page, ...]] = {}
        """Of each tree that Linux wrote, once."""
        self._streams()
        translated = dict(self._translated())
        self.counts["trees of page tables"] = len(self._pages)
        self._events()
        for question in self._asked(translated):
            answer = self._tables.unit.walk(question.slot, question.iova, question.access, privileged=False)
            self.counts["requests that are translated" if question.fault is None else "requests that fault"] += 1
            if difference := question.difference(answer):
                self.differences.append(difference)
        self.content(self._tables.unit, snapshot)
        self.sizes(snapshot.mappings, {slot: sum(page.size for page in pages) for slot, pages in translated.items()})

    # Streams

    def _streams(self) -> None:
        """Each device has what the kernel and the program say, and no other stream does anything."""
        found = {stream.rid: Ste.Config.get(stream.ste) for stream in self._tables.streams}
        wanted = {rid: self._config(rid, kind) for rid, kind in self._snapshot.dump.devices.items()}
        for rid, config in wanted.items():
            if found.get(rid) != config:
                self.differences.append(f"the STE of {rid} has Config {found.get(rid)}, not {config}")
        roots = {tree.slot.rid: tree.root for tree in self._tables.trees}
        devices = {roots[rid] for rid in wanted.keys() & roots.keys()}
        for rid, config in found.items():
            if rid in wanted or config == _ABORT:
                continue
            if roots.get(rid) in devices:
                self.counts["StreamIDs of bridges, with tables of a device"] += 1
            else:
                self.differences.append(f"the STE of {rid}, which is no device, has Config {config}")
        self.counts["devices"] = len(wanted)

    def _config(self, rid: Rid, kind: str) -> int:
        """By the role of a device; of one without by the type of the domain that Linux has for it."""
        stage = STAGE_2 if self._mode.stage == "2" else STAGE_1
        role = next((role for role, rids in self._mode.roles.items() if str(rid) in rids), kind)
        special = {"identity": BYPASS, "blocked": _ABORT, "parent": STAGE_2, "nested": BOTH_STAGES}
        return special.get(role, stage)

    # Pages

    def _translated(self) -> Iterator[tuple[Slot, tuple[Page, ...]]]:
        """The pages of every slot; the guest's instead of the host's where there are both."""
        for tree in self._tables.trees:
            if tree.guests:
                yield tree.slot, self._read(tree)
                continue
            # Devices that share a domain share its tables.
            name = tree.fmt.name, tree.root
            if name not in self._pages:
                self._pages[name] = self._read(tree)
            yield tree.slot, self._pages[name]

    def _read(self, tree: Tree) -> tuple[Page, ...]:
        """A tree, entry by entry."""
        fmt, pages = tree.fmt, []
        self.findings += radix.check(fmt, tree.memory, tree.root)
        stage = 2 if "stage-2" in fmt.name else 1
        for visit in radix.entries(fmt, tree.memory, tree.root):
            self.findings += [f"entry at {visit.address:#x}: {one}" for one in checks.problems(fmt.layout, visit.raw)]
            if visit.entry.kind != "leaf":
                self.counts[f"stage {stage}: table of level {fmt.numbered(visit.level - 1)}"] += 1
                continue
            self.counts[f"stage {stage}: {_called(visit.size)}{' of a guest' if tree.guests else ''}"] += 1
            page = Page(visit.iova, visit.size, visit.entry.address, visit.address, visit.raw, stage)
            # The way through all levels is another one than the tour.
            *_, last = radix.walk(fmt, tree.memory, tree.root, visit.iova + visit.size - 1)
            if (last.address, last.raw) != (visit.address, visit.raw):
                self.differences.append(f"{tree.slot} {visit.iova:#x}: the walk ends at {last}, the tour at {visit}")
            pages.append(page)
        return tuple(pages)

    def _events(self) -> None:
        """Linux's tables have what it mapped and did not take away, in the largest pages that fit.

        It does not say into which tables it maps. So many have an address as mappings of it are left, each with one of
        the physical addresses that it was ever mapped to.
        """
        events = self._snapshot.dump.events
        self.counts["mappings that the kernel tells of"] = sum(event.pa is not None for event in events)
        mapped = Counter(page for event in events if event.pa is not None for page in _pages(event))
        found = Counter((page.iova, page.pa, page.size) for pages in self._pages.values() for page in pages)
        for iova, pa, size in found - mapped:
            self.differences.append(f"the kernel never mapped {size:#x} bytes at {iova:#x} to {pa:#x}")
        left: Counter[int] = Counter()
        for event in events:
            for iova in range(event.iova, event.iova + event.size, _SMALL):
                left[iova] += 1 if event.pa is not None else -1
        here = Counter(iova for start, _, size in found.elements() for iova in range(start, start + size, _SMALL))
        self.counts["4 KiB that the kernel mapped, compared"] = sum(left.values())
        self.differences += [
            f"{here[iova]} tables have {iova:#x}, but the kernel left it in {left[iova]}"
            for iova in left.keys() | here.keys()
            if here[iova] != left[iova]
        ]

    # Requests

    def _asked(self, translated: Mapping[Slot, tuple[Page, ...]]) -> Iterator[Question]:
        for tree in self._tables.trees:
            if tree.guests or tree.slot not in {one.slot for one in self._tables.trees if one.guests}:
                width = tree.fmt.width
                # Without stage 1, an address with more bits than an intermediate physical one is F_ADDR_SIZE.
                alone = "stage-2" in tree.fmt.name and width >= self._tables.features.ias
                too_large = ADDR_SIZE if alone else TRANSLATION
                yield from of_pages(tree.slot, translated[tree.slot], width, too_large, guests=tree.guests)
        configs = {stream.rid: Ste.Config.get(stream.ste) for stream in self._tables.streams}
        buses = {rid.bus for rid in configs}
        for rid, config in configs.items():
            if config == BYPASS:
                yield passed(Slot(rid))
            elif config == _ABORT:
                yield refused(Slot(rid), NO_EVENT)
        yield from (refused(Slot(Rid(0, bus, 0, 0)), BAD_STREAM) for bus in range(256) if bus not in buses)


def _believed(registers: dict[str, int], mode: Mode) -> dict[str, int]:
    """The registers as Linux took them."""
    # Without ATS, NS1ATS means nothing; the simulated unit has it.
    idr0, idr1 = registers["IDR0"] | IDR0.NS1ATS.mask, registers["IDR1"]
    if mode.substreams:
        idr0, idr1 = idr0 | IDR0.CD2L.mask, idr1 | IDR1.SSIDSIZE.put(_SUBSTREAM_BITS)
    return registers | {"IDR0": idr0, "IDR1": idr1}


def _pages(event: Event) -> Iterator[tuple[int, int, int]]:
    """The largest pages that a mapping can be made of."""
    assert event.pa is not None
    at = 0
    while at < event.size:
        iova, pa = event.iova + at, event.pa + at
        size = next(size for size in _SIZES if not (iova | pa) % size and at + size <= event.size)
        yield iova, pa, size
        at += size


def _called(size: int) -> str:
    return {1 << 12: "4 KiB page", 2 << 20: "2 MiB block", 1 << 30: "1 GiB block"}[size]

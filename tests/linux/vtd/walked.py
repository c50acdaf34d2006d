# SPDX-License-Identifier: Apache-2.0
"""Our reading of the tables that Linux wrote: every structure that is present, from RTADDR down to the last page."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import NamedTuple, cast

from iommuctl.formats import checks, radix
from iommuctl.formats.bits import Layout, bit_names
from iommuctl.formats.format import Format
from iommuctl.formats.memory import Memory
from iommuctl.hookspecs import Context
from iommuctl.model import Rid, Slot
from iommuctl_vtd.capability import LEGACY_MODE, WIDTHS
from iommuctl_vtd.context_entry import PASSES_THROUGH, ContextEntry, ScalableContextEntry
from iommuctl_vtd.pasid_entry import FIRST_STAGE, SECOND_STAGE, PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.registers import RTADDR
from iommuctl_vtd.root_entry import RootEntry, ScalableRootEntry
from iommuctl_vtd.unit import Unit
from tests.linux.vtd.kernel_dump import Device, Page
from tests.machine import DictRows, SilentBus
from tests.vtd.machine import SRTP, TE


class Tree(NamedTuple):
    """The page tables of a slot."""

    slot: Slot
    fmt: Format
    root: int


class Pages(NamedTuple):
    """A tree as the kernel prints it, how many entries of which sort it has, and what is wrong with it.

    `hidden` are the entries that lead to no page, which the kernel does not print.
    """

    pages: tuple[Page, ...]
    entries: dict[str, int]
    hidden: tuple[radix.Visit, ...]
    findings: tuple[str, ...]


class Tables:
    """All tables of a unit with these registers. `unit` is it, and translates by them.

    `counts` has how many present structures there are by their names, `devices` what the kernel's dump has a line for,
    `empty` the requesters of which it has none, as they have no PASID table entry. `trees` are the page tables.
    """

    def __init__(self, memory: Memory, registers: dict[str, int], haw: int) -> None:
        self._memory = memory
        # This is all that a unit needs of a context.
        context = cast(Context, SimpleNamespace(memory=memory, rows=DictRows()))
        Unit.reset(context, {"cap": f"{registers['CAP']}", "ecap": f"{registers['ECAP']}", "haw": f"{haw}"})
        self.unit = Unit(context, SilentBus())
        self.unit.write_register("RTADDR", registers["RTADDR"])
        self.unit.write_register("GCMD", SRTP)
        self.unit.write_register("GCMD", TE)
        self.root = RTADDR.RTA.get(registers["RTADDR"])
        self.legacy = RTADDR.TTM.get(registers["RTADDR"]) == LEGACY_MODE
        self.counts: dict[str, int] = {}
        self.findings: list[str] = []
        self.devices: list[Device] = []
        self.empty: list[Rid] = []
        self.trees: list[Tree] = []
        for bus in range(256):
            if self.legacy:
                self._legacy_bus(bus)
            else:
                self._scalable_bus(bus)

    def _legacy_bus(self, bus: int) -> None:
        for _, root in self._present(RootEntry, self.root + 16 * bus, 1):
            for number, raw in self._present(ContextEntry, RootEntry.CTP.get(root), 256):
                rid = Rid(0, bus, number >> 3, number & 7)
                self.devices.append(Device(rid, _words(RootEntry, root), _words(ContextEntry, raw), None, (0, 0, 0)))
                if ContextEntry.TT.get(raw) != PASSES_THROUGH:
                    fmt = self.unit.capability.second_stage(WIDTHS[ContextEntry.AW.get(raw)])
                    self.trees.append(Tree(Slot(rid), fmt, ContextEntry.SSPTPTR.get(raw)))

    def _scalable_bus(self, bus: int) -> None:
        for _, root in self._present(ScalableRootEntry, self.root + 16 * bus, 1):
            for first, here, table in (
                (0, ScalableRootEntry.LP, ScalableRootEntry.LCTP), (128, ScalableRootEntry.UP, ScalableRootEntry.UCTP)
            ):  # fmt: skip
                if here.get(root):
                    for number, context in self._present(ScalableContextEntry, table.get(root), 128):
                        devfn = first + number
                        self._scalable_device(Rid(0, bus, devfn >> 3, devfn & 7), root, context)

    def _scalable_device(self, rid: Rid, root: int, context: int) -> None:
        known = len(self.devices)
        size = 1 << ScalableContextEntry.PDTS.get(context) + 7
        directory = ScalableContextEntry.PASIDDIRPTR.get(context)
        for upper, pointer in self._present(PasidDirectoryEntry, directory, size):
            for lower, entry in self._present(PasidEntry, PasidDirectoryEntry.SMPTBLPTR.get(pointer), 64):
                pasid = upper << 6 | lower
                first, second, third, *_ = PasidEntry.to_words(entry)
                roots, contexts = _words(ScalableRootEntry, root), _words(ScalableContextEntry, context)
                self.devices.append(Device(rid, roots, contexts, pasid, (first, second, third)))
                self._add_tree(Slot(rid, pasid or None), entry)
        if len(self.devices) == known:
            self.empty.append(rid)

    def _add_tree(self, slot: Slot, entry: int) -> None:
        can = self.unit.capability
        kind = PasidEntry.PGTT.get(entry)
        if kind == FIRST_STAGE:
            first_stage = can.first_stage(PasidEntry.FSPM.get(entry) + 4)
            self.trees.append(Tree(slot, first_stage, PasidEntry.FSPTPTR.get(entry)))
        elif kind == SECOND_STAGE:
            second_stage = can.second_stage(WIDTHS[PasidEntry.AW.get(entry)])
            self.trees.append(Tree(slot, second_stage, PasidEntry.SSPTPTR.get(entry)))

    def _present(self, layout: type[Layout], table: int, entries: int) -> Iterator[tuple[int, int]]:
        """Numbers and values of the present ones of a table. Counts them, and notes what is wrong with them."""
        size = layout.bits // 8
        data = self._memory.read(table, size * entries)
        for number in range(entries):
            raw = int.from_bytes(data[size * number : size * (number + 1)], "little")
            if checked := layout.checked(raw):
                self.counts[layout.name] = self.counts.get(layout.name, 0) + 1
                wrong = checks.problems(layout, raw)
                if bad := raw & checked & self.unit.capability.reserved(layout) & ~layout.reserved:
                    wrong.append(f"{bit_names(bad)} set, which this unit reserves")
                self.findings += [f"{layout.name} at {table + size * number:#x}: {one}" for one in wrong]
                yield number, raw

    def pages(self, tree: Tree) -> Pages:
        """A tree, entry by entry."""
        fmt = tree.fmt
        pages, findings = [], radix.check(fmt, self._memory, tree.root)
        entries: dict[str, int] = {}
        path: dict[int, radix.Visit] = {}
        hidden: dict[int, radix.Visit] = {}
        for visit in radix.entries(fmt, self._memory, tree.root):
            path = {level: above for level, above in path.items() if level > visit.level} | {visit.level: visit}
            findings += [f"entry at {visit.address:#x}: {one}" for one in checks.problems(fmt.layout, visit.raw)]
            name = f"{_size(visit.size)} page" if visit.entry.kind == "leaf" else f"table entry of level {visit.level}"
            entries[name] = entries.get(name, 0) + 1
            hidden[visit.address] = visit
            if visit.entry.kind == "leaf":
                five, four, three, two, one = (path[level].raw if level in path else 0 for level in range(5, 0, -1))
                pages.append(Page(visit.iova, (five, four, three, two, one)))
                for used in path.values():
                    hidden.pop(used.address, None)
        return Pages(tuple(pages), entries, tuple(hidden.values()), tuple(findings))


def _words(layout: type[Layout], raw: int) -> tuple[int, int]:
    first, second, *_ = layout.to_words(raw)
    return first, second


def _size(size: int) -> str:
    return {1 << 12: "4 KiB", 1 << 21: "2 MiB", 1 << 30: "1 GiB"}[size]

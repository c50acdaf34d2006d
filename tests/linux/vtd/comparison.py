# SPDX-License-Identifier: Apache-2.0
"""A snapshot of a VM, our reading of it, and where the two differ."""

from collections.abc import Iterator

from iommuctl.model import Rid, Slot
from tests.linux.report import Report
from tests.linux.snapshot import Snapshot
from tests.linux.vtd.kernel_dump import Domain, Dump
from tests.linux.vtd.questions import NO_CONTEXT, NO_PASID, Question, of_device, page_size, without
from tests.linux.vtd.walked import Pages, Tables, Tree


class Comparison(Report):
    """Compares at once."""

    def __init__(self, snapshot: Snapshot[Dump]) -> None:
        super().__init__()
        dump = snapshot.dump
        self._snapshot = snapshot
        self._tables = Tables(snapshot.memory, dump.registers, dump.haw)
        self.counts.update(self._tables.counts)
        self.findings += self._tables.findings
        if dump.root != self._tables.root:
            self.differences.append(f"the kernel's root table is at {dump.root:#x}, RTADDR's at {self._tables.root:#x}")
        self.both(dump.devices, self._tables.devices, "the line of a device")
        self._known = {device.rid for device in dump.devices} | set(self._tables.empty)
        self.counts["requester ids"] = len(self._known)
        self.counts["requester ids without any table"] = len(self._tables.empty)
        self.counts["PASIDs"] = sum(bool(device.pasid) for device in dump.devices)
        translated = {tree.slot.rid for tree in self._tables.trees}
        self.counts["requester ids that pass through"] = len(self._known - translated - set(self._tables.empty))
        self._trees()
        self._questions()
        self.content(self._tables.unit, snapshot)
        sizes = {slot: sum(map(page_size, domain.pages)) for slot, domain in dump.domains.items()}
        self.sizes(snapshot.mappings, sizes)

    def _trees(self) -> None:
        domains = dict(self._snapshot.dump.domains)
        dumped = {domain.root for domain in domains.values()}
        read: dict[tuple[str, int], Pages] = {}
        for tree in self._tables.trees:
            # Devices that share a domain share its tables.
            name = tree.fmt.name, tree.root
            if name not in read:
                read[name] = self._read(tree)
            if domain := domains.pop(tree.slot, None):
                self._tree(tree, read[name], domain)
            elif tree.root in dumped:
                # The kernel has files for devices; requester ids that a bridge uses for them are none.
                self.counts["requester ids of bridges, with tables of a device"] += 1
            else:
                self.differences.append(f"the kernel prints no page tables of {tree.slot}")
        self.differences += [f"only the kernel has page tables of {slot}" for slot in domains]
        self.counts["trees of page tables"] = len(read)

    def _read(self, tree: Tree) -> Pages:
        pages = self._tables.pages(tree)
        self.findings += pages.findings
        self.counts.update(pages.entries)
        self.counts["table entries that lead to no page, not printed"] += len(pages.hidden)
        self.differences += [f"the kernel prints no {visit}" for visit in pages.hidden if visit.entry.kind != "table"]
        return pages

    def _tree(self, tree: Tree, pages: Pages, domain: Domain) -> None:
        self.counts["printed trees, compared"] += 1
        self.counts["printed pages, compared"] += len(domain.pages)
        if tree.root != domain.root:
            self.differences.append(f"the top table of {tree.slot} is at {tree.root:#x}, not at {domain.root:#x}")
        self.both(domain.pages, pages.pages, f"{tree.slot}'s page")

    def _questions(self) -> None:
        for question in self._asked():
            answer = self._tables.unit.walk(question.slot, question.iova, question.access, privileged=False)
            self.counts["requests that fault" if question.faults else "requests that are translated"] += 1
            if difference := question.difference(answer):
                self.differences.append(difference)

    def _asked(self) -> Iterator[Question]:
        trees = {tree.slot: tree for tree in self._tables.trees}
        # By root tables, as bridges' requester ids have no domains of their own.
        pages = {domain.root: domain.pages for domain in self._snapshot.dump.domains.values()}
        for device in self._snapshot.dump.devices:
            if tree := trees.get(Slot(device.rid, device.pasid or None)):
                yield from of_device(device, pages.get(tree.root, ()), tree.fmt.width)
            else:
                yield from of_device(device, (), self._snapshot.dump.haw)
        yield from (without(Slot(rid), NO_PASID) for rid in self._tables.empty)
        buses = {rid.bus for rid in self._known}
        for bus in range(256):
            # Buses without any device have no context table, so that one requester stands for all of them.
            for devfn in range(256 if bus in buses else 1):
                if (rid := Rid(0, bus, devfn >> 3, devfn & 7)) not in self._known:
                    yield without(Slot(rid), NO_CONTEXT)

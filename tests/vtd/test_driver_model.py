# SPDX-License-Identifier: Apache-2.0
"""Any series of operations: what the unit does is what plain dicts say, and no cache is ever stale."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuctl.model import Attachment, Binding, Domain, Mapping, Slot
from tests.vtd.driven import Driven

PAGE = 0x1000
ROOTS = (0x20000, 0x30000)
"""GPAs of two guest tables. Each maps VA 0x5000 and 0x7000 to the two pages at GPA root + 0x8000."""
VAS = (0x5000, 0x7000)
GUEST_PAGES = {(root, va): root + 0x8000 + number * PAGE for root in ROOTS for number, va in enumerate(VAS)}
SHIFT = 0x10_0000
"""Domain number n has its guest memory at n times this."""
EXTRA = 0x400000
PROBES = (*VAS, *ROOTS, *GUEST_PAGES.values(), EXTRA, EXTRA + 0x200000 - PAGE)

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["attach", "attach", "bind", "bind", "detach", "unmap", "unmap", "map", "map", "invalidate"]),
        st.integers(0, 5),
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


class Model:
    """A machine, and what each domain maps by pages."""

    def __init__(self) -> None:
        self.machine = Driven()
        rids = [self.machine.device(text, ats=True) for text in ("00:01.0", "00:1f.0")]
        self.slots = [Slot(rid, pasid) for rid in rids for pasid in (None, 5, 0xFFFFF)]
        self.domains = [self.machine.domain(nest_parent=True) for _ in range(2)]
        self.pages: dict[int, dict[int, int]] = {}
        self.optional: dict[int, dict[int, Mapping]] = {}
        for domain in self.domains:
            self.pages[domain.id], self.optional[domain.id] = {}, {}
            for root in ROOTS:
                self.guest(domain, root)
                self.map(domain, root, root + domain.id * SHIFT, 4 * PAGE)
            for which in range(4):
                self.toggle(domain, which)

    def guest(self, domain: Domain, root: int) -> None:
        """Tables as a guest writes them into its memory."""
        put, base = self.machine.memory.put, root + domain.id * SHIFT
        for level in range(3):
            put({base + level * PAGE: root + (level + 1) * PAGE | 0x27})
        for va in VAS:
            put({base + 3 * PAGE + 8 * (va // PAGE): GUEST_PAGES[root, va] | 0x67})

    def map(self, domain: Domain, iova: int, pa: int, size: int) -> Mapping:
        mapping = self.machine.map(domain, iova, pa, size)
        self.pages[domain.id] |= {iova + at: pa + at for at in range(0, size, PAGE)}
        return mapping

    def toggle(self, domain: Domain, which: int) -> None:
        """Map or unmap one of four ranges: a guest's page, or pages that no guest uses, of 4 KiB or 2 MiB."""
        held = self.optional[domain.id]
        if mapping := held.pop(which, None):
            self.machine.unmap(domain, mapping)
            for at in range(0, mapping.size, PAGE):
                del self.pages[domain.id][mapping.iova + at]
        else:
            iova, size = [
                (ROOTS[0] + 0x8000, PAGE), (ROOTS[0] + 0x9000, PAGE), (ROOTS[1] + 0x8000, 2 * PAGE), (EXTRA, 2 << 20)
            ][which]  # fmt: skip
            pa = domain.id * SHIFT + iova if which < 3 else domain.id << 21
            held[which] = self.map(domain, iova, pa, size)

    def expected(self, slot: Slot, iova: int) -> int | None:
        occupant = self.machine.slots.get(slot)
        if isinstance(occupant, Attachment):
            return self.pages[occupant.domain.id].get(iova)
        if isinstance(occupant, Binding) and (gpa := GUEST_PAGES.get((occupant.root, iova))):
            return self.pages[occupant.domain.id].get(gpa)
        return None

    def verify(self) -> None:
        machine = self.machine
        for slot in self.slots:
            for iova in PROBES:
                wanted = self.expected(slot, iova)
                pa, stale = machine.dma(slot, iova)
                assert not stale, f"{slot} {iova:#x}"
                assert (None if pa < 0 else pa) == wanted, f"{slot} {iova:#x}"
        assert machine.check() == []
        machine.accounts()
        tables = {(held.domain.id, getattr(held, "root", None)): slot for slot, held in machine.slots.items()}
        assert len({machine.did(slot) for slot in machine.slots}) == len(tables), "one DID for each kind of tables"


@settings(deadline=None, max_examples=40)
@given(OPERATIONS)
def test_any_series_of_operations(operations: list[tuple[str, int, int, int, int]]) -> None:
    model = Model()
    machine = model.machine
    for name, which_slot, which_domain, which_root, which_range in operations:
        slot, domain, root = model.slots[which_slot], model.domains[which_domain], ROOTS[which_root]
        held = machine.slots.get(slot)
        if name == "attach":
            machine.attach(domain, slot)
        elif name == "bind":
            machine.bind(domain, slot, root)
        elif name == "detach" and held:
            machine.install(slot, None)
        elif name in ("map", "unmap"):
            if (name == "unmap") == (which_range in model.optional[domain.id]):
                model.toggle(domain, which_range)
        elif name == "invalidate" and isinstance(held, Binding):
            machine.driver.invalidate([held], None, leaf=False)
        model.verify()


def rebind(model: Model) -> None:
    """The way to the tables is not cached, so an empty slot refuses at once; but its tag is used again."""
    model.machine.install(model.slots[1], None)
    model.machine.bind(model.domains[0], model.slots[1], ROOTS[1])


CHANGES: dict[str, Callable[[Model], None]] = {
    "unmap a guest's page": lambda model: model.toggle(model.domains[0], 0),
    "unmap": lambda model: model.toggle(model.domains[0], 3),
    "rebind": rebind,
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_flush_was_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its commands each of these changes leaves something stale: the test above would see it."""
    model = Model()
    model.machine.attach(model.domains[0], model.slots[0])
    model.machine.bind(model.domains[0], model.slots[1], ROOTS[0])
    model.verify()
    monkeypatch.setattr("iommuctl_vtd.commands.CommandQueue.submit", lambda *_: None)
    CHANGES[name](model)
    with pytest.raises(AssertionError):
        model.verify()

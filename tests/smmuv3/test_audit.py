# SPDX-License-Identifier: Apache-2.0
"""`check` finds what others wrote into the tables, and `structures` shows what is there."""

from collections.abc import Callable

import pytest

from iommuctl.model import Rid, Slot
from tests.smmuv3.driven import Driven
from tests.smmuv3.test_driver import A, without

DATA = 0x5000


class Prepared:
    """One device on a domain with PASIDs, one nested, and where their structures lie."""

    def __init__(self, **options: int) -> None:
        self.machine = machine = Driven(**options)
        self.plain, self.nested = Slot(machine.device(A), 69), Slot(machine.device("0000:01:00.0"), 70)
        self.domain, self.parent = machine.domain(), machine.parent()
        machine.map(self.domain, DATA, 0x7000)
        machine.attach(self.domain, self.plain)
        machine.attach(self.domain, Slot(self.plain.rid))
        machine.attach(self.parent, Slot(self.nested.rid))
        machine.bind(self.parent, self.nested, machine.page_table(self.parent, {DATA: 0x3000}))

    def place(self, slot: Slot, structure: str) -> int:
        """The physical address of the structure on the way of a slot."""
        steps = self.machine.unit.walk(slot, DATA, "r", privileged=False).steps
        return next(step.address for step in steps if step.structure == f"smmuv3.{structure}" and step.stage == 0)


@pytest.mark.parametrize("options", [{}, without("IDR0", "ST_LEVEL"), without("IDR5", "GRAN16K", "GRAN64K")])
def test_nothing_is_wrong(options: dict[str, int]) -> None:
    prepared = Prepared(**options)
    assert prepared.machine.check() == []
    prepared.machine.accounts()


@pytest.mark.parametrize(
    ("spoil", "beginning"),
    [
        (lambda p: {p.place(p.plain, "l1std"): 0x8}, "the stream table descriptor of bus 00 is 0x8"),
        (lambda p: {p.place(p.plain, "ste") + 8: 0}, "the STE of 0000:00:01.0 is 0x38000000"),
        (lambda p: {p.place(p.nested, "ste"): 1}, "the STE of 0000:01:00.0 is 0x1 0x1000000000d5"),
        (lambda p: {p.place(p.plain, "l1cd"): 0}, "the L1CD of 0000:00:01.0 for PASIDs 64..127 is 0x0, not 0x"),
        (lambda p: {p.place(p.plain, "cd") + 24: 7}, "the CD of 0000:00:01.0 PASID 69 is 0x1e205c0003510 0x"),
        (lambda p: {p.place(p.plain, "cd") + 64: 7}, "the CD of 0000:00:01.0 PASID 70 is 0x7, not 0x0"),
        (lambda p: {p.place(Slot(p.plain.rid), "cd"): 0}, "the CD of 0000:00:01.0 is 0x0 0x"),
        (lambda p: {p.place(p.nested, "cd"): 0}, "the CD of 0000:01:00.0 PASID 70 is 0x0 0x"),
        (lambda p: {p.place(p.nested, "l1cd"): 0x1234001}, "the L1CD of 0000:01:00.0 for PASIDs 64..127 is 0x1234001"),
        (lambda p: {p.machine.entry_address(Rid.parse("0000:00:1f.0")): 1}, "0000:00:1f.0 has an STE, but no such"),
        (
            lambda p: {p.machine.driver.domain_root(p.domain): 0},
            "domain1: 0x5000+0x1000 -> 0x7000 rw is in the rows but not the tables",
        ),
    ],
)
def test_what_others_wrote(spoil: Callable[[Prepared], dict[int, int]], beginning: str) -> None:
    prepared = Prepared()
    prepared.machine.memory.put(spoil(prepared))
    problems = prepared.machine.check()
    assert any(problem.startswith(beginning) for problem in problems), problems


def test_the_guest_memory_of_cds_is_gone() -> None:
    prepared = Prepared()
    prepared.machine.memory.put({prepared.machine.driver.domain_root(prepared.parent): 0})
    problems = prepared.machine.check()
    assert any(
        problem.startswith("the CDs of 0000:01:00.0 from PASID 64 on cannot be read: GPA 0x") for problem in problems
    )
    assert [placed.step.structure for placed in prepared.machine.driver.structures(prepared.nested.rid)] == [
        "smmuv3.l1std", "smmuv3.ste",
    ]  # fmt: skip


def test_a_slot_without_its_cd() -> None:
    """The rows tell of one that was never written."""
    prepared = Prepared()
    from iommuctl.model import Attachment

    extra = Slot(prepared.plain.rid, 200)
    prepared.machine.slots[extra] = Attachment(extra, prepared.domain)
    (problem,) = prepared.machine.check()
    assert problem.startswith("the CD of 0000:00:01.0 PASID 200 is 0x0, not 0x1e205c0003510")


def test_of_many_that_are_alike_the_first() -> None:
    prepared = Prepared()
    address = prepared.place(prepared.plain, "cd")
    prepared.machine.memory.put({address + 64 * number: 7 for number in range(-5, 40)})
    problems = prepared.machine.check()
    assert len(problems) == 21
    assert problems[-1].startswith("there are more problems like this one: the CD of 0000:00:01.0 PASID ")


@pytest.mark.parametrize("slot", ["plain", "nested"])
def test_structures(slot: str) -> None:
    """Each at its physical address, as memory has it, and those of a walk among them."""
    prepared = Prepared()
    machine, wanted = prepared.machine, getattr(prepared, slot)
    placed = list(machine.driver.structures(wanted.rid))
    for each in placed:
        assert [machine.memory.word(each.step.address + 8 * n) for n in range(len(each.step.raw))] == [*each.step.raw]
    walked = machine.unit.walk(wanted, DATA, "r", privileged=False).steps
    assert {step.address for step in walked if not step.stage} <= {each.step.address for each in placed}
    rows = [(each.step.structure.removeprefix("smmuv3."), each.depth, each.pasids) for each in placed]
    own = [("l1cd", 2, (64, 127)), ("cd", 3, (wanted.pasid, wanted.pasid))]
    first = [("l1cd", 2, (0, 63)), ("cd", 3, (0, 0))] if slot == "plain" else []
    assert rows == [("l1std", 0, None), ("ste", 1, None), *first, *own]


def test_structures_of_a_device_without_pasids() -> None:
    machine = Driven(**without("IDR0", "ST_LEVEL"))
    slot = Slot(machine.device(A, pasid_bits=0))
    assert list(machine.driver.structures(Rid.parse("0000:00:02.0"))) == []
    machine.attach(machine.domain(), slot)
    rows = [(each.step.structure, each.depth, each.pasids) for each in machine.driver.structures(slot.rid)]
    assert rows == [("smmuv3.ste", 0, None), ("smmuv3.cd", 1, None)]

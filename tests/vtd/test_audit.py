# SPDX-License-Identifier: Apache-2.0
"""The comparison of tables and rows finds whatever something else changed in memory, and bears anything it holds."""

from random import Random

import pytest

from iommuctl.formats.memory import PAGE
from iommuctl.model import Attachment, Binding, Device, Mapping, Rid, Slot
from tests.vtd.driven import Driven

A, B = Rid.parse("0000:00:01.0"), Rid.parse("0000:00:10.0")
BY_RID, WITH_PASID, BOUND, OF_B = Slot(A), Slot(A, 5), Slot(A, 70), Slot(B)
GUEST = {0x20000: 0x21027, 0x21000: 0x22027, 0x22000: 0x23027, 0x23000 + 8 * 5: 0x24067}


def town() -> Driven:
    """Two devices in both halves of a bus, two domains, three slots of the first device, one of the second."""
    machine = Driven()
    machine.memory.put(GUEST)
    machine.device(str(A), ats=True, pasid_bits=8)
    machine.device(str(B), pasid_bits=0)
    domain, parent = machine.domain(), machine.domain(nest_parent=True)
    machine.map(domain, 0x5000, 0x7000)
    machine.map(domain, 0x6000, 0xA000, prot="r")
    machine.map(domain, 0x4000_0000, 0x20_0000, 0x20_0000)
    machine.map(parent, 0x20000, 0x20000, 0x10000)
    for slot in (BY_RID, WITH_PASID, OF_B):
        machine.attach(domain, slot)
    machine.bind(parent, BOUND, 0x20000)
    assert machine.check() == []
    return machine


class Places:
    """Where the structures lie."""

    def __init__(self, machine: Driven) -> None:
        word = machine.memory.word
        self.root = machine.unit.read_register("RTADDR") & -PAGE
        self.lower = word(self.root) & -PAGE
        self.context = self.lower + 32 * 8
        self.directory = word(self.context) & -PAGE
        self.table = word(self.directory) & -PAGE
        self.entry = self.table + 64 * 5
        domain = machine.domains[0]
        self.level4 = machine.driver.domain_root(domain)
        self.level3 = word(self.level4) & -PAGE
        self.level2 = word(self.level3) & -PAGE
        self.level1 = word(self.level2) & -PAGE


def after(changes: dict[str, int]) -> list[str]:
    """What the check says when words have changed: places are expressions in the names of Places, values are XORed."""
    machine = town()
    names = vars(Places(machine))
    for place, bits in changes.items():
        address = eval(place, {"__builtins__": {}}, names)
        machine.memory.put({address: machine.memory.word(address) ^ bits})
    return machine.check()


@pytest.mark.parametrize(
    ("place", "bits", "says"),
    [
        # PASID entries.
        ("entry", 1, "the PASID entry of 0000:00:01.0 PASID 5 is 0x"),
        ("table", 1, "the PASID entry of 0000:00:01.0 is 0x"),
        ("table + 64 * 6", 0x109, "the PASID entry of 0000:00:01.0 PASID 6 is 0x109"),
        ("table + 64 * 6", 2, "the PASID entry of 0000:00:01.0 PASID 6 is 0x2"),
        ("table + 64 * 6 + 56", 1 << 63, "the PASID entry of 0000:00:01.0 PASID 6 is"),
        *((f"entry + {8 * word}", 1 << 40, "the PASID entry of 0000:00:01.0 PASID 5 is 0x") for word in range(8)),
        # The directory.
        ("directory", 1, "the PASID directory entry of 0000:00:01.0 for PASIDs 0..63"),
        ("directory", 1, "the PASID entry of 0000:00:01.0 PASID 5 is 0x0"),
        ("directory", 2, "the PASID directory entry of 0000:00:01.0 for PASIDs 0..63"),
        ("directory + 8", 1 << 11, "the PASID directory entry of 0000:00:01.0 for PASIDs 64..127"),
        ("directory + 8", 1 << 63, "the PASID directory entry of 0000:00:01.0 for PASIDs 64..127"),
        ("directory + 8", 1 << 40, "the PASID entry of 0000:00:01.0 PASID 70 is 0x0"),
        ("directory + 16", 2, "the PASID directory entry of 0000:00:01.0 for PASIDs 128..191"),
        # Context entries.
        ("context", 1, "the context entry of 0000:00:01.0 is"),
        ("context", 2, "the context entry of 0000:00:01.0 is"),
        ("context", 8, "the context entry of 0000:00:01.0 is"),
        ("context + 8", 1, "the context entry of 0000:00:01.0 is"),
        ("context + 24", 1 << 63, "the context entry of 0000:00:01.0 is"),
        ("context + 32", 1, "0000:00:01.1 has a context entry, but no such device is known"),
        ("context + 32", 2, "0000:00:01.1 has a context entry, but no such device is known"),
        ("context + 56", 1, "0000:00:01.1 has a context entry, but no such device is known"),
        ("context", 1 << 40, "the PASID entry of 0000:00:01.0 is 0x0"),
        # The root table.
        ("root", 1, "the root entry of bus 00, lower half, is"),
        ("root", 2, "the root entry of bus 00, lower half, is"),
        ("root + 8", 1 << 63, "the root entry of bus 00, upper half, is"),
        ("root", 1 << 40, "the context entry of 0000:00:01.0 is 0x0"),
        ("root + 16 * 255 + 8", 2, "the root entry of bus ff, upper half, is 0x2"),
        # Domains.
        ("level1 + 8 * 5", 3, "domain1: 0x5000+0x1000 -> 0x7000 rw is in the rows but not the tables"),
        ("level1 + 8 * 5", 2, "domain1: 0x5000+0x1000 -> 0x7000 r is in the tables but not the rows"),
        ("level1 + 8 * 5", 0x1000, "domain1: 0x5000+0x1000 -> 0x6000 rw is in the tables but not the rows"),
        ("level1 + 8 * 9", 0x9003, "domain1: 0x9000+0x1000 -> 0x9000 rw is in the tables but not the rows"),
        ("level1 + 8 * 5", 1 << 62, "reserved bit 62"),
        ("level2", 3, "domain1: 0x5000+0x1000 -> 0x7000 rw is in the rows but not the tables"),
        ("level2", 1 << 40, "outside memory"),
        ("level3 + 8", 1, "domain1: 0x40000000+0x200000 -> 0x200000 w is in the tables"),
        ("level4 + 8", 0x1000_0003, "domain1: the table of level 3 at 0x10000000"),
    ],
)
def test_each_difference_is_found(place: str, bits: int, says: str) -> None:
    problems = after({place: bits})
    assert any(says in problem for problem in problems), problems


def test_rows_that_no_table_has() -> None:
    machine = town()
    domain, parent = machine.domains
    machine.mappings[domain.id].append(Mapping(0x8000_0000, 0x1000, 0, None, 0, "rw"))
    machine.slots[Slot(A, 9)] = Attachment(Slot(A, 9), domain)
    machine.slots[WITH_PASID] = Attachment(WITH_PASID, parent)
    assert len(machine.check()) == 3
    machine.devices.append(Device(Rid(0, 9, 0, 0)))
    assert len(machine.check()) == 4
    machine.devices[0] = machine.devices[0]._replace(ats=False)
    assert any("the context entry of 0000:00:01.0 is" in problem for problem in machine.check())


def test_a_binding_with_another_root() -> None:
    machine = town()
    binding = machine.slots[BOUND]
    assert isinstance(binding, Binding)
    machine.rows.put("vtd.did", f"{binding.domain.id} 21000 {binding.format}", [99, 1])
    machine.slots[BOUND] = binding._replace(root=0x21000)
    assert ["PASID 70 is" in problem for problem in machine.check()] == [True]


def test_accessed_and_dirty_bits_are_no_difference() -> None:
    machine = town()
    level1 = Places(machine).level1
    machine.memory.put({level1 + 8 * 5: machine.memory.word(level1 + 8 * 5) | 0x300})
    assert machine.check() == []


def answers(machine: Driven) -> list[object]:
    """What the unit makes of requests of all kinds."""
    found: list[object] = []
    for slot in (
        BY_RID,
        WITH_PASID,
        BOUND,
        OF_B,
        Slot(A, 6),
        Slot(A, 200),
        Slot(Rid(0, 0, 1, 1)),
        Slot(Rid(0, 255, 31, 7)),
    ):
        for iova in (0x5000, 0x4000_0000):
            answer = machine.unit.walk(slot, iova, "r", privileged=False)
            found.append((answer.pa, answer.prot, answer.page_size, answer.fault and answer.fault.code))
    return found


def test_no_single_bit_changes_the_unit_unseen() -> None:
    """Each bit of each structure on the way to the pages: what changes an answer is found, or a page is missed."""
    machine = town()
    places = Places(machine)
    words = [
        *(places.root + at for at in (0, 8, 16 * 255 + 8)),
        *(places.context + at for at in range(0, 64, 8)),
        *(places.directory + at for at in (0, 8, 8 * 3)),
        *(places.entry + at for at in range(0, 128, 8)),
        places.level4, places.level3, places.level3 + 8, places.level2,
        *(places.level1 + 8 * page for page in (5, 6, 9)),
    ]  # fmt: skip
    before, used = answers(machine), sorted(machine.driver.used())
    for address in words:
        word = machine.memory.word(address)
        for bit in range(64):
            machine.memory.put({address: word ^ 1 << bit})
            if answers(machine) != before:
                assert machine.check() or sorted(machine.driver.used()) != used, f"bit {bit} of {address:#x}"
        machine.memory.put({address: word})
    assert machine.check() == []


@pytest.mark.parametrize("seed", range(40))
def test_hostile_structures(seed: int) -> None:
    """Pages of structures full of garbage and of pointers to one another: few sentences, no crash."""
    machine = town()
    random = Random(seed)
    names = [address & -PAGE for address in vars(Places(machine)).values()]
    pointers = [page | low for page in names for low in (1, 3, 9, 0xE0D, 0x27, 0x89, 0xC9)]
    for page in random.choices(names, k=1 + seed % 6):
        for number in range(512):
            word = random.choice([0, *pointers]) if random.random() < 0.7 else random.getrandbits(64)
            machine.memory.put({page + 8 * number: word})
    assert 0 < len(machine.check()) < 1000
    list(machine.driver.used())
    for slot in (BY_RID, WITH_PASID, BOUND, OF_B):
        for access in ("r", "w"):
            machine.request(slot, 0x5000, access, privileged=False)


def test_many_differences_are_cut_short() -> None:
    machine = town()
    places = Places(machine)
    machine.memory.put({places.lower + 32 * number: 1 for number in range(16, 128)})
    machine.memory.put({places.table + 64 * number: 0x109 for number in range(8, 64)})
    machine.memory.put({places.level1 + 8 * number: number * 2 << 12 | 3 for number in range(16, 512)})
    problems = machine.check()
    assert len(problems) < 200
    assert any("more" in problem for problem in problems)


def test_what_many_entries_point_to_is_looked_through_once() -> None:
    machine = town()
    places = Places(machine)
    known = sum(1 for _ in machine.driver.used())
    machine.memory.put({places.root + 8 * number: places.lower | 1 for number in range(512)})
    machine.memory.put({places.lower + 32 * number: places.directory | 0xE0D for number in range(128)})
    assert sum(1 for _ in machine.driver.used()) < known + 600
    assert len(machine.check()) < 100
    # What is not present leads nowhere.
    machine.memory.put({places.root + 8 * number: places.lower for number in range(512)})
    assert sum(1 for _ in machine.driver.used()) == 3

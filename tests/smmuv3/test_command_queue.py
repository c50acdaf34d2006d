# SPDX-License-Identifier: Apache-2.0
"""The command queue in memory: order, wrap-around, errors and how it goes on, CMD_SYNC. IHI0070 G.b chapters 4, 7.1."""

import pytest

from iommuctl_smmuv3.register_bank import DEFAULTS
from tests.smmuv3.handmade import NOWHERE, RW, THROUGH, TWO, handmade
from tests.smmuv3.machine import COMMANDS, Machine, Words, idr0_with

ILL, ABT, ATC_INV_SYNC = 1, 2, 3
SYNC, NSNH_ALL = (0x46, 0), (0x30, 0)
CMDQ_ERR, MSI_CMDQ_ABT = 1, 1 << 4
SSEC = 1 << 10


def cons(machine: Machine) -> tuple[int, int]:
    """CMDQ_CONS.RD and ERR."""
    value = machine.get("CMDQ_CONS")
    return value & 0xFFFFF, value >> 24


def msi(number: int) -> Words:
    """A CMD_SYNC that writes its number, and where."""
    return (number << 32 | 0x1046, 0x80000 + 4 * number)


def written(machine: Machine) -> list[int]:
    """The numbers of those that were carried out, in their order."""
    return [int.from_bytes(data, "little") for place, data in machine.memory.writes if 0x80000 <= place < 0x81000]


def test_commands_are_consumed_in_their_order() -> None:
    machine = handmade()
    assert machine.send(msi(1), msi(2)) == 0
    assert machine.send(msi(3)) == 0
    assert written(machine) == [1, 2, 3]
    assert cons(machine) == (3, 0)


def test_a_queue_wraps() -> None:
    machine = handmade()
    for number in range(600):
        assert machine.send(msi(number)) == 0
    assert written(machine) == list(range(600))
    assert cons(machine) == (600 - 512, 0)


def test_a_queue_that_is_full() -> None:
    """All 256 commands at once: the same index, the other turn."""
    machine = handmade()
    machine.send(*(msi(number) for number in range(256)))
    assert cons(machine) == (256, 0)
    machine.send(*(msi(number) for number in range(256)))
    assert cons(machine) == (0, 0)
    assert len(written(machine)) == 512


@pytest.mark.parametrize(
    ("base", "idr1", "place", "size"),
    [
        (0x80021, DEFAULTS["IDR1"], 0x80020, 2),
        (0x80020, DEFAULTS["IDR1"], 0x80020, 1),
        (0x800E2, DEFAULTS["IDR1"], 0x800C0, 4),
        # CMDQS is 1.
        (0x80008, DEFAULTS["IDR1"] & ~(0x1F << 21) | 1 << 21, 0x80000, 2),
    ],
)
def test_where_a_queue_lies(base: int, idr1: int, place: int, size: int) -> None:
    """It is aligned to its size, and no larger than the unit says."""
    machine = handmade(idr1=idr1)
    machine.unit.write_register("CR0", 5)
    machine.unit.write_register("CMDQ_BASE", base)
    machine.unit.write_register("CR0", 0xD)
    for number in range(size):
        machine.memory.put({place + 16 * number: msi(number)[0], place + 16 * number + 8: 0x88000})
    machine.unit.write_register("CMDQ_PROD", size)
    machine.unit.write_register("CMDQ_PROD", size + 1)
    done = [int.from_bytes(data, "little") for where, data in machine.memory.writes if where == 0x88000]
    assert done == [*range(size), 0]


# Errors


LEGAL = [
    (0x01, 0), (0x02, 0), (0x03, 0), (0x04, 0), (0x05, 0), (0x06, 0), (0x10, 0), (0x11, 0), (0x12, 0), (0x13, 0),
    (0x20, 0), (0x21, 0), (0x22, 0), (0x23, 0), (0x28, 0), (0x2A, 0), (0x30, 0), (0x40, 0), (0x41, 0), (0x46, 0),
]  # fmt: skip


@pytest.mark.parametrize("opcode", range(256))
def test_opcodes(opcode: int) -> None:
    """Of secure queues, of features that the unit lacks, of nobody: CERROR_ILL."""
    machine = handmade()
    assert machine.send((opcode, 0)) == (0 if (opcode, 0) in LEGAL else ILL)


SECURITY = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x44, 0x45]


@pytest.mark.parametrize("opcode", [opcode for opcode, _ in LEGAL] + [0x44, 0x45])
def test_reserved_bits(opcode: int) -> None:
    """SSec is none of them where a command has it."""
    machine = handmade(idr0=idr0_with(STALL_MODEL=0))
    fields = {0x40: 0x200, 0x46: 0x3000}.get(opcode, 0)
    assert machine.send((opcode | 0x300 & ~fields, 0)) == 0
    assert machine.send((opcode | SSEC, 0)) == (ILL if opcode in SECURITY else 0)


@pytest.mark.parametrize(
    ("command", "idr0"),
    [
        *(((opcode, 0), {"S1P": 0}) for opcode in (0x05, 0x06, 0x10, 0x11, 0x12, 0x13)),
        *(((opcode, 0), {"S2P": 0}) for opcode in (0x28, 0x2A)),
        *(((opcode, 0), {"Hyp": 0}) for opcode in (0x20, 0x21, 0x22, 0x23)),
        ((0x40, 0), {"ATS": 0}),
        ((0x41, 0), {"PRI": 0}),
    ],
)
def test_what_the_unit_lacks(command: Words, idr0: dict[str, int]) -> None:
    assert handmade(idr0=idr0_with(**idr0)).send(command) == ILL
    assert handmade().send(command) == 0


@pytest.mark.parametrize(
    ("idr0", "mpam", "partid_max", "error"),
    [({}, 1, 63, 0), ({}, 0, 0, ILL), ({}, 1, 0, ILL), ({"S2P": 0}, 1, 63, ILL)],
)
def test_invalidations_of_partid_maps(idr0: dict[str, int], mpam: int, partid_max: int, error: int) -> None:
    """CMD_CFGI_VMS_PIDM is for units with virtual machine structures: IHI0070 G.b section 4.3.5."""
    machine = handmade(idr0=idr0_with(**idr0), idr3=DEFAULTS["IDR3"] | mpam << 7, mpamidr=partid_max)
    assert machine.send((0x2B << 32 | 0x07,)) == error
    if not error:
        assert machine.send((0x2B << 32 | SSEC | 0x07,)) == ILL


@pytest.mark.parametrize("opcode", [0x44, 0x45])
def test_answers_to_stalls_that_there_cannot_be(opcode: int) -> None:
    assert handmade().send((opcode,)) == ILL
    assert handmade(idr0=idr0_with(STALL_MODEL=0)).send((opcode,)) == 0


@pytest.mark.parametrize(
    ("command", "error"),
    [
        # CMD_SYNC with a reserved signal, PRI_RESP with a reserved answer, ATC_INV of more than there is.
        ((0x3046,), ILL),
        ((0x2046,), 0),
        ((0x41, 3 << 12), ILL),
        ((0x41, 2 << 12), 0),
        ((0x40, 53), ILL),
        ((0x40, 63), ILL),
        ((0x40, 52), 0),
        # A granule with nothing else.
        *(((opcode, tg << 10), ILL) for opcode in (0x12, 0x13, 0x22, 0x23, 0x2A) for tg in (1, 2, 3)),
        *(((opcode, tg << 10 | 3 << 8), 0) for opcode in (0x12, 0x13, 0x22, 0x23, 0x2A) for tg in (1, 2, 3)),
        ((1 << 12 | 0x12, 1 << 10), 0),
        ((1 << 20 | 0x12, 1 << 10), 0),
        # Level 1 of 16 KB counts as none, and bit 25 is not there.
        ((0x12, 2 << 10 | 1 << 8), ILL),
        ((0x12, 3 << 10 | 1 << 8), 0),
        ((1 << 25 | 0x12, 1 << 10), ILL),
        ((1 << 12 | 0x12, 0), 0),
    ],
)
def test_fields_that_are_not_legal(command: Words, error: int) -> None:
    machine = handmade()
    assert machine.send(command, msi(1)) == error
    assert written(machine) == ([] if error else [1])


def test_with_ds_more_is_legal() -> None:
    machine = handmade(idr5=0xF5)
    assert machine.send((0x12, 2 << 10 | 1 << 8), (1 << 25 | 0x12, 1 << 10)) == 0


def test_without_ranges_their_fields_are_ignored() -> None:
    assert handmade(idr3=0x814).send((0x12, 1 << 10)) == 0


def test_a_unit_that_is_off_ignores_commands_to_devices() -> None:
    machine = handmade(cr0=0xC)
    assert machine.send((0x40, 53), (0x41, 3 << 12), msi(1)) == 0
    assert (written(machine), machine.bus.told) == ([1], [])


def test_an_error_stops_the_queue() -> None:
    """What came before is done; the index stays, GERROR changes, and new commands wait."""
    machine = handmade()
    assert machine.send(msi(1), (0xFF,), msi(2)) == ILL
    assert (cons(machine), machine.get("GERROR")) == ((1, ILL), CMDQ_ERR)
    assert machine.send(msi(3)) == ILL
    assert (cons(machine), written(machine)) == ((1, ILL), [1])
    # A second error cannot be told before the first is acknowledged.
    machine.unit.write_register("CR0", 0xD)
    assert machine.get("GERROR") == CMDQ_ERR


def test_it_goes_on_at_the_command_that_was_mended() -> None:
    machine = handmade()
    machine.send(msi(1), (0xFF,), msi(2))
    machine.memory.put({COMMANDS + 16: 0x46, COMMANDS + 24: 0})
    machine.unit.write_register("GERRORN", CMDQ_ERR)
    assert (cons(machine), written(machine)) == ((3, 0), [1, 2])
    # The same error once more has the bit the other way.
    assert machine.send((0xFF,)) == ILL
    assert machine.get("GERROR") == 0
    machine.memory.put({COMMANDS + 16 * 3: 0x46})
    machine.unit.write_register("GERRORN", 0)
    assert cons(machine) == (4, 0)


def test_it_fails_again_where_nothing_was_mended() -> None:
    machine = handmade()
    machine.send((0xFF,), msi(1))
    machine.unit.write_register("GERRORN", CMDQ_ERR)
    assert (cons(machine), machine.get("GERROR"), written(machine)) == ((0, ILL), 0, [])


def test_a_command_that_cannot_be_read() -> None:
    machine = handmade()
    machine.unit.write_register("CR0", 5)
    machine.unit.write_register("CMDQ_BASE", NOWHERE | 8)
    machine.unit.write_register("CR0", 0xD)
    assert machine.send() == 0
    machine.unit.write_register("CMDQ_PROD", 1)
    assert (cons(machine), machine.get("GERROR")) == ((0, ABT), CMDQ_ERR)


def test_a_queue_that_is_off() -> None:
    """Commands wait until it is switched on."""
    machine = handmade(cr0=5)
    machine.send(msi(1))
    assert written(machine) == []
    machine.unit.write_register("CR0", 0xD)
    assert (cons(machine), written(machine)) == ((1, 0), [1])


# Devices that do not answer


def test_a_device_that_does_not_answer() -> None:
    """The next CMD_SYNC fails, and no other command; when it is tried again, that is over."""
    machine = handmade()
    machine.bus.completions = {8: "timeout"}
    assert machine.send((8 << 32 | 0x40, 52), NSNH_ALL) == 0
    assert machine.send(NSNH_ALL, msi(1), msi(2)) == ATC_INV_SYNC
    assert (cons(machine), machine.get("GERROR"), written(machine)) == ((3, ATC_INV_SYNC), CMDQ_ERR, [])
    machine.unit.write_register("GERRORN", CMDQ_ERR)
    assert (cons(machine), written(machine)) == ((5, 0), [1, 2])


def test_devices_that_answer() -> None:
    machine = handmade()
    machine.bus.completions = {9: "timeout"}
    assert machine.send((8 << 32 | 0x40, 52), SYNC) == 0


# CMD_SYNC


@pytest.mark.parametrize(
    ("command", "has_msi", "word"),
    [
        # C20's form, with data; without address, without signal, with the other signal, without MSIs.
        ((0x1234_5678_0FC0_1046, 0x80000), 1, 0x1234_5678),
        ((0x1234_5678_0FC0_1046, 0), 1, 0),
        ((0x1234_5678_0FC0_0046, 0x80000), 1, 0),
        ((0x1234_5678_0FC0_2046, 0x80000), 1, 0),
        ((0x1234_5678_0FC0_1046, 0x80000), 0, 0),
        # Bit 127 is of realms.
        ((0x1234_5678_0FC0_1046, 1 << 63 | 0x80000), 1, 0x1234_5678),
    ],
)
def test_interrupts(command: Words, has_msi: int, word: int) -> None:
    machine = handmade(idr0=idr0_with(MSI=has_msi))
    assert machine.send(command) == 0
    assert machine.memory.word(0x80000) == word
    assert [len(data) for place, data in machine.memory.writes] == ([4] if word else [])


def test_an_interrupt_into_nothing() -> None:
    """The command is complete, and the error is told."""
    machine = handmade()
    assert machine.send((0x1046, NOWHERE), msi(1)) == 0
    assert (cons(machine), machine.get("GERROR"), written(machine)) == ((2, 0), MSI_CMDQ_ABT, [1])
    machine.send((0x1046, NOWHERE))
    assert machine.get("GERROR") == MSI_CMDQ_ABT
    machine.unit.write_register("GERRORN", MSI_CMDQ_ABT)
    machine.send((0x1046, NOWHERE))
    assert machine.get("GERROR") == 0


# What devices are told


LAST = (1 << 64) - 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        # C14: 16 pages from 0; a function without PASID prefix is told of all that it has.
        ((0x0108_0000_0040, 0x4), [(0x108, "all", 0, 0xFFFF), (0x108, None, 0, 0xFFFF)]),
        # C15: all of PASID 5.
        ((0x0108_0000_5840, 0x34), [(0x108, 5, 0, LAST)]),
        ((0x0108_0000_5840, 0x1234_5000), [(0x108, 5, 0x1234_5000, 0x1234_5FFF)]),
        # Address bits below the size are ignored.
        ((0x0108_0000_5840, 0x1234_F009), [(0x108, 5, 0x1220_0000, 0x123F_FFFF)]),
        ((0x0108_0000_0840, 0xFFFF_FFFF_FFFF_F033), [(0x108, 0, 1 << 63, LAST)]),
        # Global, of all PASIDs and no other; it needs SSV.
        ((0x0108_0000_5A40, 0x34), [(0x108, "all", 0, LAST)]),
        ((0x0108_0000_0240, 0x34), [(0x108, "all", 0, LAST), (0x108, None, 0, LAST)]),
    ],
)
def test_what_devices_are_told(command: Words, told: list[tuple[int, int | str | None, int, int]]) -> None:
    machine = handmade()
    assert machine.send(command) == 0
    assert machine.bus.told == told


def test_commands_between_requests() -> None:
    """A queue that never stopped leaves requests as they were."""
    machine = handmade()
    assert machine.goes(TWO, 0x30123) == 0x98123
    assert machine.send(NSNH_ALL, SYNC) == 0
    assert machine.goes(TWO, 0x30123) == 0x98123
    assert machine.goes(THROUGH, RW) == RW

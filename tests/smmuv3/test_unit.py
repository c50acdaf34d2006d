# SPDX-License-Identifier: Apache-2.0
"""The unit's registers: power on, writes that are guarded, what becomes of requests while it is off."""

import pytest

from iommuctl.errors import Unsupported, Usage
from iommuctl.model import Slot
from iommuctl_smmuv3.id_registers import IDR0, IDR3, IDR5
from iommuctl_smmuv3.register_bank import DEFAULTS
from iommuctl_smmuv3.unit import Unit
from tests.machine import SparseMemory
from tests.smmuv3.handmade import BOTH, ONE, RW, THROUGH, handmade
from tests.smmuv3.machine import CMDQEN, EVENTQEN, SMMUEN, Machine, idr0_with, slot
from tests.smmuv3.units import QEMU

ABORT, UPDATE = 1 << 20, 1 << 31
REGISTERS = (
    "IDR0", "IDR1", "IDR3", "IDR5", "IIDR", "AIDR", "CR0", "CR0ACK", "CR1", "CR2", "GBPA", "IRQ_CTRL", "IRQ_CTRLACK",
    "GERROR", "GERRORN", "STRTAB_BASE", "STRTAB_BASE_CFG", "CMDQ_BASE", "CMDQ_PROD", "CMDQ_CONS", "EVENTQ_BASE",
    "EVENTQ_PROD", "EVENTQ_CONS", "PRIQ_BASE", "PRIQ_PROD", "PRIQ_CONS",
)  # fmt: skip


def fresh(**options: int) -> Machine:
    return Machine(SparseMemory((0, 0x10_0000)), **options)


def test_power_on() -> None:
    """Off, and with bypass that leaves attributes as they come in."""
    registers = fresh().unit.registers()
    assert tuple(registers) == REGISTERS
    assert registers == dict.fromkeys(REGISTERS, 0) | dict(DEFAULTS) | {"AIDR": 2, "GBPA": 0x1000}


def test_options() -> None:
    machine = fresh(**{name.lower(): value for name, value in QEMU.items()})
    assert {name: machine.get(name) for name in QEMU} == QEMU
    # Each has its default.
    assert fresh(idr5=0x72).get("IDR0") == DEFAULTS["IDR0"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"haw": "48"}, "no option 'haw'"),
        ({"idr2": "0"}, "no option 'idr2'"),
        ({"idr0": "abc"}, "option idr0=abc is not a number"),
        ({"idr0": str(1 << 32)}, "option idr0=4294967296 is out of range"),
        ({"idr0": "-1"}, "option idr0=-1 is out of range"),
        ({"mpamidr": "0xff"}, "option mpamidr=0xff cannot be simulated"),
    ],
)
def test_options_that_there_are_not(options: dict[str, str], what: str) -> None:
    with pytest.raises(Usage) as error:
        Unit.reset(fresh(), options)
    assert error.value.what == what


CLAIMS = [
    *(("idr0", idr0_with(TTF=value), "TTF") for value in (0, 1, 3)),
    ("idr0", idr0_with(HTTU=3), "HTTU"),
    ("idr0", idr0_with(NS1ATS=0), "NS1ATS"),
    *(("idr0", idr0_with(TTENDIAN=value), "TTENDIAN") for value in (0, 3)),
    *(
        ("idr3", DEFAULTS["IDR3"] | IDR3.field(name).mask, name)
        for name in ("E0PD", "DPT", "PASIDTT", "EPAN", "S1PI", "S2PI", "S2PO", "THE")
    ),
    ("idr5", DEFAULTS["IDR5"] | IDR5.D128.mask, "D128"),
    *(("idr5", DEFAULTS["IDR5"] | value << 10, "VAX") for value in (2, 3)),
]


@pytest.mark.parametrize(("option", "value", "field"), CLAIMS)
def test_what_is_not_simulated_cannot_be_claimed(option: str, value: int, field: str) -> None:
    with pytest.raises(Usage) as error:
        fresh(**{option: value})
    assert f"{field} is " in (error.value.because or "")


def test_partitions() -> None:
    """A unit with MPAM has the register that tells how many; others have none."""
    idr3 = DEFAULTS["IDR3"] | IDR3.MPAM.mask
    assert fresh(idr3=idr3).get("MPAMIDR") == 0
    machine = fresh(idr3=idr3, mpamidr=0x0003_003F)
    assert machine.get("MPAMIDR") == 0x0003_003F
    with pytest.raises(Unsupported, match="register MPAMIDR cannot be written"):
        machine.unit.write_register("MPAMIDR", 0)
    with pytest.raises(Unsupported, match="the unit has no register MPAMIDR"):
        fresh().get("MPAMIDR")


@pytest.mark.parametrize("missing", ["ATS", "S1P", "S2P"])
def test_a_unit_that_has_no_split_ats_need_not_say_so(missing: str) -> None:
    value = idr0_with(**{"NS1ATS": 0, missing: 0})
    assert fresh(idr0=value).get("IDR0") == value
    assert IDR0.NS1ATS.get(value) == 0


# Registers


@pytest.mark.parametrize("name", ["IDR0", "IDR5", "CR0ACK", "GERROR", "IRQ_CTRLACK", "AIDR"])
def test_registers_that_cannot_be_written(name: str) -> None:
    machine = handmade()
    before = machine.unit.registers()
    with pytest.raises(Unsupported, match=f"register {name} cannot be written"):
        machine.unit.write_register(name, 0xFFFF)
    assert machine.unit.registers() == before


def test_registers_that_there_are_not() -> None:
    machine = handmade()
    for name in ("IDR7", "cr0", ""):
        with pytest.raises(Unsupported, match="the unit has no register"):
            machine.unit.read_register(name)
        with pytest.raises(Unsupported, match="the unit has no register"):
            machine.unit.write_register(name, 0)


GUARDS = {
    "STRTAB_BASE": SMMUEN, "STRTAB_BASE_CFG": SMMUEN, "CMDQ_BASE": CMDQEN, "CMDQ_CONS": CMDQEN,
    "EVENTQ_BASE": EVENTQEN, "EVENTQ_PROD": EVENTQEN, "PRIQ_BASE": 2, "PRIQ_PROD": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", GUARDS)
def test_guarded_registers(name: str) -> None:
    """A write is ignored while the enable is set, and only while that one is."""
    machine = handmade(cr0=0xF)
    before = machine.get(name)
    machine.unit.write_register(name, 0x7000)
    assert machine.get(name) == before
    machine.unit.write_register("CR0", 0xF & ~GUARDS[name])
    machine.unit.write_register(name, 0x7000)
    assert machine.get(name) == 0x7000


@pytest.mark.parametrize("value", [0, SMMUEN, EVENTQEN, CMDQEN, 0xD, 0x1D, 0x1CD])
def test_acknowledgements(value: int) -> None:
    machine = handmade()
    machine.unit.write_register("CR0", value)
    assert machine.get("CR0ACK") == machine.get("CR0") == value
    machine.unit.write_register("IRQ_CTRL", 5)
    assert machine.get("IRQ_CTRLACK") == 5


def test_registers_are_rows() -> None:
    """Another unit on the same rows knows them, as the next command of a shell does."""
    machine = handmade()
    assert machine.goes(ONE, RW) == 0x30000
    other = Unit(machine, machine.bus)
    assert other.registers() == machine.unit.registers()
    assert other.request(ONE, RW, "r", privileged=False).hit


# While it is off


def off(gbpa: int, **options: int) -> Machine:
    machine = fresh(**options)
    machine.unit.write_register("GBPA", gbpa)
    return machine


@pytest.mark.parametrize("where", [ONE, THROUGH, slot(0xFFFF, 0xFFFFF)])
def test_bypass(where: Slot) -> None:
    """All requests pass, with PASID too, up to the end of physical addresses; no structure is looked at."""
    machine = off(UPDATE | 0x1000)
    told = machine.ask(where, 0x1234, "w").translation
    assert (told.pa, told.page_size, told.prot, told.steps) == (0x1234, 4096, "rwx", ())
    assert machine.goes(where, (1 << 48) - 1) == (1 << 48) - 1
    assert machine.goes(where, 1 << 48) == "ABORT"
    assert set(machine.unit.caches().values()) == {0}


def test_abort() -> None:
    """R9. Silently."""
    machine = handmade(cr0=0xC)
    machine.unit.write_register("GBPA", 0x80100000)
    assert machine.get("GBPA") == ABORT
    assert machine.goes(ONE, 0x1234) == "ABORT"
    assert machine.records() == []
    machine.unit.write_register("CR0", 0xD)
    assert machine.goes(ONE, RW) == 0x30000


def test_gbpa_changes_with_update_alone() -> None:
    """Which reads as 0 when that is done, at once."""
    machine = off(ABORT)
    assert (machine.get("GBPA"), machine.goes(ONE, 0)) == (0x1000, 0)
    machine = off(ABORT | UPDATE)
    assert (machine.get("GBPA"), machine.goes(ONE, 0)) == (ABORT, "ABORT")


def test_switching_off_and_on() -> None:
    """Caches outlive it: software invalidates before it switches on."""
    machine = handmade()
    assert machine.goes(BOTH, RW) == 0x98000
    machine.unit.write_register("CR0", 0xC)
    assert machine.goes(BOTH, RW) == RW
    machine.memory.put({0x23020: 0})
    machine.unit.write_register("CR0", 0xD)
    assert machine.goes(BOTH, RW) == 0x98000
    machine.unit.write_register("CR0", 0xC)
    assert machine.send((4, 31), (0x20,), (0x30,), (0x46,)) == 0
    machine.unit.write_register("CR0", 0xD)
    assert machine.goes(BOTH, RW) == "F_TRANSLATION"

# SPDX-License-Identifier: Apache-2.0
"""A unit in words, from its registers alone: what IDR0 to IDR5 say that it can do, and what it is doing."""

from collections.abc import Callable, Iterable, Mapping

from iommuctl.formats.bits import Field, Layout
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.id_registers import AIDR, IDR0, IDR1, IDR3, IIDR
from iommuctl_smmuv3.queue_registers import CmdqBase, CmdqCons, EventqBase, EventqProd, PriqBase, PriqProd
from iommuctl_smmuv3.registers import CR0, TWO_LEVEL, Gbpa, Gerror, StrtabBase, StrtabBaseCfg

ABSENT = (1 << 32) - 1
"""What registers read as where there is no unit."""
_SIZES = {1 << 12: "4K", 1 << 14: "16K", 1 << 16: "64K"}
_SPLITS = (6, 8, 10)


def unit_words(registers: Mapping[str, int]) -> list[tuple[str, str]]:
    """Subjects and phrases, at least one. What needs a register that is missing is left out; no value is refused."""
    if registers.get("IDR0") == registers.get("IDR1") == ABSENT:
        return [("unit", "none: all bits of IDR0 and IDR1 are set")]
    unit = _Described(registers)
    words = [(subject, say(unit)) for subject, needs, say in PHRASES if registers.keys() >= set(needs.split())]
    return words or [("unit", "unknown: IDR0 to IDR5 cannot be read")]


class _Described:
    """The registers of a unit, and what its identification says."""

    def __init__(self, registers: Mapping[str, int]) -> None:
        self.registers = registers
        self.features = Features.of(registers)

    def now(self, name: str, field: Field) -> int:
        """The field of a register."""
        return field.get(self.registers[name])

    def named(self, name: str, field: Field) -> str:
        """What the field of a register means, where that has a name."""
        value = self.now(name, field)
        return field.values.get(value, f"unknown: {field.name} is {value:#x}")


def _all_of(parts: Iterable[tuple[object, str]], *, otherwise: str = "no") -> str:
    """The phrases whose conditions hold."""
    return ", ".join(phrase for holds, phrase in parts if holds) or otherwise


def _yes(register: str, field: Field) -> Callable[[_Described], str]:
    return lambda unit: "yes" if unit.now(register, field) else "no"


def _named(register: str, field: Field) -> Callable[[_Described], str]:
    return lambda unit: unit.named(register, field)


# What it can do


def _implementation(unit: _Described) -> str:
    implementer = unit.now("IIDR", IIDR.Implementer)
    who = IIDR.Implementer.values.get(implementer, f"implementer {implementer:#x}")
    product, variant, revision = (unit.now("IIDR", field) for field in (IIDR.ProductID, IIDR.Variant, IIDR.Revision))
    return f"{who}, product {product:#x}, variant {variant}, revision {revision}"


def _version(unit: _Described) -> str:
    if major := unit.now("AIDR", AIDR.ArchMajorRev):
        return f"unknown: ArchMajorRev is {major:#x}"
    return unit.named("AIDR", AIDR.ArchMinorRev)


def _stages(unit: _Described) -> str:
    return _all_of([(unit.features.s1p, "stage 1"), (unit.features.s2p, "stage 2")], otherwise="none")


def _nesting(unit: _Described) -> str:
    return "yes" if unit.features.s1p and unit.features.s2p else "no"


def _granules(unit: _Described) -> str:
    sizes = ", ".join(_SIZES[size] for size in unit.features.granules) or "none"
    return f"{sizes}; 52-bit formats of 4K and 16K" if unit.features.ds else sizes


def _stage_2(unit: _Described) -> str:
    extensions = [(unit.features.xnx, "execute by exception level"), (unit.features.fwb, "forced write-back")]
    return _all_of(extensions, otherwise="none")


def _substreams(unit: _Described) -> str:
    return f"{unit.features.ssid_bits} bits" if unit.features.ssid_bits else "no"


def _levels(two: bool) -> str:
    return "linear or two levels" if two else "linear"


def _ats(unit: _Described) -> str:
    if not unit.features.ats:
        return "no"
    return "yes, also of stage 1 alone" if unit.features.split_ats else "yes"


def _faults(unit: _Described) -> str:
    return f"{unit.named('IDR0', IDR0.STALL_MODEL)}; {unit.named('IDR0', IDR0.TERM_MODEL)}"


def _overrides(unit: _Described) -> str:
    return _all_of([
        (unit.features.attr_types_ovr, "memory type and shareability"),
        (unit.features.attr_perms_ovr, "privilege and instruction"),
    ])  # fmt: skip


def _signals(unit: _Described) -> str:
    return _all_of([(unit.now("IDR0", IDR0.MSI), "MSIs"), (unit.now("IDR0", IDR0.SEV), "events to processors")])


# What it is doing


def _translation(unit: _Described) -> str:
    return "on" if unit.now("CR0", CR0.SMMUEN) else "off"


def _while_off(unit: _Described) -> str:
    return "aborted" if unit.now("GBPA", Gbpa.ABORT) else "passed through"


def _stream_table(unit: _Described) -> str:
    log2size = min(unit.now("STRTAB_BASE_CFG", StrtabBaseCfg.LOG2SIZE), unit.features.sid_bits)
    place = f"at {unit.now('STRTAB_BASE', StrtabBase.ADDR):#x}, 2^{log2size} streams"
    if unit.now("STRTAB_BASE_CFG", StrtabBaseCfg.FMT) != TWO_LEVEL:
        return f"{place}, linear"
    split = unit.now("STRTAB_BASE_CFG", StrtabBaseCfg.SPLIT)
    return f"{place}, two levels, {1 << (split if split in _SPLITS else _SPLITS[0])} STEs to a table"


def _queue(name: str, base: type[Layout], enable: Field, most: Field) -> Callable[[_Described], str]:
    def say(unit: _Described) -> str:
        if not unit.now("CR0", enable):
            return "off"
        return f"on, {1 << _log2size(unit, name, base, most)} entries at {unit.now(name, base.field('ADDR')):#x}"

    return say


def _log2size(unit: _Described, name: str, base: type[Layout], most: Field) -> int:
    return min(unit.now(name, base.field("LOG2SIZE")), unit.now("IDR1", most))


def _waiting(queue: str, base: type[Layout], most: Field, overflow: int = 0) -> Callable[[_Described], str]:
    """`overflow` is the mask of the flags that differ where entries were lost."""

    def say(unit: _Described) -> str:
        produced, consumed = unit.registers[f"{queue}_PROD"], unit.registers[f"{queue}_CONS"]
        entries = 2 << _log2size(unit, f"{queue}_BASE", base, most)
        count = (produced - consumed) % entries
        lost = (produced ^ consumed) & overflow
        return _all_of([(count, f"{count} waiting"), (lost, "some were lost")], otherwise="none")

    return say


def _errors(unit: _Described) -> str:
    active = unit.registers["GERROR"] ^ unit.registers["GERRORN"]
    stopped = f"CMDQ_ERR: {unit.named('CMDQ_CONS', CmdqCons.ERR)}"
    others = [(field.get(active), field.name) for field in Gerror.fields if field is not Gerror.CMDQ_ERR]
    return _all_of([(Gerror.CMDQ_ERR.get(active), stopped), *others], otherwise="none")


_COMMANDS = ("CMDQ_BASE", CmdqBase, CR0.CMDQEN, IDR1.CMDQS)
_EVENTS = ("EVENTQ_BASE", EventqBase, CR0.EVENTQEN, IDR1.EVENTQS)
_REQUESTS = ("PRIQ_BASE", PriqBase, CR0.PRIQEN, IDR1.PRIQS)

PHRASES: tuple[tuple[str, str, Callable[[_Described], str]], ...] = (
    ("implementation", "IIDR", _implementation),
    ("version", "AIDR", _version),
    ("stages", "IDR0", _stages),
    ("nesting", "IDR0", _nesting),
    ("table formats", "IDR0", _named("IDR0", IDR0.TTF)),
    ("byte orders of tables", "IDR0", _named("IDR0", IDR0.TTENDIAN)),
    ("granules", "IDR5", _granules),
    ("small translation tables", "IDR3", _yes("IDR3", IDR3.STT)),
    ("stage 2 extensions", "IDR3", _stage_2),
    ("physical addresses", "IDR5", lambda unit: f"up to {unit.features.oas} bits"),
    ("virtual addresses", "IDR5", lambda unit: f"up to {unit.features.vax} bits"),
    ("StreamIDs", "IDR1", lambda unit: f"{unit.features.sid_bits} bits"),
    ("stream tables", "IDR0", lambda unit: _levels(unit.features.two_level)),
    ("PASIDs", "IDR1", _substreams),
    ("CD tables", "IDR0", lambda unit: _levels(unit.features.cd2l)),
    ("ASIDs", "IDR0", lambda unit: "16 bits" if unit.features.asid16 else "8 bits"),
    ("VMIDs", "IDR0", lambda unit: "16 bits" if unit.features.vmid16 else "8 bits"),
    ("StreamWorlds of EL2", "IDR0", _yes("IDR0", IDR0.Hyp)),
    ("device TLBs (ATS)", "IDR0", _ats),
    ("page requests (PRI)", "IDR0", _yes("IDR0", IDR0.PRI)),
    ("translation faults", "IDR0", _faults),
    ("accessed and dirty bits", "IDR0", _named("IDR0", IDR0.HTTU)),
    ("coherent page walks", "IDR0", _yes("IDR0", IDR0.COHACC)),
    ("replaced attributes", "IDR1", _overrides),
    ("range invalidation", "IDR3", _yes("IDR3", IDR3.RIL)),
    ("break-before-make", "IDR3", _named("IDR3", IDR3.BBML)),
    ("signals", "IDR0", _signals),
    ("translation", "CR0", _translation),
    ("transactions while off", "GBPA", _while_off),
    ("stream table", "IDR1 STRTAB_BASE STRTAB_BASE_CFG", _stream_table),
    ("command queue", "CR0 IDR1 CMDQ_BASE", _queue(*_COMMANDS)),
    ("commands", "IDR1 CMDQ_BASE CMDQ_PROD CMDQ_CONS", _waiting("CMDQ", CmdqBase, IDR1.CMDQS)),
    ("event queue", "CR0 IDR1 EVENTQ_BASE", _queue(*_EVENTS)),
    (
        "events",
        "IDR1 EVENTQ_BASE EVENTQ_PROD EVENTQ_CONS",
        _waiting("EVENTQ", EventqBase, IDR1.EVENTQS, EventqProd.OVFLG.mask),
    ),
    ("PRI queue", "CR0 IDR1 PRIQ_BASE", _queue(*_REQUESTS)),
    (
        "requests",
        "IDR1 PRIQ_BASE PRIQ_PROD PRIQ_CONS",
        _waiting("PRIQ", PriqBase, IDR1.PRIQS, PriqProd.OVFLG.mask),
    ),
    ("errors", "GERROR GERRORN CMDQ_CONS", _errors),
)
"""Subjects, the registers that they take, and what is said about them."""

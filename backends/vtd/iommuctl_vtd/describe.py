# SPDX-License-Identifier: Apache-2.0
"""A unit in words, from its registers alone: what CAP and ECAP say that it can do, and what it is doing.

Fields that scalable mode gives a meaning to count where ECAP has SMTS only.
"""

from collections.abc import Callable, Iterable, Mapping

from iommuctl.formats.bits import Field
from iommuctl_vtd.capability import DEFAULT_HAW, Capability
from iommuctl_vtd.page_request import PageRequest
from iommuctl_vtd.registers import CAP, ECAP, FSTS, GSTS, IQA, IQERCD, RTADDR

ABSENT = (1 << 64) - 1
"""CAP and ECAP of a place where there is no unit."""
_SIZES = {1 << 12: "4K", 1 << 21: "2M", 1 << 30: "1G"}


def unit_words(registers: Mapping[str, int]) -> list[tuple[str, str]]:
    """Subjects and phrases, at least one. What needs a register that is missing is left out; no value is refused."""
    if registers.get("CAP") == registers.get("ECAP") == ABSENT:
        return [("unit", "none: all bits of CAP and ECAP are set")]
    unit = _Described(registers)
    words = [(subject, say(unit)) for subject, needs, say in PHRASES if registers.keys() >= set(needs.split())]
    return words or [("unit", "unknown: CAP and ECAP cannot be read")]


class _Described(Capability):
    """The facts of a unit, and its registers. None of what is said depends on the host address width."""

    def __init__(self, registers: Mapping[str, int]) -> None:
        super().__init__(registers.get("CAP", 0), registers.get("ECAP", 0), DEFAULT_HAW)
        self.registers = registers

    def can(self, field: Field) -> bool:
        """Whether CAP has it."""
        return bool(field.get(self.cap))

    def scalable(self, name: str) -> bool:
        """Whether ECAP has it, and the scalable mode that it is for."""
        return self.has("SMTS") and self.has(name)

    def now(self, name: str, field: Field) -> int:
        """The field of a register."""
        return field.get(self.registers[name])


def _all_of(parts: Iterable[tuple[object, str]], *, otherwise: str = "no") -> str:
    """The phrases whose conditions hold."""
    return ", ".join(phrase for holds, phrase in parts if holds) or otherwise


def _named(field: Field, value: int) -> str:
    return field.values.get(value, f"unknown: {field.name} is {value:#x}")


def _pages(sizes: Iterable[int]) -> str:
    return f"pages of {', '.join(_SIZES[size] for size in sizes)}"


# What it can do


def _modes(unit: _Described) -> str:
    return _all_of([(True, "legacy"), (unit.has("SMTS"), "scalable"), (unit.has("ADMS"), "abort DMA")])


def _second_stage(unit: _Described) -> str:
    if not unit.widths:
        return "no: SAGAW has no width"
    where = "; in legacy mode only" if unit.has("SMTS") and not unit.has("SSTS") else ""
    return f"{', '.join(map(str, unit.widths))} bits; {_pages(unit.page_sizes)}{where}"


def _first_stage(unit: _Described) -> str:
    if not unit.scalable("FSTS"):
        return "no"
    levels = " and ".join(map(str, unit.first_stage_levels))
    return f"{levels} levels; {_pages(unit.first_stage(4).page_sizes)}"


def _pasids(unit: _Described) -> str:
    # No PASID is wider than the fields that carry it, whatever PSS says.
    bits = min(ECAP.PSS.get(unit.ecap) + 1, PageRequest.PASID.width)
    return f"{bits} bits" if unit.scalable("PASID") else "no"


def _without_pasid(unit: _Described) -> str:
    if not unit.has("SMTS"):
        return "use the table of the context entry"
    return f"in scalable mode use the table of {'the PASID in RID_PASID' if unit.has('RPS') else 'PASID 0'}"


def _device_tlbs(unit: _Described) -> str:
    return _all_of([(unit.has("DT"), "yes"), (unit.has("DT") and unit.has("DIT"), "invalidations can be throttled")])


def _page_requests(unit: _Described) -> str:
    if not unit.has("PRS"):
        return "no"
    return "yes, and can be drained" if unit.has("PDS") else "yes, but cannot be drained"


def _coherent(unit: _Described) -> str:
    return _all_of([(unit.has("C"), "legacy mode"), (unit.scalable("SMPWCS"), "scalable mode")])


def _accessed_dirty(unit: _Described) -> str:
    first = "first stage" + (" with the extended accessed flag" if unit.has("EAFS") else "")
    return _all_of([(unit.scalable("FSTS"), first), (unit.scalable("SSADS"), "second stage")])


def _caching(unit: _Described) -> str:
    return "yes: entries that are not present may be cached" if unit.can(CAP.CM) else "no"


def _write_buffer(unit: _Described) -> str:
    return "has to be flushed after tables change" if unit.can(CAP.RWBF) else "needs no flush"


def _domain_ids(unit: _Described) -> str:
    return _named(CAP.ND, CAP.ND.get(unit.cap)).removesuffix(" domain ids")


def _queue(unit: _Described) -> str:
    wide = unit.has("SMTS") or unit.has("ADMS")
    return f"yes, descriptors of 128 {'and 256 ' if wide else ''}bits" if unit.has("QI") else "no"


def _pages_at_once(unit: _Described) -> str:
    mask = unit.max_address_mask
    return "no" if mask < 0 else f"blocks of up to 2^{mask} pages of the second stage"


def _drains(unit: _Described) -> str:
    return _all_of([(unit.can(CAP.DRD), "reads"), (unit.can(CAP.DWD), "writes")])


def _interrupts(unit: _Described) -> str:
    if not unit.has("IR"):
        return "no"
    entries = f"invalidations of up to 2^{ECAP.MHMV.get(unit.ecap)} entries"
    return _all_of([(True, "yes"), (unit.has("EIM"), "x2APIC"), (unit.can(CAP.PI), "posted"), (True, entries)])


def _fault_records(unit: _Described) -> str:
    return f"{CAP.NFR.get(unit.cap) + 1}, from offset {CAP.FRO.get(unit.cap) * 16:#x}"


# What it is doing


def _translation(unit: _Described) -> str:
    return "on" if unit.now("GSTS", GSTS.TES) else "off"


def _root_table(unit: _Described) -> str:
    if not unit.now("GSTS", GSTS.RTPS):
        return "none"
    return f"at {unit.now('RTADDR', RTADDR.RTA):#x}, {_named(RTADDR.TTM, unit.now('RTADDR', RTADDR.TTM))}"


def _queue_now(unit: _Described) -> str:
    if not unit.now("GSTS", GSTS.QIES):
        return "off"
    wide = unit.now("IQA", IQA.DW)
    count = 1 << unit.now("IQA", IQA.QS) + (7 if wide else 8)
    return f"on, {count} {_named(IQA.DW, wide)} at {unit.now('IQA', IQA.IQA):#x}"


def _queue_errors(unit: _Described) -> str:
    stopped = f"the queue stopped: {_named(IQERCD.IQEI, unit.now('IQERCD', IQERCD.IQEI))}"
    timeout = f"a device TLB did not answer: {unit.now('IQERCD', IQERCD.ITESID):#x}"
    wrong = f"a completion was in error: {unit.now('IQERCD', IQERCD.ICESID):#x}"
    return _all_of(
        [(unit.now("FSTS", FSTS.IQE), stopped), (unit.now("FSTS", FSTS.ITE), timeout),
         (unit.now("FSTS", FSTS.ICE), wrong)],
        otherwise="none",
    )  # fmt: skip


def _faults(unit: _Described) -> str:
    first = f"pending, the first in FRCD{unit.now('FSTS', FSTS.FRI)}"
    return _all_of(
        [(unit.now("FSTS", FSTS.PPF), first), (unit.now("FSTS", FSTS.PFO), "some were lost")], otherwise="none"
    )


PHRASES: tuple[tuple[str, str, Callable[[_Described], str]], ...] = (
    ("table modes", "ECAP", _modes),
    ("second stage", "CAP ECAP", _second_stage),
    ("first stage", "CAP ECAP", _first_stage),
    ("nesting", "ECAP", lambda unit: "yes" if unit.scalable("NEST") else "no"),
    ("pass-through", "ECAP", lambda unit: "yes" if unit.has("PT") else "no"),
    ("guest addresses", "CAP", lambda unit: f"up to {unit.mgaw} bits"),
    ("PASIDs", "ECAP", _pasids),
    ("requests without PASID", "ECAP", _without_pasid),
    ("supervisor requests", "ECAP", lambda unit: "yes" if unit.scalable("SRS") else "no"),
    ("device TLBs (ATS)", "ECAP", _device_tlbs),
    ("page requests (PRI)", "ECAP", _page_requests),
    ("snoop control", "ECAP", lambda unit: "yes" if unit.has("SC") else "no"),
    ("coherent page walks", "ECAP", _coherent),
    ("accessed and dirty bits", "ECAP", _accessed_dirty),
    ("caching mode", "CAP", _caching),
    ("write buffer", "CAP", _write_buffer),
    ("domain ids", "CAP", _domain_ids),
    ("invalidation queue", "ECAP", _queue),
    ("page-selective invalidation", "CAP", _pages_at_once),
    ("draining", "CAP", _drains),
    ("IOTLB registers", "ECAP", lambda unit: f"from offset {ECAP.IRO.get(unit.ecap) * 16:#x}"),
    ("interrupt remapping", "CAP ECAP", _interrupts),
    ("fault records", "CAP", _fault_records),
    ("translation", "GSTS", _translation),
    ("root table", "GSTS RTADDR", _root_table),
    ("invalidation queue now", "GSTS IQA", _queue_now),
    ("invalidation errors", "FSTS IQERCD", _queue_errors),
    ("faults", "FSTS", _faults),
)
"""Subjects, the registers that they take, and what is said about them."""

# SPDX-License-Identifier: Apache-2.0
"""Where QEMU's VT-d unit differs from the specification, as data. We follow the specification.

The list holds in both directions. QEMU must deviate wherever an item applies, and nowhere else: what QEMU is expected
to answer is our answer changed by these items (`prediction.py`), request by request. And a long run must have met
every item.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from iommuctl.formats.bits import Layout
from iommuctl.model import Step
from iommuctl_vtd.capability import Capability
from tests.differential.deviation import Deviation
from tests.differential.outcome import Faulted, Outcome
from tests.differential.plans import DEVICES, Dma
from tests.differential.vtd import rules
from tests.differential.vtd.kinds import Kind
from tests.differential.vtd.ours import fault


class Question(NamedTuple):
    """A request, the entries on QEMU's way to its answer, and the outcome as far as it has been worked out."""

    kind: Kind
    facts: Capability
    event: Dma
    steps: tuple[Step, ...]
    outcome: Outcome
    size: int
    """Of the page, where the walk has come to one."""

    def recorded(self, code: int) -> Faulted:
        """A fault with its record, whatever FPD says."""
        return fault(self.event, code, ())

    @property
    def code(self) -> int | None:
        """The reason of a fault."""
        return self.outcome.code if isinstance(self.outcome, Faulted) else None

    @property
    def silent(self) -> bool:
        """Whether it is a fault without a record."""
        return isinstance(self.outcome, Faulted) and self.outcome.record is None

    @property
    def source(self) -> int:
        """Who asks."""
        return DEVICES[self.event.device][0].source_id

    def entries(self, layout: type[Layout]) -> list[int]:
        """All entries of that structure on the way, in order."""
        return [layout.from_words(step.raw) for step in self.steps if step.structure == layout.name]

    def entry(self, layout: type[Layout]) -> int | None:
        """The entry of that structure on the way, if there is one."""
        return next(iter(self.entries(layout)), None)


Reading: TypeAlias = Callable[[Kind, Capability, Step, rules.Way], tuple[int, ...]]
"""The words that QEMU takes an entry for, after those that were read before."""
Answer: TypeAlias = Callable[[Question], Outcome | int | None]
"""Another outcome, or the code of a fault; None where the item does not apply."""
Refusal: TypeAlias = Callable[[Kind, Capability, int], bool | None]
"""Whether QEMU refuses a descriptor; None where the item does not apply."""


READINGS: Mapping[str, tuple[Reading, Deviation]] = {
    "snoop-unchecked": (
        rules.without_snoop,
        Deviation("9.8", "SNP of a second-stage page is not reserved without ECAP.SC where the unit has scalable mode"),
    ),
    "context-gates": (
        rules.without_context_gates,
        Deviation("9.4", "Fields of a scalable-mode context entry are not reserved where their capability is missing"),
    ),
    "pasid-reserved": (
        rules.without_pasid_reserved,
        Deviation("9.5, 9.6", "Reserved bits of PASID directory and PASID table entries are not looked at"),
    ),
    "pasid-pointers": (
        rules.without_unused_pointers,
        Deviation("9.6", "The page-table pointer that an entry's type does not use may be beyond the host's addresses"),
    ),
    "through-width": (
        rules.with_greatest_width,
        Deviation("9.3", "With TT=10, AW may be of any width that the unit supports, not of the greatest one alone"),
    ),
    "updates-unsnooped": (
        rules.with_used_bits,
        Deviation("3.6.2", "Accessed and dirty bits are set though page walks are not snooped, instead of fault 90"),
    ),
}
"""QEMU takes an entry for another one."""

ANSWERS: Mapping[str, tuple[Answer, Deviation]] = {
    "both-root-halves": (
        rules.both_root_halves,
        Deviation("9.2", "Reserved bits in the half of a scalable-mode root entry that is not used are a fault"),
    ),
    "through-pointer": (
        rules.through_pointer,
        Deviation("9.3", "With TT=10, SSPTPTR beyond the host's addresses is a fault, though the field is ignored"),
    ),
    "through-unchecked": (
        rules.through_unchecked,
        Deviation("3.9", "Pass-through beyond the host's addresses is refused by the bus, not by the unit: no record"),
    ),
    "type-first": (
        rules.type_first,
        Deviation(
            "9.6", "PGTT is looked at before P: a PASID entry that is not present has fault 5b where it is invalid"
        ),
    ),
    "pointer-read": (
        rules.pointer_read,
        Deviation(
            "9.5, 9.6", "Pointers beyond the host's addresses are followed: the fault is that of the failed read"
        ),
    ),
    "canonical-width": (
        rules.canonical_width,
        Deviation("3.6", "AW, and not FSPM, says how many bits a canonical address of the first stage has"),
    ),
    "rights-at-once": (
        rules.rights_at_once,
        Deviation(
            "3.6, 3.7", "An entry's rights are checked before its reserved bits, and before the next entry is read"
        ),
    ),
    "interrupt-page": (
        rules.interrupt_page,
        Deviation("3.14", "A page of which a part is in the interrupt range is refused as a whole"),
    ),
    "interrupt-code": (
        rules.interrupt_code,
        Deviation("7.1.3", "A unit that has scalable mode gives fault 87 instead of 0e in legacy mode, too"),
    ),
    "own-fpd": (
        rules.own_fpd,
        Deviation("7.1.3", "FPD of a PASID directory or table entry does not silence faults 51 and 5b of that entry"),
    ),
    "legacy-codes": (
        rules.legacy_codes,
        Deviation("7.1.3", "Root, context and second-stage faults have the codes of legacy mode in scalable mode, too"),
    ),
    "always-recorded": (
        rules.always_recorded,
        Deviation("7.1.3", "Reserved bits in a context entry are recorded, whatever its FPD says"),
    ),
}
"""QEMU comes to another outcome. They are asked in this order, each about what those before it have made."""

REFUSALS: Mapping[str, tuple[Refusal, Deviation]] = {
    "page-group-response": (
        rules.refuses_response,
        Deviation("6.5.2", "Page group responses are taken in legacy mode, too, and never without a PASID"),
    ),
    "response-of-revision-3": (
        rules.refuses_private_data,
        Deviation("6.5.2", "LPIG and private data of revision 3 are not reserved in page group responses"),
    ),
    "pasid-address-mask": (
        rules.refuses_mask,
        Deviation("6.5.2.4", "MAMV limits the address mask of PASID-based IOTLB invalidations"),
    ),
    "idle-wait": (
        rules.refuses_idle_wait,
        Deviation("6.5.2.8", "A wait that asks for nothing is refused: IF, SW and FN are 0"),
    ),
}
"""QEMU refuses or takes another descriptor."""

RIGHTS, DIRTY, ONCE = "cached-rights", "cached-dirty", "dirty-with-accessed"
TAGS, ACCESSED = "tagged-by-rid", "accessed-on-the-way"
REFETCH = "no-refetch"
OTHERS: Mapping[str, Deviation] = {
    DIRTY: Deviation("3.6.2", "A write through an entry that a read has brought into the IOTLB sets no dirty bit"),
    ONCE: Deviation("3.6.2", "A write sets the accessed and dirty bits of a page only where neither is set"),
    RIGHTS: Deviation("6.2.4, 7.1", "A request that a cached entry does not allow is refused without record or walk"),
    REFETCH: Deviation("6.5.2.10", "A queue that has stopped is not looked at again until IQT is written"),
    TAGS: Deviation("6.2.3", "The IOTLB is tagged by requester, so that devices of a domain share no entry", free=True),
    ACCESSED: Deviation("3.6.2", "Accessed bits are set entry by entry, also where the walk then faults", free=True),
}
"""What `prediction.py`, `runner.py` and `queueing.py` know."""

DEVIATIONS: Mapping[str, Deviation] = {
    **{name: deviation for table in (READINGS, ANSWERS, REFUSALS) for name, (_, deviation) in table.items()},
    **OTHERS,
}
"""All of them by name."""

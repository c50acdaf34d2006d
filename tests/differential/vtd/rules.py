# SPDX-License-Identifier: Apache-2.0
"""The conditions and consequences of `deviations.py`, one function for each item.

They say nothing of why QEMU does so. "The host's addresses" are those below 2**haw; QEMU takes its `aw-bits` for haw.
"""

from typing import TYPE_CHECKING

from iommuctl.formats.bits import Layout
from iommuctl.model import Step
from iommuctl_vtd.capability import AW_OF_WIDTH, INTERRUPT_RANGE, WIDTHS, Capability
from iommuctl_vtd.context_entry import PASSES_THROUGH, ContextEntry, ScalableContextEntry
from iommuctl_vtd.first_stage import FirstStageEntry
from iommuctl_vtd.invalidation import InvalidationWait, PageGroupResponse, PageGroupResponseRev3, PasidIotlbInvalidate
from iommuctl_vtd.pasid_entry import FIRST_STAGE, PASS_THROUGH, SECOND_STAGE, PasidDirectoryEntry, PasidEntry
from iommuctl_vtd.root_entry import ScalableRootEntry
from iommuctl_vtd.second_stage import SecondStageEntry
from tests.differential.outcome import Faulted, Landed, Nowhere, Outcome
from tests.differential.vtd.kinds import Kind

if TYPE_CHECKING:
    from tests.differential.vtd.deviations import Question

_WORD = (1 << 64) - 1
_PAGING = (FirstStageEntry.name, SecondStageEntry.name)

Way = tuple[Step, ...]
"""The entries that were read before one."""

# What QEMU takes an entry for. Entries that are not present are taken for what they are.


def _present(step: Step, layout: type[Layout]) -> int | None:
    return layout.from_words(step.raw) if step.structure == layout.name and step.raw[0] & 1 else None


def without_snoop(kind: Kind, facts: Capability, step: Step, way: Way) -> tuple[int, ...]:
    raw, entries = step.raw[0], [before for before in way if before.structure == SecondStageEntry.name]
    if step.structure != SecondStageEntry.name or facts.has("SC") or not facts.has("SMTS"):
        return step.raw
    page = len(entries) == _levels(way) - 1 or SecondStageEntry.PS.get(raw)
    return (raw & ~SecondStageEntry.SNP.mask,) if page else step.raw


def _levels(way: Way) -> int:
    """How many second-stage entries a whole way has."""
    for step in way:
        for layout, field in ((ContextEntry, ContextEntry.AW), (PasidEntry, PasidEntry.AW)):
            if step.structure == layout.name:
                return field.get(layout.from_words(step.raw)) + 2
    return 0


def without_context_gates(kind: Kind, facts: Capability, step: Step, way: Way) -> tuple[int, ...]:
    raw = _present(step, ScalableContextEntry)
    if raw is None:
        return step.raw
    gated = facts.reserved(ScalableContextEntry) & ~ScalableContextEntry.reserved
    return ScalableContextEntry.to_words(raw & ~gated)


def without_pasid_reserved(kind: Kind, facts: Capability, step: Step, way: Way) -> tuple[int, ...]:
    for layout in (PasidDirectoryEntry, PasidEntry):
        raw = _present(step, layout)
        if raw is not None:
            return layout.to_words(raw & ~facts.reserved(layout))
    return step.raw


def without_unused_pointers(kind: Kind, facts: Capability, step: Step, way: Way) -> tuple[int, ...]:
    raw = _present(step, PasidEntry)
    if raw is None:
        return step.raw
    below, pgtt = (1 << facts.haw) - 1, PasidEntry.PGTT.get(raw)
    first, second, third, *others = step.raw
    return (
        first if pgtt == SECOND_STAGE else first & below,
        second,
        third if pgtt == FIRST_STAGE else third & below,
        *others,
    )


def with_greatest_width(kind: Kind, facts: Capability, step: Step, way: Way) -> tuple[int, ...]:
    raw = _present(step, ContextEntry)
    if raw is None or ContextEntry.TT.get(raw) != PASSES_THROUGH or ContextEntry.AW.get(raw) not in _supported(facts):
        return step.raw
    return ContextEntry.to_words(raw & ~ContextEntry.AW.mask | ContextEntry.AW.put(max(_supported(facts))))


def _supported(facts: Capability) -> list[int]:
    return [AW_OF_WIDTH[width] for width in facts.widths]


def with_used_bits(kind: Kind, facts: Capability, step: Step, way: Way) -> tuple[int, ...]:
    raw = _present(step, FirstStageEntry)
    if raw is None or kind.snoops:
        return step.raw
    return (raw | FirstStageEntry.A.mask | FirstStageEntry.D.mask,)


# What QEMU answers.


def both_root_halves(question: "Question") -> int | None:
    root = question.entry(ScalableRootEntry)
    if root is None or question.code in (0x38, 0x39, 0x3A):
        return None
    other = root & _WORD if question.source & 0x80 else root >> 64
    return 0x3A if other & ScalableRootEntry.reserved & _WORD or other >> question.facts.haw else None


def _passes_through(question: "Question") -> bool:
    entry = question.entry(ContextEntry)
    return entry is not None and ContextEntry.TT.get(entry) == PASSES_THROUGH


def through_pointer(question: "Question") -> int | None:
    entry = question.entry(ContextEntry)
    if entry is None or not _passes_through(question) or question.code in (0x02, 0x0B):
        return None
    return 0x0B if ContextEntry.SSPTPTR.get(entry) >> question.facts.haw else None


def through_unchecked(question: "Question") -> Outcome | None:
    beyond = question.code == 0x83 or (question.code == 0x04 and _passes_through(question))
    return Faulted(None, None) if beyond else None


def type_first(question: "Question") -> int | None:
    entry = question.entry(PasidEntry)
    if question.code != 0x59 or entry is None:
        return None
    valid = (PASS_THROUGH, FIRST_STAGE if question.kind.first_stage else SECOND_STAGE)
    return None if PasidEntry.PGTT.get(entry) in valid else 0x5B


def pointer_read(question: "Question") -> int | None:
    """Whether the address can be translated at all is asked before the table is read."""
    entry = question.entry(PasidEntry)
    if question.code == 0x52:
        return 0x58
    if question.code != 0x5A or entry is None:
        return None
    if PasidEntry.PGTT.get(entry) == FIRST_STAGE:
        return 0x73 if _is_canonical(question, entry) else 0x80
    width = WIDTHS.get(PasidEntry.AW.get(entry), 0)
    return 0x84 if question.event.iova >> min(question.facts.mgaw, width) else 0x7B


def _is_canonical(question: "Question", entry: int) -> bool:
    width = min(30 + 9 * PasidEntry.AW.get(entry), question.facts.haw)
    return question.event.iova >> width - 1 in (0, (1 << 65 - width) - 1)


def canonical_width(question: "Question") -> int | None:
    entry = question.entry(PasidEntry)
    if entry is None or PasidEntry.PGTT.get(entry) != FIRST_STAGE or question.code in range(0x01, 0x70):
        return None
    return None if question.code == 0x80 or _is_canonical(question, entry) else 0x80


def rights_at_once(question: "Question") -> int | None:
    """Entries that were read before the fault, or are the one with reserved bits, refuse the request first."""
    code, write = question.code, question.event.access == "w"
    if code in (0x07, 0x0C, 0x78, 0x7A):
        needed = SecondStageEntry.W.mask if write else SecondStageEntry.R.mask
        refuses = any(not raw & needed for raw in question.entries(SecondStageEntry))
        return (0x85 if write else 0x86) - (0x80 if question.kind.legacy else 0) if refuses else None
    if code not in (0x70, 0x71, 0x72, 0x81, 0x85):
        return None
    entries = question.entries(FirstStageEntry)
    for raw in entries[:-1] if code == 0x71 else entries:
        if not FirstStageEntry.US.get(raw):
            return 0x81 if code != 0x81 else None
        if write and not FirstStageEntry.RW.get(raw):
            return 0x85 if code != 0x85 else None
    return None


def interrupt_page(question: "Question") -> int | None:
    """The address is in a large page that reaches into the range, but not in the range itself."""
    outcome = question.outcome
    if question.steps[-1].structure not in _PAGING or not isinstance(outcome, Landed | Nowhere):
        return None
    pa = outcome.pa if isinstance(outcome, Nowhere) else outcome.pieces[0].pa
    if pa is None:
        return None
    size = question.size
    first = pa & -size
    return (0x0E if question.kind.legacy else 0x87) if first <= INTERRUPT_RANGE[0] < first + size else None


def interrupt_code(question: "Question") -> int | None:
    return 0x87 if question.code == 0x0E and question.facts.has("SMTS") else None


def own_fpd(question: "Question") -> Outcome | None:
    """Only faults without a record, which are silent because of FPD; what is before the entry still counts."""
    context = question.entry(ScalableContextEntry)
    if question.code not in (0x51, 0x5B) or context is None or ScalableContextEntry.FPD.get(context):
        return None
    directory = question.entry(PasidDirectoryEntry)
    if question.code == 0x5B and directory is not None and PasidDirectoryEntry.FPD.get(directory):
        return None
    return question.recorded(question.code) if question.silent else None


def always_recorded(question: "Question") -> Outcome | None:
    return question.recorded(0x0B) if question.code == 0x0B and question.silent else None


_LEGACY = {
    0x38: 0x08, 0x39: 0x01, 0x3A: 0x0A, 0x40: 0x09, 0x41: 0x02, 0x42: 0x0B,
    0x78: 0x07, 0x7A: 0x0C, 0x7B: 0x03, 0x84: 0x04, 0x85: 0x05, 0x86: 0x06,
}  # fmt: skip


def legacy_codes(question: "Question") -> int | None:
    if question.kind.legacy or question.code is None:
        return None
    if question.code == 0x79:
        return 0x05 if question.event.access == "w" else 0x06
    if question.code == 0x85 and question.kind.first_stage:
        return None
    return _LEGACY.get(question.code)


# Whether QEMU refuses a descriptor.


_ECHOED = PageGroupResponseRev3.field("LPIG").mask | PageGroupResponseRev3.field("PRIVATE_DATA").mask


def refuses_response(kind: Kind, facts: Capability, raw: int) -> bool | None:
    if raw & 0xE0F != PageGroupResponse.TYPE.value:
        return None
    if kind.legacy:
        return bool(raw & PageGroupResponse.reserved & ~_ECHOED) or not PageGroupResponse.PP.get(raw)
    return None if PageGroupResponse.PP.get(raw) else True


def refuses_private_data(kind: Kind, facts: Capability, raw: int) -> bool | None:
    if raw & 0xE0F != PageGroupResponse.TYPE.value or not raw & _ECHOED:
        return None
    if not PageGroupResponse.PP.get(raw):
        # It is refused for that.
        return None
    return None if raw & PageGroupResponse.reserved & ~_ECHOED else False


def refuses_mask(kind: Kind, facts: Capability, raw: int) -> bool | None:
    layout = PasidIotlbInvalidate
    if kind.legacy or raw & 0xE0F != layout.TYPE.value or layout.G.get(raw) != 3:
        return None
    return True if layout.AM.get(raw) > facts.max_address_mask else None


def refuses_idle_wait(kind: Kind, facts: Capability, raw: int) -> bool | None:
    layout = InvalidationWait
    asked = layout.IF.mask | layout.SW.mask | layout.FN.mask
    return True if raw & 0xE0F == layout.TYPE.value and not raw & asked else None

# SPDX-License-Identifier: Apache-2.0
"""What judges the SMMUv3 model, and what nothing judges yet."""

from collections.abc import Mapping

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3.refused import F_CFG_CONFLICT, F_STE_FETCH, F_TLB_CONFLICT, F_TRANSL_FORBIDDEN, F_UUT, SILENT
from iommuctl_smmuv3.refused import REASONS as EVENTS
from tests.differential.smmuv3.covered import COVERED
from tests.differential.smmuv3.deviations import DEVIATIONS
from tests.fidelity import LINUX, QEMU, VECTORS, Subject, not_zero
from tests.mutants.unlooked.smmuv3 import UNLOOKED
from tests.smmuv3.fault_cases import CASES, ORDER, UPDATES
from tests.smmuv3.test_ats import CONFIGURATION
from tests.smmuv3.test_registers import REGISTERS
from tests.smmuv3.test_vectors import VECTORS as WORDS

__all__ = (
    "COVERED", "DEVIATIONS", "REASONS", "SUBJECTS", "UNLOOKED",
    "codes_with_vectors", "fields_with_vectors", "structures_of_linux",
)  # fmt: skip

_UNIT, _DIFFERENTIAL, _LINUX = "tests/smmuv3", "tests/differential/smmuv3", "tests/linux/smmuv3"

REASONS: Mapping[int, tuple[str, str]] = {
    code: (one.name, one.sentence) for code, one in EVENTS.items() if code != SILENT
}

SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "stream tables of one level",
        {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL},
        "Linux has two where the unit can",
    ),
    Subject(
        "stream tables of two levels",
        {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX},
        "QEMU takes Span otherwise",
    ),
    Subject(
        "what makes STEs and CDs ILLEGAL",
        {VECTORS: f"{_UNIT}/test_ste.py", QEMU: _DIFFERENTIAL},
        "QEMU's unit lacks most features that rules are about",
    ),
    Subject(
        "walk, stage 1, pages of 4 KB, lower addresses",
        {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX},
    ),
    Subject(
        "walk, stage 1, pages of 16 and 64 KB, upper addresses",
        {VECTORS: f"{_UNIT}/test_geometry.py", QEMU: _DIFFERENTIAL},
        "Linux has pages of 4 KB and no TTB1",
    ),
    Subject("walk, stage 2", {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX}),
    Subject(
        "start tables side by side",
        {VECTORS: f"{_UNIT}/test_geometry.py"},
        "QEMU uses the first alone, and Linux has none where there is a level more",
    ),
    Subject("walk, both stages", {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX}),
    Subject(
        "substreams, CD tables of one and of two levels",
        {VECTORS: f"{_UNIT}/test_substreams.py", LINUX: _LINUX},
        "QEMU's unit has no substreams: Linux's CDs for them are walked, no DMA goes through them",
    ),
    Subject("addresses of 52 bits", {VECTORS: f"{_UNIT}/test_geometry.py"}, "QEMU's unit has 44 bits"),
    Subject(
        "rights of data accesses",
        {VECTORS: f"{_UNIT}/test_rights.py", QEMU: _DIFFERENTIAL},
        "QEMU takes all requests for privileged",
    ),
    Subject(
        "instruction fetches, privileged requests, StreamWorlds of EL2",
        {VECTORS: f"{_UNIT}/test_rights.py"},
        "QEMU has neither",
    ),
    Subject(
        "accessed flags and dirty state, both stages",
        {VECTORS: f"{_UNIT}/test_accessed_dirty.py"},
        "QEMU's unit has IDR0.HTTU = 0",
    ),
    Subject(
        "event records",
        {VECTORS: f"{_UNIT}/test_faults.py", QEMU: _DIFFERENTIAL},
        "E_PAGE_REQUEST is decoded only: no device of the simulator gives such hints, for which PCIe has no message",
    ),
    Subject(
        "the event queue: sizes, wrapping, overflow",
        {VECTORS: f"{_UNIT}/test_event_queue.py"},
        "each event of a comparison is read before the next",
    ),
    Subject("stalled transactions", {VECTORS: f"{_UNIT}/test_stalls.py"}, "QEMU's unit terminates them all"),
    Subject(
        "which commands the queue stops at",
        {VECTORS: f"{_UNIT}/test_command_queue.py", QEMU: _DIFFERENTIAL},
    ),
    Subject(
        "the command queue: sizes, wrapping, CMD_SYNC's signals",
        {VECTORS: f"{_UNIT}/test_command_queue.py"},
        "no queue of a comparison wraps, and no interrupts are compared",
    ),
    Subject(
        "what a TLB invalidation takes away",
        {VECTORS: f"{_UNIT}/test_tlb.py", QEMU: _DIFFERENTIAL},
        "a unit may forget more, so that each side is held to what must be gone; Leaf, TTL and TG are not seen",
    ),
    Subject(
        "several entries of the TLB for one address, nT",
        {VECTORS: f"{_UNIT}/test_tlb_conflicts.py"},
        "QEMU's unit has BBML = 2",
    ),
    Subject(
        "caches of STEs and CDs",
        {VECTORS: f"{_UNIT}/test_config_caches.py"},
        "in comparisons with QEMU, structures change with commands that make all caches forget them",
    ),
    Subject("spans of STEs, by CONT", {VECTORS: f"{_UNIT}/test_ste_conflicts.py"}, "QEMU takes CONT for a hint alone"),
    Subject(
        "the cache of table descriptors",
        {VECTORS: f"{_UNIT}/test_translation_caches.py"},
        "QEMU's unit has none",
    ),
    Subject(
        "registers that are guarded, and requests while the unit is off",
        {VECTORS: f"{_UNIT}/test_unit.py"},
        "the harness switches on and off only",
    ),
    Subject("device TLBs, translation requests", {VECTORS: f"{_UNIT}/test_ats.py"}, "QEMU's test devices have no ATS"),
    Subject(
        "page requests and their responses, the PRI queue",
        {VECTORS: f"{_UNIT}/test_page_requests.py"},
        "QEMU's unit has no PRI",
    ),
    Subject(
        "memory types, shareability, allocation hints", {}, "the simulated memory has none; the fields are decoded only"
    ),
    Subject(
        "partitions (MPAM): when the VMS is fetched",
        {VECTORS: f"{_UNIT}/test_vms.py"},
        "the simulated memory has no partitions; PARTIDs are decoded only. QEMU's unit has no MPAM",
    ),
    Subject(
        "secure streams, RME, device permission tables, command queues of guests",
        {},
        "the simulated unit has none of them",
    ),
)


def fields_with_vectors(layout: type[Layout]) -> frozenset[str]:
    """The fields of a structure that are not zero in some word that was computed by hand."""
    return not_zero(layout, [(one, fields) for one, fields, _ in (*WORDS.values(), *REGISTERS)])


def structures_of_linux() -> frozenset[str]:
    """The structures of which Linux's own are compared with what its kernel tells, by their names."""
    names = ("l1std", "ste", "l1cd", "cd", "stage-1-descriptor", "stage-2-descriptor")
    return frozenset(f"smmuv3.{name}" for name in names)


def codes_with_vectors() -> frozenset[int]:
    """The events that hand-written entries lead to.

    Some need requests of their own: test_faults.py, test_ats.py, test_tlb_conflicts.py, test_ste_conflicts.py.
    """
    records = [case.record for table in (CASES, UPDATES, ORDER) for case in table.values() if case.record]
    return frozenset({F_UUT, F_STE_FETCH, F_TRANSL_FORBIDDEN, F_TLB_CONFLICT, F_CFG_CONFLICT}) | frozenset(
        record[0] & 0xFF for record in (*records, *(record for *_, record in CONFIGURATION.values()))
    )

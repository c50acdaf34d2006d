# SPDX-License-Identifier: Apache-2.0
"""What judges the VT-d model, and what nothing judges yet."""

from collections.abc import Mapping

from iommuctl.formats.bits import Layout
from iommuctl_vtd.fault_record import REASONS as FAULTS
from tests.differential.vtd.covered import COVERED
from tests.differential.vtd.deviations import DEVIATIONS
from tests.fidelity import LINUX, QEMU, VECTORS, Subject, not_zero
from tests.linux.vtd import walked
from tests.mutants.unlooked.vtd import UNLOOKED
from tests.vtd.fault_cases import CASES, UPDATES
from tests.vtd.test_legacy_walk import CASES as LEGACY
from tests.vtd.test_registers import REGISTERS
from tests.vtd.test_request_kinds import PAGE_CASES
from tests.vtd.test_vectors import CAPABILITIES, CAPABILITY_BITS, INTERRUPTS
from tests.vtd.test_vectors import VECTORS as WORDS

__all__ = (
    "COVERED", "DEVIATIONS", "REASONS", "SUBJECTS", "UNLOOKED",
    "codes_with_vectors", "fields_with_vectors", "structures_of_linux",
)  # fmt: skip

_UNIT, _DIFFERENTIAL, _LINUX = "tests/vtd", "tests/differential/vtd", "tests/linux/vtd"

REASONS: Mapping[int, tuple[str, str]] = {code: (one.name, one.sentence) for code, one in FAULTS.items()}

SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "walk, legacy mode, 3 and 4 levels",
        {VECTORS: f"{_UNIT}/test_legacy_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX},
    ),
    Subject(
        "walk, scalable mode, second stage, 3 and 4 levels",
        {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX},
    ),
    Subject(
        "walk, scalable mode, first stage, 4 levels",
        {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX},
    ),
    Subject("walk, pass-through", {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX}),
    Subject(
        "walk, nested",
        {VECTORS: f"{_UNIT}/test_walk.py"},
        "QEMU's unit refuses it, and Linux sets it up for a virtual machine only",
    ),
    Subject("walk, 5 levels", {VECTORS: f"{_UNIT}/test_walk.py"}, "QEMU's unit has 4 at most"),
    Subject(
        "requests with a PASID",
        {VECTORS: f"{_UNIT}/test_walk.py", LINUX: _LINUX},
        "no device of QEMU sends one: Linux's tables for them are walked, no DMA goes through them",
    ),
    Subject(
        "RID_PASID, privileged requests",
        {VECTORS: f"{_UNIT}/test_faults.py"},
        "QEMU has ECAP.RPS=0 and no privileged requests",
    ),
    Subject("pages of 2 MiB", {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL, LINUX: _LINUX}),
    Subject(
        "pages of 1 GiB",
        {VECTORS: f"{_UNIT}/test_walk.py", QEMU: _DIFFERENTIAL},
        "the VMs have too little memory for Linux to use one",
    ),
    Subject(
        "accessed and dirty bits of the first stage",
        {VECTORS: f"{_UNIT}/test_accessed_dirty.py", QEMU: _DIFFERENTIAL},
    ),
    Subject(
        "accessed and dirty bits of the second stage, and when nested",
        {VECTORS: f"{_UNIT}/test_accessed_dirty.py"},
        "QEMU's unit has none",
    ),
    Subject("fault records, fault processing disable", {VECTORS: f"{_UNIT}/test_faults.py", QEMU: _DIFFERENTIAL}),
    Subject(
        "more than one fault record, overflow",
        {VECTORS: f"{_UNIT}/test_unit.py"},
        "QEMU has one record, which is read after each fault",
    ),
    Subject(
        "the queue: sizes, wrapping, tail, stop at an error", {VECTORS: f"{_UNIT}/test_queue.py", QEMU: _DIFFERENTIAL}
    ),
    Subject(
        "reasons of queue errors, time-outs of device TLBs",
        {VECTORS: f"{_UNIT}/test_queue_errors.py"},
        "QEMU's devices answer at once, and its unit does not tell the reason",
    ),
    Subject(
        "what an IOTLB invalidation takes away",
        {VECTORS: f"{_UNIT}/test_iotlb.py", QEMU: _DIFFERENTIAL},
        "QEMU tags by requester, so that entries shared by devices are not compared",
    ),
    Subject(
        "the context cache",
        {VECTORS: f"{_UNIT}/test_config_caches.py"},
        "in comparisons with QEMU, context entries change with the invalidation that they need",
    ),
    Subject(
        "PASID, root, directory and paging-structure caches",
        {VECTORS: f"{_UNIT}/test_config_caches.py"},
        "QEMU's unit has none of them",
    ),
    Subject("device TLBs, translation requests", {VECTORS: f"{_UNIT}/test_ats.py"}, "QEMU's test devices have no ATS"),
    Subject(
        "page requests and their responses, the page request queue",
        {VECTORS: f"{_UNIT}/test_page_requests.py"},
        "codes of the unit's own answers are not in our sources; QEMU's test devices have no PRI",
    ),
    Subject(
        "interrupt remapping, posted interrupts",
        {},
        "nothing remaps interrupts; the entries are decoded only, and addresses of interrupts refused",
    ),
    Subject("abort-DMA mode, fault events, performance monitoring", {}, "the simulated unit has none of them"),
)


def fields_with_vectors(layout: type[Layout]) -> frozenset[str]:
    """The fields of a structure that are not zero in some word that was computed by hand."""
    rows = [(one, fields) for one, fields, _ in (*WORDS.values(), *INTERRUPTS, *REGISTERS)]
    rows += [(one, fields) for one, _, fields in CAPABILITIES]
    rows += [(one, dict.fromkeys(bits.values(), 1)) for one, bits in CAPABILITY_BITS.items()]
    return not_zero(layout, rows)


def structures_of_linux() -> frozenset[str]:
    """The structures that Linux's kernel prints, by their names."""
    found = {one for one in vars(walked).values() if isinstance(one, type) and issubclass(one, Layout)}
    paging = {"vtd.first-stage-entry", "vtd.second-stage-entry"}
    return frozenset({one.name for one in found if one is not Layout and one.name != "vtd.rtaddr"} | paging)


def codes_with_vectors() -> frozenset[int]:
    """The fault codes that hand-written entries lead to."""
    tables = (CASES.values(), LEGACY, UPDATES.values(), PAGE_CASES.values())
    return frozenset(case.code for table in tables for case in table)

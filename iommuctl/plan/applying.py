# SPDX-License-Identifier: Apache-2.0
"""Bringing a state folder to what a document says, as a whole or as far as it goes."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from iommuctl.errors import IommuError, OtherBackend, PlanOutdated
from iommuctl.plan import current, writing
from iommuctl.plan.diff import Change, changes
from iommuctl.plan.document import Document, Key, Path
from iommuctl.plan.source import Source
from iommuctl.plan.steps import Step, carry_out, steps
from iommuctl.requests import SetupRequest
from iommuctl.session import Outcome

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu

Progress = Callable[[int, int], None]
"""Told how many steps are done, and of how many."""


class Plan(NamedTuple):
    """What has to be done. `machine` is one that has to be made first; `state` is what the plan was made for."""

    machine: SetupRequest | None
    changes: Sequence[Change]
    state: str

    def __bool__(self) -> bool:
        return bool(self.machine or self.changes)


class Failure(NamedTuple):
    """A change that was not carried out, or not to its end, and why."""

    change: Change
    error: IommuError


class Applied(NamedTuple):
    """What was done: the plan, and what its steps did to the hardware; writes in a dry run only.

    `changed` is whether any step was carried out, `failures` what was not.
    """

    plan: Plan
    outcome: Outcome
    changed: bool
    failures: Sequence[Failure] = ()


def fingerprint(document: Document) -> str:
    """What tells two states apart: a hash of everything that a document can say."""
    return hashlib.sha256(writing.text(document).encode()).hexdigest()


def plan(iommu: "Iommu", wanted: Document, *, prune: bool = False) -> Plan:
    """What has to be done. Raises OtherBackend."""
    if wanted.backend:
        iommu.require_backend(wanted.backend)
    elif wanted.machine and iommu.backend_name is None:
        iommu.require_backend("sim")
    now = current.describe(iommu)
    machine = wanted.machine if wanted.machine and _is_another(wanted.machine, now.machine) else None
    return Plan(machine, changes(now, wanted, prune=prune), fingerprint(now))


def apply(
    iommu: "Iommu",
    source: Source,
    wanted: Document,
    *,
    prune: bool = False,
    planned: str | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Do all that has to be done in one transaction, or with `iommu.dry_run` nothing of it.

    `planned` is the state that a plan was made for. Raises PlanOutdated when the state is another one now, and what
    the calls of class Iommu raise, with the place in the document before it.
    """
    with iommu.transaction(dry_run=iommu.dry_run) as outcomes:
        found = _plan(iommu, source, wanted, prune=prune)
        if planned not in (None, found.state):
            raise PlanOutdated(
                "the state is not the one that the plan was made for",
                because="something was changed since",
                hint="make a new plan",
            )
        if found.machine:
            _make_machine(iommu, source, found.machine)
        for step in _with_progress(steps(found.changes), progress):
            _do(iommu, source, wanted, step)
    return Applied(found, _together(outcomes), bool(found))


def rebuild(iommu: "Iommu") -> Applied:
    """Make the machine anew, and in it all that there was. Memory is zero then. With `iommu.dry_run` nothing is done.

    Raises Unsupported for real hardware, and what reading tables that are damaged raises.
    """
    with iommu.transaction(dry_run=iommu.dry_run) as outcomes:
        wanted = current.describe(iommu)
        iommu.reset()
        found = plan(iommu, wanted)
        for step in steps(found.changes):
            carry_out(iommu, step)
    return Applied(found, _together(outcomes), changed=True)


def apply_each(
    iommu: "Iommu", source: Source, wanted: Document, *, prune: bool = False, progress: Progress | None = None
) -> Applied:
    """Do what can be done, each step by itself: whole, or not at all."""
    found = _plan(iommu, source, wanted, prune=prune)
    if found.machine:
        _make_machine(iommu, source, found.machine)
    outcomes: list[Outcome] = []
    failures: dict[Key, Failure] = {}
    for step in _with_progress(steps(found.changes), progress):
        if step.change.key in failures:
            # What is still there cannot be made.
            continue
        try:
            with iommu.transaction() as told:
                _do(iommu, source, wanted, step)
        except IommuError as error:
            failures[step.change.key] = Failure(step.change, error)
        else:
            outcomes += told
    changed = bool(found.machine or outcomes)
    return Applied(found, _together(outcomes), changed, tuple(failures.values()))


def _plan(iommu: "Iommu", source: Source, wanted: Document, *, prune: bool) -> Plan:
    try:
        return plan(iommu, wanted, prune=prune)
    except OtherBackend as error:
        _put_first(error, source, ("backend",) if wanted.backend else ("machine",))
        raise


def _with_progress(todo: Sequence[Step], progress: Progress | None) -> Iterator[Step]:
    for done, step in enumerate(todo):
        if progress:
            progress(done, len(todo))
        yield step
    if progress:
        progress(len(todo), len(todo))


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(*(tuple(chain.from_iterable(part)) for part in zip(*outcomes, strict=True)))


def _is_another(wanted: SetupRequest, now: SetupRequest | None) -> bool:
    """Whether a machine is not as a document says it."""
    if now is None:
        return True
    pairs = zip(wanted[:3], now[:3], strict=True)
    return any(said not in (None, is_so) for said, is_so in pairs) or not wanted.options.items() <= now.options.items()


def _make_machine(iommu: "Iommu", source: Source, machine: SetupRequest) -> None:
    try:
        iommu.setup(architecture=machine.architecture, ram=machine.ram, tables=machine.tables, options=machine.options)
    except IommuError as error:
        _put_first(error, source, ("machine",))
        raise


def _do(iommu: "Iommu", source: Source, wanted: Document, step: Step) -> None:
    try:
        carry_out(iommu, step)
    except IommuError as error:
        if place := wanted.places.get(step.change.key):
            _put_first(error, source, place)
        raise


def _put_first(error: IommuError, source: Source, place: Path) -> None:
    error.what = f"{source.where(place)}: {error.what}"

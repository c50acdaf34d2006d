# SPDX-License-Identifier: Apache-2.0
"""Where the kernel's objects are not what rows say, as far as the kernel tells: it has no call that lists them."""

from collections.abc import Iterator

from iommuctl.errors import KernelRefused
from iommuctl.hookspecs import CheckRequest
from iommuctl.kernel.machine import Machine


def check(machine: Machine, request: CheckRequest) -> list[str]:
    """Sentences about what is missing."""
    if because := machine.lost():
        return [f"the kernel's objects of this state folder are gone: {because}"]
    return [
        *_domains(machine, request),
        *machine.slots.problems(request),
        *_kept(machine),
        *machine.devices.problems(),
    ]


def _domains(machine: Machine, request: CheckRequest) -> Iterator[str]:
    for domain in request.domains:
        ioas = machine.records.domain(domain)["ioas"]
        try:
            machine.iommufd.ioas_iova_ranges(ioas)
        except KernelRefused as refused:
            yield f"the IOAS {ioas} of domain {domain.name} is not there: {refused.because}"


def _kept(machine: Machine) -> Iterator[str]:
    held = set(machine.keeper.names()) if machine.records.boot else set()
    for kept in sorted(machine.records.kept() - held):
        yield f"the keeper does not hold {kept}"

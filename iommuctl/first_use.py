# SPDX-License-Identifier: Apache-2.0
"""Choosing a state folder's backend, and preparing the folder for it."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from iommuctl.errors import BackendUnavailable
from iommuctl.model import NO_PHYSICAL
from iommuctl.plugins import availability, first_usable
from iommuctl.requests import SetupRequest
from iommuctl.state.transaction import Transaction

if TYPE_CHECKING:
    from iommuctl.session import Operation, Session


def set_up(session: "Session", transaction: Transaction, request: SetupRequest, backend: str | None) -> None:
    """Prepare a folder without rows; without a backend's name for the first that is usable.

    Raises BackendUnavailable, and Usage for a machine that cannot be.
    """
    name, others = (backend, {}) if backend else first_usable()
    for other, because in others.items() if os.path.exists("/dev/iommu") else ():
        transaction.warn(f"the backend is {name}, as {other} cannot be used: {because}")
    transaction.set_meta("backend", name)
    manager = session.manager(transaction)
    answer = availability(manager)
    if not answer.available:
        raise BackendUnavailable(
            f"the backend {name} is not available here",
            because=answer.because,
            hint="see `iommuctl backend list`; --backend sim simulates",
        )
    plan = manager.hook.iommuctl_plan_memory(request=request)
    if plan:
        transaction.create_memory(plan)
    else:
        transaction.create_pool("ram", NO_PHYSICAL, NO_PHYSICAL)
    transaction.set_meta("setup", request)
    transaction.set_meta("architecture", manager.hook.iommuctl_setup(context=transaction, request=request))


def is_real(backend: str) -> bool:
    """Whether a backend is usable here, and its machine is there before it is used: it has no RAM of its own."""
    from iommuctl.plugins import load_backend

    manager = load_backend(backend)
    return availability(manager).available and manager.hook.iommuctl_plan_memory(request=SetupRequest()) is None


@contextlib.contextmanager
def trial(backend: str | None) -> Iterator["Operation"]:
    """An operation in a new folder that is thrown away; without a backend's name in one that chooses for itself."""
    import tempfile

    from iommuctl.session import Session

    with (
        tempfile.TemporaryDirectory(prefix="iommuctl-") as folder,
        Session(folder, backend=backend) as session,
        session._change() as operation,
    ):
        yield operation

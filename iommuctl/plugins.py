# SPDX-License-Identifier: Apache-2.0
"""Finding backends and architectures: the built-ins first, installed entry points on a miss."""

import contextlib
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import pluggy

from iommuctl.errors import BackendUnavailable
from iommuctl.hookspecs import API_VERSION, Availability, BackendSpec

if TYPE_CHECKING:
    from iommuctl.architecture import Architecture
    from iommuctl.formats.bits import Layout

BACKENDS = {
    "vtd": "iommuctl_vtd.backend:BACKEND",
    "smmuv3": "iommuctl_smmuv3.backend:BACKEND",
    "sim": "iommuctl_sim.backend",
}
"""Hardware first: the first one that is usable is taken for a new state folder."""
ARCHITECTURES = {"vtd": "iommuctl_vtd:ARCHITECTURE", "smmuv3": "iommuctl_smmuv3:ARCHITECTURE"}


def load_backend(name: str) -> pluggy.PluginManager:
    """A manager that holds this one backend. Raises BackendUnavailable, also for a plugin that breaks the contract."""
    plugin = _load("iommuctl.backends", BACKENDS, name)
    manager = pluggy.PluginManager("iommuctl")
    manager.add_hookspecs(BackendSpec)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise BackendUnavailable(f"the backend {name!r} breaks the contract", because=str(error)) from error
    api = availability(manager).api
    if api[0] != API_VERSION[0] or api[1] > API_VERSION[1]:
        raise BackendUnavailable(
            f"the backend {name!r} was written for another iommuctl",
            because=f"it needs API {api[0]}.{api[1]}, this is {API_VERSION[0]}.{API_VERSION[1]}",
            hint="install versions of the plugin and of iommuctl that belong together",
        )
    return manager


def availability(manager: pluggy.PluginManager) -> Availability:
    """What the manager's backend says of itself."""
    try:
        answers = manager.hook.iommuctl_probe()
    except Exception as error:
        raise BackendUnavailable("the backend's iommuctl_probe failed", because=f"{error}") from error
    if not answers or not isinstance(answers[0], Availability):
        raise BackendUnavailable("the backend's iommuctl_probe does not say what it is", hint="ask its author")
    return answers[0]


def backend_list() -> list[Availability]:
    """Every backend that is installed. One that cannot be loaded is listed with the reason."""
    found = []
    for name in dict.fromkeys([*BACKENDS, *_entry_points("iommuctl.backends")]):
        try:
            found.append(availability(load_backend(name)))
        except BackendUnavailable as error:
            found.append(Availability(name, False, error.because or error.what, None, API_VERSION))
    return found


def first_usable() -> tuple[str, dict[str, str]]:
    """The backend of a new state folder, usable hardware or else the simulator; why those before it are not usable."""
    not_usable: dict[str, str] = {}
    for name in BACKENDS:
        found = availability(load_backend(name))
        if found.available:
            return name, not_usable
        not_usable[name] = found.because
    raise BackendUnavailable("no backend works on this machine", hint="see `iommuctl backend list`")


@cache
def architecture(name: str) -> "Architecture":
    """The architecture of that name. Raises BackendUnavailable."""
    return cast("Architecture", _load("iommuctl.architectures", ARCHITECTURES, name))


def structures() -> "dict[str, type[Layout]]":
    """The declared structures of all architectures that can be loaded, by their full names."""
    found: dict[str, type[Layout]] = {}
    for name in dict.fromkeys([*ARCHITECTURES, *_entry_points("iommuctl.architectures")]):
        with contextlib.suppress(BackendUnavailable):
            found |= architecture(name).structures
    return found


def _load(group: str, builtin: dict[str, str], name: str) -> Any:
    try:
        if name in builtin:
            module, _, attribute = builtin[name].partition(":")
            loaded = import_module(module)
            return getattr(loaded, attribute) if attribute else loaded
        if name in (points := _entry_points(group)):
            return points[name].load()
    except (Exception, SystemExit) as error:
        # Whatever a broken plugin raises must not take the tool down with it.
        raise BackendUnavailable(f"the plugin {name!r} cannot be loaded", because=f"{error}") from error
    kind = group.rpartition(".")[2][:-1]
    raise BackendUnavailable(
        f"there is no {kind} {name!r}", hint=f"installed: {', '.join(dict.fromkeys([*builtin, *_entry_points(group)]))}"
    )


@cache
def _entry_points(group: str) -> dict[str, Any]:
    # The scan reads the metadata of every installed package: 40 ms.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}

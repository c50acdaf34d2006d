# SPDX-License-Identifier: Apache-2.0
"""Finding plugins: built-ins without a scan, installed ones on a miss, and broken ones told rather than fatal."""

# Arguments of a hook are named, whether it uses them or not.
# ruff: noqa: ARG005
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iommuctl import plugins
from iommuctl.errors import BackendUnavailable, IommuError
from iommuctl.hookspecs import API_VERSION, BackendSpec, hookimpl
from iommuctl.iommu import Iommu
from iommuctl.requests import Availability


class Point:
    """An entry point that was installed."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name = name
        self.load = load


Install = Callable[..., None]


def _raise(error: BaseException) -> Any:
    raise error


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install(name=plugin)`: as if a package with that entry point were installed."""
    points: dict[str, dict[str, Any]] = {"iommuctl.backends": {}, "iommuctl.architectures": {}}
    monkeypatch.setattr(plugins, "_entry_points", points.__getitem__)

    def add(group: str = "backends", **loaders: Any) -> None:
        for name, loader in loaders.items():
            load = loader if isinstance(loader, types.FunctionType) else lambda plugin=loader: plugin
            points[f"iommuctl.{group}"][name] = Point(name, load)

    yield add
    plugins.architecture.cache_clear()


def backend(name: str = "mine", *, available: bool = True, api: tuple[int, int] = API_VERSION, **hooks: Any) -> Any:
    """A plugin with a probe and these hooks."""
    plugin = types.SimpleNamespace(**hooks)
    plugin.iommuctl_probe = hookimpl(
        lambda: Availability(name, available, "" if available else "no such card", None, api)
    )
    return plugin


def test_built_ins_are_found_without_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(group: str) -> Any:
        raise AssertionError(f"{group} was scanned")

    monkeypatch.setattr(plugins, "_entry_points", scan)
    for name in plugins.BACKENDS:
        assert plugins.availability(plugins.load_backend(name)).name == name
    for name in plugins.ARCHITECTURES:
        assert plugins.architecture(name).name == name
    assert plugins.first_usable()[0] == "sim"


def test_built_ins_are_registered_as_anyones(monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["iommuctl.backends"] == plugins.BACKENDS
    assert project["entry-points"]["iommuctl.architectures"] == plugins.ARCHITECTURES


def test_installed_plugins_are_found_on_a_miss(install: Install) -> None:
    install(mine=backend(available=False))
    assert plugins.availability(plugins.load_backend("mine")).because == "no such card"
    install("architectures", vtd="another", theirs="an architecture")
    assert plugins.architecture("theirs") == "an architecture"  # type: ignore[comparison-overlap]
    assert plugins.architecture("vtd").name == "vtd", "a built-in cannot be taken over"


def test_plugins_that_nobody_installed(install: Install) -> None:
    install(mine=backend())
    with pytest.raises(BackendUnavailable) as caught:
        plugins.load_backend("theirs")
    assert (caught.value.id, caught.value.exit) == ("backend-unavailable", 3)
    assert caught.value.what == "there is no backend 'theirs'"
    assert caught.value.hint == "installed: vtd, smmuv3, sim, mine"
    with pytest.raises(BackendUnavailable, match="there is no architecture 'theirs'"):
        plugins.architecture("theirs")


def test_modules_are_not_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even from the working directory, whatever the name looks like."""
    (tmp_path / "evil.py").write_text("raise SystemExit('loaded')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("evil", "evil:x", "os", "iommuctl_sim.backend", "../evil", ""):
        with pytest.raises(BackendUnavailable):
            plugins.load_backend(name)
        with pytest.raises(BackendUnavailable):
            plugins.architecture(name)


def test_a_misspelt_hook_is_an_error(install: Install) -> None:
    install(mine=backend(iommuctl_unmapp=hookimpl(lambda context, request: True)))
    with pytest.raises(BackendUnavailable) as caught:
        plugins.load_backend("mine")
    assert "breaks the contract" in caught.value.what
    assert "iommuctl_unmapp" in caught.value.because


def test_an_argument_that_no_hook_has_is_an_error(install: Install) -> None:
    install(mine=backend(iommuctl_unmap=hookimpl(lambda context, request, users: True)))
    with pytest.raises(BackendUnavailable) as caught:
        plugins.load_backend("mine")
    assert "users" in caught.value.because


@pytest.mark.parametrize(
    ("api", "works"),
    [((0, 0), True), ((0, 1), False), ((1, 0), False), ((-1, 0), False), ((-1, 9), False)],
)
def test_the_version_of_the_contract(install: Install, api: tuple[int, int], works: bool) -> None:
    """The major number is equal, and the core's minor number at least the plugin's."""
    major, minor = API_VERSION
    install(mine=backend(api=(major + api[0], minor + api[1])))
    if works:
        assert plugins.load_backend("mine")
        return
    with pytest.raises(BackendUnavailable) as caught:
        plugins.load_backend("mine")
    assert "written for another iommuctl" in caught.value.what
    assert f"{major + api[0]}.{minor + api[1]}" in caught.value.because


BROKEN: dict[str, Any] = {
    "import error": lambda: _raise(ImportError("no module named card")),
    "any error": lambda: _raise(ZeroDivisionError("division by zero")),
    "exit": lambda: _raise(SystemExit(3)),
    "no hooks": types.SimpleNamespace(),
    "nothing": None,
    "a misspelt hook": backend(iommuctl_mapp=hookimpl(lambda context: True)),
    "another version": backend(api=(99, 0)),
    "a probe that fails": types.SimpleNamespace(iommuctl_probe=hookimpl(lambda: 1 // 0)),
    "a probe that says nothing": types.SimpleNamespace(iommuctl_probe=hookimpl(lambda: None)),
    "a probe that says nonsense": types.SimpleNamespace(iommuctl_probe=hookimpl(lambda: "yes")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_listed_and_not_fatal(install: Install, what: str) -> None:
    install(broken=BROKEN[what], mine=backend())
    listed = {entry.name: entry for entry in plugins.backend_list()}
    assert set(listed) == {"vtd", "smmuv3", "sim", "broken", "mine"}
    assert listed["mine"].available
    assert not listed["broken"].available
    assert listed["broken"].because
    with pytest.raises(BackendUnavailable):
        plugins.load_backend("broken")


def test_a_state_folder_of_a_backend_that_offers_nothing(install: Install, tmp_path: Path) -> None:
    """The example in hookspecs, made available: every operation is refused with a sentence, and none breaks."""
    install(mine=backend(iommuctl_setup=hookimpl(lambda context, request: "none")))
    with Iommu(tmp_path, backend="mine") as iommu:
        iommu.setup()
        assert (iommu.domains(), iommu.slots(), iommu.architecture) == ([], [], "none")
        for call in (
            lambda: iommu.domain_create("d"),
            lambda: iommu.device_add("0000:00:01.0"),
            lambda: iommu.attach("d", "0000:00:01.0"),
            iommu.devices,
            iommu.capabilities,
            iommu.describe,
        ):
            with pytest.raises(IommuError) as caught:
                call()
            assert caught.value.id in ("unsupported", "no-such-domain")


def test_a_folder_whose_backend_is_gone(install: Install, tmp_path: Path) -> None:
    install(mine=backend(iommuctl_setup=hookimpl(lambda context, request: "none")))
    with Iommu(tmp_path, backend="mine") as iommu:
        iommu.setup()
    plugins._entry_points("iommuctl.backends").clear()
    with Iommu(tmp_path) as iommu:
        assert iommu.domains() == []
        with pytest.raises(BackendUnavailable, match="mine"):
            iommu.domain_create("d")


def test_the_example_of_a_backend_works(install: Install) -> None:
    from iommuctl import hookspecs

    assert hookspecs.__doc__
    example = hookspecs.__doc__.split("offers nothing yet:\n")[1].split("and in its pyproject.toml")[0]
    module = types.ModuleType("example")
    import textwrap

    exec(textwrap.dedent(example), module.__dict__)
    install(mine=module)
    (told,) = [entry for entry in plugins.backend_list() if entry.name == "mine"]
    assert (told.available, told.because) == (False, "no such hardware here")


def test_every_hook_says_what_it_promises() -> None:
    hooks = [value for name, value in vars(BackendSpec).items() if name.startswith("iommuctl_")]
    assert len(hooks) >= 12
    assert all(hook.__doc__ and len(hook.__doc__) > 30 for hook in hooks)


def test_structures_of_all_architectures_have_their_names(install: Install) -> None:
    install("architectures", broken=lambda: _raise(ImportError("no module")))
    named = plugins.structures()
    assert "vtd.pasid-entry" in named
    assert all(
        layout.name == name and name.partition(".")[0] in plugins.ARCHITECTURES for name, layout in named.items()
    )

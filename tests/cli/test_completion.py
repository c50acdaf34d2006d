# SPDX-License-Identifier: Apache-2.0
"""`completion`: the scripts are printed, and written to where shells look for them."""

import os
from pathlib import Path

import pytest

from tests.completion.shells import ROOT, SCRIPTS

from .conftest import Run


@pytest.mark.parametrize("shell", SCRIPTS)
def test_printing(ok: Run, shell: str) -> None:
    text = (ROOT / "completions" / SCRIPTS[shell]).read_text("utf-8")
    assert ok(f"completion {shell}").out == text
    assert ok(f"completion {shell} -j").json == {"schema": 1, "shell": shell, "script": text}


@pytest.mark.parametrize(
    ("shell", "variables", "place"),
    [
        ("bash", {}, ".local/share/bash-completion/completions/iommuctl"),
        ("bash", {"XDG_DATA_HOME": "{0}/data"}, "data/bash-completion/completions/iommuctl"),
        ("bash", {"BASH_COMPLETION_USER_DIR": "{0}/mine:/nowhere"}, "mine/completions/iommuctl"),
        ("zsh", {}, ".local/share/zsh/site-functions/_iommuctl"),
        ("zsh", {"XDG_DATA_HOME": "{0}/data"}, "data/zsh/site-functions/_iommuctl"),
        ("fish", {}, ".config/fish/completions/iommuctl.fish"),
        ("fish", {"XDG_CONFIG_HOME": "{0}/config"}, "config/fish/completions/iommuctl.fish"),
    ],
)
def test_installing(
    ok: Run, monkeypatch: pytest.MonkeyPatch, shell: str, variables: dict[str, str], place: str
) -> None:
    home = Path(os.environ["IOMMUCTL_STATE"]).parent
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "HOME": "{0}", "SHELL": f"/usr/bin/{shell}"}.items():
        monkeypatch.setenv(name, value.format(home))
    path = home / place
    assert str(path) in ok("completion install --dry-run").out
    assert not path.parent.exists()
    document = ok("completion install -j").json
    assert (document["shell"], document["path"]) == (shell, str(path))
    script = (ROOT / "completions" / SCRIPTS[shell]).read_text("utf-8")
    assert path.read_text("utf-8") == script
    path.write_text("an older one", "utf-8")
    assert ok(f"completion install --shell {shell}").out.startswith(f"{path}: ")
    assert path.read_text("utf-8") == script
    assert list(path.parent.iterdir()) == [path]
    assert not (home / "state").exists()


@pytest.mark.parametrize(("shell", "because"), [("/bin/dash", "$SHELL names 'dash'"), ("", "$SHELL is not set")])
def test_a_shell_that_is_not_known(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str, because: str) -> None:
    monkeypatch.setenv("SHELL", shell)
    result = run("completion install -j")
    assert (result.code, result.error["id"]) == (2, "usage")
    assert result.error["because"].startswith(because)


def test_a_place_that_cannot_be_written(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    result = run("completion install --shell fish -j")
    assert (result.code, result.error["id"]) == (5, "system")
    assert str(tmp_path / "file") in result.error["what"]

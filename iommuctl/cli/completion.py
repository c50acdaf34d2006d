# SPDX-License-Identifier: Apache-2.0
"""`iommuctl completion`: what makes TAB know commands, options, and the domains and devices that there are."""

import os
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import Usage

EXAMPLES = """
# for the shell that $SHELL names, or for another one
iommuctl completion install
iommuctl completion install --shell zsh
# for everybody on this machine
iommuctl completion bash | sudo tee /usr/local/share/bash-completion/completions/iommuctl >/dev/null
iommuctl completion zsh | sudo tee /usr/local/share/zsh/site-functions/_iommuctl >/dev/null
# for this shell only; in bash, source <(iommuctl completion bash), and in zsh alike
iommuctl completion fish | source
"""

app = module_app("Completion for bash, zsh and fish.", EXAMPLES)


_SHIPPED = Path(__file__).parents[1] / "completions"


class Script(NamedTuple):
    """A script, where a user's shell looks for it, and what is to be done then."""

    name: str
    folder: Path
    installed_as: str
    then: str


def _script(shell: str) -> Script:
    data = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    if shell == "bash":
        # Newer versions of bash-completion take a list.
        named = os.environ.get("BASH_COMPLETION_USER_DIR", "").partition(":")[0]
        folder = (Path(named) if named else data / "bash-completion") / "completions"
        then = f"bash-completion finds it in a new shell; without that package, source {folder}/iommuctl in ~/.bashrc"
        return Script("iommuctl.bash", folder, "iommuctl", then)
    if shell == "zsh":
        folder = data / "zsh/site-functions"
        return Script("_iommuctl", folder, "_iommuctl", f"have fpath+=({folder}) before compinit in ~/.zshrc")
    return Script("iommuctl.fish", config / "fish/completions", "iommuctl.fish", "fish finds it in a new shell")


def _text(script: Script) -> str:
    return (_SHIPPED / script.name).read_text("utf-8")


@app.command("bash")
def bash(ctx: typer.Context) -> None:
    """Print the completion script for bash."""
    _print(session_of(ctx), "bash")


@app.command("zsh")
def zsh(ctx: typer.Context) -> None:
    """Print the completion script for zsh."""
    _print(session_of(ctx), "zsh")


@app.command("fish")
def fish(ctx: typer.Context) -> None:
    """Print the completion script for fish."""
    _print(session_of(ctx), "fish")


def _print(session: Session, shell: str) -> None:
    text = _text(_script(shell))
    if session.json:
        session.document({"shell": shell, "script": text})
    else:
        session.out.lines(text.splitlines())


@app.command("install")
def install(
    ctx: typer.Context,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None,
        typer.Option(
            "--shell", metavar="bash|zsh|fish", help="Default: the one that $SHELL names.", show_default=False
        ),
    ] = None,
) -> None:
    """Write the completion script to where the user's shell finds it.

    Replaces what is there under its name, and changes no other file: it says what is left to do.
    """
    session = session_of(ctx)
    chosen = shell or _of_environment()
    script = _script(chosen)
    text, path = _text(script), script.folder / script.installed_as
    if not session.dry_run:
        script.folder.mkdir(parents=True, exist_ok=True)
        begun = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            begun.write_text(text, "utf-8")
            begun.replace(path)
        finally:
            begun.unlink(missing_ok=True)
    session.changed(
        f"{path}: completion for {chosen} installed; {script.then}",
        {"shell": chosen, "path": str(path), "then": script.then},
    )


def _of_environment() -> str:
    shell = os.path.basename(os.environ.get("SHELL", ""))
    if shell not in ("bash", "zsh", "fish"):
        raise Usage(
            "which shell is it for?",
            because=f"$SHELL names {shell!r}, for which there is no completion" if shell else "$SHELL is not set",
            hint="give --shell bash, --shell zsh or --shell fish",
        )
    return shell

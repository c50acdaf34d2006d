# SPDX-License-Identifier: Apache-2.0
"""Real shells on a terminal of their own: keys go in, and what the line became comes out.

Each shell has a key that prints its command line between two marks. It is pressed after TAB, and shells read keys in
their order, so nothing waits for a time to pass; only a shell that says nothing at all fails after a minute.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SCRIPTS = {"bash": "iommuctl.bash", "zsh": "_iommuctl", "fish": "iommuctl.fish"}
PATIENCE = 60.0
"""Seconds until a shell that does not answer is given up."""

_OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
# Keys that mean nothing to the terminal, which may still be the one to read them when a shell is busy.
_SHOW, _CLEAR, _TAB = "\x07", "\x19", "\t"
_LINE = re.compile(rb"LINE<(.*?)>END", re.DOTALL)
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?>=]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>A-Z])|[\r\x07\x08\x0f]")

# What makes each shell plain, has it load the script, and binds the keys.
PREPARE = {
    "bash": r"""
bind 'set show-all-if-ambiguous on'; bind 'set page-completions off'; bind 'set completion-query-items 0'
bind 'set bell-style none'; bind 'set enable-bracketed-paste off'
show() { printf '\nLINE<%s>END\n' "$READLINE_LINE"; }
bind -x '"\C-g": show'; bind '"\C-y": unix-line-discard'
source '{script}'
""",
    "zsh": r"""
fpath+=('{folder}'); autoload -Uz compinit; compinit -u -D
unsetopt prompt_cr prompt_sp beep list_ambiguous; LISTMAX=0
show() { print -r -- "LINE<$BUFFER>END" >$TTY }
zle -N show; bindkey -e; bindkey '^G' show; bindkey '^Y' kill-whole-line
""",
    "fish": r"""
function fish_prompt; echo '> '; end
function show; printf '\nLINE<%s>END\n' (commandline); end
bind \cg show; bind \cy 'commandline ""'
source '{script}'
""",
}
START = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}


class Answer(NamedTuple):
    """The command line after TAB, and the words that were shown below it."""

    line: str
    listed: set[str]


class Shell:
    """An interactive shell that has the completion script loaded."""

    def __init__(self, name: str, environment: dict[str, str], script: Path) -> None:
        self.name = name
        program = shutil.which(name)
        assert program
        control, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 160, 0, 0))
        command = [sys.executable, "-c", _OWN_TERMINAL, program, *START[name]]
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment,
            cwd=environment["HOME"], start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        self._control = control
        self._unread = b""
        setup = Path(environment["HOME"]) / f"setup.{name}"
        text = PREPARE[name].replace("{script}", str(script)).replace("{folder}", str(script.parent))
        setup.write_text(text, "utf-8")
        self.run(f". {setup}")

    def close(self) -> None:
        """End the shell."""
        self.process.kill()
        self.process.wait()
        os.close(self._control)

    def run(self, command: str) -> None:
        """Have the shell carry out a command."""
        self._send(f"{command}; echo LINE'<'done'>'END\r")
        assert self._until_line().line == "done"

    def tab(self, line: str) -> Answer:
        """Type the line, then press TAB."""
        self._send(_CLEAR + _SHOW)
        assert not self._until_line().line
        self._send(line + _TAB + _SHOW)
        return self._until_line()

    def _send(self, keys: str) -> None:
        os.write(self._control, keys.encode())

    def _until_line(self) -> Answer:
        """Read until the shell has shown its line."""
        end = time.monotonic() + PATIENCE
        while not (found := _LINE.search(self._unread)):
            ready, _, _ = select.select([self._control], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{self.name} does not answer; it said {self._unread!r}"
            self._unread += os.read(self._control, 1 << 16)
        shown, self._unread = self._unread[: found.start()], self._unread[found.end() :]
        return Answer(found[1].decode(), set(_CONTROL.sub(" ", shown.decode(errors="replace")).split()))

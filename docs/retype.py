# SPDX-License-Identifier: Apache-2.0
"""Type the examples of a document anew: `python docs/retype.py docs/guide.md` puts in what they print now.

In `console` blocks, the lines after a command (`$ …`) are its output; a command without such lines keeps none. Each
document has a state folder of its own, in which its commands run in their order. The tests compare, this repairs.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_EXAMPLE = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def retype(document: str, environment: dict[str, str]) -> str:
    """The document with the output that its commands have in this environment."""
    code = 0

    def example(match: re.Match[str]) -> str:
        nonlocal code
        command, output = match.groups()
        # The shell's own `$?` is about the command before, which another shell has run.
        done = subprocess.run(
            ["/bin/sh", "-c", f"(exit {code}); {command}"], env=environment, capture_output=True, text=True, check=False
        )
        code = done.returncode
        return f"$ {command}\n" + (done.stdout + done.stderr if output else "")

    return _BLOCK.sub(lambda block: _EXAMPLE.sub(example, block[0]), document)


def main() -> None:
    """Rewrite each document that is named."""
    for name in sys.argv[1:]:
        path = Path(name)
        with tempfile.TemporaryDirectory() as folder:
            programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
            own = {"IOMMUCTL_STATE": f"{folder}/state", "COLUMNS": "100", "NO_COLOR": "1", "PATH": programs}
            path.write_text(retype(path.read_text("utf-8"), {**os.environ, **own}), "utf-8")


if __name__ == "__main__":
    main()

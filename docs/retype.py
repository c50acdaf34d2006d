# SPDX-License-Identifier: Apache-2.0
"""Type the examples of a document anew: `python docs/retype.py docs/guide.md` puts in what they print now.

`docs/blocks.py` says what is an example. A command after which no output stands keeps none. Each document has a state
folder and a working directory of its own. The tests compare, this repairs.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs.blocks import BLOCK, EXAMPLE, line  # noqa: E402


def retype(document: str, folder: str, environment: dict[str, str]) -> str:
    """The document with the output that its commands have in this folder and environment."""
    code = 0

    def example(match: re.Match[str]) -> str:
        nonlocal code
        command, output = match["command"], match["output"]
        done = subprocess.run(
            line(command, code), cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        code = done.returncode
        return f"$ {command}\n" + (done.stdout + done.stderr if output else "")

    def block(match: re.Match[str]) -> str:
        if match["file"]:
            Path(folder, match["file"]).write_text(match["text"], "utf-8")
        if match["language"] != "console":
            return match[0]
        before, after = match[0][: match.start("text") - match.start()], match[0][match.end("text") - match.start() :]
        return before + EXAMPLE.sub(example, match["text"]) + after

    return BLOCK.sub(block, document)


def main() -> None:
    """Rewrite each document that is named."""
    for name in sys.argv[1:]:
        path = Path(name)
        with tempfile.TemporaryDirectory() as folder:
            programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
            own = {"IOMMUCTL_STATE": f"{folder}/state", "COLUMNS": "100", "NO_COLOR": "1", "PATH": programs}
            path.write_text(retype(path.read_text("utf-8"), folder, {**os.environ, **own}), "utf-8")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Every command is tried in some example that runs."""

import re
from collections.abc import Iterator

from docs.blocks import blocks, examples
from docs.commands import global_options, nouns
from tests.docs.documents import ROOT, documents

NOT_TRIED = (
    {
        f"completion {shell}": "prints a script to be run by another shell: tests/completion runs it there"
        for shell in ("bash", "zsh", "fish")
    }
    | dict.fromkeys(
        ("device bind", "device unbind", "domain dirty", "exec"),
        "needs real hardware: tests/cli/test_real.py and test_exec.py type it on a backend that stands in for that",
    )
    | {"fault respond": "needs a device that waits: tests/docs/test_help_examples.py types it where one does"}
)

_WITH_VALUE = {
    spelling.split()[0] for spelling, _ in global_options() if " " in spelling and not spelling.startswith("-j")
}


def typed() -> Iterator[list[str]]:
    """The words after `iommuctl`, and after the options that stand before the command."""
    for name in documents():
        for block in blocks((ROOT / name).read_text("utf-8")):
            for example in examples(block.text) if block.language == "console" else []:
                for part in re.split(r"[|;&(]", example.command):
                    words = part.split()
                    if "iommuctl" in words:
                        words = words[words.index("iommuctl") + 1 :]
                        while words and words[0].startswith("-"):
                            words = words[2 if words[0] in _WITH_VALUE else 1 :]
                        yield words


def test_every_command_is_in_an_example_that_runs() -> None:
    commands = {command.words for noun in nouns() for command in noun.commands}
    tried = {" ".join(words[:count]) for words in typed() for count in (1, 2, 3)}
    assert NOT_TRIED.keys() <= commands
    assert not NOT_TRIED.keys() & tried
    assert commands - tried == NOT_TRIED.keys()

# SPDX-License-Identifier: Apache-2.0
"""The text of a document: parsed, and with the line on which something stands, for error messages."""

import re
from bisect import bisect_left
from functools import cached_property
from typing import Any, NamedTuple

from iommuctl.errors import BadDocument
from iommuctl.plan.document import Path, path_text

LARGEST = 64 << 20
"""Characters of a document; more is something else."""


class Source:
    """A TOML text and its name, which is a path or `-`. Raises BadDocument for what is not TOML.

    Of a text in JSON, the `table` that it holds is given; then there are no lines.
    """

    def __init__(self, name: str, text: str, table: dict[str, Any] | None = None) -> None:
        self.name, self.text = name, text
        self._has_lines = table is None
        if len(text) > LARGEST:
            raise BadDocument(f"{name} is no topology document", because=f"it has more than {LARGEST >> 20} MiB")
        self.table = _parse(name, text) if table is None else table

    def error(self, path: Path, what: str, *, because: str = "", hint: str = "") -> BadDocument:
        """An error about what stands at that path."""
        return BadDocument(f"{self.where(path)}: {what}", because=because, hint=hint)

    def where(self, path: Path) -> str:
        """File, line and key of a path, as error messages begin with them."""
        name = f"{self.name}:{self.line(path)}" if self._has_lines else self.name
        return f"{name}: {path_text(path)}".removesuffix(": ")

    def elsewhere(self, path: Path) -> str:
        """Where another path is, within an error about this document."""
        return f"on line {self.line(path)}" if self._has_lines else f"at {path_text(path)}"

    def line(self, path: Path) -> int:
        """The line, counted from 1, on which the key or element at a path of the document begins.

        A TOML parser does not tell. But it begins where the longest beginning of the text ends that has no such path.
        """
        cuts = self._cuts
        first = bisect_left(cuts, True, key=lambda cut: _reaches(self._until(cut), path))
        return cuts[max(first, 1) - 1].lines + 1

    @cached_property
    def _cuts(self) -> list["_Cut"]:
        cuts = [_Cut(0, 0, "")]
        lines, closing = 1, ""
        for token in _TOKENS.finditer(self.text):
            found = token[0]
            if found == "\n":
                cuts.append(_Cut(lines, token.end(), closing))
            elif found in _CLOSING:
                closing = _CLOSING[found] + closing
            elif found in "]}":
                closing = closing[1:]
            lines += found.count("\n")
        return [*cuts, _Cut(lines, len(self.text), "")]

    def _until(self, cut: "_Cut") -> dict[str, Any]:
        import tomli

        return tomli.loads(self.text[: cut.end] + cut.closing)


class _Cut(NamedTuple):
    """The end of a line, where a beginning of the text is TOML once its brackets are closed: not within a string."""

    lines: int
    end: int
    closing: str


_CLOSING = {"[": "]", "{": "}"}
_TOKENS = re.compile(
    "|".join(
        (
            # Strings and comments, in which brackets and ends of lines mean nothing.
            r'"""(?:[^"\\]++|\\.|"(?!""))*+"{3,5}',
            r"'''(?:[^']++|'(?!''))*+'{3,5}",
            r'"(?:[^"\\\n]++|\\.)*+"',
            r"'[^'\n]*+'",
            r"#[^\n]*+",
            r"[][{}\n]",
        )
    ),
    re.DOTALL,
)


def _reaches(value: Any, path: Path) -> bool:
    for part in path:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return False
    return True


_BARE_RID = re.compile(r"\s*\[+\s*device\s*\.\s*([0-9a-fA-F:.]+)")


def _hint(text: str, line: int) -> str:
    if bare := _BARE_RID.match(text.split("\n")[line - 1]):
        return f'quote the RID: [device."{bare[1]}"]'
    return "`iommuctl export` shows what a document looks like"


def _parse(name: str, text: str) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise BadDocument(
            f"{name}:{error.lineno}: this is not TOML",
            because=f"{error.msg[:1].lower()}{error.msg[1:]}, at column {error.colno}",
            hint=_hint(text, error.lineno),
        ) from None
    except (RecursionError, ValueError) as error:
        nested = isinstance(error, RecursionError)
        because = "its values are nested too deeply" if nested else "a number in it has too many digits"
        raise BadDocument(f"{name} is no topology document", because=because) from None

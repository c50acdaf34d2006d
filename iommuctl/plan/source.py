# SPDX-License-Identifier: Apache-2.0
"""The text of a document: parsed, and with the line on which something stands, for error messages."""

from typing import Any

from iommuctl.errors import BadDocument
from iommuctl.plan.document import Path, path_text

LARGEST = 64 << 20
"""Characters of a document; more is something else."""


class Source:
    """A TOML text and its name, which is a path or `-`. Raises BadDocument for what is not TOML."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self._lines = text.splitlines(keepends=True)
        if len(text) > LARGEST:
            raise BadDocument(f"{name} is no topology document", because=f"it has more than {LARGEST >> 20} MiB")
        self.table = _parse(name, text)

    def error(self, path: Path, what: str, *, because: str = "", hint: str = "") -> BadDocument:
        """An error about what stands at that path."""
        return BadDocument(f"{self.where(path)}: {what}", because=because, hint=hint)

    def where(self, path: Path) -> str:
        """File, line and key of a path, as error messages begin with them."""
        return f"{self.name}:{self.line(path)}: {path_text(path)}".removesuffix(": ")

    def line(self, path: Path) -> int:
        """The line, counted from 1, on which the value at a path begins.

        A TOML parser does not tell. But the shortest beginning of the text that has the path ends there, or a few
        lines later where the value does not end on its line.
        """
        low, high = 0, len(self._lines)
        while low < high:
            middle = (low + high) // 2
            if self._has(middle, path):
                high = middle
            else:
                low = middle + 1
        return max(1, min(low, len(self._lines)))

    def _has(self, lines: int, path: Path) -> bool:
        """Whether the first lines have a path. A line within a value is told by the next one that is not."""
        table = None
        while table is None:
            table = _beginning("".join(self._lines[:lines]))
            lines += 1
        return _reaches(table, path)


def _beginning(text: str) -> dict[str, Any] | None:
    """A beginning of a document; an array of tables may have more elements after it."""
    import tomli

    for end in ("", "]"):
        try:
            return tomli.loads(text + end)
        except tomli.TOMLDecodeError:
            continue
    return None


def _reaches(value: Any, path: Path) -> bool:
    for part in path:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return False
    return True


def _parse(name: str, text: str) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise BadDocument(
            f"{name}:{error.lineno}: this is not TOML",
            because=f"{error.msg[:1].lower()}{error.msg[1:]}, at column {error.colno}",
            hint="`iommuctl export` shows what a document looks like",
        ) from None
    except (RecursionError, ValueError) as error:
        nested = isinstance(error, RecursionError)
        because = "its values are nested too deeply" if nested else "a number in it has too many digits"
        raise BadDocument(f"{name} is no topology document", because=because) from None

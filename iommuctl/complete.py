# SPDX-License-Identifier: Apache-2.0
"""The words that a shell offers at TAB and that only a state folder knows: `iommuctl __complete KINDS [FOLDER [RID]]`.

KINDS are metavars, as `DOMAIN|PGTABLE|RID`; an empty FOLDER is the default one; PASID answers with those in use, of RID
when it is given. The scripts in `completions/` ask, and who types does not wait: no lock is taken, redo is left to the
next command, nothing is created, and a folder that cannot be read has no words. Whoever wrote it may be hostile, and
what is printed goes into a command line: it is only what is spelt like a name or a RID.
"""

import contextlib
import os
import sqlite3

from iommuctl.spelling import NAME, RID
from iommuctl.state import schema
from iommuctl.state.folder import default_folder

QUERIES = {
    "DOMAIN": "SELECT name FROM domain ORDER BY id",
    "PGTABLE": "SELECT name FROM pgtable ORDER BY id",
    "MEM": "SELECT name FROM memory ORDER BY id",
    # The rows that a backend has for its devices (hookspecs.Rows), and whatever else is in use.
    "RID": """
        SELECT key FROM backend_row
        WHERE kind = (SELECT trim(value, '"') FROM meta WHERE key = 'backend') || '.device'
        UNION SELECT printf('%04x:%02x:%02x.%x', rid >> 16, rid >> 8 & 255, rid >> 3 & 31, rid & 7) FROM slot
        ORDER BY 1""",
    "PASID": "SELECT DISTINCT pasid FROM slot WHERE pasid > 0 AND :rid IN (rid, -1) ORDER BY 1",
}
"""By the metavar. -1 as `rid` stands for all of them."""

BUSY_SECONDS = 0.3
STEPS = 5_000_000
"""Instructions of SQLite's machine; more than a hundred thousand names take."""
LONGEST = 1 << 16
"""Bytes of a value; SQLite refuses to load longer ones."""


def answer(arguments: list[str]) -> int:
    """Print the words, one on a line. The exit code is always 0."""
    kinds, folder, rid = [*arguments, "", "", ""][:3]
    found = "".join(f"{word}\n" for word in words(kinds.split("|"), folder or default_folder(), rid))
    with contextlib.suppress(OSError):
        os.write(1, found.encode())
    return 0


def words(kinds: list[str], folder: str, rid: str = "") -> list[str]:
    """The words of these kinds that the folder has; none for a kind that is unknown, or when something is wrong."""
    found: list[str] = []
    path = os.path.join(folder, "state.db")
    # Anything else than a file, a pipe for example, might be waited for.
    if not os.path.isfile(path):
        return found
    name = "".join(f"%{byte:02x}" for byte in os.fsencode(os.path.abspath(path)))
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{name}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection,
    ):
        connection.text_factory = lambda data: data.decode(errors="replace")
        connection.set_progress_handler(lambda: 1, STEPS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        if schema.marks(connection) == (schema.APPLICATION_ID, schema.VERSION):
            for kind in kinds:
                spelling = RID if kind == "RID" else NAME
                rows = connection.execute(QUERIES.get(kind, "SELECT 1 WHERE 0"), {"rid": _key(rid)})
                found += [word for word in (str(row[0]) for row in rows) if spelling.fullmatch(word)]
    return found


def _key(rid: str) -> int:
    """A RID as the rows of slots have it; -1 for what is none."""
    match = RID.fullmatch(rid)
    if not match:
        return -1
    segment, bus, device, function = (int(part or "0", 16) for part in match.groups())
    return segment << 16 | bus << 8 | device << 3 | function

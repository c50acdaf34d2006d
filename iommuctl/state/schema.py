# SPDX-License-Identifier: Apache-2.0
"""The tables of the state database, and the marks by which a file is known to be one of ours."""

import sqlite3

APPLICATION_ID = 0x696F6D6D  # "iomm"
VERSION = 4

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS domain (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, label TEXT,
    nest_parent INTEGER NOT NULL, width INTEGER NOT NULL, page_sizes TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS mapping (
    domain INTEGER NOT NULL REFERENCES domain, iova INTEGER NOT NULL, size INTEGER NOT NULL,
    pa INTEGER NOT NULL, memory INTEGER REFERENCES memory, offset INTEGER NOT NULL, prot TEXT NOT NULL,
    PRIMARY KEY (domain, iova)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mapping_by_memory ON mapping (memory);

CREATE TABLE IF NOT EXISTS memory (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, pa INTEGER NOT NULL, size INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS pgtable (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, label TEXT,
    parent INTEGER NOT NULL REFERENCES domain, format TEXT NOT NULL,
    pool INTEGER NOT NULL, pool_size INTEGER NOT NULL, root INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS pgtable_by_parent ON pgtable (parent);

-- One row per slot that holds something. pasid is -1 in the slot of the RID itself; a binding has a root.
CREATE TABLE IF NOT EXISTS slot (
    rid INTEGER NOT NULL, pasid INTEGER NOT NULL, domain INTEGER NOT NULL REFERENCES domain, label TEXT,
    root TEXT, format TEXT, pgtable INTEGER REFERENCES pgtable, implicit INTEGER NOT NULL DEFAULT 0,
    attachment_label TEXT, PRIMARY KEY (rid, pasid)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS slot_by_domain ON slot (domain);
CREATE INDEX IF NOT EXISTS slot_by_pgtable ON slot (pgtable);

-- Guest memory that the CD table of a RID lies in, where it is in guest memory: a page table's pool, or one of its own.
CREATE TABLE IF NOT EXISTS cd_pool (
    rid INTEGER PRIMARY KEY, domain INTEGER NOT NULL REFERENCES domain, pgtable INTEGER REFERENCES pgtable,
    start INTEGER NOT NULL, size INTEGER NOT NULL);

-- Free pages: of table memory, of RAM, of each pool in guest memory.
CREATE TABLE IF NOT EXISTS extent (
    pool TEXT NOT NULL, address INTEGER NOT NULL, pages INTEGER NOT NULL, PRIMARY KEY (pool, address)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS extent_by_size ON extent (pool, pages, address);

-- Writes to memory that the last committed transaction may not have finished.
CREATE TABLE IF NOT EXISTS redo (seq INTEGER PRIMARY KEY, address INTEGER NOT NULL, data BLOB NOT NULL);

-- Faults that queues told of: the same one again is counted, and its record is the last one. `seen` is their order by
-- that. Where a record does not tell, pasid and page are -1, access and iova are empty.
CREATE TABLE IF NOT EXISTS fault (
    id INTEGER PRIMARY KEY AUTOINCREMENT, seen INTEGER NOT NULL UNIQUE, source TEXT NOT NULL, rid TEXT NOT NULL,
    pasid INTEGER NOT NULL, code INTEGER NOT NULL, access TEXT NOT NULL, page INTEGER NOT NULL, name TEXT NOT NULL,
    reason TEXT NOT NULL, iova TEXT NOT NULL, structure TEXT NOT NULL, raw TEXT NOT NULL, count INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, UNIQUE (source, rid, pasid, code, access, page));

-- How far a source was read, and what is missing of it: events that were lost before, rows that made room for others.
CREATE TABLE IF NOT EXISTS fault_source (
    name TEXT PRIMARY KEY, position TEXT NOT NULL, lost INTEGER NOT NULL, exact INTEGER NOT NULL,
    dropped INTEGER NOT NULL) WITHOUT ROWID;

-- Groups of page requests. A group is "begun" until its last request was read, then "waiting", then it is its answer,
-- which `by` gave. Ids are no fault's either. pasid is -1 for requests without one.
CREATE TABLE IF NOT EXISTS page_group (
    id INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT NOT NULL, rid TEXT NOT NULL, pasid INTEGER NOT NULL,
    token TEXT NOT NULL, requests TEXT NOT NULL, since INTEGER NOT NULL, by TEXT NOT NULL, answered INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS page_group_open ON page_group (state, rid, pasid, token) WHERE state IN ('begun', 'waiting');

-- Who answers the page requests of a slot, or (rid is '' then) of all slots of a domain that have no row of their own.
CREATE TABLE IF NOT EXISTS fault_handler (
    domain INTEGER NOT NULL, rid TEXT NOT NULL, pasid INTEGER NOT NULL, kind TEXT NOT NULL, what TEXT NOT NULL,
    PRIMARY KEY (domain, rid, pasid)) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS backend_row (
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""


def marks(connection: sqlite3.Connection) -> tuple[int, int]:
    """Which program the database belongs to, and the version of its tables: APPLICATION_ID and VERSION for ours."""
    application, version = (
        connection.execute(f"PRAGMA {mark}").fetchone()[0] for mark in ("application_id", "user_version")
    )
    return application, version


def recognise(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the database holds all our tables; False for a new, empty one, and for one of an earlier version.

    Raises StateDamaged for a file of somebody else's, StateNewer for one of a later version.
    """
    # Only here: completion reads the marks, and needs no errors.
    from iommuctl.errors import StateDamaged, StateNewer

    application, version = marks(connection)
    if (application, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        return False
    if application != APPLICATION_ID:
        raise StateDamaged(
            f"{path} is not a state file of iommuctl",
            because="it is a database that another program made",
            hint="name another folder with --state, or move the file away",
        )
    if version > VERSION:
        raise StateNewer(
            f"{path} was written by a newer iommuctl",
            because=f"its format is version {version}; this program knows versions up to {VERSION}",
            hint="upgrade iommuctl, or name another folder with --state",
        )
    return version == VERSION


def create(connection: sqlite3.Connection) -> None:
    """Make the tables that are not there yet: all, or those that are new since version 1. A transaction is open."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")

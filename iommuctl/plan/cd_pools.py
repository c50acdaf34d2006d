# SPDX-License-Identifier: Apache-2.0
"""Where a document wants the CD tables of devices: one pool for all bindings of a RID.

An entry says it where the pool is not that of its own page table, so that bindings can be made in any order.
"""

from collections.abc import Mapping

from iommuctl.plan.document import BindingEntry, Entry, Key, PageTableEntry, slot_of

Pools = Mapping[tuple[str, tuple[int, int]], Key]
"""Page tables by their parent and pool."""


def table_pools(objects: Mapping[Key, Entry]) -> Pools:
    """The page tables by where their pools are."""
    return {(entry.parent, entry.pool): key for key, entry in objects.items() if isinstance(entry, PageTableEntry)}


def settled(current: Mapping[Key, Entry], wanted: Mapping[Key, Entry], target: dict[Key, Entry]) -> dict[Key, Entry]:
    """The target, with the pools of bindings of which the document does not say one.

    It is the one that another binding of the RID is said to have; else the one that it has, or where that is the pool
    of a page table which gets another, that one.
    """
    said = {
        slot_of(key).rid: entry.cd_pool
        for key, entry in wanted.items()
        if isinstance(entry, BindingEntry) and entry.cd_pool
    }
    tables = table_pools(current)
    found = dict(target)
    for key, entry in target.items():
        if not isinstance(entry, BindingEntry):
            continue
        pool = said.get(slot_of(key).rid)
        if pool is None and entry.cd_pool:
            pool = entry.cd_pool
            if table := tables.get((entry.domain, pool)):
                new = target.get(table)
                pool = new.pool if isinstance(new, PageTableEntry) else None
        own = target.get(Key("pgtable", entry.pgtable))
        if isinstance(own, PageTableEntry) and own.pool == pool:
            pool = None
        found[key] = entry._replace(cd_pool=pool)
    return found

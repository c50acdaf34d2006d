# SPDX-License-Identifier: Apache-2.0
"""What a backend declares: flags and limits. What is declared must work, what is not must be refused."""

from typing import Literal, NamedTuple


class Capabilities(NamedTuple):
    """The capabilities and limits of a backend in one state folder.

    `nesting` is "slot" where each slot nests on a parent of its own, "device" where all nested slots of a RID
    share the RID's parent, "none" where nothing nests. `context_tables_in_guest` says that a binding needs guest
    memory for the table that leads from PASIDs to page tables.
    """

    nesting: Literal["none", "slot", "device"] = "none"
    nesting_obstacle: str = ""
    """Why nothing nests, where hardware could."""
    context_tables_in_guest: bool = False
    hitless_replace: bool = False
    execute_permission: bool = False
    physical_addresses: bool = False
    dirty_tracking: bool = False
    simulates: bool = False
    widths: tuple[int, ...] = (48,)
    parent_widths: tuple[int, ...] = ()
    """Those of nest parents, where they are not the same."""
    page_sizes: tuple[int, ...] = (4096,)
    """Those of the default granule, which is the first of them."""
    granules: tuple[tuple[int, ...], ...] = ()
    """The page sizes of the other granules. A domain has pages of one granule."""
    reserved: tuple[tuple[int, int], ...] = ()
    """Input addresses that no mapping may touch, as (first, last)."""
    pasid_bits: int = 0
    pgtable_formats: tuple[str, ...] = ()
    """Formats of stage-1 tables that can be bound; the first is the default."""
    context_formats: tuple[str, ...] = ()
    """Formats of tables of contexts that a guest owns, and that can be bound to a RID with all its PASIDs."""
    fault_records: bool = False
    """Faults that hardware records can be read."""

    page_responses: tuple[str, ...] = ()
    """What page requests can be answered with, of success, invalid and failure; none where nobody is told of any."""
    page_request_obstacle: str = ""
    """Why nobody is told of any, where hardware could."""

    @property
    def page_sizes_by_granule(self) -> tuple[tuple[int, ...], ...]:
        """The page sizes of each granule, the default one first."""
        return self.page_sizes, *self.granules

    def flags(self) -> dict[str, bool | str]:
        """The yes-or-no part, for `backend show`."""
        return {
            "nesting": self.nesting,
            "context_tables_in_guest": self.context_tables_in_guest,
            "hitless_replace": self.hitless_replace,
            "execute_permission": self.execute_permission,
            "physical_addresses": self.physical_addresses,
            "dirty_tracking": self.dirty_tracking,
            "simulates": self.simulates,
            "fault_records": self.fault_records,
        }

    def limits(self) -> dict[str, object]:
        """The part that has numbers, for `backend show`."""
        return {
            "widths": list(self.widths),
            **({"parent_widths": list(self.parent_widths)} if self.parent_widths else {}),
            "page_sizes": list(self.page_sizes),
            "granules": [list(sizes) for sizes in self.page_sizes_by_granule],
            "reserved": [[f"{first:#x}", f"{last:#x}"] for first, last in self.reserved],
            "pasid_bits": self.pasid_bits,
            "pgtable_formats": list(self.pgtable_formats),
            **({"context_formats": list(self.context_formats)} if self.context_formats else {}),
            **({"page_responses": list(self.page_responses)} if self.page_responses else {}),
        }

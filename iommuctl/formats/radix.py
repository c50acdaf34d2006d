# SPDX-License-Identifier: Apache-2.0
"""One page-table engine for every radix format.

A format (class Format) says how an entry of a level looks; everything else, from finding the largest page that
fits to bounded iteration over hostile memory, is here:

* the driver side, which changes tables: `new_root`, `map_range`, `unmap_range`;
* the hardware side, which reads them: `walk` is *the* page walk;
* the curious, who look at whole trees: `entries`, `leaves`, `check`, `table_runs`.

Each of these takes the format, a view of memory and the address of the root table. The two sides share a format's
geometry and `decode`, and nothing else.
"""

from iommuctl.formats.format import Entry, Format, Visit
from iommuctl.formats.mapping import map_range, new_root
from iommuctl.formats.survey import Leaf, check, combine, entries, leaves, table_runs, walk
from iommuctl.formats.unmapping import Unmapped, unmap_range

__all__ = [
    "Entry",
    "Format",
    "Leaf",
    "Unmapped",
    "Visit",
    "check",
    "combine",
    "entries",
    "leaves",
    "map_range",
    "new_root",
    "table_runs",
    "unmap_range",
    "walk",
]

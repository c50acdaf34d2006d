# SPDX-License-Identifier: Apache-2.0
"""The events that comparisons with QEMU come to, each with a configuration that does."""

from collections.abc import Mapping

from tests.differential.covered import Covered

COVERED: Mapping[int, Covered] = {
    0x02: Covered("a StreamID beyond the table, refused"),
    0x03: Covered("STEs where there is no memory, refused"),
    0x04: Covered("an STE that is not valid, refused"),
    0x09: Covered("cd-fetch-address", "cd-fetch-address"),
    0x0A: Covered("tables of the other byte order, refused"),
    0x0B: Covered("a table where there is no memory, refused"),
    0x10: Covered("a top byte, refused"),
    0x11: Covered("size-last", "size-last"),
    0x12: Covered("a page whose accessed flag is not set, refused"),
    0x13: Covered("a page that is read-only, refused"),
}
"""By the number of our event."""

# SPDX-License-Identifier: Apache-2.0
"""The fault reasons that comparisons with QEMU come to, each with a configuration that does."""

from collections.abc import Mapping

from tests.differential.covered import Covered

COVERED: Mapping[int, Covered] = {
    0x01: Covered(57),
    0x02: Covered(0),
    0x03: Covered(6),
    0x04: Covered(1),
    0x05: Covered("FPD of a legacy context entry"),
    0x06: Covered("a page is invalidated"),
    0x07: Covered(47),
    0x09: Covered(36),
    0x0A: Covered("FPD does not silence a root entry"),
    0x0B: Covered(65),
    0x0C: Covered(52),
    0x0E: Covered(1),
    0x3A: Covered(110, "legacy-codes"),
    0x40: Covered(134, "legacy-codes"),
    0x41: Covered(96, "legacy-codes"),
    0x42: Covered("context-gates", "context-gates"),
    0x50: Covered(70),
    0x51: Covered(3),
    0x52: Covered(3, "pasid-reserved, legacy-codes"),
    0x58: Covered(103),
    0x59: Covered(128),
    0x5A: Covered("pasid-reserved", "pasid-reserved"),
    0x5B: Covered(13),
    0x70: Covered(259),
    0x71: Covered("FPD of a PASID entry"),
    0x72: Covered(227),
    0x78: Covered(84, "legacy-codes"),
    0x79: Covered("legacy-codes", "legacy-codes"),
    0x7A: Covered("rights-at-once", "rights-at-once, legacy-codes"),
    0x80: Covered(9),
    0x81: Covered(9),
    0x83: Covered(2, "through-unchecked"),
    0x84: Covered(3, "legacy-codes"),
    0x85: Covered("accessed-on-the-way"),
    0x86: Covered(10, "legacy-codes"),
    0x87: Covered(18),
    0x90: Covered("updates-unsnooped", "updates-unsnooped"),
}
"""By our fault code. Where a configuration without deviations was found, it is named."""

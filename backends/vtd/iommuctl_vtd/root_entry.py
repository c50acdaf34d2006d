# SPDX-License-Identifier: Apache-2.0
"""The root table: one entry for each bus, 4 KiB in all."""

from iommuctl.formats.bits import Address, Bit, Layout


class RootEntry(Layout, bits=128, name="vtd.root-entry", present="P"):
    """Root entry of legacy mode: VT-d 4.1 section 9.1."""

    P = Bit(0)
    """The bus has a context table."""
    CTP = Address(63, 12)
    """Context table of all devices of the bus."""


class ScalableRootEntry(Layout, bits=128, name="vtd.scalable-root-entry"):
    """Scalable-mode root entry: VT-d 4.1 section 9.2.

    The two halves are independent: hardware looks only at the one that bit 7 of device and function selects.
    """

    LP = Bit(0)
    """The lower half is present."""
    LCTP = Address(63, 12)
    """Context table of devices 0 to 15."""

    UP = Bit(64)
    """The upper half is present."""
    UCTP = Address(127, 76)
    """Context table of devices 16 to 31."""

    @classmethod
    def checked(cls, raw: int) -> int:
        half = (1 << 64) - 1
        return cls.LP.get(raw) * half | cls.UP.get(raw) * half << 64

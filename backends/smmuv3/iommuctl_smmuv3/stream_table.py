# SPDX-License-Identifier: Apache-2.0
"""From a StreamID to an STE: the first level of a two-level stream table. The linear one has STEs only."""

from iommuctl.formats.bits import Address, Bits, Layout
from iommuctl.formats.checks import Check

MAX_SPAN = 11
"""The largest Span that has a meaning; larger ones behave as 0."""
_STE_SIZE = 64


def array_size(span: int) -> int:
    """Bytes of the array of STEs that a Span from 1 to 11 tells of. Its address is taken to be a multiple of them."""
    return _STE_SIZE << span - 1


class L1Std(Layout, bits=64, name="smmuv3.l1std", present="Span"):
    """Level 1 stream table descriptor: IHI0070 G.b section 5.1. Bits of a StreamID above SPLIT select it."""

    Span = Bits(4, 0)
    """There are 2**(Span - 1) STEs at L2Ptr, and none where it is 0; more than SPLIT + 1 is a bad StreamID."""
    L2Ptr = Address(55, 6)
    """The array of STEs. Its alignment is its size: lower bits are taken to be zero."""

    checks = (
        Check(Span, f"must be at most {MAX_SPAN}", lambda entry: entry.Span <= MAX_SPAN),
        Check(
            L2Ptr,
            "should be a multiple of the array's 64 * 2**(Span - 1) bytes",
            lambda entry: entry.Span > MAX_SPAN or not entry.L2Ptr % array_size(entry.Span),
        ),
    )

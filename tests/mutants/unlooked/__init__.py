# SPDX-License-Identifier: Apache-2.0
"""The fields that QEMU does not look at: if one of them were declared one bit off, QEMU would not tell.

Each is held by a vector instead: words from the specification. The lists hold in both directions, as a field that QEMU
does tell of must not be on one.
"""

ALL = "*"
"""Every field of a structure."""

# SPDX-License-Identifier: Apache-2.0
"""What descriptors allow, to whom: DDI0487 M.a.a section D8.4, and IHI0070 G.b section 5.4 for what a CD adds.

Rights are a number: one bit for each of reading, writing and executing, first of unprivileged, then of privileged
requests.
"""

from iommuctl.model import Access
from iommuctl_smmuv3.cd_rules import StreamWorld
from iommuctl_smmuv3.stage1 import Stage1Descriptor
from iommuctl_smmuv3.stage2 import Stage2Descriptor

READ, WRITE, EXECUTE = 1, 2, 4
ALL = 0b111111
_PRIVILEGED = 3
"""How far the rights of privileged requests stand above the others."""
_EL0, _READ_ONLY = 1, 2
"""Bits of AP[2:1], of which the first allows what the second forbids; those of APTable forbid both."""


def needed(access: Access, *, privileged: bool) -> int:
    """The right that a request needs."""
    right = {"r": READ, "w": WRITE, "x": EXECUTE}[access]
    return right << _PRIVILEGED if privileged else right


def words(right: int) -> str:
    """A right that `needed` gave, as what it is for."""
    what = {READ: "reads", WRITE: "writes", EXECUTE: "execution"}
    return f"privileged {what[right >> _PRIVILEGED]}" if right >> _PRIVILEGED else f"unprivileged {what[right]}"


def letters(rights: int, *, privileged: bool) -> str:
    """What a request may do there, of "rwx"."""
    own = rights >> _PRIVILEGED if privileged else rights
    return "".join(letter for letter, right in (("r", READ), ("w", WRITE), ("x", EXECUTE)) if own & right)


class Hierarchy:
    """What the tables on the way to a page take away, as they are met. With HAD they take nothing."""

    def __init__(self, *, disabled: bool) -> None:
        self._disabled = disabled
        self.ap = self.uxn = self.pxn = 0

    def add(self, raw: int) -> None:
        """Pass a table descriptor."""
        if not self._disabled:
            self.ap |= Stage1Descriptor.APTable.get(raw)
            self.uxn |= Stage1Descriptor.UXNTable.get(raw)
            self.pxn |= Stage1Descriptor.PXNTable.get(raw)


def stage1(raw: int, above: Hierarchy, world: StreamWorld, *, writable: bool, wxn: bool, pan: bool) -> int:
    """The rights that a page or block of stage 1 gives. `writable` overrules AP[2]: the dirty state may be updated."""
    ap = Stage1Descriptor.AP.get(raw)
    write = bool(writable or not ap & _READ_ONLY) and not above.ap & _READ_ONLY
    uxn = bool(Stage1Descriptor.UXN.get(raw) | above.uxn)
    pxn = bool(Stage1Descriptor.PXN.get(raw) | above.pxn)
    if world is StreamWorld.NS_EL2:
        # One privilege level: AP[1] is taken as 1, and XN is for all.
        rights = READ | (WRITE if write else 0) | (0 if uxn or (wxn and write) else EXECUTE)
        return rights | rights << _PRIVILEGED
    user = bool(ap & _EL0) and not above.ap & _EL0
    user_rights = (READ | (WRITE if write else 0)) if user else 0
    if not uxn and not (wxn and user and write):
        user_rights |= EXECUTE
    own = 0 if pan and user else READ | (WRITE if write else 0)
    # What EL0 can write is never executed with privilege.
    if not pxn and not (user and write) and not (wxn and write):
        own |= EXECUTE
    return user_rights | own << _PRIVILEGED


def stage2(raw: int, *, writable: bool, xnx: bool) -> int:
    """The rights that a page or block of stage 2 gives. `writable` overrules S2AP[1]."""
    access = Stage2Descriptor.S2AP.get(raw)
    data = (READ if access & 1 else 0) | (WRITE if writable or access & 2 else 0)
    xn = Stage2Descriptor.XN.get(raw)
    if xnx:
        user, own = xn in (0b00, 0b01), xn in (0b00, 0b11)
    else:
        user = own = not xn & 0b10
    return data | (EXECUTE if user else 0) | (data | (EXECUTE if own else 0)) << _PRIVILEGED

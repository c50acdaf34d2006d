# SPDX-License-Identifier: Apache-2.0
"""Every error that iommuctl raises on purpose: an id, what happened, why, and what to do about it.

A class stands for one id of the command line's contract, so a library user can catch `Overlap` and a script can
match `"overlap"`. The base classes carry the exit codes.
"""

from typing import ClassVar


class IommuError(Exception):
    """Base of all errors; `str()` gives what, because and hint on lines of their own."""

    id: ClassVar[str] = "internal"
    exit: ClassVar[int] = 1

    def __init__(self, what: str, *, because: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.because = because
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"error[{self.id}]: {self.what}"]
        if self.because:
            lines.append(f"because: {self.because}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class RefusedError(IommuError):
    """A rule refuses the operation, or it failed (exit 1)."""

    exit = 1


class MalformedError(IommuError):
    """The input cannot be understood (exit 2)."""

    exit = 2


class CannotError(IommuError):
    """This backend or this device cannot do it (exit 3)."""

    exit = 3


class NoSuchObjectError(IommuError):
    """The object that was named does not exist (exit 4)."""

    exit = 4


class Overlap(RefusedError):
    """The range is mapped already, wholly or in part."""

    id = "overlap"


class PartialUnmap(RefusedError):
    """The range to unmap cuts a mapping in two, or holds none."""

    id = "partial-unmap"


class Misaligned(RefusedError):
    """An address or size is not a multiple of the smallest page size."""

    id = "misaligned"


class OutOfAperture(RefusedError):
    """The range reaches beyond the addresses that the table can translate."""

    id = "out-of-aperture"


class ReservedRange(RefusedError):
    """The range touches addresses that the platform keeps, for interrupts or for the tables themselves."""

    id = "reserved-range"


class SlotOccupied(RefusedError):
    """The slot holds a table already."""

    id = "slot-occupied"


class SlotEmpty(RefusedError):
    """The slot does not hold the domain."""

    id = "slot-empty"


class SlotBound(RefusedError):
    """The slot holds a binding, which must be unbound first."""

    id = "slot-bound"


class NameTaken(RefusedError):
    """An object of that kind has the name already."""

    id = "name-taken"


class InUse(RefusedError):
    """The object has users, which the message lists."""

    id = "in-use"


class ParentNotAttached(RefusedError):
    """The device is not attached to the domain that the page table is to be nested on."""

    id = "parent-not-attached"


class DeviceNotBound(RefusedError):
    """The device is not with vfio-pci, or not held by iommuctl: `device bind` does both."""

    id = "device-not-bound"


class PlanOutdated(RefusedError):
    """The state was changed since the plan was made."""

    id = "plan-outdated"


class NotNestParent(RefusedError):
    """The domain was not created with --nest-parent."""

    id = "not-nest-parent"


class NothingBound(RefusedError):
    """No page table is bound where one was expected."""

    id = "nothing-bound"


class NotWaiting(RefusedError):
    """Nobody waits for that answer: it was given before, or the fault has none."""

    id = "not-waiting"


class StateDamaged(RefusedError):
    """The state folder cannot be trusted: a file of it is truncated, foreign or missing."""

    id = "state-damaged"


class StateNewer(RefusedError):
    """The state folder was written by a newer version of iommuctl."""

    id = "state-newer"


class DiskFailed(RefusedError):
    """The disk of the state folder failed while it was read or written."""

    id = "disk-failed"


class NoRoom(RefusedError):
    """Something that there is a limited number of has run out: table memory, domain ids, PASIDs, disk."""

    id = "no-room"


class OutsideMemory(RefusedError):
    """An address range is not in the memory that it should be in."""

    id = "outside-memory"


class DamagedTable(RefusedError):
    """A table in memory holds entries that the operation cannot deal with."""

    id = "damaged-table"


class Usage(MalformedError):
    """The command line or the call does not have the form it should have."""

    id = "usage"


class BadNumber(MalformedError):
    """A number, address or size does not parse, or does not fit where it goes."""

    id = "bad-number"


class BadRid(MalformedError):
    """A RID is not of the form domain:bus:device.function."""

    id = "bad-rid"


class BadStructure(MalformedError):
    """Values do not fit into a hardware structure, or words are not one."""

    id = "bad-structure"


class ZeroSize(MalformedError):
    """A size is zero."""

    id = "zero-size"


class PasidZero(MalformedError):
    """PASID 0 was named; it is the slot of the RID itself."""

    id = "pasid-zero"


class BadDocument(MalformedError):
    """A document cannot be read."""

    id = "bad-document"


class OtherBackend(MalformedError):
    """The state folder belongs to another backend."""

    id = "other-backend"


class Unsupported(CannotError):
    """The backend declares that it cannot do this."""

    id = "unsupported"


class NoPasidSupport(CannotError):
    """The device has no PASIDs."""

    id = "no-pasid-support"


class PasidTooWide(CannotError):
    """The PASID has more bits than the device issues."""

    id = "pasid-too-wide"


class CannotNest(CannotError):
    """The backend cannot nest a page table there."""

    id = "cannot-nest"


class NoAts(CannotError):
    """The device has no ATS."""

    id = "no-ats"


class BackendUnavailable(CannotError):
    """The backend does not exist or cannot work on this machine."""

    id = "backend-unavailable"


class NoSuchDomain(NoSuchObjectError):
    """No domain has that name or id."""

    id = "no-such-domain"


class NoSuchDevice(NoSuchObjectError):
    """No device has that RID."""

    id = "no-such-device"


class NoSuchPgtable(NoSuchObjectError):
    """No page table has that name or id."""

    id = "no-such-pgtable"


class NoSuchMemory(NoSuchObjectError):
    """No memory has that name or id."""

    id = "no-such-memory"


class NoSuchFault(NoSuchObjectError):
    """No fault of that number is known."""

    id = "no-such-fault"


class NoSuchStructure(NoSuchObjectError):
    """No architecture has a structure of that name."""

    id = "no-such-structure"


class NoSuchUnit(NoSuchObjectError):
    """No IOMMU unit has that name."""

    id = "no-such-unit"


class PermissionRefused(IommuError):
    """The operating system does not let this user do it."""

    id = "permission"
    exit = 5


class KernelRefused(IommuError):
    """The kernel refused a call; the message names the call, its error and the field that is to blame."""

    id = "kernel-refused"
    exit = 5

    def __init__(self, what: str, *, errno: int = 0, because: str = "", hint: str = "") -> None:
        super().__init__(what, because=because, hint=hint)
        self.errno = errno


class GroupNotViable(IommuError):
    """Devices of the same IOMMU group are held by other drivers; the message names them."""

    id = "group-not-viable"
    exit = 5


class Lost(IommuError):
    """The kernel objects that rows tell of are gone, with the process that kept them."""

    id = "lost"
    exit = 5

    @classmethod
    def all_of_it(cls, because: str) -> "Lost":
        """The error of what needs any of them."""
        hint = "`iommuctl recover` makes them again"
        return cls("the kernel's objects of this state folder are gone", because=because, hint=hint)


class SystemFailed(IommuError):
    """The operating system could not do what was asked: a path that cannot be, an I/O error."""

    id = "system"
    exit = 5

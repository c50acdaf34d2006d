# SPDX-License-Identifier: Apache-2.0
"""Declared bit layouts: a hardware structure is written down once, as its specification prints it.

    class PasidDirectoryEntry(Layout, bits=64, name="vtd.pasid-directory-entry"):
        '''PASID directory entry: VT-d 4.1 section 9.5.'''

        P = Bit(0)
        FPD = Bit(1)
        SMPTBLPTR = Address(63, 12)

    PasidDirectoryEntry.encode(P=1, SMPTBLPTR=0x5000)   # 0x5001
    PasidDirectoryEntry.decode(0x5001)                  # {"P": 1, "FPD": 0, "SMPTBLPTR": 0x5000}
    PasidDirectoryEntry.P.get(0x5001)                   # 1

Bits are numbered in the whole structure, as `[511:0]` of the specification; words are little-endian. Every bit
that no field names is reserved: setting one is an error, and so is a value that its field cannot hold.

Where another revision of the specification differs, a subclass says how, and no more than that:

    class PasidEntryRev3(PasidEntry, revision=3):
        '''PASID table entry as revision 3 has it: more fields than VT-d 4.1 section 9.6.'''

        SLEE = Bit(5)

    PasidEntry.revisions            # {4: PasidEntry, 3: PasidEntryRev3}

And where a structure is like another, but for some bits, its fields take the place of those that they overlap:

    class Stage1DescriptorDs(Stage1Descriptor, variant="smmuv3.stage-1-descriptor-ds"):
        '''Stage 1 descriptor of the 52-bit formats: DDI0487 M.a.a section D8.3.'''

        OA = Address(49, 12)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from iommuctl.errors import BadStructure

if TYPE_CHECKING:
    from iommuctl.formats.checks import Check

_WORD = 64
_ALL_ONES = (1 << _WORD) - 1


class Field:
    """Bits msb..lsb of a structure. The value is what stands in these bits, shifted down.

    `values` names values for people. `needs` is a capability without which hardware treats the bits as reserved.
    `by_hardware` says that hardware sets the bits of a live structure by itself, as accessed and dirty bits are.
    """

    __slots__ = ("bias", "by_hardware", "lsb", "mask", "msb", "name", "needs", "values", "width")

    def __init__(
        self,
        msb: int,
        lsb: int,
        *,
        values: Mapping[int, str] | None = None,
        needs: str | None = None,
        by_hardware: bool = False,
    ) -> None:
        self.name = ""
        self.msb, self.lsb = msb, lsb
        self.width = max(0, msb - lsb + 1)
        self.mask = ((1 << self.width) - 1) << lsb
        self.bias = lsb
        """How far a value is shifted to its place."""
        self.values = values or {}
        self.needs = needs
        self.by_hardware = by_hardware

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def get(self, raw: int) -> int:
        """The field's value in a structure."""
        return (raw & self.mask) >> self.bias

    def put(self, value: int) -> int:
        """The value at its place in the structure. Raises BadStructure for one that does not fit."""
        placed = value << self.bias
        if value < 0 or placed & ~self.mask:
            raise BadStructure(f"{value:#x} does not fit field {self.name}", because=f"{self.name} is {self._holds()}")
        return placed

    def _holds(self) -> str:
        bits = f"bit {self.lsb}" if self.width == 1 else f"bits {self.msb}:{self.lsb}"
        return f"{bits}, {self.width} wide, so at most {self.mask >> self.bias:#x}"


class Bits(Field):
    """A number of several bits."""

    __slots__ = ()


class Bit(Field):
    """A single bit."""

    __slots__ = ()

    def __init__(
        self,
        position: int,
        *,
        values: Mapping[int, str] | None = None,
        needs: str | None = None,
        by_hardware: bool = False,
    ) -> None:
        super().__init__(position, position, values=values, needs=needs, by_hardware=by_hardware)


class Address(Field):
    """The upper bits of an address: the value is the address itself, whose lower bits must be zero."""

    __slots__ = ()

    def __init__(self, msb: int, lsb: int, *, needs: str | None = None) -> None:
        super().__init__(msb, lsb, needs=needs)
        self.bias = lsb - lsb % 64

    def _holds(self) -> str:
        low = self.lsb - self.bias
        return f"bits {self.msb}:{self.lsb}, an address of {low + self.width} bits that is a multiple of {1 << low:#x}"


class Fixed(Field):
    """Bits that always hold one value, as the type code of a command does."""

    __slots__ = ("value",)

    def __init__(self, msb: int, lsb: int, value: int, *, values: Mapping[int, str] | None = None) -> None:
        super().__init__(msb, lsb, values=values)
        self.value = value


class Ignored(Field):
    """Bits that hardware ignores and software may use: neither reserved nor shown."""

    __slots__ = ()


class Layout:
    """Base of every declared structure. A subclass's docstring names specification, revision and section.

    A layout has no instances: structures are integers of `bits` bits.
    """

    bits: ClassVar[int]
    name: ClassVar[str]
    revision: ClassVar[int | None]
    """The revision of the specification whose layout this is; None for a structure that has one layout in all."""
    revisions: ClassVar[dict[int, type["Layout"]]]
    """All layouts of this structure by revision, beginning with the one that the others are declared from."""
    fields: ClassVar[tuple[Field, ...]]
    """From the lowest bit up, without the ignored ones."""
    reserved: ClassVar[int]
    """Mask of the bits that no field names."""
    ignored: ClassVar[int]
    """Mask of the bits that hardware ignores."""
    by_hardware: ClassVar[int]
    """Mask of the bits that hardware sets by itself."""
    fixed: ClassVar[int]
    """What the fixed fields hold."""
    present: ClassVar[Field | None] = None
    """The bit that makes hardware look at the rest."""
    checks: ClassVar[tuple["Check", ...]] = ()
    """What the specification demands beyond the layout; see `iommuctl.formats.checks`."""
    _declared: ClassVar[Mapping[str, Field]] = {}
    _by_name: ClassVar[dict[str, Field]]
    _places: ClassVar[tuple[tuple[str, int, int], ...]]
    """Name, mask and bias of each field, since every entry of every walk is taken apart."""

    def __init_subclass__(
        cls,
        bits: int = 0,
        name: str = "",
        revision: int | None = None,
        variant: str = "",
        present: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        own = {n: field for n, field in vars(cls).items() if isinstance(field, Field)}
        inherited = cls._declared
        if variant:
            cls.name, cls.revisions = variant, {}
            inherited = {n: f for n, f in inherited.items() if not any(f.mask & field.mask for field in own.values())}
        elif cls.__mro__[1] is Layout:
            if not bits or not name:
                raise TypeError(f"{cls.__name__} needs `bits` and `name`")
            cls.bits, cls.name, cls.revisions = bits, name, {}
        elif bits or name or not cls.revisions or revision in (None, *cls.revisions):
            raise TypeError(f"{cls.__name__} must be another revision of {cls.name}: `revision=…` and nothing else")
        cls._declared = {**inherited, **own}
        cls._check()
        cls._derive()
        if present:
            cls.present = cls.field(present)
        cls.revision = revision
        if revision is not None:
            cls.revisions[revision] = cls

    @classmethod
    def _check(cls) -> None:
        """Check the declared fields against the structure's size and against each other."""
        declared, bits = cls._declared.values(), cls.bits
        used = 0
        for field in declared:
            where = f"{cls.__name__}.{field.name}"
            if not 0 <= field.lsb <= field.msb < bits:
                raise TypeError(f"{where}: bits {field.msb}:{field.lsb} are not in {bits} bits")
            if used & field.mask:
                other = next(other for other in declared if other.mask & field.mask)
                raise TypeError(f"{where} overlaps {other.name} in {bit_names(other.mask & field.mask)}")
            used |= field.mask
            if isinstance(field, Fixed) and field.value >> field.width:
                raise TypeError(f"{where}: {field.value:#x} does not fit {field.width} bits")

    @classmethod
    def _derive(cls) -> None:
        """Compute all that follows from the declared fields."""
        used = fixed = ignored = by_hardware = 0
        for field in cls._declared.values():
            used |= field.mask
            if field.by_hardware:
                by_hardware |= field.mask
            if isinstance(field, Ignored):
                ignored |= field.mask
            if isinstance(field, Fixed):
                fixed |= field.put(field.value)
        shown = [field for field in cls._declared.values() if not isinstance(field, Ignored)]
        cls.fields = tuple(sorted(shown, key=lambda field: field.lsb))
        cls.fixed, cls.ignored, cls.reserved = fixed, ignored, ~used & ((1 << cls.bits) - 1)
        cls.by_hardware = by_hardware
        cls._by_name = {field.name: field for field in cls.fields}
        cls._places = tuple((field.name, field.mask, field.bias) for field in cls.fields)

    @classmethod
    def field(cls, name: str) -> Field:
        """The field of that name. Raises BadStructure."""
        try:
            return cls._by_name[name]
        except KeyError:
            raise BadStructure(
                f"{cls.name} has no field {name}", hint=f"its fields are {', '.join(cls._by_name)}"
            ) from None

    @classmethod
    def encode(cls, **values: int) -> int:
        """The structure that holds these values; fields that are not given are zero.

        Raises BadStructure for an unknown field and for a value that does not fit.
        """
        raw = cls.fixed
        for name, value in values.items():
            field = cls.field(name)
            placed = field.put(value)
            if isinstance(field, Fixed) and value != field.value:
                raise BadStructure(f"{name} of {cls.name} is always {field.value:#x}, not {value:#x}")
            raw |= placed
        return raw

    @classmethod
    def decode(cls, raw: int) -> dict[str, int]:
        """The value of every field. Raises BadStructure where `misfits` finds something."""
        if found := cls.misfits(raw):
            raise BadStructure(f"{raw:#x} is not a valid {cls.name}", because="; ".join(found))
        return cls.values(raw)

    @classmethod
    def values(cls, raw: int) -> dict[str, int]:
        """The value of every field, whatever the reserved bits hold."""
        return {name: (raw & mask) >> bias for name, mask, bias in cls._places}

    @classmethod
    def checked(cls, raw: int) -> int:
        """Mask of the bits that hardware checks: none of them in a structure that is not present."""
        return 0 if cls.present and not cls.present.get(raw) else (1 << cls.bits) - 1

    @classmethod
    def misfits(cls, raw: int, checked: int = -1) -> list[str]:
        """Sentences about what the layout alone forbids, in these bits; none for a structure that it could encode."""
        if raw < 0 or raw >> cls.bits:
            return [f"it has more than {cls.bits} bits"]
        found = [
            f"{field.name} is {field.get(raw):#x} but always {field.value:#x} in this structure"
            for field in cls.fields
            if isinstance(field, Fixed) and field.mask & checked and field.get(raw) != field.value
        ]
        if reserved := raw & cls.reserved & checked:
            found.append(f"reserved {bit_names(reserved)} set")
        return found

    @classmethod
    def reserved_without(cls, has: Callable[[str], bool]) -> int:
        """Mask of the reserved bits on hardware where `has(capability)` tells what there is."""
        mask = cls.reserved
        for field in cls.fields:
            if field.needs and not has(field.needs):
                mask |= field.mask
        return mask

    @classmethod
    def to_words(cls, raw: int) -> tuple[int, ...]:
        """The structure as 64-bit words, lowest first (one word for structures of 64 bits and less)."""
        if cls.bits <= _WORD:
            return (raw,)
        return tuple(raw >> shift & _ALL_ONES for shift in range(0, cls.bits, _WORD))

    @classmethod
    def from_words(cls, words: Iterable[int]) -> int:
        """The reverse of `to_words`; words that are missing at the end are zero. Raises BadStructure."""
        raw = shift = 0
        for word in words:
            width = min(64, cls.bits - shift)
            if width <= 0:
                raise BadStructure(f"too many words for {cls.name}", because=f"it has {cls.bits} bits")
            if word < 0 or word >> width:
                raise BadStructure(f"{word:#x} is not a word of {cls.name}", because=f"that word has {width} bits")
            raw |= word << shift
            shift += 64
        return raw

    @classmethod
    def told(cls, raw: int) -> int:
        """The structure without the bits that hardware ignores or sets by itself: what software told it."""
        return raw & ~(cls.ignored | cls.by_hardware)

    @classmethod
    def used(cls, raw: int) -> int:
        """Mask of the bits that hardware looks at in a structure that holds this, and does not set by itself."""
        if cls.present and not cls.present.get(raw):
            return cls.present.mask
        return cls.told((1 << cls.bits) - 1)

    @classmethod
    def to_bytes(cls, raw: int) -> bytes:
        """The structure as it lies in memory."""
        return raw.to_bytes(cls.bits // 8, "little")


def bit_names(mask: int) -> str:
    """The bits of a mask in words: `bit 3`, `bits 11:8, 5`."""
    runs: list[str] = []
    while mask:
        low = (mask & -mask).bit_length() - 1
        width = ((mask >> low) ^ ((mask >> low) + 1)).bit_length() - 1
        runs.append(str(low) if width == 1 else f"{low + width - 1}:{low}")
        mask &= ~(((1 << width) - 1) << low)
    plural = len(runs) > 1 or ":" in runs[0]
    return f"{'bits' if plural else 'bit'} {', '.join(reversed(runs))}"

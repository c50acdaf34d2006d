# SPDX-License-Identifier: Apache-2.0
"""The walks of both stages' tables: DDI0487 M.a.a chapter D8, IHI0070 G.b sections 3.4 and 7.3.

Where QEMU differs, a walk asks its reader which of the two it is.
"""

from collections.abc import Callable
from typing import NamedTuple

from iommuctl_smmuv3.events import CLASS_IN, CLASS_TT
from tests.differential.smmuv3 import descriptors
from tests.differential.smmuv3.caches import Tag, Translation
from tests.differential.smmuv3.descriptors import LAST, shift
from tests.differential.smmuv3.reader import Reader
from tests.differential.smmuv3.records import (
    ACCESS,
    ADDR_SIZE,
    PERMISSION,
    TRANSLATION,
    WALK_EABT,
    Place,
    Refused,
    Request,
    external_abort,
    translation,
)

STAGE_1_DESCRIPTOR, STAGE_2_DESCRIPTOR = "smmuv3.stage-1-descriptor", "smmuv3.stage-2-descriptor"
_ADDRESS = (1 << 48) - 1


class Geometry(NamedTuple):
    """A tree's shape: base, granule in bytes, width of inputs, start level, width of outputs; both in bits."""

    base: int
    granule: int
    bits: int
    start: int
    output: int


class Leaf(NamedTuple):
    """A leaf, whose output address has been told apart. `too_large` says that it is beyond the size of outputs."""

    raw: int
    level: int
    output: int
    too_large: bool


def output_address(reader: Reader, raw: int, level: int, tree: Geometry) -> tuple[bool, int]:
    """Whether a valid descriptor is a leaf, and its output address; raises LookupError for one that is reserved."""
    leaf = level == LAST or not raw & descriptors.TABLE_OR_PAGE
    if not raw & descriptors.VALID or (level == LAST and not raw & descriptors.TABLE_OR_PAGE):
        raise LookupError
    block = leaf and level < LAST
    if block and level not in descriptors.block_levels(tree.granule) and not reader.deviates("block-level"):
        raise LookupError
    low = shift(tree.granule, level) if leaf else tree.granule.bit_length() - 1
    return leaf, raw & _ADDRESS & -(1 << low)


class Stage2:
    """A stage 2, with what its STE says of faults."""

    def __init__(self, reader: Reader, tree: Geometry, *, affd: bool, recorded: bool) -> None:
        self._reader = reader
        self._tree = tree
        self._affd = affd
        self._recorded = recorded

    def translate(self, request: Request, ipa: int, cls: int, *, read: bool | None = None) -> int:
        """The address that an IPA has. What is not the input itself is read. `read` is RnW of a record."""
        reader, tree = self._reader, self._tree
        place = Place(True, cls, ipa if ipa & 0xFFF and reader.deviates("ipa-low-bits") else ipa & -4096)

        def refused(code: int) -> Refused:
            told = code == PERMISSION and cls == CLASS_TT and not reader.deviates("ttrnw")
            return translation(code, request, place, recorded=self._recorded, read=read, table_read=told)

        if ipa >> tree.bits:
            raise refused(TRANSLATION)
        base, level = tree.base, tree.start
        index = ipa >> shift(tree.granule, level)
        if index >= tree.granule // 8 and reader.deviates("concatenation"):
            index %= tree.granule // 8
        while True:
            address = base + 8 * index
            words = reader.read(STAGE_2_DESCRIPTOR, address, 1, 2)
            if words is None:
                raise external_abort(request, place, address, read=read)
            try:
                leaf, output = output_address(reader, words[0], level, tree)
            except LookupError:
                raise refused(TRANSLATION) from None
            if leaf:
                break
            if output >> tree.output and not reader.deviates("table-size"):
                raise refused(ADDR_SIZE)
            base, level = output, level + 1
            index = ipa >> shift(tree.granule, level) & tree.granule // 8 - 1
        raw = words[0]
        write = request.write and cls == CLASS_IN
        needed = descriptors.S2AP_WRITE if write else descriptors.S2AP_READ
        found = [(ACCESS, not raw & descriptors.AF and not self._affd), (PERMISSION, not raw & needed)]
        _judge(reader, refused, found, bool(output >> tree.output))
        if cls == CLASS_IN:
            reader.found(1 << shift(tree.granule, level), tree.granule)
            assert reader.asked
            size = 1 << shift(tree.granule, level)
            reader.stage_2 = Translation(Tag(reader.asked.tag.vmid), ipa & -size, output, size, tree.granule)
        return output | ipa & (1 << shift(tree.granule, level)) - 1


class Stage1:
    """A stage 1 of one TTB, with what its CD says of faults. `below` is what its tables' addresses go through."""

    def __init__(
        self, reader: Reader, tree: Geometry, below: Stage2 | None, *, affd: bool, had: bool, recorded: bool
    ) -> None:
        self._reader = reader
        self._tree = tree
        self._below = below
        self._affd = affd
        self._had = had
        self._recorded = recorded

    def translate(self, request: Request, base: int, *, translated: bool) -> int:
        """The output address. `base` is the start table, which is `translated` already where QEMU does so."""
        reader, tree = self._reader, self._tree

        def refused(code: int) -> Refused:
            return translation(code, request, Place(False, CLASS_IN), recorded=self._recorded)

        iova, level, limits = request.iova & (1 << tree.bits) - 1, tree.start, 0
        while True:
            index = iova >> shift(tree.granule, level)
            if level > tree.start:
                index %= tree.granule // 8
            address = base + 8 * index
            if self._below and not translated:
                address = self._below.translate(request, address, CLASS_TT)
            words = reader.read(STAGE_1_DESCRIPTOR, address, 1, 1)
            if words is None:
                raise external_abort(request, Place(False, CLASS_TT), address)
            raw = words[0]
            try:
                leaf, output = output_address(reader, raw, level, tree)
            except LookupError:
                raise refused(TRANSLATION) from None
            if leaf:
                break
            if not self._had:
                limits |= raw
                if request.write and raw & descriptors.APTABLE_NO_WRITE and reader.deviates("aptable-at-once"):
                    raise refused(PERMISSION)
            if output >> tree.output:
                if self._below and reader.deviates("table-fetch"):
                    raise translation(ADDR_SIZE, request, Place(False, CLASS_TT, output), recorded=self._recorded)
                if self._below or not reader.deviates("table-size"):
                    raise refused(ADDR_SIZE)
            base, level = output, level + 1
            if self._below:
                base, translated = self._next_table(request, base)
        unused = not raw & descriptors.AF and not self._affd
        found = [(ACCESS, unused), (PERMISSION, self._denied(request, raw, limits))]
        _judge(reader, refused, found, bool(output >> tree.output))
        reader.found(1 << shift(tree.granule, level), tree.granule)
        return output | iova & (1 << shift(tree.granule, level)) - 1

    def _next_table(self, request: Request, table: int) -> tuple[int, bool]:
        """A table below the start table, and whether it is at a physical address."""
        assert self._below
        if not self._reader.deviates("table-fetch"):
            return table, False
        try:
            return self._below.translate(request, table, CLASS_TT), True
        except Refused as error:
            code = error.faulted.code
            assert code is not None
            place = Place(False, CLASS_TT, table)
            if code == WALK_EABT:
                raise external_abort(request, place, table) from None
            raise translation(code, request, place, recorded=self._recorded) from None

    def _denied(self, request: Request, raw: int, limits: int) -> bool:
        unprivileged = raw & descriptors.AP_UNPRIVILEGED and not limits & descriptors.APTABLE_NO_UNPRIVILEGED
        if not unprivileged and not self._reader.deviates("always-privileged"):
            return True
        return request.write and bool(raw & descriptors.AP_READ_ONLY or limits & descriptors.APTABLE_NO_WRITE)


def _judge(reader: Reader, refused: Callable[[int], Refused], found: list[tuple[int, bool]], too_large: bool) -> None:
    """Raise what is first wrong with a leaf."""
    wrong = [code for code, applies in found if applies]
    if too_large:
        wrong = [*wrong, ADDR_SIZE] if wrong and reader.deviates("size-last") else [ADDR_SIZE]
    if wrong:
        raise refused(wrong[0])

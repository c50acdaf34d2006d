# SPDX-License-Identifier: Apache-2.0
"""Structures as a walk takes them: whether they can be used, and what their pointers are.

What makes an STE or a CD ILLEGAL is said by the package; QEMU, which says it otherwise, is the judge of that.
"""

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3 import cd as cds
from iommuctl_smmuv3 import ste as stes
from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.stage2_geometry import GRANULES
from iommuctl_smmuv3.ste import STAGE_1, STAGE_2, WITH_STAGE_2, Ste
from tests.differential.smmuv3.descriptors import shift
from tests.differential.smmuv3.reader import Reader


def aligned(reader: Reader, base: int, bits: int, granule: int, start: int) -> int:
    """A start table, or several side by side: lower bits of its address than its size are zero."""
    size = bits - shift(granule, start) + 3
    if size < 0:
        reader.fatal()
    return base & -(1 << max(0, size))


def without_bits(reader: Reader, layout: type[Layout], raw: int, *names: str) -> int:
    """A structure without bits 55:52 of these addresses, where QEMU has none."""
    for name in names:
        field = layout.field(name)
        if field.get(raw) >> 52 and reader.deviates("ttb-bits"):
            raw = raw & ~field.mask | field.put(field.get(raw) & (1 << 52) - 1)
    return raw


def start_level(granule: int, code: int) -> int:
    """The level of S2SL0."""
    return 2 - code if granule == 1 << 12 else 3 - code


def ste(reader: Reader, raw: int) -> tuple[int, bool]:
    """An STE that is valid or not and does not abort, as it is used, and whether it is legal."""
    legal, config = not stes.illegal(raw, reader.features), Ste.Config.get(raw)
    if not Ste.V.get(raw):
        return raw, False
    if legal:
        return raw, not _refused(reader, raw)
    mended = raw
    if config in WITH_STAGE_2 and raw & (Ste.S2HA.mask | Ste.S2HD.mask) and reader.deviates("s2-updates"):
        mended &= ~(Ste.S2HA.mask | Ste.S2HD.mask)
    if config in WITH_STAGE_2 and _accepted_start(reader, raw) and reader.deviates("s2-start-level"):
        # Any start level that goes with the size stands for the one that QEMU takes.
        mended = next(other for code in range(4) if _fits(reader, other := _with(mended, code)) or code == 3)
    if config == STAGE_1 and Ste.S1ContextPtr.get(raw) >> reader.features.oas and reader.deviates("context-pointer"):
        mended &= ~Ste.S1ContextPtr.mask
    return raw, not stes.illegal(mended, reader.features) and not _refused(reader, raw)


def _with(raw: int, code: int) -> int:
    return raw & ~Ste.S2SL0.mask | Ste.S2SL0.put(code)


def _fits(reader: Reader, raw: int) -> bool:
    return not stes.illegal(raw, reader.features)


def _accepted_start(reader: Reader, raw: int) -> bool:
    """Whether QEMU accepts a start level: where at most 16 tables lie side by side."""
    granule, code = GRANULES.get(Ste.S2TG.get(raw)), Ste.S2SL0.get(raw)
    if granule is None or code == 3:
        return False
    start = start_level(granule, code)
    return 64 - Ste.S2T0SZ.get(raw) <= shift(granule, start - 1) + 4


def _refused(reader: Reader, raw: int) -> bool:
    """Whether QEMU refuses an STE that is legal."""
    config = Ste.Config.get(raw)
    if config == STAGE_2 and (Ste.S1CDMax.get(raw) or Ste.S1STALLD.get(raw)) and reader.deviates("s1-fields"):
        return True
    if config not in WITH_STAGE_2:
        return False
    output = reader.features.output_bits(Ste.S2PS.get(raw), GRANULES[Ste.S2TG.get(raw)], 0)
    return Ste.S2T0SZ.get(raw) < 64 - output and reader.deviates("s2t0sz-by-s2ps")


def cd_is_legal(reader: Reader, raw: int, ste_raw: int, *, tables: int) -> bool:
    """Whether a CD can be used, as far as its first `tables` tables go."""
    ignored = (Cd.EPD0.mask | Cd.EPD1.mask, Cd.EPD1.mask, 0)[tables]
    return not cds.illegal(raw | ignored, ste_raw, reader.features)

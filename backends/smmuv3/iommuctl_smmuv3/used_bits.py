# SPDX-License-Identifier: Apache-2.0
"""Which bits of a live STE or CD the unit looks at: IHI0070 G.b sections 5.2 and 5.4.

Software may change all others while the structure is in use. Linux has it so in arm-smmu-v3.c.
"""

from collections.abc import Iterable

from iommuctl.formats.bits import Layout

_TRANSLATES, _STAGE_1, _STAGE_2 = 4, 1, 2
"""Bits of Config."""
_BOTH_STAGES = 7
_SKIP_STAGE_1 = 1
"""The value of S1DSS with which some transactions have the attributes of a bypass."""
_ATTRIBUTES = ("MemAttr", "MTCFG", "ALLOCCFG", "SHCFG")
_TABLE_FIELDS = ("T{n}SZ", "TG{n}", "IR{n}", "OR{n}", "SH{n}", "TTB{n}")
"""Fields of a CD that EPD0 or EPD1 takes out of use."""


def used_by_stream(ste: type[Layout], raw: int) -> int:
    """The bits that an STE uses."""
    config = ste.field("Config").get(raw)
    mask = _mask(ste, ("V", "Config"))
    if not ste.field("V").get(raw):
        return ste.field("V").mask
    if not config & _TRANSLATES:
        return mask
    names = [field.name for field in ste.fields]
    of_stage_1 = {name for name in names if name.startswith("S1")} | {"STRW"}
    of_stage_2 = {name for name in names if name.startswith(("S2", "S_S2", "DPT"))}
    used = set(names) - of_stage_1 - of_stage_2 - {*_ATTRIBUTES, "EATS"}
    if config & _STAGE_1:
        used |= of_stage_1 | {"S2VMID", "EATS"}
        if config == _BOTH_STAGES:
            used.remove("STRW")
    if config & _STAGE_2:
        used |= of_stage_2 | {"EATS"}
    if config != _TRANSLATES | _STAGE_1 or ste.field("S1DSS").get(raw) == _SKIP_STAGE_1:
        used.update(_ATTRIBUTES)
    return _mask(ste, used)


def used_by_context(cd: type[Layout], raw: int) -> int:
    """The bits that a CD uses."""
    if not cd.field("V").get(raw):
        return cd.field("V").mask
    used = {field.name for field in cd.fields}
    for number in (0, 1):
        if cd.field(f"EPD{number}").get(raw):
            used.difference_update(name.format(n=number) for name in _TABLE_FIELDS)
    return _mask(cd, used)


def _mask(layout: type[Layout], names: Iterable[str]) -> int:
    return sum(layout.field(name).mask for name in names)

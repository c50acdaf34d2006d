# SPDX-License-Identifier: Apache-2.0
"""What makes a CD that is valid ILLEGAL: IHI0070 G.b section 5.4.2, for non-secure streams.

A rule takes the fields of a CD and of the STE that led to it as attributes, and returns a sentence where they break it.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

from iommuctl_smmuv3.features import STALL_ONLY, TERMINATE_ONLY, Features
from iommuctl_smmuv3.stage2_geometry import GRANULES


class StreamWorld(Enum):
    """Whose translations a non-secure stream uses: STRW in IHI0070 G.b section 5.2."""

    NS_EL1 = "NS-EL1"
    NS_EL2 = "NS-EL2"
    NS_EL2_E2H = "NS-EL2-E2H"


Rule = Callable[[Any, Any, StreamWorld, Features], str]

TG1_GRANULES: Mapping[int, int] = MappingProxyType({1: 1 << 14, 2: 1 << 12, 3: 1 << 16})
"""Granules in bytes by the code that TG1 has; 0 is reserved."""


def stream_world(config: int, strw: int, features: Features, *, e2h: bool) -> StreamWorld:
    """The StreamWorld of an STE with stage 1, by its Config and STRW; `e2h` is CR2.E2H."""
    if config != 5 or not features.hyp or not strw:
        return StreamWorld.NS_EL1
    return StreamWorld.NS_EL2_E2H if e2h else StreamWorld.NS_EL2


def _fault_model(cd: Any, ste: Any, _world: StreamWorld, features: Features) -> str:
    if cd.S and ste.S1STALLD:
        return "S is 1, but the STE's S1STALLD forbids it"
    if cd.S and features.stall_model == TERMINATE_ONLY:
        return "S is 1, but the unit cannot stall"
    if not cd.S and features.stall_model == STALL_ONLY:
        return "S is 0, but the unit always stalls"
    return "A is 0, but the unit always aborts" if not cd.A and features.term_model else ""


def _tables(cd: Any, ste: Any, world: StreamWorld, features: Features) -> str:
    if not (features.aarch64 if cd.AA64 else features.aarch32):
        return f"AA64 is {cd.AA64}, a format that the unit lacks"
    if not cd.AA64 and world is StreamWorld.NS_EL2_E2H:
        return f"AA64 is 0, but the StreamWorld is {world.value}"
    if cd.AA64 and ste.Config == 7 and not ste.S2AA64:
        return "AA64 is 1, but the STE's S2AA64 is 0"
    return "" if features.reads_tables(cd.ENDI) else f"ENDI is {cd.ENDI}, which the unit cannot read"


def _updates(cd: Any, _ste: Any, _world: StreamWorld, features: Features) -> str:
    if not cd.AA64:
        return ""
    for name, needed in (("HA", 1), ("HD", 2)):
        if getattr(cd, name) and features.httu < needed:
            return f"{name} is 1, but the unit does not update such tables"
    return "HAFT is 1, but HA is 0" if cd.HAFT and features.httu == 3 and not cd.HA else ""


def _asid(cd: Any, _ste: Any, world: StreamWorld, features: Features) -> str:
    counts = world is not StreamWorld.NS_EL2 and not features.asid16
    return "ASID has more than 8 bits" if counts and cd.ASID >> 8 else ""


def _lower_table(cd: Any, _ste: Any, _world: StreamWorld, features: Features) -> str:
    return "" if cd.EPD0 or not cd.AA64 else _table(cd, 0, GRANULES.get(cd.TG0), features)


def _upper_table(cd: Any, _ste: Any, world: StreamWorld, features: Features) -> str:
    if cd.EPD1 or not cd.AA64 or world is StreamWorld.NS_EL2:
        return ""
    return _table(cd, 1, TG1_GRANULES.get(cd.TG1), features)


def _table(cd: Any, which: int, granule: int | None, features: Features) -> str:
    if granule not in features.granules:
        return f"TG{which} is {getattr(cd, f'TG{which}'):#x}, a granule that the unit lacks"
    wide = granule == 1 << 16 or (cd.DS and features.ds)
    least = 12 if features.vax >= 52 and wide else 16
    most = (47 if granule == 1 << 16 else 48) if features.stt else 39
    size = getattr(cd, f"T{which}SZ")
    if not least <= size <= most:
        return f"T{which}SZ is {size}, not one of {least} to {most}"
    bits = features.output_bits(cd.IPS, granule, cd.DS)
    return f"TTB{which} has more than {bits} bits" if getattr(cd, f"TTB{which}") >> bits else ""


RULES: tuple[Rule, ...] = (_fault_model, _tables, _updates, _asid, _lower_table, _upper_table)
"""The rules in the order in which they are looked at; any one is enough."""

# SPDX-License-Identifier: Apache-2.0
"""What makes an STE that is valid and does not abort ILLEGAL: IHI0070 G.b section 5.2.2, for non-secure streams.

A rule takes the fields of an STE as attributes, and returns a sentence where they break it. Of what a version 3.0 may
do and later ones must not, or the other way round, the rules are those of 3.1 and later.
"""

from collections.abc import Callable
from typing import Any

from iommuctl_smmuv3.features import STALL_ONLY, STALL_OR_TERMINATE, TERMINATE_ONLY, Features
from iommuctl_smmuv3.stage2_geometry import GRANULES, concatenation, start_level

Rule = Callable[[Any, Features], str]

_STAGE_1, _STAGE_2 = 1, 2
"""Bits of Config."""
_STAGE_1_ALONE, _BOTH_STAGES = 5, 7
"""Values of Config."""
_RESERVED_OVERLAYS = (0b0001, 0b0101)


def _stages(ste: Any, features: Features) -> str:
    if ste.Config & _STAGE_1 and not features.s1p:
        return "Config has stage 1, which the unit lacks"
    return "Config has stage 2, which the unit lacks" if ste.Config & _STAGE_2 and not features.s2p else ""


def _substreams(ste: Any, features: Features) -> str:
    if not ste.Config & _STAGE_1 or not ste.S1CDMax:
        return ""
    if ste.S1CDMax > features.ssid_bits:
        return f"S1CDMax is {ste.S1CDMax}, but SubstreamIDs have {features.ssid_bits} bits"
    return "S1Fmt is a two-level table, which the unit lacks" if ste.S1Fmt in (1, 2) and not features.cd2l else ""


def _context_pointer(ste: Any, features: Features) -> str:
    beyond = ste.Config == _STAGE_1_ALONE and ste.S1ContextPtr >> features.oas
    return f"S1ContextPtr has more than {features.oas} bits" if beyond else ""


def _stream_world(ste: Any, features: Features) -> str:
    counts = ste.Config == _STAGE_1_ALONE and features.hyp
    return f"STRW is {ste.STRW:#x}, which is reserved" if counts and ste.STRW & 1 else ""


def _stage_1_stalls(ste: Any, features: Features) -> str:
    broken = ste.Config & _STAGE_1 and ste.S1STALLD and features.stall_model != STALL_OR_TERMINATE
    return "S1STALLD is 1, but STALL_MODEL leaves no choice" if broken else ""


def _vmid(ste: Any, features: Features) -> str:
    in_el2 = features.hyp and ste.STRW
    tags = ste.Config & _STAGE_2 or (ste.Config & _STAGE_1 and features.s2p and not in_el2)
    return "S2VMID has more than 8 bits" if tags and ste.S2VMID >> 8 and not features.vmid16 else ""


def _ats(ste: Any, features: Features) -> str:
    if not features.ats or not ste.Config & (_STAGE_1 | _STAGE_2):
        return ""
    if ste.EATS == 2:
        if ste.Config != _BOTH_STAGES:
            return "EATS is split-stage ATS, but Config has not both stages"
        if not features.split_ats:
            return "EATS is split-stage ATS, which the unit lacks"
    # Without device permission tables, 3 behaves as 0.
    on = ste.EATS in (1, 2) or (ste.EATS == 3 and features.dpt)
    return "EATS is not 0, but S2S is 1" if on and ste.Config & _STAGE_2 and ste.S2S else ""


RULES: tuple[Rule, ...] = (
    _stages,
    _substreams,
    _context_pointer,
    _stream_world,
    _stage_1_stalls,
    _vmid,
    _ats,
)
"""Those of every STE."""


def _stage_2_stalls(ste: Any, features: Features) -> str:
    if ste.S2S and features.stall_model == TERMINATE_ONLY:
        return "S2S is 1, but the unit cannot stall"
    return "S2S is 0, but the unit always stalls" if not ste.S2S and features.stall_model == STALL_ONLY else ""


def _stage_2_tables(ste: Any, features: Features) -> str:
    if not (features.aarch64 if ste.S2AA64 else features.aarch32):
        return f"S2AA64 is {ste.S2AA64}, a format that the unit lacks"
    return "" if features.reads_tables(ste.S2ENDI) else f"S2ENDI is {ste.S2ENDI}, which the unit cannot read"


def _stage_2_sizes(ste: Any, features: Features) -> str:
    if not ste.S2AA64:
        return ""
    granule = GRANULES.get(ste.S2TG)
    if granule not in features.granules:
        return f"S2TG is {ste.S2TG:#x}, a granule that the unit lacks"
    ds = bool(ste.S2DS and features.ds)
    most = (47 if granule == 1 << 16 else 48) if features.stt else 39
    least = max(12 if granule == 1 << 16 or ds else 16, 64 - features.ias)
    if not least <= ste.S2T0SZ <= most:
        return f"S2T0SZ is {ste.S2T0SZ}, not one of {least} to {most}"
    level = start_level(ste.S2TG, ste.S2SL0, ste.S2SL0_2, ds)
    if level is None:
        return "S2SL0 is reserved"
    if not concatenation(granule, level, ste.S2T0SZ, ds, features.stt):
        return f"S2SL0 begins at level {level}, which does not go with S2T0SZ {ste.S2T0SZ}"
    return ""


def _stage_2_base(ste: Any, features: Features) -> str:
    aarch32_bits = min(40, features.oas)
    bits = features.output_bits(ste.S2PS, GRANULES.get(ste.S2TG, 0), ste.S2DS) if ste.S2AA64 else aarch32_bits
    return f"S2TTB has more than {bits} bits" if ste.S2TTB >> bits else ""


def _stage_2_updates(ste: Any, features: Features) -> str:
    for name, needed in (("S2HA", 1), ("S2HD", 2)):
        if getattr(ste, name) and (features.httu < needed or not ste.S2AA64):
            return f"{name} is 1, but the unit does not update such tables"
    return "S2HAFT is 1, but S2HA is 0" if ste.S2HAFT and features.httu == 3 and not ste.S2HA else ""


def _write_back(ste: Any, features: Features) -> str:
    return "S2FWB is 1, but S2AA64 is 0" if features.fwb and ste.S2FWB and not ste.S2AA64 else ""


def _indirect_permissions(ste: Any, features: Features) -> str:
    return "S2PIE is 1, but S2AA64 is 0" if features.s2pi and ste.S2PIE and not ste.S2AA64 else ""


def _overlays(ste: Any, features: Features) -> str:
    if not features.s2po or not ste.S2POE:
        return ""
    if not ste.S2PIE:
        return "S2POE is 1, but S2PIE is 0"
    if ste.S2HWU59 or ste.S2HWU60 or ste.S2HWU61 or ste.S2HWU62:
        return "S2POE is 1, but S2HWU takes bits of the overlay's index"
    for index in range(16):
        if ste.S2POI >> 4 * index & 0xF in _RESERVED_OVERLAYS:
            return f"S2POI{index} is reserved"
    return ""


def _virtual_machine(ste: Any, features: Features) -> str:
    counts = ste.Config == _BOTH_STAGES and features.vms and ste.S1MPAM
    return f"VMSPtr has more than {features.oas} bits" if counts and ste.VMSPtr >> features.oas else ""


STAGE_2_RULES: tuple[Rule, ...] = (
    _stage_2_stalls,
    _stage_2_tables,
    _stage_2_sizes,
    _stage_2_base,
    _stage_2_updates,
    _write_back,
    _indirect_permissions,
    _overlays,
    _virtual_machine,
)
"""Those of an STE with stage 2."""

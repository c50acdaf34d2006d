# SPDX-License-Identifier: Apache-2.0
"""What the driver writes into STEs and CDs: shapes that Linux gives them (arm-smmu-v3.c)."""

from typing import NamedTuple

from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.features import ADDRESS_BITS, STALL_OR_TERMINATE, Features
from iommuctl_smmuv3.stage2_geometry import GRANULES, start_level
from iommuctl_smmuv3.ste import BYPASS, DSS_BYPASS, DSS_SUBSTREAM_0, DSS_TERMINATE, FULL_ATS, LINEAR, TWO_LEVEL_4K, Ste
from iommuctl_smmuv3.vmsa import VmsaFormat

__all__ = [
    "DSS_BYPASS",
    "DSS_SUBSTREAM_0",
    "DSS_TERMINATE",
    "Contexts",
    "context_descriptor",
    "stage_2",
    "stream_entry",
]

LEAF_BITS = 6
"""log2 of the CDs of a leaf of 4 KB."""
_MAIR = 0xF404FF44
"""Memory types by AttrIndx, as Linux has them: non-cacheable, write-back, device, inner non-cacheable."""
_WRITE_BACK, _INNER_SHAREABLE = 1, 3
_STAGE_1, _STAGE_2 = 1, 2
"""Bits of Config."""


class Contexts(NamedTuple):
    """Where the CDs of a stream are: S1ContextPtr and S1CDMax; an IPA in guest memory where the stream is nested."""

    pointer: int
    bits: int

    def form(self, features: Features) -> int:
        """S1Fmt. Two levels, where one page has not room for all CDs."""
        return TWO_LEVEL_4K if self.bits > LEAF_BITS and features.cd2l else LINEAR


def stream_entry(features: Features, *, ats: bool, contexts: Contexts | None, dss: int, stage_2_fields: int) -> int:
    """The STE of a stream with these stages; one without any aborts. `dss` counts where there are substreams."""
    config = (_STAGE_1 if contexts else 0) | (_STAGE_2 if stage_2_fields else 0)
    if not config:
        return Ste.encode(V=1)
    ste = Ste.encode(V=1, Config=BYPASS | config, EATS=FULL_ATS if ats else 0)
    if contexts:
        ste |= Ste.encode(
            S1Fmt=contexts.form(features),
            S1ContextPtr=contexts.pointer,
            S1CDMax=contexts.bits,
            S1DSS=dss if contexts.bits else 0,
            S1CIR=_WRITE_BACK,
            S1COR=_WRITE_BACK,
            S1CSH=_INNER_SHAREABLE,
            S1STALLD=features.stall_model == STALL_OR_TERMINATE,
        )
    if stage_2_fields:
        # The incoming shareability.
        ste |= stage_2_fields | Ste.encode(SHCFG=features.attr_types_ovr)
    return ste


def stage_2(fmt: VmsaFormat, root: int, vmid: int, output: int) -> int:
    """The fields of an STE that describe its stage 2. All STEs with one VMID have the same."""
    granule, level = fmt.page_sizes[0], fmt.numbered(fmt.levels)
    code = next(code for code, size in GRANULES.items() if size == granule)
    return Ste.encode(
        S2VMID=vmid,
        S2T0SZ=64 - fmt.width,
        S2SL0=next(sl0 for sl0 in range(4) if start_level(code, sl0, 0, False) == level),
        S2IR0=_WRITE_BACK,
        S2OR0=_WRITE_BACK,
        S2SH0=_INNER_SHAREABLE,
        S2TG=code,
        S2PS=ADDRESS_BITS.index(output),
        S2AA64=1,
        S2PTW=1,
        S2R=1,
        S2TTB=root,
    )


def context_descriptor(fmt: VmsaFormat, root: int, asid: int, output: int) -> int:
    """The CD of a stage 1 in TTB0; faults abort and are recorded. `output` is the width of output addresses in bits."""
    granule = fmt.page_sizes[0]
    return Cd.encode(
        V=1,
        AA64=1,
        T0SZ=64 - fmt.width,
        TG0=next(code for code, size in GRANULES.items() if size == granule),
        IR0=_WRITE_BACK,
        OR0=_WRITE_BACK,
        SH0=_INNER_SHAREABLE,
        EPD1=1,
        IPS=ADDRESS_BITS.index(output),
        R=1,
        A=1,
        ASET=1,
        ASID=asid,
        TTB0=root,
        MAIR0=_MAIR,
    )

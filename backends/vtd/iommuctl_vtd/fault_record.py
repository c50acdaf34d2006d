# SPDX-License-Identifier: Apache-2.0
"""What the unit records about a request that it refused, and what the reason codes mean."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from iommuctl.formats.bits import Address, Bit, Bits, Layout


class Reason(NamedTuple):
    """A fault reason. A qualified one is not recorded when an FPD bit on the way to it is set."""

    name: str
    sentence: str
    qualified: bool


# VT-d 4.1 section 7.1.3. LRT to LGN are legacy mode's; 5c and 82 occur up to revision 3.x only.
REASONS: Mapping[int, Reason] = MappingProxyType({
    0x01: Reason("LRT.2", "The root entry is not present.", False),
    0x02: Reason("LCT.2", "The context entry is not present.", True),
    0x03: Reason("LCT.4", "The context entry has a TT, AW or SSPTPTR that the unit cannot use.", True),
    0x04: Reason("LGN.1", "The address is beyond what the tables or the unit can translate.", True),
    0x05: Reason("LGN.2", "The second stage does not allow the write.", True),
    0x06: Reason("LGN.3", "The second stage does not allow the read.", True),
    0x07: Reason("LSS.1", "A second-stage entry below the top table could not be read.", True),
    0x08: Reason("LRT.1", "The root entry could not be read.", False),
    0x09: Reason("LCT.1", "The context entry could not be read.", False),
    0x0A: Reason("LRT.3", "Reserved bits are set in the root entry.", False),
    0x0B: Reason("LCT.3", "Reserved bits are set in the context entry.", True),
    0x0C: Reason("LSS.2", "Reserved bits are set in a second-stage entry.", True),
    0x0D: Reason("LCT.5", "The context entry does not allow translation or translated requests.", True),
    0x0E: Reason("LGN.4", "The translation ends in the interrupt address range.", True),
    0x30: Reason("RTA.1", "The root table address register or its table mode is invalid.", False),
    0x31: Reason("RTA.2", "A request has a PASID in legacy mode.", False),
    0x32: Reason("RTA.3", "Pages were requested in legacy mode.", False),
    0x38: Reason("SRT.1", "The scalable-mode root entry could not be read.", False),
    0x39: Reason("SRT.2", "The half of the scalable-mode root entry is not present.", False),
    0x3A: Reason("SRT.3", "Reserved bits are set in the scalable-mode root entry.", False),
    0x40: Reason("SCT.1", "The scalable-mode context entry could not be read.", False),
    0x41: Reason("SCT.2", "The scalable-mode context entry is not present.", True),
    0x42: Reason("SCT.3", "Reserved bits are set in the scalable-mode context entry.", True),
    0x43: Reason("SCT.4", "The scalable-mode context entry holds values that the unit cannot use.", True),
    0x44: Reason("SCT.5", "A translation or translated request came while DTE is 0.", True),
    0x45: Reason("SCT.6", "A request with a PASID came while PASIDE is 0.", True),
    0x46: Reason("SCT.7", "The PASID is beyond the PASID directory.", True),
    0x47: Reason("SCT.8", "Pages were requested while PRE is 0.", True),
    0x48: Reason("SCT.9", "The RID_PASID of the scalable-mode context entry cannot be used.", True),
    0x50: Reason("SPD.1", "The PASID directory entry could not be read.", False),
    0x51: Reason("SPD.2", "The PASID directory entry is not present.", True),
    0x52: Reason("SPD.3", "Reserved bits are set in the PASID directory entry.", True),
    0x58: Reason("SPT.1", "The PASID table entry could not be read.", False),
    0x59: Reason("SPT.2", "The PASID table entry is not present.", True),
    0x5A: Reason("SPT.3", "Reserved bits are set in the PASID table entry.", True),
    0x5B: Reason("SPT.4", "The PASID table entry has a PGTT, AW or FSPM that the unit cannot use.", True),
    0x5C: Reason("SPT.5", "An execute request came while ERE is 0.", True),
    0x5D: Reason("SPT.6", "A privileged request came while SRE is 0.", True),
    0x70: Reason("SFS.1", "A first-stage entry below the top table could not be read.", True),
    0x71: Reason("SFS.2", "A first-stage entry is not present.", True),
    0x72: Reason("SFS.3", "Reserved bits are set in a first-stage entry.", True),
    0x73: Reason("SFS.4", "The top table of the first stage could not be read.", True),
    0x74: Reason("SFS.5", "A first-stage table lies beyond the second stage's addresses.", True),
    0x75: Reason("SFS.6", "The second stage does not allow reads of the first stage's top table.", True),
    0x76: Reason("SFS.7", "The second stage does not allow reads of a lower first-stage table.", True),
    0x77: Reason("SFS.8", "The second stage does not allow A and D bits to be set in a first-stage entry.", True),
    0x78: Reason("SSS.1", "A second-stage entry below the top table could not be read.", True),
    0x79: Reason("SSS.2", "A second-stage entry is not present.", True),
    0x7A: Reason("SSS.3", "Reserved bits are set in a second-stage entry.", True),
    0x7B: Reason("SSS.4", "The top table of the second stage could not be read.", True),
    0x7C: Reason("SSS.5", "A second-stage entry needs its A or D bit set, but page walks are not snooped.", True),
    0x7D: Reason("SSS.6", "The A or D bit of a second-stage entry could not be set.", True),
    0x80: Reason("SGN.1", "The address is not canonical.", True),
    0x81: Reason("SGN.2", "The first stage allows privileged requests only.", True),
    0x82: Reason("SGN.3", "The first stage does not allow the execute request.", True),
    0x83: Reason("SGN.4", "The address is beyond the host's physical addresses.", True),
    0x84: Reason("SGN.5", "The address is beyond what the second stage can translate.", True),
    0x85: Reason("SGN.6", "The tables do not allow the write.", True),
    0x86: Reason("SGN.7", "The tables do not allow the read.", True),
    0x87: Reason("SGN.8", "The translation ends in the interrupt address range.", True),
    0x90: Reason("SFS.9", "A first-stage entry needs its A or D bit set, but page walks are not snooped.", True),
    0x91: Reason("SFS.10", "The A or D bit of a first-stage entry could not be set.", True),
})  # fmt: skip


class FaultRecord(Layout, bits=128, name="vtd.fault-record"):
    """Fault recording register FRCD: VT-d 4.1 section 11.4.7.6.

    T1 and T2 together tell what was requested: 00 a write, 10 a read, 01 pages, 11 an atomic operation.
    """

    FI = Address(63, 12)
    """The page that the request was for."""

    SID = Bits(79, 64)
    """Who requested it."""
    T2 = Bit(92)
    """With T1, what was requested."""
    PRIV = Bit(93)
    """The request was privileged."""
    EXE = Bit(94)
    """The request was for execution."""
    PP = Bit(95)
    """The request had a PASID, which is in PV."""
    FR = Bits(103, 96, values={code: f"{reason.name}: {reason.sentence}" for code, reason in REASONS.items()})
    """The reason."""
    PV = Bits(123, 104)
    """The PASID of the request."""
    AT = Bits(125, 124)
    """The address type of the request."""
    T1 = Bit(126)
    """With T2, what was requested."""
    F = Bit(127)
    """The record is in use; writing 1 frees it."""

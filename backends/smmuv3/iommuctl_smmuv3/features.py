# SPDX-License-Identifier: Apache-2.0
"""What one unit can do, out of IDR0 to IDR5 and MPAMIDR, not AIDR: parts have features of later versions early."""

from collections.abc import Mapping
from typing import NamedTuple

from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR3, IDR5, MPAMIDR

ADDRESS_BITS = (32, 36, 40, 42, 44, 48, 52, 56)
"""Widths of addresses in bits by the code that OAS, IPS and S2PS have."""
VA_BITS = (48, 52, 56, 56)
"""Widths of virtual addresses in bits by the values of VAX; 3 is reserved."""

STALL_OR_TERMINATE, TERMINATE_ONLY, STALL_ONLY = 0, 1, 2
"""Values of STALL_MODEL."""
LITTLE_ENDIAN_ONLY, BIG_ENDIAN_ONLY = 2, 3
"""Values of TTENDIAN with which ENDI is not free."""


class Features(NamedTuple):
    """The facts of a unit with certain identification registers: IHI0070 G.b section 6.3. Use `Features.of`."""

    s1p: bool
    """Stage 1."""
    s2p: bool
    """Stage 2."""
    aarch32: bool
    """VMSAv8-32 LPAE tables."""
    aarch64: bool
    """VMSAv8-64 tables."""
    httu: int
    """Updates by hardware: 0 none, 1 accessed flag, 2 dirty state too, 3 accessed flag of table descriptors too."""
    hyp: bool
    """StreamWorlds of EL2."""
    ats: bool
    ats_records: bool
    """CR2 can have configuration errors of ATS recorded."""
    split_ats: bool
    """ATS that translates stage 1 alone."""
    asid16: bool
    vmid16: bool
    vmw: bool
    """Invalidations can ignore lower bits of a VMID."""
    msi: bool
    """Interrupts by writes to memory."""
    pri: bool
    pps: bool
    """Automatic answers to page requests with a PASID have it, whatever an STE says."""
    cd2l: bool
    """Two-level CD tables."""
    ttendian: int
    """0 both, 2 little-endian tables only, 3 big-endian only."""
    stall_model: int
    """0 both, 1 terminate only, 2 stall only."""
    term_model: bool
    """Faults abort, always: CD.A must be 1."""
    two_level: bool
    """Two-level stream tables."""
    sid_bits: int
    ssid_bits: int
    cmdq_bits: int
    """log2 of the most entries, as of the next two."""
    eventq_bits: int
    priq_bits: int
    attr_types_ovr: bool
    """STE and GBPA can replace memory type, allocation hints and shareability."""
    attr_perms_ovr: bool
    """STE and GBPA can replace privilege and instruction."""
    had: bool
    xnx: bool
    """Execute-never of stage 2 has two bits."""
    vms: bool
    """Virtual machine structures, which tell the partitions of guests: IHI0070 G.b section 5.6.1."""
    fwb: bool
    stt: bool
    ril: bool
    """Ranges in TLB invalidations."""
    bbml: int
    """How the size of live translations may change: 0 by break-before-make, 1 with nT as well, 2 at will."""
    dpt: bool
    s2pi: bool
    s2po: bool
    oas: int
    """Width of physical addresses in bits."""
    granules: tuple[int, ...]
    """In bytes."""
    ds: bool
    """52-bit formats of 4 KB and 16 KB."""
    vax: int
    """Width of virtual addresses in bits."""

    @property
    def ias(self) -> int:
        """Width of intermediate physical addresses in bits: IHI0070 G.b section 3.4."""
        return max(40 if self.aarch32 else 0, self.oas if self.aarch64 else 0)

    @property
    def resolves_conflicts(self) -> bool:
        """Whether the TLB, where it has several translations of an address, takes one of them."""
        return self.bbml >= 2

    def reads_tables(self, big_endian: int) -> bool:
        """Whether walks can read tables of that byte order."""
        return self.ttendian != (LITTLE_ENDIAN_ONLY if big_endian else BIG_ENDIAN_ONLY)

    def output_bits(self, size: int, granule: int, ds: int) -> int:
        """Width of output addresses, from a code of IPS or S2PS: 52 bits and more are for 64 KB and for DS only."""
        bits = min(ADDRESS_BITS[size], self.oas)
        return bits if granule == 1 << 16 or (ds and self.ds) else min(bits, 48)

    @classmethod
    def of(cls, registers: Mapping[str, int]) -> "Features":
        """What IDR0, IDR1, IDR3, IDR5 and MPAMIDR say; one that is missing says nothing, as if it were 0."""
        names = ("IDR0", "IDR1", "IDR3", "IDR5", "MPAMIDR")
        idr0, idr1, idr3, idr5, mpamidr = (registers.get(name, 0) for name in names)
        granules = ((IDR5.GRAN4K, 1 << 12), (IDR5.GRAN16K, 1 << 14), (IDR5.GRAN64K, 1 << 16))
        return cls(
            s1p=bool(IDR0.S1P.get(idr0)),
            s2p=bool(IDR0.S2P.get(idr0)),
            aarch32=bool(IDR0.TTF.get(idr0) & 1),
            aarch64=bool(IDR0.TTF.get(idr0) & 2),
            httu=IDR0.HTTU.get(idr0),
            hyp=bool(IDR0.Hyp.get(idr0)),
            ats=bool(IDR0.ATS.get(idr0)),
            ats_records=bool(IDR0.ATSRECERR.get(idr0)),
            split_ats=not IDR0.NS1ATS.get(idr0),
            asid16=bool(IDR0.ASID16.get(idr0)),
            vmid16=bool(IDR0.VMID16.get(idr0)),
            vmw=bool(IDR0.VMW.get(idr0)),
            msi=bool(IDR0.MSI.get(idr0)),
            pri=bool(IDR0.PRI.get(idr0)),
            pps=bool(IDR3.PPS.get(idr3)),
            cd2l=bool(IDR0.CD2L.get(idr0)),
            ttendian=IDR0.TTENDIAN.get(idr0),
            stall_model=IDR0.STALL_MODEL.get(idr0),
            term_model=bool(IDR0.TERM_MODEL.get(idr0)),
            two_level=IDR0.ST_LEVEL.get(idr0) == 1,
            sid_bits=IDR1.SIDSIZE.get(idr1),
            ssid_bits=IDR1.SSIDSIZE.get(idr1),
            cmdq_bits=IDR1.CMDQS.get(idr1),
            eventq_bits=IDR1.EVENTQS.get(idr1),
            priq_bits=IDR1.PRIQS.get(idr1),
            attr_types_ovr=bool(IDR1.ATTR_TYPES_OVR.get(idr1)),
            attr_perms_ovr=bool(IDR1.ATTR_PERMS_OVR.get(idr1)),
            had=bool(IDR3.HAD.get(idr3)),
            xnx=bool(IDR3.XNX.get(idr3)),
            vms=all((IDR3.MPAM.get(idr3), IDR0.S1P.get(idr0), IDR0.S2P.get(idr0), MPAMIDR.PARTID_MAX.get(mpamidr))),
            fwb=bool(IDR3.FWB.get(idr3)),
            stt=bool(IDR3.STT.get(idr3)),
            ril=bool(IDR3.RIL.get(idr3)),
            bbml=IDR3.BBML.get(idr3),
            dpt=bool(IDR3.DPT.get(idr3)),
            s2pi=bool(IDR3.S2PI.get(idr3)),
            s2po=bool(IDR3.S2PO.get(idr3)),
            oas=ADDRESS_BITS[IDR5.OAS.get(idr5)],
            granules=tuple(size for field, size in granules if field.get(idr5)),
            ds=bool(IDR5.DS.get(idr5)),
            vax=VA_BITS[IDR5.VAX.get(idr5)],
        )

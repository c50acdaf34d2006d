# SPDX-License-Identifier: Apache-2.0
"""Units for tests of the rules, by what their identification registers say."""

from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR3, IDR5

QEMU = {"IDR0": 0x0D44101A, "IDR1": 0x02730010, "IDR3": 0x1404, "IDR5": 0x74}
"""QEMU 10.2, which has stage 1 alone."""

RICH = {
    "IDR0": IDR0.encode(
        S2P=1, S1P=1, TTF=3, COHACC=1, HTTU=3, Hyp=1, ATS=1, ASID16=1, PRI=1, VMID16=1, CD2L=1, ST_LEVEL=1
    ),
    "IDR1": IDR1.encode(
        SIDSIZE=32, SSIDSIZE=20, PRIQS=17, EVENTQS=18, CMDQS=19, ATTR_PERMS_OVR=1, ATTR_TYPES_OVR=1
    ),
    "IDR3": IDR3.encode(
        HAD=1, PBHA=1, XNX=1, PPS=1, MPAM=1, FWB=1, STT=1, RIL=1, BBML=2, E0PD=1, DPT=1, S1PI=1, S2PI=1, S2PO=1
    ),
    "IDR5": IDR5.encode(OAS=6, GRAN4K=1, GRAN16K=1, GRAN64K=1, DS=1, VAX=1),
    "MPAMIDR": 0xFF,
}  # fmt: skip
"""One that has all that a rule is about, and leaves every choice to software."""
FEATURES = Features.of(RICH)

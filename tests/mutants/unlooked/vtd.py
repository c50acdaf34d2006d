# SPDX-License-Identifier: Apache-2.0
"""The fields of VT-d's structures that QEMU does not look at."""

from collections.abc import Mapping

from tests.mutants.unlooked import ALL

_REVISION_3 = "QEMU's unit, as ours, is one of revision 4; the field is only decoded"
_INTERRUPTS = "the units that are compared remap no interrupts"
_REQUESTS = "the units that are compared have no page requests"
_COMMAND = "invalidations go through the queue"
_EVENT = "no interrupts of the unit are compared"
_NO_PASID = "the requests that are compared have no PASID, no privilege, and are no atomic operations"
_GATED = "reserved bits of PASID entries are not looked at, so that a field without its capability is not"
_NOT_TOLD = "QEMU's register has 0 there, and in the bit above"
_NO_CHOICE = "nothing that is compared depends on it"
_NOT_GIVEN = "the harness never gives the command"
_STATUS = "the harness does not read it"
_UPPER = "driver and unit use the names of the lower half for both; these are only decoded"
_TYPE_HIGH = "a wrong type and a reserved bit stop the queue alike, and the bit above it is a field's"

UNLOOKED: Mapping[str, Mapping[str, str]] = {
    "ScalableRootEntry": {"UP": _UPPER, "UCTP": _UPPER},
    "PasidEntry": {
        "SSADE": _GATED,
        "PGSNP": "QEMU has no caches that it could snoop",
        "CD": _GATED,
        "EMTE": _GATED,
        "PAT": _GATED,
        "SRE": _NO_PASID,
        "WPE": _NO_PASID,
        "EAFE": _GATED,
    },
    "PasidEntryRev3": {ALL: _REVISION_3},
    "FirstStageEntryRev3": {ALL: _REVISION_3},
    "SecondStageEntryRev3": {ALL: _REVISION_3},
    "DeviceTlbInvalidate": {"TYPE_HIGH": _TYPE_HIGH},
    "InvalidationWait": {"PD": "needs ECAP.PDS, which the units that are compared do not have"},
    "PasidDeviceTlbInvalidate": {"TYPE_HIGH": _TYPE_HIGH},
    "PageGroupResponse": {"TYPE_HIGH": _TYPE_HIGH},
    "PageGroupResponseRev3": {"PDP": _REVISION_3},
    "PageRequest": {ALL: _REQUESTS},
    "PageRequestRev3": {ALL: _REVISION_3},
    "PQH": {ALL: _REQUESTS},
    "PQT": {ALL: _REQUESTS},
    "PQA": {ALL: _REQUESTS},
    "PRS": {ALL: _REQUESTS},
    "PECTL": {ALL: _REQUESTS},
    "RemappedIrte": {ALL: _INTERRUPTS},
    "PostedIrte": {ALL: _INTERRUPTS},
    "IRTA": {ALL: _INTERRUPTS},
    "FaultRecord": dict.fromkeys(("T2", "PRIV", "EXE", "PP", "PV"), _NO_PASID)
    | {"AT": "QEMU records untranslated requests only"},
    "VER": {ALL: _NO_CHOICE},
    "CAP": dict.fromkeys(("AFL", "RWBF", "PLMR", "PHMR", "CM", "ZLR", "PI", "FS5LP", "ECMDS"), _NOT_TOLD)
    | dict.fromkeys(("ESIRTPS", "ESRTPS"), _NOT_TOLD)
    | {
        "ND": "QEMU has 65536 domain ids, and no configuration needs more than what is left of them",
        "NFR": "QEMU has one record, and each fault is read before the next",
        "DWD": "draining has no effect that could be seen",
        "DRD": "draining has no effect that could be seen",
    },
    "ECAP": dict.fromkeys(("C", "IR", "EIM", "IRO", "MHMV", "MTS", "NEST", "ERS", "PSS", "PASID"), _NO_CHOICE)
    | dict.fromkeys(("PRS", "NWFS", "DIT", "VCS", "RPS", "TDXIO", "PMS", "ADMS", "RPRIVS"), _NOT_TOLD)
    | dict.fromkeys(("HPTS", "PTRS", "PBDS", "SMS"), _NOT_TOLD)
    | {
        "DT": "QEMU does not look at the capabilities that fields of context entries need",
        "SRS": _GATED,
        "EAFS": _GATED,
        "SMPWCS": "QEMU never has it; our unit gets it from the field itself",
    },
    "GCMD": dict.fromkeys(("CFI", "SIRTP", "IRE", "WBF", "EAFL", "SFL"), _NOT_GIVEN),
    "GSTS": dict.fromkeys(("CFIS", "IRTPS", "IRES", "WBFS", "AFLS", "FLS"), _NOT_GIVEN),
    "RTADDR": {"RTA": "a shift changes bits 63 and 11 alone, which no address of a root table has"},
    "FSTS": dict.fromkeys(("PPF", "AFO", "APF", "ICE", "ITE", "PRO", "FRI"), _STATUS)
    | {"PFO": "each fault is read before the next, so that none is lost"},
    "FECTL": {ALL: _EVENT},
    "PMEN": {ALL: _NO_CHOICE},
    "IQH": {ALL: "positions are compared as whole registers"},
    "IQT": {ALL: "positions are compared as whole registers"},
    "IQA": {"QS": "our driver's queue has one page, for which QS is 0"},
    "IQERCD": {ALL: "that the queue has stopped is compared, not why"},
    "CCMD": {ALL: _COMMAND},
    "IVA": {ALL: _COMMAND},
    "IOTLBREG": {ALL: _COMMAND},
    "ICS": {ALL: _EVENT},
    "IECTL": {ALL: _EVENT},
}
"""By the name of the layout and of the field: why."""

# SPDX-License-Identifier: Apache-2.0
"""The fields of SMMUv3's structures that QEMU does not look at."""

from collections.abc import Mapping

from tests.mutants.unlooked import ALL

_SUBSTREAMS = "QEMU's unit has no substreams"
_WIDE = "QEMU's unit has no addresses of 52 bits"
_OTHER_WORLD = "it counts for secure streams, which the units do not have"
_EL2 = "QEMU's unit has no StreamWorlds of EL2"
_MEMORY = "QEMU knows no memory types, no shareability and no hints"
_FETCHES = "no instructions are fetched"
_PRIVILEGE = "all requests that are compared are unprivileged, and QEMU takes all for privileged"
_FEATURE = "QEMU's unit lacks the feature without which the field means nothing"
_FREE = "bits that are for software or for other agents"
_UPDATES = "QEMU takes S2HA and S2HD for bits without a meaning, and a unit without updates of tables refuses both"
_SHIFT = "a shift changes the field's lowest bit, which alignment hides, and one above that QEMU does not refuse"
_SSEC = "it is 0 in every good command, and our unit goes by the bit's number"
_HINT = "prefetches do nothing"
_NO_EFFECT = "in comparisons all streams are named at once, so that what this command leaves out is not seen"
_EVERY_STREAM = "all streams are named at once; with half of them, those that are compared are still named"
_BY_NUMBER = "page-table formats know these bits by number; the declaration is for decoding"
_LEVEL = "only ranges have a level, and in comparisons they have none"
_LEAF = "QEMU forgets the same with and without Leaf"
_NOT_RECORDED = "QEMU never records it"
_NOT_THERE = "QEMU never has anything but 0 there"
_SELDOM = "no directed case ends in this event, and few random configurations do"
_STALLS = "QEMU's unit does not stall"
_ALIGNED = "a shift changes bits 56 and 3 alone, which no address of such a structure has"
_ODD = "no request that is compared ends so at an IPA with bit 12"
_NOT_TOLD = "QEMU's register has 0 there, and in the bit above"
_SAME = "QEMU's register has the same in the bit above"
_NO_CHOICE = "nothing that is compared depends on it"
_NOT_GIVEN = "the harness never writes it"
_EVENT = "no interrupts of the unit are compared"
_NO_WRAP = "no configuration has so many entries that a queue begins anew"
_REQUESTS = "QEMU's unit has no page requests"
_PARTITIONS = "QEMU's unit has IDR3.MPAM = 0"

_EVENT_0 = dict.fromkeys(("SSV", "SubstreamID"), _SUBSTREAMS)
_FETCH_0 = _EVENT_0 | {"Reason": _NOT_THERE}
_FAULT_0 = _EVENT_0 | {"STAG": _STALLS, "Stall": _STALLS, "PnU": _NOT_THERE, "InD": _NOT_THERE}
_TLBI = {"TTL128": _WIDE, "Leaf": _LEAF}

UNLOOKED: Mapping[str, Mapping[str, str]] = {
    "Ste": dict.fromkeys(("S1Fmt", "S1DSS"), _SUBSTREAMS)
    | dict.fromkeys(("S1CIR", "S1COR", "S1CSH", "MemAttr", "MTCFG", "ALLOCCFG", "SHCFG", "S2IR0", "S2OR0"), _MEMORY)
    | dict.fromkeys(("S2SH0", "DRE", "CONT", "DCP", "PPAR", "S2PTW"), _MEMORY)
    | dict.fromkeys(("S2HWU59", "S2HWU60", "S2HWU61", "S2HWU62"), _FREE)
    | dict.fromkeys(("MEV", "S1PIE", "S2FWB", "S1MPAM", "EATS", "STRW", "S2HAFT", "S2PIE", "S2POE"), _FEATURE)
    | dict.fromkeys(("DPT_VMATCH", "PARTID", "PMG", "MPAM_NS", "MECID", "AssuredOnly", "TL0", "TL1"), _FEATURE)
    | dict.fromkeys(("VMSPtr", "S2POI", "S2SKL", "S_S2SKL"), _FEATURE)
    | dict.fromkeys(("NSCFG", "S2NSW", "S2NSA", "S2SW", "S2SA", "S_S2T0SZ", "S_S2SL0", "S_S2TG"), _OTHER_WORLD)
    | dict.fromkeys(("S_S2SL0_2", "S_S2TTB"), _OTHER_WORLD)
    | dict.fromkeys(("PRIVCFG", "INSTCFG"), _PRIVILEGE)
    | dict.fromkeys(("S2SL0_2", "S2DS"), _WIDE)
    | {"S2HD": _UPDATES, "S2TTB": _SHIFT},
    "L1Cd": {ALL: _SUBSTREAMS},
    "Cd": dict.fromkeys(("IR0", "OR0", "SH0", "IR1", "OR1", "SH1", "MAIR0", "MAIR1", "AMAIR0", "AMAIR1"), _MEMORY)
    | dict.fromkeys(("WXN", "UWXN"), _FETCHES)
    | dict.fromkeys(("PAN", "E0PD0", "E0PD1", "EPAN"), _PRIVILEGE)
    | dict.fromkeys(("NSCFG0", "NSCFG1"), _OTHER_WORLD)
    | dict.fromkeys(("HAFT", "PnCH", "AIE", "PIE", "PARTID", "PMG", "PIIU", "PIIP"), _FEATURE)
    | dict.fromkeys((f"HWU{which}{bit}" for which in (0, 1) for bit in (59, 60, 61, 62)), _FREE)
    | {"TBI1": "QEMU goes by TBI0 for upper addresses, too", "DS": _WIDE, "TTB0": _SHIFT, "TTB1": _SHIFT},
    "Stage1Descriptor": dict.fromkeys(("Valid", "Type", "OA"), _BY_NUMBER)
    | dict.fromkeys(("AttrIndx", "SH", "Contiguous"), _MEMORY)
    | dict.fromkeys(("NS", "NSTable"), _OTHER_WORLD)
    | dict.fromkeys(("PXN", "UXN", "PXNTable", "UXNTable"), _FETCHES)
    | {"DBM": _FEATURE},
    "Stage1Descriptor64K": {ALL: _WIDE},
    "Stage1DescriptorDs": {ALL: _WIDE},
    "Stage2Descriptor": dict.fromkeys(("Valid", "Type", "OA"), _BY_NUMBER)
    | dict.fromkeys(("MemAttr", "SH", "Contiguous"), _MEMORY)
    | {"DBM": _FEATURE, "XN": _FETCHES},
    "Stage2Descriptor64K": {ALL: _WIDE},
    "Stage2DescriptorDs": {ALL: _WIDE},
    "PrefetchConfig": {ALL: _HINT},
    "PrefetchAddr": {ALL: _HINT},
    "CfgiSte": {ALL: _NO_EFFECT},
    "CfgiSteRange": {"SSec": _SSEC, "StreamID": _EVERY_STREAM, "Range": _EVERY_STREAM},
    "CfgiCd": {ALL: _NO_EFFECT},
    "CfgiCdAll": {"SSec": _SSEC, "StreamID": _NO_EFFECT},
    "CfgiVmsPidm": {ALL: _PARTITIONS},
    "TlbiNhVa": _TLBI,
    "TlbiNhVaa": _TLBI | {"TTL": _LEVEL},
    "TlbiEl2All": {ALL: _EL2},
    "TlbiEl2Asid": {ALL: _EL2},
    "TlbiEl2Va": {ALL: _EL2},
    "TlbiEl2Vaa": {ALL: _EL2},
    "TlbiS2Ipa": _TLBI | {"TTL": _LEVEL},
    "AtcInv": {ALL: _FEATURE},
    "PriResp": {ALL: _REQUESTS},
    "Resume": {ALL: _STALLS},
    "StallTerm": {"SSec": _SSEC, "StreamID": _STALLS},
    "Sync": dict.fromkeys(("MSH", "MSIAttr", "MSIData", "MSIAddr"), _EVENT),
    "FUut": {ALL: _NOT_RECORDED},
    "CBadStreamid": _EVENT_0,
    "FSteFetch": _FETCH_0 | {"GPCF": _NOT_THERE, "FetchAddr": _ALIGNED},
    "CBadSte": _EVENT_0,
    "FBadAtsTreq": {ALL: _NOT_RECORDED},
    "FStreamDisabled": {ALL: _NOT_RECORDED},
    "FTranslForbidden": {ALL: _NOT_RECORDED},
    "CBadSubstreamid": {ALL: _NOT_RECORDED},
    "FCdFetch": _FETCH_0 | {"FetchAddr": _ALIGNED},
    "CBadCd": _EVENT_0,
    "FWalkEabt": _FETCH_0 | {"PnU": _NOT_THERE, "InD": _NOT_THERE, "FetchAddr": _ALIGNED},
    "FTranslation": _FAULT_0,
    "FAddrSize": _FAULT_0 | {"IPA": _ODD} | dict.fromkeys(("StreamID", "RnW", "S2", "CLASS", "InputAddr"), _SELDOM),
    "FAccess": _FAULT_0 | {"IPA": _ODD},
    "FPermission": _FAULT_0 | {"TTRnW": "QEMU never sets it"},
    "FTlbConflict": {ALL: _NOT_RECORDED},
    "FCfgConflict": {ALL: _NOT_RECORDED},
    "EPageRequest": {ALL: _NOT_RECORDED},
    "FVmsFetch": {ALL: _NOT_RECORDED},
    "PageRequest": {ALL: _REQUESTS},
    "IDR0": dict.fromkeys(("COHACC", "BTM", "DORMHINT", "SEV", "ATOS", "VATOS", "RME_IMPL"), _NO_CHOICE)
    | dict.fromkeys(("HTTU", "Hyp", "PRI", "CD2L", "MSI"), _NOT_TOLD)
    | {
        "NS1ATS": "no command and no request of ATS is compared",
        "VMID16": "no VMID that is compared has more than 8 bits",
        "VMW": "CR0.VMW is 0",
        "ATSRECERR": "CR2.REC_CFG_ATS is 0",
        "TERM_MODEL": _SAME,
    },
    "IDR1": dict.fromkeys(("SSIDSIZE", "ATTR_PERMS_OVR", "ATTR_TYPES_OVR"), _NOT_TOLD)
    | dict.fromkeys(("REL", "QUEUES_PRESET", "TABLES_PRESET", "ECMDQ"), _NO_CHOICE)
    | dict.fromkeys(("PRIQS", "EVENTQS", "CMDQS"), "the queues are smaller than both sizes"),
    "IDR2": {ALL: _NO_CHOICE},
    "IDR3": dict.fromkeys(("PBHA", "BBML", "E0PD", "PTWNNC", "PASIDTT", "EPAN", "THE", "MTEPERM", "AIE"), _NO_CHOICE)
    | dict.fromkeys(("PPS", "MPAM", "FWB", "DPT", "S1PI", "S2PI", "S2PO"), _NOT_TOLD)
    | {"XNX": _FETCHES},
    "IDR5": {"GRAN4K": _SAME, "GRAN16K": _SAME, "DS": _NOT_TOLD, "D128": _NO_CHOICE, "VAX": _NOT_TOLD}
    | {"STALL_MAX": _NO_CHOICE},
    "IIDR": {ALL: _NO_CHOICE},
    "AIDR": {ALL: _NO_CHOICE},
    "IDR6": {ALL: _NO_CHOICE},
    "MPAMIDR": {ALL: _PARTITIONS},
    "CR0": dict.fromkeys(("PRIQEN", "ATSCHK", "VMW", "DPT_WALK_EN"), _NOT_GIVEN),
    "CR1": {ALL: _MEMORY},
    "CR2": {"E2H": _NOT_GIVEN, "PTM": _NO_CHOICE, "REC_CFG_ATS": _NOT_GIVEN},
    "Statusr": {ALL: _NO_CHOICE},
    "Gbpa": {ALL: _NOT_GIVEN},
    "IrqCtrl": {ALL: _EVENT},
    "Gerror": dict.fromkeys(("EVENTQ_ABT_ERR", "PRIQ_ABT_ERR", "MSI_CMDQ_ABT", "MSI_EVENTQ_ABT"), _NO_CHOICE)
    | dict.fromkeys(("MSI_PRIQ_ABT", "MSI_GERROR_ABT", "SFM_ERR", "CMDQP_ERR", "DPT_ERR"), _NO_CHOICE),
    "StrtabBase": {"ADDR": "a shift changes bits 56 and 6 alone, which no stream table's address has", "RA": _MEMORY},
    "CmdqBase": {"LOG2SIZE": _NO_WRAP, "ADDR": "a shift changes bits 56 and 5 alone, which the queue's address lacks"}
    | {"RA": _MEMORY},
    "EventqBase": {"LOG2SIZE": _NO_WRAP, "ADDR": "a shift changes bits 56 and 5 alone, which the queue's address lacks"}
    | {"WA": _MEMORY},
    "EventqProd": {"OVFLG": "no event is lost"},
    "EventqCons": {"RD": "the queue is never full", "OVACKFLG": "no event is lost"},
    "PriqBase": {ALL: _REQUESTS},
    "PriqProd": {ALL: _REQUESTS},
    "PriqCons": {ALL: _REQUESTS},
    "IrqCfg0": {ALL: _EVENT},
    "IrqCfg2": {ALL: _EVENT},
    "PriqIrqCfg2": {ALL: _EVENT},
}
"""By the name of the layout and of the field: why."""

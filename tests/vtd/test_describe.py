# SPDX-License-Identifier: Apache-2.0
"""A unit in words: those of worked register values, of a unit in use, and of any bits whatsoever."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iommuctl.inspect.decode import field_docs
from iommuctl_vtd import ARCHITECTURE
from iommuctl_vtd.describe import ABSENT, PHRASES
from iommuctl_vtd.fault_record import FaultRecord
from iommuctl_vtd.registers import CAP, ECAP, FSTS, GSTS, IQA, IQERCD, RTADDR

QEMU_CAP = 0x00D2008C222F0606
FIRST_STAGE_CAP = CAP.encode(ND=6, SAGAW=0b00100, MGAW=47, FRO=0x22, SSLPS=1, FS1GP=1, FS5LP=1, PI=1, CM=1, RWBF=1)
NAMES = [
    "VER", "CAP", "ECAP", "GCMD", "GSTS", "RTADDR", "CCMD", "FSTS", "FECTL",
    "PMEN", "IQH", "IQT", "IQA", "ICS", "IECTL", "IQERCD", "IRTA", "PQH",
    "PQT", "PQA", "PRS", "PECTL", "IVA", "IOTLB", "FRCD0", "FRCD255",
]  # fmt: skip


def words(**registers: int) -> dict[str, str]:
    return dict(ARCHITECTURE.unit_words(registers))


def test_the_cap_of_qemu() -> None:
    assert words(CAP=QEMU_CAP) == {
        "guest addresses": "up to 48 bits",
        "caching mode": "no",
        "write buffer": "needs no flush",
        "domain ids": "65536",
        "page-selective invalidation": "blocks of up to 2^18 pages of the second stage",
        "draining": "reads, writes",
        "fault records": "1, from offset 0x220",
    }


NOTHING = {
    "table modes": "legacy",
    "second stage": "39, 48 bits; pages of 4K, 2M, 1G",
    "first stage": "no",
    "nesting": "no",
    "pass-through": "no",
    "PASIDs": "no",
    "requests without PASID": "use the table of the context entry",
    "supervisor requests": "no",
    "device TLBs (ATS)": "no",
    "page requests (PRI)": "no",
    "snoop control": "no",
    "coherent page walks": "no",
    "accessed and dirty bits": "no",
    "invalidation queue": "no",
    "IOTLB registers": "from offset 0x0",
    "interrupt remapping": "no",
}
"""What an ECAP of zero says beside the CAP of QEMU."""
SCALABLE = {
    "table modes": "legacy, scalable",
    "pass-through": "yes",
    "requests without PASID": "in scalable mode use the table of PASID 0",
    "invalidation queue": "yes, descriptors of 128 and 256 bits",
    "IOTLB registers": "from offset 0xf0",
}
RID_PASID = {"requests without PASID": "in scalable mode use the table of the PASID in RID_PASID"}
REMAPPING = {"interrupt remapping": "yes, x2APIC, invalidations of up to 2^15 entries"}


@pytest.mark.parametrize(
    ("ecap", "said"),
    [
        (0, {}),
        # QEMU's scalable mode, with a second stage and with a first.
        (0x0000480080000F42, SCALABLE | {"supervisor requests": "yes"}),
        (
            0x0000880000000F42,
            SCALABLE
            | {
                "second stage": "39, 48 bits; pages of 4K, 2M, 1G; in legacy mode only",
                "first stage": "4 levels; pages of 4K, 2M",
                "accessed and dirty bits": "first stage",
            },
        ),
        # One that can nearly everything.
        (
            0x0003ED9CA4F00FDE,
            SCALABLE
            | RID_PASID
            | REMAPPING
            | {
                "first stage": "4 levels; pages of 4K, 2M",
                "nesting": "yes",
                "PASIDs": "20 bits",
                "supervisor requests": "yes",
                "device TLBs (ATS)": "yes",
                "page requests (PRI)": "yes, and can be drained",
                "snoop control": "yes",
                "coherent page walks": "scalable mode",
                "accessed and dirty bits": "first stage with the extended accessed flag, second stage",
            },
        ),
        # The one that OpenVMM emulates.
        (
            0x0003680000F010DB,
            SCALABLE
            | RID_PASID
            | REMAPPING
            | {
                "IOTLB registers": "from offset 0x100",
                "snoop control": "yes",
                "coherent page walks": "legacy mode, scalable mode",
                "accessed and dirty bits": "second stage",
            },
        ),
    ],
)
def test_worked_words(ecap: int, said: dict[str, str]) -> None:
    assert words(CAP=QEMU_CAP, ECAP=ecap) == words(CAP=QEMU_CAP) | NOTHING | said


def test_what_else_cap_can_say() -> None:
    ecap = ECAP.encode(SMTS=1, FSTS=1, IR=1, DT=1, DIT=1, PRS=1, PASID=1, PSS=31)
    said = words(CAP=FIRST_STAGE_CAP, ECAP=ecap)
    assert said["second stage"] == "48 bits; pages of 4K, 2M; in legacy mode only"
    assert said["first stage"] == "4 and 5 levels; pages of 4K, 2M, 1G"
    assert said["caching mode"] == "yes: entries that are not present may be cached"
    assert said["write buffer"] == "has to be flushed after tables change"
    assert said["page-selective invalidation"] == said["draining"] == said["invalidation queue"] == "no"
    assert said["interrupt remapping"] == "yes, posted, invalidations of up to 2^0 entries"
    assert said["device TLBs (ATS)"] == "yes, invalidations can be throttled"
    assert said["page requests (PRI)"] == "yes, but cannot be drained"
    assert said["PASIDs"] == "20 bits"
    assert words(CAP=0, ECAP=0)["second stage"] == "no: SAGAW has no width"
    assert words(CAP=7)["domain ids"] == "unknown: ND is 0x7"
    assert words(ECAP=ECAP.encode(ADMS=1))["table modes"] == "legacy, abort DMA"


@pytest.mark.parametrize("name", ["NEST", "PASID", "SRS", "FSTS", "SSADS", "SMPWCS"])
def test_what_scalable_mode_alone_has(name: str) -> None:
    """Without it, the capability says nothing."""
    assert words(ECAP=ECAP.encode(**{name: 1})) == words(ECAP=0)
    assert words(CAP=0, ECAP=ECAP.encode(**{name: 1})) == words(CAP=0, ECAP=0)


def test_where_there_is_no_unit() -> None:
    assert words(CAP=ABSENT, ECAP=ABSENT, GSTS=0xFFFFFFFF) == {"unit": "none: all bits of CAP and ECAP are set"}
    assert words() == words(VER=0x10) == {"unit": "unknown: CAP and ECAP cannot be read"}


@pytest.mark.parametrize(
    ("registers", "said"),
    [
        ({"GSTS": 0, "RTADDR": 0x1000, "IQA": 0}, ["off", "none", "off"]),
        (
            {"GSTS": GSTS.encode(TES=1, RTPS=1, QIES=1), "RTADDR": RTADDR.encode(TTM=1, RTA=0x1000000),
             "IQA": IQA.encode(QS=1, DW=1, IQA=0x2000000)},
            ["on", "at 0x1000000, scalable mode", "on, 256 descriptors of 256 bits at 0x2000000"],
        ),
        (
            {"GSTS": GSTS.encode(RTPS=1, QIES=1), "RTADDR": RTADDR.encode(TTM=2), "IQA": 0},
            ["off", "at 0x0, unknown: TTM is 0x2", "on, 256 descriptors of 128 bits at 0x0"],
        ),
    ],
)  # fmt: skip
def test_what_it_is_doing(registers: dict[str, int], said: list[str]) -> None:
    subjects = ("translation", "root table", "invalidation queue now")
    assert words(**registers) == dict(zip(subjects, said, strict=True))


@pytest.mark.parametrize(
    ("status", "faults", "errors"),
    [
        ({}, "none", "none"),
        ({"PPF": 1, "FRI": 3}, "pending, the first in FRCD3", "none"),
        ({"PPF": 1, "PFO": 1}, "pending, the first in FRCD0, some were lost", "none"),
        ({"IQE": 1}, "none", "the queue stopped: reserved field of a descriptor"),
        ({"ITE": 1, "ICE": 1}, "none", "a device TLB did not answer: 0x321, a completion was in error: 0x300"),
    ],
)
def test_what_went_wrong(status: dict[str, int], faults: str, errors: str) -> None:
    error = IQERCD.encode(IQEI=4, ITESID=0x321, ICESID=0x300)
    said = words(FSTS=FSTS.encode(**status), IQERCD=error)
    assert said == {"faults": faults, "invalidation errors": errors}
    assert words(FSTS=FSTS.encode(**status)) == {"faults": faults}


WORD = st.integers(0, ABSENT) | st.sampled_from([0, ABSENT])
REGISTERS = st.dictionaries(st.sampled_from(NAMES), WORD) | st.fixed_dictionaries({"CAP": WORD, "ECAP": WORD})


@given(REGISTERS)
def test_any_bits_of_any_registers_can_be_said(registers: dict[str, int]) -> None:
    found: Any = ARCHITECTURE.unit_words(registers)
    assert found
    assert all(subject and phrase and phrase.isprintable() for subject, phrase in found)
    assert len({subject for subject, _ in found}) == len(found)


def test_phrases_take_registers_that_there_are() -> None:
    assert {name for _, needs, _ in PHRASES for name in needs.split()} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_register_has_a_meaning(name: str) -> None:
    layout = ARCHITECTURE.register_layout(name)
    assert layout
    docs = field_docs(layout)
    assert [field.name for field in layout.fields if field.name not in docs and not field.values] == []


def test_layouts_of_registers() -> None:
    assert ARCHITECTURE.register_layout("CAP") is CAP
    assert ARCHITECTURE.register_layout("FRCD7") is FaultRecord
    assert ARCHITECTURE.register_layout("PLMBASE") is None

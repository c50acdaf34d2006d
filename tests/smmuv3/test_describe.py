# SPDX-License-Identifier: Apache-2.0
"""A unit in words: those of worked register values, of a unit in use, and of any bits whatsoever."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iommuctl.inspect.decode import field_docs
from iommuctl_smmuv3 import ARCHITECTURE
from iommuctl_smmuv3.describe import ABSENT, PHRASES
from iommuctl_smmuv3.id_registers import IDR0, IDR3, IDR5
from iommuctl_smmuv3.queue_registers import CmdqBase, CmdqCons, EventqBase, PriqBase
from iommuctl_smmuv3.registers import CR0, Gbpa, Gerror, StrtabBase, StrtabBaseCfg
from iommuctl_smmuv3.structures import STRUCTURES
from tests.smmuv3.units import QEMU, RICH

NAMES = [
    "IDR0", "IDR1", "IDR2", "IDR3", "IDR5", "IDR6", "IIDR", "AIDR", "CR0", "CR0ACK", "CR1", "CR2", "STATUSR", "GBPA",
    "IRQ_CTRL", "GERROR", "GERRORN", "STRTAB_BASE", "STRTAB_BASE_CFG", "CMDQ_BASE", "CMDQ_PROD", "CMDQ_CONS",
    "EVENTQ_BASE", "EVENTQ_PROD", "EVENTQ_CONS", "PRIQ_BASE", "PRIQ_PROD", "PRIQ_CONS", "PRIQ_IRQ_CFG2",
]  # fmt: skip


def words(**registers: int) -> dict[str, str]:
    return dict(ARCHITECTURE.unit_words(registers))


def test_qemu() -> None:
    assert words(**QEMU, IIDR=0, AIDR=1) == {
        "implementation": "implementer 0x0, product 0x0, variant 0, revision 0",
        "version": "SMMUv3.1",
        "stages": "stage 1",
        "nesting": "no",
        "table formats": "VMSAv8-64",
        "byte orders of tables": "little-endian tables only",
        "granules": "4K, 16K, 64K",
        "small translation tables": "no",
        "stage 2 extensions": "none",
        "physical addresses": "up to 44 bits",
        "virtual addresses": "up to 48 bits",
        "StreamIDs": "16 bits",
        "stream tables": "linear or two levels",
        "PASIDs": "no",
        "CD tables": "linear",
        "ASIDs": "16 bits",
        "VMIDs": "16 bits",
        "StreamWorlds of EL2": "no",
        "device TLBs (ATS)": "no",
        "page requests (PRI)": "no",
        "translation faults": "terminate only; abort only",
        "accessed and dirty bits": "none",
        "coherent page walks": "yes",
        "replaced attributes": "no",
        "range invalidation": "yes",
        "break-before-make": "level 2",
        "signals": "no",
    }


def test_one_that_can_nearly_everything() -> None:
    assert words(**RICH) == words(**QEMU) | {
        "stages": "stage 1, stage 2",
        "nesting": "yes",
        "table formats": "VMSAv8-32 LPAE and VMSAv8-64",
        "byte orders of tables": "both",
        "granules": "4K, 16K, 64K; 52-bit formats of 4K and 16K",
        "small translation tables": "yes",
        "stage 2 extensions": "execute by exception level, forced write-back",
        "physical addresses": "up to 52 bits",
        "virtual addresses": "up to 52 bits",
        "StreamIDs": "32 bits",
        "PASIDs": "20 bits",
        "CD tables": "linear or two levels",
        "StreamWorlds of EL2": "yes",
        "device TLBs (ATS)": "yes, also of stage 1 alone",
        "page requests (PRI)": "yes",
        "translation faults": "stall and terminate; abort or read as zero",
        "accessed and dirty bits": "accessed flag and dirty state, accessed flag of tables",
        "replaced attributes": "memory type and shareability, privilege and instruction",
    }


def test_what_else_identification_can_say() -> None:
    said = words(IDR0=IDR0.encode(ATS=1, NS1ATS=1, MSI=1, SEV=1, S2P=1), IDR3=IDR3.encode(FWB=1), IDR5=0)
    assert said["stages"] == "stage 2"
    assert said["table formats"] == "unknown: TTF is 0x0"
    assert said["device TLBs (ATS)"] == "yes"
    assert said["signals"] == "MSIs, events to processors"
    assert said["stage 2 extensions"] == "forced write-back"
    assert said["granules"] == "none"
    assert said["ASIDs"] == said["VMIDs"] == "8 bits"
    assert said["stream tables"] == "linear"
    assert said["coherent page walks"] == said["range invalidation"] == "no"
    assert words(IDR5=IDR5.encode(GRAN4K=1, GRAN64K=1))["granules"] == "4K, 64K"
    assert words(IDR0=0)["stages"] == "none"


def test_who_made_it() -> None:
    said = words(IIDR=0x4871243B, AIDR=0x2)
    assert said == {"implementation": "Arm, product 0x487, variant 1, revision 2", "version": "SMMUv3.2"}
    assert words(AIDR=0x10) == {"version": "unknown: ArchMajorRev is 0x1"}
    assert words(AIDR=0x9) == {"version": "unknown: ArchMinorRev is 0x9"}


def test_where_there_is_no_unit() -> None:
    assert words(IDR0=ABSENT, IDR1=ABSENT, CR0=ABSENT) == {"unit": "none: all bits of IDR0 and IDR1 are set"}
    assert words() == words(CR1=0xD75) == {"unit": "unknown: IDR0 to IDR5 cannot be read"}


@pytest.mark.parametrize(
    ("cr0", "gbpa", "said"),
    [
        (0, {}, ["off", "passed through"]),
        (0, {"ABORT": 1}, ["off", "aborted"]),
        (CR0.encode(SMMUEN=1), {"SHCFG": 1}, ["on", "passed through"]),
    ],
)
def test_translation(cr0: int, gbpa: dict[str, int], said: list[str]) -> None:
    assert list(words(CR0=cr0, GBPA=Gbpa.encode(**gbpa)).values()) == said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"LOG2SIZE": 5}, "at 0x888000000, 2^5 streams, linear"),
        ({"LOG2SIZE": 16, "FMT": 1, "SPLIT": 8}, "at 0x888000000, 2^16 streams, two levels, 256 STEs to a table"),
        ({"LOG2SIZE": 17, "FMT": 1, "SPLIT": 7}, "at 0x888000000, 2^16 streams, two levels, 64 STEs to a table"),
        ({"LOG2SIZE": 63, "FMT": 3, "SPLIT": 8}, "at 0x888000000, 2^16 streams, linear"),
    ],
)
def test_the_stream_table(config: dict[str, int], said: str) -> None:
    """The unit has StreamIDs of 16 bits."""
    base = StrtabBase.encode(ADDR=0x8_8800_0000, RA=1)
    found = words(IDR1=QEMU["IDR1"], STRTAB_BASE=base, STRTAB_BASE_CFG=StrtabBaseCfg.encode(**config))
    assert found["stream table"] == said


def test_queues() -> None:
    """More entries than IDR1 allows count as that many."""
    bases = {
        "CMDQ_BASE": CmdqBase.encode(LOG2SIZE=8, ADDR=0x1_0000, RA=1),
        "EVENTQ_BASE": EventqBase.encode(LOG2SIZE=31, ADDR=0x2_0000),
        "PRIQ_BASE": PriqBase.encode(LOG2SIZE=4, ADDR=0x3_0000),
    }
    on = words(CR0=CR0.encode(CMDQEN=1, EVENTQEN=1, PRIQEN=1), IDR1=RICH["IDR1"], **bases)
    assert on["command queue"] == "on, 256 entries at 0x10000"
    assert on["event queue"] == "on, 262144 entries at 0x20000"
    assert on["PRI queue"] == "on, 16 entries at 0x30000"
    for name, subject in (("CMDQEN", "command queue"), ("EVENTQEN", "event queue"), ("PRIQEN", "PRI queue")):
        one = words(CR0=CR0.encode(**{name: 1}), IDR1=RICH["IDR1"], **bases)
        assert [queue for queue in ("command queue", "event queue", "PRI queue") if one[queue] != "off"] == [subject]


@pytest.mark.parametrize(("queue", "subject"), [("CMDQ", "commands"), ("EVENTQ", "events"), ("PRIQ", "requests")])
@pytest.mark.parametrize(
    ("prod", "cons", "said"),
    [(0, 0, "none"), (3, 1, "2 waiting"), (0x10, 0, "16 waiting"), (0x11, 0xF, "2 waiting"), (1, 0x1F, "2 waiting")],
)
def test_what_waits(queue: str, subject: str, prod: int, cons: int, said: str) -> None:
    """Of 16 entries, with the wrap bit above the index."""
    registers = {f"{queue}_BASE": 4, f"{queue}_PROD": prod, f"{queue}_CONS": cons}
    assert words(IDR1=RICH["IDR1"], **registers)[subject] == said


@pytest.mark.parametrize(("queue", "subject"), [("EVENTQ", "events"), ("PRIQ", "requests")])
def test_what_was_lost(queue: str, subject: str) -> None:
    registers = {"IDR1": RICH["IDR1"], f"{queue}_BASE": 4}
    lost = words(**registers, **{f"{queue}_PROD": 0x80000001, f"{queue}_CONS": 0})
    assert lost[subject] == "1 waiting, some were lost"
    told = words(**registers, **{f"{queue}_PROD": 0x80000001, f"{queue}_CONS": 0x80000001})
    assert told[subject] == "none"


@pytest.mark.parametrize(
    ("errors", "acknowledged", "said"),
    [
        ({}, {}, "none"),
        ({"CMDQ_ERR": 1}, {}, "CMDQ_ERR: CERROR_ILL: the command is not legal"),
        ({"CMDQ_ERR": 1}, {"CMDQ_ERR": 1}, "none"),
        ({}, {"SFM_ERR": 1}, "SFM_ERR"),
        ({"EVENTQ_ABT_ERR": 1, "PRIQ_ABT_ERR": 1}, {"PRIQ_ABT_ERR": 1, "DPT_ERR": 1}, "EVENTQ_ABT_ERR, DPT_ERR"),
    ],
)
def test_errors(errors: dict[str, int], acknowledged: dict[str, int], said: str) -> None:
    cons = CmdqCons.encode(ERR=1, RD=7)
    found = words(GERROR=Gerror.encode(**errors), GERRORN=Gerror.encode(**acknowledged), CMDQ_CONS=cons)
    assert found == {"errors": said}


WORD = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, ABSENT])


@given(st.dictionaries(st.sampled_from(NAMES), WORD) | st.fixed_dictionaries(dict.fromkeys(NAMES, WORD)))
def test_any_bits_of_any_registers_can_be_said(registers: dict[str, int]) -> None:
    found: Any = ARCHITECTURE.unit_words(registers)
    assert found
    assert all(subject and phrase and phrase.isprintable() for subject, phrase in found)
    assert len({subject for subject, _ in found}) == len(found)


def test_phrases_take_registers_that_there_are() -> None:
    assert {name for _, needs, _ in PHRASES for name in needs.split()} <= set(NAMES)


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_field_has_a_meaning(name: str) -> None:
    layout = STRUCTURES[name]
    docs = field_docs(layout)
    always = {"Opcode", "Event", "SSec"}
    assert [f.name for f in layout.fields if f.name not in docs and not f.values and f.name not in always] == []


def test_the_architecture() -> None:
    assert ARCHITECTURE.name == "smmuv3"
    assert ARCHITECTURE.structures is STRUCTURES
    assert all(ARCHITECTURE.register_layout(name) for name in NAMES)

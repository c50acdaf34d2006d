# SPDX-License-Identifier: Apache-2.0
"""What the driver writes and sends for each change, and in which order: IHI0070 G.b sections 3.21 and 6.3."""

from typing import Any

import pytest

from iommuctl.errors import DamagedTable, OutOfAperture, Unsupported
from iommuctl.hookspecs import SlotChange
from iommuctl.model import Attachment, Device, Rid, Slot
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR5
from iommuctl_smmuv3.register_bank import DEFAULTS
from iommuctl_smmuv3.startup import why_not
from iommuctl_smmuv3.ste import Ste
from tests.smmuv3.driven import Driven, Sent

A = "0000:00:01.0"
SID = 0x0008 << 32
DATA = 0x5000
C_BAD_STREAMID, C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD, F_TRANSLATION = 2, 4, 6, 8, 0xA, 0x10

CFGI_STE: Sent = (SID | 0x03, 1)
CFGI_BUS: Sent = (0x04, 7)
CFGI_ALL: Sent = (0x04, 31)
NSNH_ALL: Sent = (0x30, 0)
EL2_ALL: Sent = (0x20, 0)


def cfgi_cd(pasid: int, *, leaf: bool = True) -> Sent:
    return SID | pasid << 12 | 0x05, leaf


def nh_all(vmid: int) -> Sent:
    return vmid << 32 | 0x10, 0


def nh_asid(asid: int) -> Sent:
    return asid << 48 | 0x11, 0


def s12_vmall(vmid: int) -> Sent:
    return vmid << 32 | 0x28, 0


def atc_all(pasid: int | None = None) -> Sent:
    return SID | (0x40 if pasid is None else pasid << 12 | 0x840), 52


def without(register: str, *fields: str, **values: int) -> dict[str, int]:
    """Options of a unit that lacks these fields of a register, or has other values in them."""
    layout = {"IDR0": IDR0, "IDR1": IDR1, "IDR5": IDR5}[register]
    held = {**layout.values(DEFAULTS[register]), **dict.fromkeys(fields, 0), **values}
    return {register.lower(): layout.encode(**held)}


def ste(rid: Rid, machine: Driven) -> dict[str, int]:
    """The fields of an STE that are not zero."""
    return {name: value for name, value in Ste.values(Ste.from_words(machine.entry(rid))).items() if value}


# Switching on


def test_start() -> None:
    machine = Driven()
    read = machine.unit.read_register
    assert machine.sent() == [CFGI_ALL, "sync", EL2_ALL, NSNH_ALL, "sync"]
    assert (read("CR0"), read("CR1"), read("CR2")) == (0x1F, 0xD75, 0x6)
    assert (read("STRTAB_BASE") >> 62, read("STRTAB_BASE") & 0x7FF) == (1, 0)
    assert read("STRTAB_BASE_CFG") == 0x10210
    table = read("STRTAB_BASE") & (1 << 56) - 64
    assert machine.memory.read(table, 2048) == bytes(2048)
    for queue, bits in (("CMDQ", 8), ("EVENTQ", 7), ("PRIQ", 8)):
        base = read(f"{queue}_BASE")
        assert (base >> 62, base & 0xFFF) == (1, bits)
        assert machine.memory.word(base & (1 << 56) - 4096) == (4 if queue == "CMDQ" else 0)
    assert machine.pa(Slot(Rid.parse(A)), DATA) == -C_BAD_STREAMID
    machine.accounts()


def test_start_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, int]] = []
    from iommuctl_smmuv3.unit import Unit

    right = Unit.write_register

    def write(unit: Unit, name: str, value: int) -> None:
        written.append((name, value if name == "CR0" else 0))
        right(unit, name, value)

    monkeypatch.setattr(Unit, "write_register", write)
    Driven()
    names = "CR0 CR1 CR2 STRTAB_BASE STRTAB_BASE_CFG CMDQ_BASE CMDQ_PROD CMDQ_CONS CR0 CMDQ_PROD CMDQ_PROD"
    names += " EVENTQ_BASE EVENTQ_PROD EVENTQ_CONS CR0 PRIQ_BASE PRIQ_PROD PRIQ_CONS CR0 CR0 CR0"
    assert [name for name, _ in written] == names.split()
    assert [value for name, value in written if name == "CR0"] == [0, 0x8, 0xC, 0xE, 0x1E, 0x1F]


def test_start_without_el2() -> None:
    machine = Driven(**without("IDR0", "Hyp"))
    assert machine.sent() == [CFGI_ALL, "sync", NSNH_ALL, "sync"]


def test_start_without_ats_and_pri() -> None:
    machine = Driven(**without("IDR0", "ATS", "PRI"))
    assert machine.unit.read_register("CR0") == 0xD
    assert machine.unit.read_register("PRIQ_BASE") == 0
    machine.accounts()


@pytest.mark.parametrize(
    ("lacks", "because"),
    [
        ({"s1p": False}, "it has no stage 1"),
        ({"aarch64": False}, "it has no VMSAv8-64 tables"),
        ({"ttendian": 3}, "it reads big-endian tables only"),
        ({"stall_model": 2}, "its transactions stall when they fault"),
        ({"granules": ()}, "it has no granule of 4, 16 or 64 KB"),
    ],
)
def test_units_that_cannot_be_driven(lacks: dict[str, Any], because: str) -> None:
    features = Features.of(DEFAULTS)
    assert why_not(features) == ""
    assert why_not(features._replace(**lacks)) == because


def test_a_unit_without_stage_1() -> None:
    with pytest.raises(Unsupported, match="the unit cannot be driven") as error:
        Driven(**without("IDR0", "S1P"))
    assert error.value.because == "it has no stage 1"


def test_queues_of_few_entries() -> None:
    machine = Driven(**without("IDR1", CMDQS=1, EVENTQS=2, PRIQS=0))
    assert [machine.unit.read_register(f"{name}_BASE") & 0x1F for name in ("CMDQ", "EVENTQ", "PRIQ")] == [1, 2, 0]
    slot = Slot(machine.device(A))
    domain = machine.domain()
    machine.map(domain, DATA, 0x7000)
    machine.attach(domain, slot)
    assert machine.dma(slot, DATA) == 0x7000
    machine.install(slot, None)
    assert machine.dma(slot, DATA) == 0


@pytest.mark.parametrize("bits", [6, 8, 16])
def test_linear_stream_tables(bits: int) -> None:
    machine = Driven(**without("IDR0", "ST_LEVEL"), **without("IDR1", SIDSIZE=bits))
    assert machine.unit.read_register("STRTAB_BASE_CFG") == bits
    slot = Slot(machine.device(A))
    assert machine.sent()[5:] == [CFGI_STE, "sync"]
    domain = machine.domain()
    machine.map(domain, DATA, 0x7000)
    machine.attach(domain, slot)
    assert machine.dma(slot, DATA) == 0x7000
    assert next(machine.driver.structures(slot.rid)).step.structure == "smmuv3.ste"
    assert machine.check() == []
    machine.accounts()
    machine.install(slot, None)
    machine.undevice(slot.rid)
    assert machine.pa(slot, DATA) == -C_BAD_STE
    if bits < 16:
        with pytest.raises(Unsupported, match="cannot serve") as error:
            machine.device(f"0000:{1 << bits - 8 & 0xFF:02x}:1f.7" if bits >= 8 else "0000:00:08.0")
        assert error.value.because == f"its StreamIDs have {bits} bits"


def test_a_command_that_the_unit_refuses() -> None:
    machine = Driven(**without("IDR1", CMDQS=0))
    rid = machine.device(A)
    base = machine.unit.read_register("CMDQ_BASE") & (1 << 56) - 4096
    machine.memory.on_write = lambda: machine.memory.put({base: 0xFF})
    with pytest.raises(DamagedTable, match="stopped at a command") as error:
        machine.undevice(rid)
    assert error.value.because == "CERROR_ILL: the command is not legal"


def test_a_device_that_does_not_answer() -> None:
    machine = Driven()
    slot = Slot(machine.device(A, ats=True))
    machine.attach(machine.domain(), slot)
    machine.bus.completions[8] = "timeout"
    with pytest.raises(DamagedTable, match="stopped at a command") as error:
        machine.install(slot, None)
    assert "CERROR_ATC_INV_SYNC" in error.value.because


# Devices


def test_device() -> None:
    machine = Driven()
    machine.sent()
    machine.memory.freed.clear()
    rid = machine.device(A)
    machine.memory.freed.clear()
    # The level 2 table is new; so is what level 1 says about its other streams.
    assert machine.sent() == [CFGI_BUS, "sync"]
    assert machine.entry(rid) == (1,)
    assert machine.entry_address(rid) % 16384 == 64 * 8
    assert machine.pa(Slot(rid), DATA) == 0
    neighbour = machine.device("0000:00:1f.7")
    assert machine.sent() == [(0xFF << 32 | 0x03, 1), "sync"]
    assert machine.dma(Slot(Rid.parse("0000:00:02.0")), DATA) == -C_BAD_STE
    machine.undevice(rid)
    assert machine.sent() == [CFGI_STE, "sync"]
    assert machine.entry(rid) == ()
    assert machine.memory.freed == []
    machine.undevice(neighbour)
    assert machine.sent() == [CFGI_BUS, "sync"]
    # Not before the caches have forgotten it.
    assert [run.pages for run in machine.memory.freed[-1:]] == [4]
    assert machine.freed_before[-1] == 0
    machine.accounts()


def test_devices_on_several_buses() -> None:
    machine = Driven()
    domain = machine.domain()
    machine.map(domain, DATA, 0x7000)
    rids = [machine.device(text, pasid_bits=8) for text in ("00:00.0", "00:1f.7", "7f:0f.7", "ff:00.0", "ff:1f.7")]
    for rid in rids:
        machine.attach(domain, Slot(rid))
        assert machine.dma(Slot(rid), DATA) == 0x7000
    assert machine.check() == []
    machine.accounts()
    for rid in rids:
        machine.install(Slot(rid), None)
        machine.undevice(rid)
        assert machine.check() == []
        machine.accounts()
    assert {machine.dma(Slot(rid), DATA) for rid in rids} == {-C_BAD_STREAMID}


@pytest.mark.parametrize(
    ("device", "options", "because"),
    [
        (Device(Rid(1, 0, 1, 0)), {}, "it serves PCI segment 0000"),
        (Device(Rid(0, 0, 1, 0), ats=True), without("IDR0", "ATS"), "its IDR0 lacks ATS"),
        (Device(Rid(0, 0, 1, 0), ats=True, pri=True), without("IDR0", "PRI"), "its IDR0 lacks PRI"),
        (Device(Rid(0, 0, 1, 0), pasid_bits=9), without("IDR1", SSIDSIZE=8), "it takes PASIDs of up to 8 bits"),
        (Device(Rid(0, 0x40, 0, 0)), without("IDR1", SIDSIZE=14), "its StreamIDs have 14 bits"),
    ],
)
def test_devices_that_the_unit_cannot_serve(device: Device, options: dict[str, int], because: str) -> None:
    with pytest.raises(Unsupported, match="cannot serve") as error:
        Driven(**options).driver.device_add(device)
    assert error.value.because == because


def test_a_slot_of_a_device_whose_entry_is_gone() -> None:
    machine = Driven()
    rid = machine.device(A)
    domain = machine.domain()
    machine.memory.put({machine.entry_address(rid): 0})
    with pytest.raises(DamagedTable, match=r"STE of 0000:00:01\.0 is not valid"):
        machine.driver.install(SlotChange(Slot(rid), None, Attachment(Slot(rid), domain)))


# Domains


@pytest.mark.parametrize(
    ("oas", "widths"),
    [(0, (32,)), (1, (36,)), (2, (39, 40)), (3, (39, 42)), (4, (39, 44)), (5, (39, 48)), (6, (39, 48))],
)
def test_every_output_size(oas: int, widths: tuple[int, ...]) -> None:
    """Each granule, as stage 1 and as stage 2: what the driver writes is legal, and its last page is found."""
    machine = Driven(**without("IDR5", OAS=oas))
    assert machine.driver.capabilities().widths == widths
    for number, width in enumerate(widths):
        for granule in (1 << 12, 1 << 14, 1 << 16):
            slot = Slot(machine.device(f"0000:{number:02x}:{granule >> 12:02x}.0"))
            for nest_parent in (False, True):
                domain = machine.domain(width=width, nest_parent=nest_parent, sizes=(granule,))
                assert machine.driver.domain_format(domain).page_sizes[0] == granule
                machine.map(domain, (1 << width) - granule, 0x8_0000, granule)
                machine.attach(domain, slot)
                assert machine.dma(slot, (1 << width) - 1) == 0x8_0000 + granule - 1
                assert machine.dma(slot, DATA) == -F_TRANSLATION
    assert machine.check() == []
    machine.accounts()


def test_widths_without_stage_2() -> None:
    machine = Driven(**without("IDR0", "S2P"), **without("IDR5", OAS=4))
    capabilities = machine.driver.capabilities()
    assert (capabilities.widths, capabilities.nesting, capabilities.pgtable_formats) == ((39, 48), "none", ())
    with pytest.raises(Unsupported, match="nest parent"):
        machine.domain(nest_parent=True)


def test_capabilities() -> None:
    capabilities = Driven().driver.capabilities()
    assert capabilities.nesting == "device"
    assert not capabilities.hitless_replace
    assert capabilities.page_sizes == (1 << 12, 1 << 16, 1 << 21, 1 << 25, 1 << 30, 1 << 34)
    assert capabilities.pasid_bits == 20
    assert capabilities.pgtable_formats == (
        "smmuv3.stage-1-4k-48", "smmuv3.stage-1-16k-48", "smmuv3.stage-1-64k-48",
    )  # fmt: skip
    assert Driven(**without("IDR1", SSIDSIZE=6)).driver.capabilities().pasid_bits == 6


@pytest.mark.parametrize(
    ("sizes", "granule"),
    [
        ((1 << 12, 1 << 21), 1 << 12),
        ((1 << 14,), 1 << 14),
        ((1 << 16,), 1 << 16),
        ((1 << 16, 1 << 29), 1 << 16),
        # A contiguous run of 4 KB pages, and blocks.
        ((1 << 16, 1 << 30), 1 << 12),
        ((1 << 21,), 1 << 12),
    ],
)
def test_granules(sizes: tuple[int, ...], granule: int) -> None:
    machine = Driven()
    domain = machine.domain(sizes=sizes)
    assert machine.driver.domain_format(domain).page_sizes[0] == granule
    slot = Slot(machine.device(A))
    machine.map(domain, 0x4000_0000, 0x800_0000, sizes[0])
    machine.attach(domain, slot)
    assert machine.dma(slot, 0x4000_0000 + sizes[0] - 1) == 0x800_0000 + sizes[0] - 1


def test_page_sizes_of_two_granules() -> None:
    with pytest.raises(Unsupported, match="no page table has pages of all these sizes"):
        Driven().domain(sizes=(1 << 12, 1 << 29))


def test_domain_destroy() -> None:
    machine = Driven()
    domain = machine.domain()
    for iova in (0x5000, 0x4000_0000, 1 << 40):
        machine.map(domain, iova, 0x7000)
    with pytest.raises(OutOfAperture):
        machine.map(domain, 1 << 48, 0x7000)
    machine.accounts()
    machine.driver.domain_destroy(machine.domains.pop())
    machine.accounts()


@pytest.mark.parametrize(("prot", "allowed"), [("r", "r"), ("rw", "rw"), ("rx", "rx"), ("rwx", "rwx")])
@pytest.mark.parametrize("nest_parent", [False, True])
def test_execute_permission(prot: str, allowed: str, nest_parent: bool) -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    domain = machine.domain(nest_parent=nest_parent)
    machine.map(domain, DATA, 0x7000, prot=prot)
    machine.attach(domain, slot)
    assert [access for access in ("r", "w", "x") if machine.dma(slot, DATA, access) > 0] == list(allowed)


# Slots


def test_attach_a_rid() -> None:
    machine = Driven()
    slot = Slot(machine.device(A, pasid_bits=0))
    domain = machine.domain()
    machine.sent()
    machine.attach(domain, slot)
    # All but the first word, and then that one.
    assert machine.sent() == [CFGI_STE, "sync", CFGI_STE, "sync"]
    first, second = machine.entry(slot.rid)
    context = first & (1 << 56) - 64
    assert (first, second) == (context | 0xB, 0xD4)
    root = machine.driver.domain_root(domain)
    assert machine.words(context) == (0x1E205C0003510, root, 0, 0xF404FF44)
    assert machine.memory.read(context + 64, 4032) == bytes(4032)


def test_flags_of_devices_and_units() -> None:
    machine = Driven(**without("IDR0", STALL_MODEL=0), **without("IDR5", OAS=2))
    slot = Slot(machine.device(A, ats=True, pasid_bits=7))
    machine.attach(machine.domain(width=40, sizes=(1 << 16,)), slot)
    fields = ste(slot.rid, machine)
    assert fields.pop("S1ContextPtr") % 4096 == 0
    assert fields == {
        "V": 1, "Config": 5, "S1CDMax": 6, "S1DSS": 2, "S1CIR": 1, "S1COR": 1, "S1CSH": 3, "S1STALLD": 1,
        "EATS": 1,
    }  # fmt: skip


@pytest.mark.parametrize("cd2l", [False, True])
@pytest.mark.parametrize("bits", [*range(1, 17), 20])
def test_every_size_of_cd_table(bits: int, cd2l: bool) -> None:
    if bits == 20 and not cd2l:
        pytest.skip("64 MiB of CDs are more than there is")
    machine = Driven(**({} if cd2l else without("IDR0", "CD2L")))
    rid = machine.device(A, pasid_bits=bits)
    domain = machine.domain()
    machine.map(domain, DATA, 0x7000)
    last = (1 << bits) - 1
    for pasid in (1, last) if bits > 1 else (1,):
        machine.attach(domain, Slot(rid, pasid))
        assert machine.dma(Slot(rid, pasid), DATA) == 0x7000
    assert ste(rid, machine)["S1CDMax"] == bits
    assert ste(rid, machine).get("S1Fmt", 0) == (1 if cd2l and bits > 6 else 0)
    assert machine.dma(Slot(rid), DATA) == -F_STREAM_DISABLED
    if bits < 20:
        assert machine.dma(Slot(rid, last + 1), DATA) == -C_BAD_SUBSTREAMID
    assert machine.check() == []
    machine.accounts()
    for slot in list(machine.slots):
        machine.install(slot, None)
    assert machine.entry(rid) == (1,)
    machine.accounts()


def test_a_table_of_contexts_too_large_for_memory() -> None:
    from iommuctl.errors import NoRoom

    machine = Driven(**without("IDR0", "CD2L"))
    rid = machine.device(A, pasid_bits=20)
    with pytest.raises(NoRoom):
        machine.attach(machine.domain(), Slot(rid, (1 << 20) - 1))


@pytest.mark.parametrize("cd2l", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_table_of_contexts_grows(cd2l: bool, nested: bool) -> None:
    """PASIDs that are there translate after each store, as they did before."""
    machine = Driven(**({} if cd2l else without("IDR0", "CD2L")))
    rid = machine.device(A)
    one = Slot(rid, 5)
    if nested:
        parent = machine.parent()
        root = machine.page_table(parent, {DATA: 0x3000})
        machine.attach(parent, Slot(rid))
        wanted = 0x800_3000
    else:
        domain = machine.domain()
        machine.map(domain, DATA, 0x7000)
        wanted = 0x7000

    def use(pasid: int) -> None:
        if nested:
            machine.bind(parent, Slot(rid, pasid), root)
        else:
            machine.attach(domain, Slot(rid, pasid))

    use(5)
    assert ste(rid, machine)["S1CDMax"] == 6
    seen: list[int] = []
    machine.memory.on_write = lambda: seen.append(machine.pa(one, DATA))
    for pasid, bits in ((6, 6), (64, 7), (65, 7), (1000, 10), (700, 10)):
        use(pasid)
        assert ste(rid, machine)["S1CDMax"] == bits
        assert ste(rid, machine).get("S1Fmt", 0) == (1 if cd2l and bits > 6 else 0)
    machine.memory.on_write = None
    assert set(seen) == {wanted}
    assert [machine.dma(Slot(rid, pasid), DATA) for pasid in (5, 6, 64, 65, 700, 1000)] == [wanted] * 6
    assert machine.check() == []
    machine.accounts()
    for slot in reversed(list(machine.slots)):
        machine.install(slot, None)
    assert machine.entry(rid) == (1,)
    machine.accounts()


def test_pasids_come_and_go() -> None:
    machine = Driven()
    rid = machine.device(A, ats=True)
    one, other = machine.domain(), machine.domain()
    machine.map(one, DATA, 0x7000)
    machine.map(other, DATA, 0x8000)
    machine.attach(one, Slot(rid, 5))
    machine.sent()
    # In a leaf that is there: all but the first word, and then that one.
    machine.attach(other, Slot(rid, 6))
    assert machine.sent() == [cfgi_cd(6), "sync", cfgi_cd(6), "sync"]
    # In a leaf that is new, of a table that is, too: both are written before something leads to them.
    machine.attach(other, Slot(rid, 64))
    assert machine.sent() == [cfgi_cd(64, leaf=False), "sync", CFGI_STE, "sync"]
    # The RID's CD, and then the STE that says so.
    machine.attach(one, Slot(rid))
    assert machine.sent() == [cfgi_cd(0), "sync", cfgi_cd(0), "sync", CFGI_STE, "sync"]
    assert [machine.dma(slot, DATA) for slot in machine.slots] == [0x7000, 0x8000, 0x8000, 0x7000]
    # The ASID and the table are in two words: not valid in between.
    machine.attach(other, Slot(rid, 5))
    assert machine.sent() == [*[cfgi_cd(5), "sync"] * 3, nh_asid(1), "sync", atc_all(5), "sync"]
    assert machine.dma(Slot(rid, 5), DATA) == 0x8000
    machine.install(Slot(rid, 64), None)
    assert machine.sent() == [(SID | 0x06, 0), "sync", nh_asid(2), "sync", atc_all(64), "sync"]
    machine.install(Slot(rid), None)
    assert machine.sent() == [
        CFGI_STE, "sync", *[cfgi_cd(0), "sync"] * 2, nh_asid(1), "sync", atc_all(), "sync",
    ]  # fmt: skip
    assert machine.dma(Slot(rid), DATA) == -F_STREAM_DISABLED
    machine.install(Slot(rid, 5), None)
    assert machine.dma(Slot(rid, 5), DATA) == -C_BAD_CD
    machine.sent()
    # With the last one the table goes.
    machine.install(Slot(rid, 6), None)
    assert machine.sent() == [*[CFGI_STE, "sync"] * 2, nh_asid(2), "sync", atc_all(6), "sync"]
    assert machine.entry(rid) == (1,)
    machine.accounts()


def test_from_stage_1_to_stage_2_and_back() -> None:
    machine = Driven()
    slot = Slot(machine.device(A, ats=True))
    domain, parent = machine.domain(), machine.parent()
    machine.map(domain, DATA, 0x7000)
    machine.attach(domain, slot)
    machine.sent()
    machine.attach(parent, slot)
    assert machine.sent() == [*[CFGI_STE, "sync"] * 3, nh_asid(1), "sync", atc_all(), "sync"]
    root = machine.driver.domain_root(parent)
    assert machine.entry(slot.rid) == (0xD, 0x100010000000, 0x44D359000000001, root)
    assert machine.dma(slot, DATA) == 0x800_5000
    machine.accounts()
    machine.attach(domain, slot)
    assert machine.sent() == [*[CFGI_STE, "sync"] * 3, s12_vmall(1), "sync", atc_all(), "sync"]
    assert machine.dma(slot, DATA) == 0x7000
    machine.accounts()


def test_one_parent_for_another() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    one, other = machine.parent(), machine.parent(base=0xA00_0000)
    machine.attach(one, slot)
    assert machine.dma(slot, DATA) == 0x800_5000
    machine.sent()
    machine.attach(other, slot)
    assert machine.sent() == [*[CFGI_STE, "sync"] * 3, s12_vmall(1), "sync"]
    assert machine.dma(slot, DATA) == 0xA00_5000


# Nesting


def test_bind_and_unbind() -> None:
    machine = Driven()
    rid = machine.device(A, ats=True)
    parent = machine.parent()
    guest = machine.guests[parent.id]
    roots = [machine.page_table(parent, {DATA: gpa}) for gpa in (0x3000, 0x4000)]
    held = set(guest.held)
    machine.attach(parent, Slot(rid))
    stage_2 = machine.entry(rid)
    machine.sent()
    machine.bind(parent, Slot(rid, 5), roots[0])
    # Only the words of stage 1 are new.
    assert machine.sent() == [*[CFGI_STE, "sync"] * 2]
    first, second, *rest = machine.entry(rid)
    pointer = first & (1 << 56) - 64
    assert pointer in guest.held - held
    assert (first, second) == (6 << 59 | pointer | 0xF, 0x1000100000D5)
    assert rest == list(stage_2[2:])
    context = machine.words(0x800_0000 + pointer + 5 * 64)
    assert context == (0x1E205C0003510, roots[0], 0, 0xF404FF44)
    assert (machine.dma(Slot(rid, 5), DATA), machine.dma(Slot(rid), DATA)) == (0x800_3000, 0x800_5000)
    machine.bind(parent, Slot(rid), roots[1])
    # Stage 2 is still what it was; the device has addresses of before.
    assert machine.sent() == [*[cfgi_cd(0), "sync"] * 2, CFGI_STE, "sync", atc_all(), "sync"]
    assert machine.entry(rid)[1] == 0x1000100000D6
    assert (machine.dma(Slot(rid, 5), DATA), machine.dma(Slot(rid), DATA)) == (0x800_3000, 0x800_4000)
    assert machine.check() == []
    machine.attach(parent, Slot(rid))
    assert machine.sent() == [
        CFGI_STE, "sync", *[cfgi_cd(0), "sync"] * 2, nh_all(1), "sync", atc_all(), "sync",
    ]  # fmt: skip
    assert machine.dma(Slot(rid), DATA) == 0x800_5000
    machine.install(Slot(rid, 5), None)
    assert machine.sent() == [*[CFGI_STE, "sync"] * 2, nh_all(1), "sync", atc_all(5), "sync"]
    assert machine.entry(rid) == stage_2
    assert guest.held == held
    machine.install(Slot(rid), None)
    assert machine.entry(rid) == (1,)
    machine.accounts()


@pytest.mark.parametrize("bits", [0, 5, 20])
def test_bind_the_rid_alone(bits: int) -> None:
    machine = Driven()
    slot = Slot(machine.device(A, pasid_bits=bits))
    parent = machine.parent()
    root = machine.page_table(parent, {DATA: 0x3000})
    held = set(machine.guests[parent.id].held)
    machine.attach(parent, slot)
    assert machine.dma(slot, DATA) == 0x800_5000
    machine.bind(parent, slot, root)
    assert machine.dma(slot, DATA) == 0x800_3000
    assert ste(slot.rid, machine).get("S1DSS", 0) == (2 if bits else 0)
    assert machine.check() == []
    machine.sent()
    # Both stages at once.
    machine.install(slot, None)
    assert machine.sent() == [*[CFGI_STE, "sync"] * 2, s12_vmall(1), "sync"]
    assert machine.dma(slot, DATA) == 0
    assert machine.guests[parent.id].held == held


def test_from_a_page_table_to_a_domain() -> None:
    machine = Driven()
    slot = Slot(machine.device(A))
    parent, domain = machine.parent(), machine.domain()
    machine.map(domain, DATA, 0x7000)
    root = machine.page_table(parent, {DATA: 0x3000})
    held = set(machine.guests[parent.id].held)
    machine.attach(parent, slot)
    machine.bind(parent, slot, root)
    assert machine.dma(slot, DATA) == 0x800_3000
    machine.attach(domain, slot)
    assert machine.dma(slot, DATA) == 0x7000
    assert machine.guests[parent.id].held == held
    assert machine.check() == []
    machine.accounts()


def test_the_guest_spoils_its_cd_table() -> None:
    """What it wrote is never followed when the table goes."""
    machine = Driven()
    rid = machine.device(A)
    parent = machine.parent()
    root = machine.page_table(parent, {DATA: 0x3000})
    held = set(machine.guests[parent.id].held)
    machine.attach(parent, Slot(rid))
    for pasid in (5, 6, 70):
        machine.bind(parent, Slot(rid, pasid), root)
    pointer = machine.entry(rid)[0] & (1 << 56) - 64
    machine.memory.put({0x800_0000 + pointer: 0x3001, 0x800_0000 + pointer + 8: 0xFFFF_FFFF_FFFF_F001})
    problems = machine.check()
    assert len(problems) == 2
    assert all(problem.startswith("the L1CD of 0000:00:01.0 for PASIDs ") for problem in problems)
    assert [placed.step.structure for placed in machine.driver.structures(rid)].count("smmuv3.cd") == 3
    for pasid in (5, 6, 70):
        machine.install(Slot(rid, pasid), None)
    assert machine.guests[parent.id].held == held
    machine.install(Slot(rid), None)
    machine.accounts()

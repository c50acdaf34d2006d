# SPDX-License-Identifier: Apache-2.0
"""What is cached of CDs stays until the command that drops it: IHI0070 G.b 3.21 and 4.3 to 4.5, arm-smmu-v3.c."""

import os
import struct
from collections.abc import Iterator

import pytest

from iommuctl.iommufd import uapi
from tests.kernel.calling import FIRST, SECOND, VSID, Command, Process
from tests.kernel.calls import Kernel
from tests.kernel.smmuv3_caches import Context
from tests.kernel.smmuv3_unit import ATC_INV, CFGI_CD, CFGI_CD_ALL, SUBSTREAMS, TLBI_NH_ALL, TLBI_NH_ASID, Smmuv3Unit
from tests.kernel.units import Place

TABLE, LEAF, ROOT, OTHER = 0x1000, 0x4000, 0x8000, 0x9000
LINEAR = 0xB | TABLE | 3 << 59
TWO_LEVEL = 0xB | 1 << 4 | TABLE | 8 << 59
ATS = 1 << 28
SUBSTREAM, FAR = 5, 70
SID = VSID << 32


class Guest:
    """A device with a table of CDs in memory that is mapped one to one."""

    def __init__(self) -> None:
        unit = Smmuv3Unit.of(SUBSTREAMS)
        self.kernel = Kernel({FIRST: Place(unit), SECOND: Place(unit)})
        kernel = self.kernel
        self.process = Process(kernel.ioctl, kernel.open(), {name: kernel.open(name) for name in (FIRST, SECOND)})
        self.memory = os.memfd_create("guest")
        os.ftruncate(self.memory, 0x10000)
        ioas = self.process.ioas()
        mapping = uapi.iommu_ioas_map_file(flags=7, ioas_id=ioas, fd=self.memory, length=0x10000)
        self.process.call(uapi.IOMMU_IOAS_MAP_FILE, mapping)
        self.parent = self.process.hwpt(ioas, 1)
        self.viommu = self.process.viommu(self.parent)
        self.process.vdevice(self.viommu)

    def close(self) -> None:
        self.process.end()
        self.kernel.close()
        os.close(self.memory)

    def write(self, root: int, asid: int, *, valid: int = 1, address: int = TABLE + 64 * SUBSTREAM) -> None:
        os.pwrite(self.memory, struct.pack("<2Q", valid << 31 | asid << 48, root), address)

    def lead(self, first: int, second: int = 0) -> None:
        self.process.attach(FIRST, self.process.nested(self.viommu, first, second))

    def send(self, *commands: Command) -> None:
        for command in commands:
            assert self.process.invalidate(self.viommu, command) == (0, 1)

    def live(self) -> dict[int, Context]:
        return self.kernel.caches.live(self.kernel.objects, FIRST)

    def stale(self) -> list[str]:
        """The caches that something is stale in: `the SMMU`, `the TLB`, or the device."""
        return sorted(" ".join(one.split()[:2]) for one in self.kernel.caches.stale(self.kernel.objects))


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.close()


def test_a_linear_table(guest: Guest) -> None:
    guest.write(ROOT, 3)
    guest.write(OTHER, 4, address=TABLE + 64 * 8)
    guest.lead(LINEAR)
    assert guest.live() == {SUBSTREAM: Context(3, ROOT)}, "that of 2^3 substreams ends before the ninth"


def test_a_table_of_two_levels(guest: Guest) -> None:
    os.pwrite(guest.memory, struct.pack("<4Q", 0, LEAF | 1, LEAF | 0x1000, 0x10000 | 1), TABLE)
    guest.write(ROOT, 3, address=LEAF + 64 * (FAR - 64))
    guest.write(ROOT, 3, address=LEAF + 0x1000)
    guest.lead(TWO_LEVEL)
    assert guest.live() == {FAR: Context(3, ROOT)}, "neither what is not valid nor what is not mapped"


def test_a_device_that_is_led_elsewhere_has_none(guest: Guest) -> None:
    guest.write(ROOT, 3)
    guest.lead(LINEAR)
    guest.lead(0x9)
    assert guest.live() == {}
    guest.process.attach(FIRST, guest.parent)
    assert guest.live() == {}


CFGI, ASID, ATC = (CFGI_CD | SID | SUBSTREAM << 12, 1), (TLBI_NH_ASID | 3 << 48, 0), (ATC_INV | SID, 52)
EVERYWHERE = ["first has", "the SMMU", "the TLB"]


@pytest.mark.parametrize(
    ("commands", "stale"),
    [
        ([], EVERYWHERE),
        ([CFGI], ["first has", "the TLB"]),
        ([CFGI, ASID], ["first has"]),
        ([CFGI, (TLBI_NH_ALL, 0)], ["first has"]),
        ([CFGI, (TLBI_NH_ASID | 4 << 48, 0)], ["first has", "the TLB"]),
        ([CFGI, (0x13, ROOT)], ["first has", "the TLB"]),
        ([(CFGI_CD_ALL | SID, 0), ASID, ATC], []),
        ([CFGI, ASID, ATC], []),
        ([CFGI, ASID, (ATC_INV | SID | SUBSTREAM << 12 | 1 << 11, 52)], []),
        ([CFGI, ASID, (ATC_INV | SID | 6 << 12 | 1 << 11, 52)], ["first has"]),
        ([CFGI, ASID, (ATC_INV | SID | 6 << 12 | 1 << 11 | 1 << 9, 52)], []),
        ([CFGI, ASID, (ATC_INV | SID, 51)], ["first has"]),
        ([(CFGI_CD | SID | 6 << 12, 1), ASID, ATC], EVERYWHERE),
        ([ASID, ATC, CFGI], ["first has", "the TLB"]),
    ],
)
def test_a_changed_context_takes_three_commands_in_their_order(
    guest: Guest, commands: list[Command], stale: list[str]
) -> None:
    """Of the SMMU's own copy everything else is filled again, so that it goes first."""
    guest.write(ROOT, 3)
    guest.lead(LINEAR, ATS)
    assert guest.stale() == []
    guest.write(OTHER, 3)
    guest.send(*commands)
    assert guest.stale() == stale


def test_without_ats_a_device_keeps_nothing(guest: Guest) -> None:
    guest.write(ROOT, 3)
    guest.lead(LINEAR)
    guest.write(OTHER, 3)
    guest.send(CFGI, ASID)
    assert guest.stale() == []


def test_a_context_that_is_gone_is_dropped_too(guest: Guest) -> None:
    guest.write(ROOT, 3)
    guest.lead(LINEAR)
    guest.write(0, 0, valid=0)
    assert guest.stale() == ["the SMMU", "the TLB"]
    guest.send(CFGI, ASID)
    assert guest.stale() == []


def test_a_context_that_was_not_valid_is_cached_too(guest: Guest) -> None:
    guest.lead(LINEAR)
    guest.write(ROOT, 3)
    assert guest.stale() == ["the SMMU"]
    guest.send(CFGI)
    assert guest.stale() == []


@pytest.mark.parametrize(
    ("command", "stale"),
    [
        ((CFGI_CD | SID | FAR << 12, 1), ["the SMMU"]),
        ((CFGI_CD | SID | FAR << 12, 0), []),
        ((CFGI_CD | SID | SUBSTREAM << 12, 0), ["the SMMU"]),
        ((CFGI_CD_ALL | SID, 0), []),
    ],
)
def test_what_leads_to_contexts_is_cached_too(guest: Guest, command: Command, stale: list[str]) -> None:
    """An L1CD that becomes valid, of the substreams from 64 on."""
    guest.lead(TWO_LEVEL)
    guest.write(ROOT, 3, address=LEAF + 64 * (FAR - 64))
    os.pwrite(guest.memory, struct.pack("<Q", LEAF | 1), TABLE + 8)
    guest.send(command)
    assert guest.stale() == stale


def test_the_kernel_drops_what_is_of_an_ste_and_not_what_is_of_a_vmid(guest: Guest) -> None:
    guest.write(ROOT, 3)
    guest.lead(LINEAR, ATS)
    guest.process.attach(FIRST, guest.parent)
    assert guest.stale() == ["the TLB"]
    guest.send((TLBI_NH_ALL, 0))
    assert guest.stale() == []


def test_the_kernel_drops_what_is_of_a_vmid_that_nobody_uses(guest: Guest) -> None:
    guest.write(ROOT, 3)
    guest.lead(LINEAR, ATS)
    guest.process.detach(FIRST)
    assert guest.stale() == []
    guest.process.attach(SECOND, guest.parent)
    guest.lead(LINEAR)
    guest.process.detach(FIRST)
    assert guest.stale() == ["the TLB"]
    guest.process.close(SECOND)
    assert guest.stale() == []

# SPDX-License-Identifier: Apache-2.0
"""Commands of a guest, passed to its vIOMMU, by what the device reads before and after.

QEMU's unit keeps each translation and each CD that it has used until a command says otherwise.
"""

import errno

import pytest

from iommuctl.iommufd.refusals import InvalidationRefused
from iommuctl_smmuv3.commands import AtcInv, PriResp, Resume, StallTerm, Sync
from iommuctl_smmuv3.configuration_commands import (
    CfgiCd,
    CfgiCdAll,
    CfgiSte,
    CfgiSteRange,
    CfgiVmsPidm,
    PrefetchAddr,
    PrefetchConfig,
)
from iommuctl_smmuv3.tlb_commands import (
    TlbiEl2All,
    TlbiEl2Asid,
    TlbiEl2Va,
    TlbiEl2Vaa,
    TlbiNhAll,
    TlbiNhAsid,
    TlbiNhVa,
    TlbiNhVaa,
    TlbiNsnhAll,
    TlbiS2Ipa,
    TlbiS12Vmall,
)
from tests.hardware.smmuv3.guest import VSID
from tests.hardware.smmuv3.nested import IOVA, ONE, OTHER, Nested

BATCH = 63
"""How many commands the kernel passes on at once."""
ALL = TlbiNhAll.encode()
REFUSED = Sync.encode()


@pytest.fixture
def stale(nested: Nested) -> Nested:
    """IOVA leads to OTHER, and the unit does not know yet."""
    assert nested.seen() == nested.words[ONE]
    nested.stage_1.unmap(IOVA)
    nested.stage_1.map(IOVA, OTHER)
    assert nested.seen() == nested.words[ONE]
    return nested


@pytest.mark.parametrize(
    "command",
    [
        TlbiNsnhAll.encode(),
        TlbiNhAll.encode(),
        TlbiNhAll.encode(VMID=0x1234),
        TlbiNhAsid.encode(ASID=1),
        TlbiNhAsid.encode(ASID=1, VMID=0x1234),
        TlbiNhVa.encode(ASID=1, Addr=IOVA),
        TlbiNhVa.encode(ASID=1, Addr=IOVA, Leaf=1, VMID=0x1234),
        TlbiNhVa.encode(ASID=1, Addr=IOVA - 0x4000, Leaf=1, TG=1, NUM=7, TTL=3),
        TlbiNhVa.encode(ASID=1, Addr=IOVA, TG=1, NUM=0, SCALE=1),
        TlbiNhVaa.encode(Addr=IOVA),
        TlbiNhVaa.encode(Addr=IOVA, TG=1, NUM=15, VMID=0x1234),
    ],
    ids=lambda command: f"{command:#x}",
)
def test_translations_are_forgotten(stale: Nested, command: int) -> None:
    """The VMID of the guest is not looked at."""
    assert stale.guest.invalidate(command) == 1
    assert stale.seen() == stale.words[OTHER]


def test_others_are_kept(stale: Nested) -> None:
    others = (
        TlbiNhAsid.encode(ASID=2),
        TlbiNhVa.encode(ASID=2, Addr=IOVA),
        TlbiNhVa.encode(ASID=1, Addr=IOVA + 0x1000),
        TlbiNhVa.encode(ASID=1, Addr=IOVA + 0x1000, TG=1, NUM=7),
        TlbiNhVaa.encode(Addr=IOVA + 0x1000),
        CfgiCd.encode(StreamID=VSID, Leaf=1),
        CfgiCdAll.encode(StreamID=VSID),
    )
    assert stale.guest.invalidate(*others) == len(others)
    assert stale.seen() == stale.words[ONE]


@pytest.mark.parametrize(
    "command",
    [
        CfgiCd.encode(StreamID=VSID),
        CfgiCd.encode(StreamID=VSID, Leaf=1),
        CfgiCdAll.encode(StreamID=VSID),
    ],
    ids=lambda command: f"{command:#x}",
)
def test_a_cd_is_forgotten(nested: Nested, command: int) -> None:
    """The guest's StreamID stands for the device's. The other stage 1 has an ASID of its own."""
    guest, other = nested.guest, nested.another(asid=2)
    assert nested.seen() == nested.words[ONE]
    guest.memory.write(nested.stage_1.cd, guest.memory.read(other.cd, 64))
    assert nested.seen() == nested.words[ONE]
    assert guest.invalidate(command) == 1
    assert nested.seen() == nested.words[OTHER]


NOT_OF_A_GUEST = (
    PrefetchConfig.encode(StreamID=VSID),
    PrefetchAddr.encode(StreamID=VSID),
    CfgiSte.encode(StreamID=VSID),
    CfgiSteRange.encode(StreamID=VSID, Range=31),
    CfgiVmsPidm.encode(),
    TlbiEl2All.encode(),
    TlbiEl2Asid.encode(),
    TlbiEl2Va.encode(),
    TlbiEl2Vaa.encode(),
    TlbiS12Vmall.encode(),
    TlbiS2Ipa.encode(),
    PriResp.encode(StreamID=VSID),
    Resume.encode(StreamID=VSID),
    StallTerm.encode(StreamID=VSID),
    Sync.encode(),
    AtcInv.encode(StreamID=VSID),
    CfgiCd.encode(StreamID=VSID + 1),
    CfgiCdAll.encode(StreamID=0x80),
    CfgiCd.encode(StreamID=VSID) | 1 << 11,
    CfgiCd.encode(StreamID=VSID, SubstreamID=1),
    TlbiNhVa.encode(ASID=1, Addr=IOVA) | 1 << 12,
    TlbiNhVa.encode(ASID=1, Addr=IOVA) | 1 << 72,
    TlbiNhVa.encode(ASID=1, Addr=IOVA) | 1 << 74,
    TlbiNhVa.encode(ASID=1, Addr=IOVA, TG=2, TTL=1),
    TlbiNhVa.encode(ASID=1, Addr=IOVA, TG=1, SCALE=32),
    TlbiNhAll.encode() | 1 << 10,
    TlbiNsnhAll.encode() | 1 << 32,
)
"""Commands of the host and of devices, and ATC_INV, as there is no ATS; substreams, of which there are none; StreamIDs
of no vDEVICE; and what is reserved."""


def test_what_linux_takes_from_no_guest(nested: Nested) -> None:
    for command in NOT_OF_A_GUEST:
        with pytest.raises(InvalidationRefused, match="EIO") as refused:
            nested.guest.invalidate(command)
        assert refused.value.done == 0, f"{command:#x}"
        assert "request 0 is no command" in refused.value.because


def test_what_precedes_a_refused_one_was_not_sent(stale: Nested) -> None:
    with pytest.raises(InvalidationRefused) as refused:
        stale.guest.invalidate(ALL, REFUSED)
    assert (refused.value.errno, refused.value.done) == (errno.EIO, 1)
    assert stale.seen() == stale.words[ONE]


@pytest.mark.parametrize(("before", "sent"), [(BATCH - 1, False), (BATCH, True), (2 * BATCH - 1, True)])
def test_but_for_whole_batches(stale: Nested, before: int, sent: bool) -> None:
    """The first command is one that counts, the others are of another ASID."""
    others = [TlbiNhAsid.encode(ASID=2)] * (before - 1)
    with pytest.raises(InvalidationRefused) as refused:
        stale.guest.invalidate(ALL, *others, REFUSED)
    assert refused.value.done == before
    assert stale.seen() == stale.words[OTHER if sent else ONE]


def test_many_at_once(stale: Nested) -> None:
    many = [TlbiNhVa.encode(ASID=1, Addr=page << 12) for page in range(IOVA >> 12, (IOVA >> 12) + 200)]
    assert stale.guest.invalidate(*reversed(many)) == 200
    assert stale.seen() == stale.words[OTHER]

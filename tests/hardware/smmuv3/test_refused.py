# SPDX-License-Identifier: Apache-2.0
"""What Linux refuses of those who nest on an SMMUv3, by which error, and which field is said to be to blame."""

from collections.abc import Callable

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd import uapi
from iommuctl.iommufd.vfio import Cdev
from iommuctl.model import Rid
from iommuctl_smmuv3.ste import BOTH_STAGES, BYPASS, STAGE_1, STAGE_2, Ste
from iommuctl_smmuv3.tlb_commands import TlbiNhAll
from tests.hardware.smmuv3.guest import COMMANDS, VEVENTQ, VIOMMU, VSID, Guest, payload

NONE = 0x7777
"""An id that no object has."""
OTHER_EDU, BEHIND_A_BRIDGE = Rid(0, 0, 0x11, 0), Rid(0, 3, 1, 0)
BYPASSING = payload(Ste.encode(V=1, Config=BYPASS))
ALL = TlbiNhAll.encode().to_bytes(16, "little")

Case = tuple[str, Callable[[Guest], object], str, str]


def table(guest: Guest, flags: int = 0) -> int:
    """A page table of the kernel's, on the guest's memory."""
    return guest.session.hwpt_alloc(guest.device, guest.ioas, flags)


def viommu(guest: Guest, hwpt: int | None = None, kind: int = VIOMMU) -> int:
    return guest.session.viommu_alloc(guest.device, guest.parent if hwpt is None else hwpt, kind)[0]


def vdevice(guest: Guest, viommu: int | None = None, device: int | None = None) -> int:
    return guest.session.vdevice_alloc(
        guest.viommu if viommu is None else viommu, guest.device if device is None else device, VSID
    )


def queue(guest: Guest, kind: int = VEVENTQ, depth: int = 1) -> object:
    return guest.session.veventq_alloc(guest.viommu, kind, depth)


def invalidate(guest: Guest, *requests: bytes, to: int | None = None, kind: int = COMMANDS) -> int:
    return guest.session.hwpt_invalidate(guest.viommu if to is None else to, kind, requests)


CASES: list[Case] = [
    ("vIOMMU of no type", lambda g: viommu(g, kind=0), "EOPNOTSUPP", "no vIOMMU of type 0x0"),
    ("vIOMMU of another's type", lambda g: viommu(g, kind=2), "EOPNOTSUPP", "no vIOMMU of type 0x2"),
    ("vIOMMU on stage 1", lambda g: viommu(g, table(g)), "EINVAL", "is not a nest parent"),
    ("vIOMMU on nothing", lambda g: viommu(g, NONE), "ENOENT", f"{NONE} (field hwpt_id)"),
    ("vDEVICE on nothing", lambda g: vdevice(g, NONE), "ENOENT", f"{NONE} (field viommu_id)"),
    ("vDEVICE of nothing", lambda g: vdevice(g, device=NONE), "ENOENT", f"{NONE} (field dev_id)"),
    ("vDEVICE twice", lambda g: [vdevice(g), vdevice(g)], "EEXIST", "is a vDEVICE already"),
    ("on the parent", lambda g: g.nested(BYPASSING, pt_id=g.parent), "EOPNOTSUPP", "others on a vIOMMU"),
    ("on nothing", lambda g: g.nested(BYPASSING, pt_id=NONE), "EINVAL", f"{NONE} (field pt_id)"),
    ("payload for the parent", lambda g: g.nested(BYPASSING, pt_id=g.ioas), "EOPNOTSUPP", "no table of type 0x2"),
    ("with PASIDs", lambda g: g.nested(BYPASSING, flags=uapi.IOMMU_HWPT_ALLOC_PASID), "EOPNOTSUPP", "with flags 0x8"),
    ("of another type", lambda g: g.nested(BYPASSING, data_type=1), "EINVAL", "(fields pt_id, data_len)"),
    ("too short", lambda g: g.nested(BYPASSING[:8]), "EINVAL", "data_len 8 is not the length"),
    ("too long", lambda g: g.nested(BYPASSING + bytes(8)), "EINVAL", "data_len 24 is not the length"),
    ("no payload", lambda g: g.nested(b""), "EINVAL", "a type needs a payload"),
    *(
        (f"an STE with {fields}", lambda g, f=fields: g.nested(payload(Ste.encode(V=1, **f))), "EIO", "the payload")
        for fields in (
            {"Config": STAGE_2},
            {"Config": BOTH_STAGES},
            {"Config": 1},
            {"Config": STAGE_1, "SHCFG": 1},
            {"Config": STAGE_1, "STRW": 2},
            {"Config": STAGE_1, "MEV": 1},
            {"Config": STAGE_1, "CONT": 1},
            {"Config": STAGE_1, "EATS": 2},
            {"Config": STAGE_1, "S1ContextPtr": 1 << 52},
        )
    ),
    ("queue of no type", lambda g: queue(g, 0), "EOPNOTSUPP", "no events of type 0x0"),
    ("queue without room", lambda g: queue(g, depth=0), "EINVAL", "room for 0 events"),
    ("queue too long", lambda g: queue(g, depth=(1 << 19) + 1), "EINVAL", "room for 524289 events"),
    ("nothing to invalidate", invalidate, "EINVAL", "no request is given"),
    ("by a page table", lambda g: invalidate(g, ALL, to=g.nested(BYPASSING)), "EOPNOTSUPP", "pass them to the vIOMMU"),
    ("by the parent", lambda g: invalidate(g, ALL, to=g.parent), "EINVAL", "neither a nested page table"),
    ("of another type", lambda g: invalidate(g, ALL, kind=0), "EINVAL", "no requests of type 0x0"),
    ("too many bytes", lambda g: invalidate(g, bytes(8192)), "EINVAL", "none of 8192 bytes (fields hwpt_id"),
    ("a tail", lambda g: invalidate(g, ALL + b"\1"), "E2BIG", "a field that this kernel does not know"),
    ("parent in use", lambda g: g.session.destroy(g.parent), "EBUSY", "something refers to object"),
    ("vIOMMU in use", lambda g: g.session.destroy(vdevice(g) and g.viommu), "EBUSY", "something refers to object"),
]


@pytest.mark.parametrize(("command", "error", "because"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused(guest: Guest, command: Callable[[Guest], object], error: str, because: str) -> None:
    with pytest.raises(KernelRefused, match=error) as refused:
        command(guest)
    assert because in f"{refused.value.because} {refused.value.hint}"


def test_a_translating_table_needs_a_vdevice(guest: Guest, device: Cdev) -> None:
    """One that bypasses does not; and faults may go to a queue."""
    stage_1 = guest.nested(guest.translating(guest.stage_1()))
    with pytest.raises(KernelRefused, match="ENOENT") as refused:
        device.attach(stage_1)
    assert "IOMMU_VDEVICE_ALLOC" in refused.value.hint
    fault_id, _ = guest.session.fault_queue_alloc()
    device.attach(guest.nested(BYPASSING, flags=uapi.IOMMU_HWPT_FAULT_ID_VALID, fault_id=fault_id))
    vdevice(guest)
    assert device.attach(stage_1) == stage_1


def test_a_device_with_two_stream_ids(guest: Guest, cdev: Callable[[Rid], Cdev]) -> None:
    """Domains can be attached to it all the same."""
    other = cdev(BEHIND_A_BRIDGE)
    dev_id = other.bind(guest.session.fd)
    with pytest.raises(KernelRefused, match="EOPNOTSUPP") as refused:
        guest.session.vdevice_alloc(guest.viommu, dev_id, VSID)
    assert "conventional bridge" in refused.value.because
    other.attach(guest.parent)


def test_a_number_is_one_device_s(guest: Guest, cdev: Callable[[Rid], Cdev]) -> None:
    """Until it is destroyed. One vIOMMU has several devices."""
    other = cdev(OTHER_EDU).bind(guest.session.fd)
    first = vdevice(guest)
    with pytest.raises(KernelRefused, match="EEXIST") as refused:
        vdevice(guest, device=other)
    assert f"has the number {VSID:#x}" in refused.value.because
    guest.session.destroy(first)
    vdevice(guest, device=other)
    guest.session.vdevice_alloc(guest.viommu, guest.device, VSID + 1)


def test_a_short_request_is_filled_with_zeros(guest: Guest) -> None:
    assert invalidate(guest, ALL[:8], ALL[:8]) == 2

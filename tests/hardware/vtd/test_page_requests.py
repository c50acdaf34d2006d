# SPDX-License-Identifier: Apache-2.0
"""Tables with fault queues on VT-d: what is said where Linux or we refuse them.

No device that is emulated has PRI. Linux is made to believe in it, and our view of the device to say so, too. Tables
that Linux accepts are not tried: when one leaves a slot, it drains page requests by a wait descriptor with PD, which
QEMU's unit takes for an error, and the invalidation queue stands still from then on.
"""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.errors import KernelRefused, Unsupported
from iommuctl.handlers import Handler
from iommuctl.iommufd.sysfs import PciDevice, Sysfs
from iommuctl.model import Rid

pytestmark = pytest.mark.nesting

QUEUE = Handler("queue")
WITHOUT_ATS = "0000:00:10.0"


@pytest.fixture
def iommu(state: Path) -> Iterator[Iommu]:
    with Iommu(state, backend="vtd") as opened:
        yield opened


@pytest.fixture
def with_ats() -> Rid:
    (found,) = [device.rid for device in Sysfs().devices() if device.ats]
    return found


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Sysfs.device

    def with_pri(self: Sysfs, rid: Rid) -> PciDevice:
        return device(self, rid)._replace(pri=True)

    monkeypatch.setattr(Sysfs, "device", with_pri)


@pytest.mark.usefixtures("pretended")
def test_linux_wants_ats(iommu: Iommu) -> None:
    assert iommu.capabilities().page_responses == ("success", "invalid")
    iommu.device_bind(WITHOUT_ATS)
    iommu.domain_create("d")
    iommu.attach("d", WITHOUT_ATS)
    with pytest.raises(KernelRefused, match="PRI, for which it wants ATS") as refused:
        iommu.handler_set("d", QUEUE)
    assert refused.value.errno == errno.ENODEV
    assert iommu.handlers() == []
    assert iommu.check() == []


def test_a_device_without_pri_is_told_of(iommu: Iommu, with_ats: Rid) -> None:
    with pytest.raises(Unsupported, match="no page request interface"):
        iommu.handler_set(str(with_ats), QUEUE)

# SPDX-License-Identifier: Apache-2.0
"""The backend `mock`, for tests alone: iommuctl.kernel on the real core of iommufd, with the mock driver behind it.

Kernel-managed tables, attachments, nesting, PASIDs and dirty tracking are the core's own; nothing translates. Its
devices are mock devices, which live in the iommufd as long as it does.
"""

from collections.abc import Sequence
from functools import cached_property

from iommuctl.capabilities import Capabilities
from iommuctl.hookspecs import API_VERSION, Availability, HardwareContext, hookimpl
from iommuctl.iommufd.session import HwInfo
from iommuctl.kernel.fault_queues import RESPONSES
from iommuctl.kernel.hooks import HardwareBackend
from iommuctl.kernel.machine import Machine
from iommuctl.kernel.slots import Entry, NestedBySlot, Payload
from iommuctl.model import Binding, IommuUnit
from iommuctl_vtd.capability import DEFAULT_CAP, DEFAULT_ECAP, capability
from iommuctl_vtd.hardware import VtdFormats
from tests.hardware import machines
from tests.hardware.mock import uapi
from tests.hardware.mock.devices import MockDevices

PAGE = 4096
"""Twice the mock's own, since named memory comes in pages of this machine."""
NAME = "mock"


class MockVendor:
    """The mock driver as a `Vendor` of iommuctl.kernel. Tables that are nested are VT-d's, as it looks into none."""

    name = NAME
    parents_take_pasids = True

    def devices(self, machine: Machine) -> MockDevices:
        return MockDevices(machine)

    def formats(self, machine: Machine) -> VtdFormats:  # noqa: ARG002
        return VtdFormats([capability(DEFAULT_CAP, DEFAULT_ECAP, 52)])

    def capabilities(self, machine: Machine) -> Capabilities:  # noqa: ARG002
        return Capabilities(
            nesting="slot",
            dirty_tracking=True,
            widths=(uapi.MOCK_APERTURE_LAST.bit_length(),),
            page_sizes=(PAGE,),
            reserved=((0, uapi.MOCK_APERTURE_START - 1),),
            pasid_bits=uapi.MOCK_PASID_WIDTH,
            pgtable_formats=("vtd.first-stage-4",),
            page_responses=RESPONSES,
        )

    def slots(self, machine: Machine) -> "MockSlots":
        return MockSlots(machine)

    def learn(self, machine: Machine, unit: str, dev_id: int, info: HwInfo) -> None:
        """Nothing: there is only one."""


class MockSlots(NestedBySlot):
    """Payloads of the mock driver."""

    invalidation_type = uapi.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST

    def payload(self, binding: Binding) -> Payload:  # noqa: ARG002
        data = uapi.iommu_hwpt_selftest(iotlb=uapi.IOMMU_TEST_IOTLB_DEFAULT)
        return Payload(uapi.IOMMU_HWPT_DATA_SELFTEST, bytes(data))

    def entries(self, span: tuple[int, int] | None, *, leaf: bool) -> Sequence[Entry]:  # noqa: ARG002
        """The mock's IOTLB has four entries, which it numbers: a page falls on one of them."""
        if span is None:
            fields = {"flags": uapi.IOMMU_TEST_INVALIDATE_FLAG_ALL, "iotlb_id": 0}
        else:
            fields = {"flags": 0, "iotlb_id": span[0] // PAGE % uapi.MOCK_NESTED_DOMAIN_IOTLB_NUM}
        return [Entry("mock.invalidate", bytes(uapi.iommu_hwpt_invalidate_selftest(**fields)), fields)]


class MockBackend(HardwareBackend):
    """The entry point `iommuctl.backends: mock`."""

    architecture = "vtd"

    @cached_property
    def vendor(self) -> MockVendor:
        return MockVendor()

    @hookimpl
    def iommuctl_probe(self) -> Availability:
        because = machines.without("mock")
        return Availability(NAME, not because, because, self.architecture, API_VERSION)

    @hookimpl
    def iommuctl_units(self, context: HardwareContext) -> list[IommuUnit]:  # noqa: ARG002
        return [IommuUnit(NAME, self.architecture, {})]


BACKEND = MockBackend()

# SPDX-License-Identifier: Apache-2.0
"""What the backend of VT-d says of units by their registers, and the payloads that it makes, byte for byte."""

from pathlib import Path
from typing import Any

import pytest

from iommuctl.errors import BackendUnavailable, Unsupported
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.model import Binding, Domain, IommuUnit, Rid, Slot
from iommuctl_vtd.hardware import Vtd
from iommuctl_vtd.registers import CAP, ECAP

SCALABLE = {"SMTS": 1, "SSTS": 1, "FSTS": 1, "SRS": 1, "PASID": 1, "PSS": 15}
PARENT = Domain(1, "vm", None, True, 48, (4096,))
PLAIN = PARENT._replace(nest_parent=False)


def units(path: Path, *registers: tuple[int, int]) -> Vtd:
    for number, (cap, ecap) in enumerate(registers):
        folder = path / f"class/iommu/dmar{number}/intel-iommu"
        folder.mkdir(parents=True)
        (folder / "cap").write_text(f"{cap:x}\n")
        (folder / "ecap").write_text(f"{ecap:x}\n")
        (folder / "version").write_text("6:15\n")
    return Vtd(Sysfs(str(path)))


ANY: Any = None
"""A machine that nobody looks at."""


def cap(**fields: int) -> int:
    return CAP.encode(**{"SAGAW": 0b0110, "MGAW": 47, "SSLPS": 0b11, **fields})


def binding(fmt: str, root: int = 0x1234_5000) -> Binding:
    return Binding(Slot(Rid(0, 0, 1, 0)), PARENT, root, fmt)


def test_units_have_the_registers_that_sysfs_shows(tmp_path: Path) -> None:
    vtd = units(tmp_path, (0xD2008C222F0686, 0xF00F5A))
    assert vtd.units() == [IommuUnit("dmar0", "vtd", {"VER": 0x6F, "CAP": 0xD2008C222F0686, "ECAP": 0xF00F5A})]


def test_a_machine_that_was_started_without_its_iommu(tmp_path: Path) -> None:
    """The folder was used before: whatever asks what the backend can do gets an answer."""
    vtd = units(tmp_path)
    assert vtd.units() == []
    with pytest.raises(BackendUnavailable, match="no VT-d unit") as raised:
        vtd.capabilities(ANY)
    assert "intel_iommu=on" in raised.value.hint


def test_a_unit_that_nests(tmp_path: Path) -> None:
    found = units(tmp_path, (cap(FS5LP=1), ECAP.encode(NEST=1, SSADS=1, SMPWCS=1, **SCALABLE))).capabilities(ANY)
    assert (found.nesting, found.pasid_bits, found.dirty_tracking) == ("slot", 16, True)
    assert found.widths == (32, 39, 48)
    assert found.page_sizes == (1 << 12, 1 << 21, 1 << 30)
    assert found.pgtable_formats == ("vtd.first-stage-4", "vtd.first-stage-5")
    assert found.reserved == ((0xFEE00000, 0xFEEFFFFF),)
    assert not found.physical_addresses
    assert not found.simulates


@pytest.mark.parametrize("lacks", ["NEST", "SMTS", "SSTS"])
def test_one_that_does_not(tmp_path: Path, lacks: str) -> None:
    ecap = ECAP.encode(**{"NEST": 1, **SCALABLE, lacks: 0})
    found = units(tmp_path, (cap(), ecap)).capabilities(ANY)
    assert (found.nesting, found.pgtable_formats) == ("none", ())
    assert found.pasid_bits == (16 if lacks == "NEST" else 0)


def test_what_one_unit_cannot_none_is_said_to(tmp_path: Path) -> None:
    """A domain may be attached to devices behind any of them."""
    able = cap(FS5LP=1), ECAP.encode(NEST=1, **{**SCALABLE, "PSS": 19})
    narrow = cap(MGAW=38, SSLPS=1), ECAP.encode(NEST=1, **{**SCALABLE, "PSS": 7})
    found = units(tmp_path, able, narrow).capabilities(ANY)
    assert (found.widths, found.page_sizes, found.pasid_bits) == ((32, 39), (1 << 12, 1 << 21), 8)
    assert found.pgtable_formats == ("vtd.first-stage-4",)


@pytest.mark.parametrize(("fmt", "width"), [("vtd.first-stage-4", 48), ("vtd.first-stage-5", 57)])
def test_the_payload_of_a_binding(tmp_path: Path, fmt: str, width: int) -> None:
    vtd = units(tmp_path, (cap(FS5LP=1), ECAP.encode(NEST=1, **SCALABLE)))
    kind, data = vtd.slots(ANY).payload(binding(fmt))
    flags = "05 00 00 00 00 00 00 00"
    assert (kind, data) == (1, bytes.fromhex(f"{flags} 00 50 34 12 00 00 00 00 {width:02x} 00 00 00 00 00 00 00"))


def test_without_supervisor_requests_no_flags(tmp_path: Path) -> None:
    vtd = units(tmp_path, (cap(), ECAP.encode(NEST=1, **{**SCALABLE, "SRS": 0})))
    assert vtd.slots(ANY).payload(binding("vtd.first-stage-4")).data[:8] == bytes(8)


def test_a_format_that_a_unit_does_not_walk(tmp_path: Path) -> None:
    vtd = units(tmp_path, (cap(), ECAP.encode(NEST=1, **SCALABLE)))
    with pytest.raises(Unsupported, match=r"vtd\.first-stage-5"):
        vtd.slots(ANY).payload(binding("vtd.first-stage-5"))


@pytest.mark.parametrize(
    ("span", "leaf", "words"),
    [
        (None, False, (0, 2**64 - 1, 0)),
        ((0x1000, 0x1FFF), False, (0x1000, 1, 0)),
        ((0x1FFF, 0x2000), True, (0x1000, 2, 1)),
        ((0, 2**64 - 1), False, (0, 2**52, 0)),
    ],
)
def test_invalidations(tmp_path: Path, span: tuple[int, int] | None, leaf: bool, words: tuple[int, ...]) -> None:
    (entry,) = units(tmp_path, (cap(), ECAP.encode(NEST=1, **SCALABLE))).slots(ANY).entries(span, leaf=leaf)
    assert entry.raw == b"".join(word.to_bytes(8, "little") for word in words)
    assert tuple(entry.fields.values()) == words


@pytest.mark.parametrize(
    ("fields", "domain", "name"),
    [
        (SCALABLE, PLAIN, "vtd.first-stage-4"),
        (SCALABLE, PARENT, "vtd.second-stage-48"),
        ({**SCALABLE, "FSTS": 0}, PLAIN, "vtd.second-stage-48"),
        ({}, PLAIN, "vtd.second-stage-48"),
    ],
)
def test_which_tables_linux_builds(tmp_path: Path, fields: dict[str, int], domain: Domain, name: str) -> None:
    assert units(tmp_path, (cap(), ECAP.encode(**fields))).formats(ANY).domain_format(domain).name == name

# SPDX-License-Identifier: Apache-2.0
"""What a range of addresses becomes: the smallest aligned block of pages that covers it, or the next wider scope."""

from typing import Any

import pytest

from tests.acceptance.conftest import RID1, Shell

PAGE = 0x1000
ALIGNED, ODD = 0x4000_0000, 0x4000_3000
BLOCKS = [
    # Start, pages: the block's address and log2 of its pages.
    (ALIGNED, 1, ALIGNED, 0),
    (ALIGNED, 2, ALIGNED, 1),
    (ALIGNED, 3, ALIGNED, 2),
    (ALIGNED, 511, ALIGNED, 9),
    (ALIGNED, 512, ALIGNED, 9),
    (ALIGNED, 513, ALIGNED, 10),
    (ODD, 1, ODD, 0),
    (ODD, 2, ALIGNED, 3),
    (ODD, 3, ALIGNED, 3),
    (ODD, 511, ALIGNED, 10),
    (ODD, 512, ALIGNED, 10),
    (ODD, 513, ALIGNED, 10),
    (ALIGNED - PAGE, 2, 0, 19),
]
WAIT = "vtd.invalidation-wait"


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A page table that is bound in one slot of a device with a TLB of its own. Dry runs leave it as it is."""
    shell = Shell(tmp_path_factory.mktemp("ranges") / "state")
    shell.batch(f"""
        device add {RID1} --pasid-bits 8 --ats
        domain create vm --nest-parent
        domain map vm --iova 0 --size 16M --pa 0x10000000
        pgtable create table --parent vm --pool 0x100000+64K
        bind-pgtable vm {RID1} --pgtable table --pasid 7
    """)
    return shell


def block(fields: dict[str, str]) -> tuple[int, int]:
    """What ADDR and S of a device-TLB descriptor mean, as (address, size): VT-d 4.1 section 6.5.2.5."""
    address, size = int(fields["ADDR"], 16), PAGE
    if fields["S"] == "0x1":
        bit = 12
        while address >> bit & 1:
            bit += 1
        size = 2 << bit
    return address & -size, size


def commands(shell: Shell, *words: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shell.json(*words, "--dry-run")["commands"]
    # The unit has done its part before a device is told.
    assert [command["name"] for command in found[1::2]] == [WAIT, WAIT]
    return found[::2]


@pytest.mark.parametrize(("start", "pages", "address", "order"), BLOCKS)
def test_invalidate(vm: Shell, start: int, pages: int, address: int, order: int) -> None:
    iotlb, device = commands(vm, "invalidate", "vm", "--iova", hex(start), "--size", pages * PAGE, "--leaf")
    assert iotlb["name"] == "vtd.pasid-iotlb-invalidate"
    assert iotlb["fields"] == {
        "TYPE": "0x6", "TYPE_HIGH": "0x0", "G": "0x3", "DID": iotlb["fields"]["DID"], "PASID": "0x7",
        "AM": hex(order), "IH": "0x1", "ADDR": hex(address),
    }  # fmt: skip
    assert device["name"] == "vtd.pasid-device-tlb-invalidate"
    assert block(device["fields"]) == (address, PAGE << order)
    assert (device["fields"]["PASID"], device["fields"]["SID"]) == ("0x7", "0x8")


def test_bytes_that_are_no_whole_pages(vm: Shell) -> None:
    iotlb, device = commands(vm, "invalidate", "vm", "--iova", "0x40000fff", "--size", 2)
    assert [iotlb["fields"][name] for name in ("G", "AM", "ADDR")] == ["0x3", "0x1", hex(ALIGNED)]
    assert block(device["fields"]) == (ALIGNED, 2 * PAGE)


def test_a_range_that_no_block_covers(vm: Shell) -> None:
    """Two pages at 2**51: the block would have 2**52 bytes, and all of the PASID is the next wider scope."""
    iotlb, device = commands(vm, "invalidate", "vm", "--iova", hex((1 << 51) - PAGE), "--size", 2 * PAGE)
    assert [iotlb["fields"][name] for name in ("G", "AM", "ADDR")] == ["0x2", "0x0", "0x0"]
    assert block(device["fields"]) == (0, 1 << 52)


def test_everything(vm: Shell) -> None:
    iotlb, device = commands(vm, "invalidate", "vm")
    assert iotlb["fields"]["G"] == "0x2"
    assert block(device["fields"]) == (0, 1 << 64)

# SPDX-License-Identifier: Apache-2.0
"""Caches at the shell: translated DMA, stale answers with their reasons, warnings."""

from iommuctl_vtd.driver import Driver
from tests.cli.conftest import Run
from tests.sim.sabotage import late

SVA = "0x7f0000000000"
DMA = f"sim dma 00:01.0 {SVA} --pasid 3 --read --size 8"


def test_a_device_that_translates_by_itself(reference: Run) -> None:
    first = reference(f"{DMA} --translated -j").json
    assert (first["device_tlb"], first["iotlb"]) == ({"hits": 0, "misses": 1}, {"hits": 0, "misses": 1})
    again = reference(f"{DMA} --translated -j").json
    assert (again["device_tlb"], again["iotlb"]) == ({"hits": 1, "misses": 0}, {"hits": 0, "misses": 0})
    assert again["pieces"] == first["pieces"] == [{"iova": SVA, "pa": "0x2400000", "size": 8}]
    text = reference(f"{DMA} --translated").out
    assert "\ndevice TLB: 1 hit, 0 misses\n" in text
    assert "IOTLB" not in text
    assert reference("sim show -j").json["caches"]["device_tlb"] == 1


def test_a_write_asks_again_for_more(reference: Run) -> None:
    reference(f"{DMA} --translated")
    write = f"sim dma 00:01.0 {SVA} --pasid 3 --write --data 00 --translated -j"
    assert reference(write).json["device_tlb"] == {"hits": 0, "misses": 1}
    assert reference(write).json["device_tlb"] == {"hits": 1, "misses": 0}


def test_a_translated_dma_that_faults(reference: Run, run: Run) -> None:
    result = run("sim dma 00:01.0 0x123000 --pasid 3 --read --size 8 --translated -j")
    assert result.code == 1
    assert [result.json["fault"][name] for name in ("code", "iova", "pasid")] == ["0x71", "0x123000", 3]
    # A device that asks may ask again: nothing is recorded.
    assert reference("sim show -j").json["registers"]["FSTS"] == "0x0"
    assert run("sim dma 00:01.0 0x123000 --pasid 3 --read --size 8 -j").code == 1
    assert reference("sim show -j").json["registers"]["FSTS"] != "0x0"


def test_without_ats(ok: Run, run: Run) -> None:
    ok("device add 00:05.0")
    result = run("sim dma 00:05.0 0 --read --size 8 --translated -j")
    assert (result.code, result.error["id"]) == (3, "no-ats")
    assert "--ats" in result.error["hint"]


def test_what_is_missing_is_named_for_each_cache(reference: Run) -> None:
    reference(DMA)
    reference(f"{DMA} --translated")
    reference(f"pgtable unmap a1 --iova {SVA} --size 64K")
    both = reference(f"{DMA} --translated -j").json
    assert both["stale"] is True
    assert [command["name"] for command in both["missing"]] == [
        "vtd.pasid-iotlb-invalidate",
        "vtd.pasid-device-tlb-invalidate",
    ]
    changed, told_device = both["changed"]
    assert changed | {"cache": "device_tlb"} == told_device
    assert set(changed) == {"structure", "address", "old", "new", "cache", "table", "operation"}
    assert (changed["table"], changed["new"]) == ("page table a1", ["0x0"])
    command = both["missing"][0]
    assert command["fields"] | {"PASID": "0x3", "ADDR": SVA} == command["fields"]
    assert len(bytes.fromhex(command["raw"])) == 32
    text = reference(f"{DMA} --translated").out
    assert "stale: iotlb and device_tlb answered" in text
    assert text.count("  changed  ") == 1


def test_a_guest_that_writes_its_table_by_itself(reference: Run) -> None:
    """No command of ours names the table: the slot does, and the write is told by its address."""
    reference(DMA)
    walk = reference(f"translate 00:01.0 {SVA} --pasid 3 -j").json["steps"]
    leaf = [step["address"] for step in walk if step["structure"] == "vtd.first-stage-entry"][-1]
    reference(f"sim write {leaf} 0000000000000000")
    (changed,) = reference(f"{DMA} -j").json["changed"]
    assert [changed[name] for name in ("address", "table", "operation")] == [
        leaf, "page table a1", f"sim write {leaf}",
    ]  # fmt: skip


def test_rights_that_a_table_entry_takes_away(ok: Run) -> None:
    """Nothing but W of an entry above the leaf changes, so the cached table entry must go as well: no IH."""
    for command in ("device add 00:01.0", "domain create d", "attach d 00:01.0",
                    "domain map d --iova 0x1000 --size 4K --pa 0x100000"):  # fmt: skip
        ok(command)
    ok("sim dma 00:01.0 0x1000 --write --data 00")
    step = ok("translate 00:01.0 0x1000 -j").json["steps"][-2]
    word = int(step["raw"][0], 16) & ~2
    ok(f"sim write {step['address']} {word.to_bytes(8, 'little').hex()}")
    told = ok("sim dma 00:01.0 0x1000 --write --data 00 -j").json
    assert told["stale"] is True
    assert [each["address"] for each in told["changed"]] == [step["address"]]
    (command,) = told["missing"]
    assert (command["name"], command["fields"]["IH"]) == ("vtd.iotlb-invalidate", "0x0")


def test_hints_that_are_wrong(reference: Run) -> None:
    """Tables went, and the caller says that only leaf entries did."""
    reference(DMA)
    reference(f"pgtable unmap a1 --iova {SVA} --size 64K")
    reference(f"invalidate domain2 --iova {SVA} --size 64K --leaf")
    told = reference(f"{DMA} -j").json
    assert told["stale"] is True
    assert "IH" in told["missing"][0]["fields"]
    assert told["missing"][0]["fields"]["IH"] == "0x0"


def test_warnings(ok: Run, run: Run) -> None:
    """A driver that frees tables before the caches were told."""
    for command in (
        "device add 00:01.0", "domain create d", "domain map d --iova 0x1000 --size 4K --pa 0x100000",
        "domain map d --iova 0x40000000 --size 4K --pa 0x100000", "attach d 00:01.0",
        "sim dma 00:01.0 0x1000 --read --size 1", "sim dma 00:01.0 0x40000000 --read --size 1",
    ):  # fmt: skip
        ok(command)
    with late(Driver)():
        result = run("domain unmap d --iova 0x1000 --size 4K")
    assert result.code == 0
    assert "d: unmapped" in result.out
    assert result.err.startswith("warning: the table at 0x")
    assert result.err.endswith(" was freed while an entry in a cache still points to it\n")
    with late(Driver)():
        result = run("domain unmap d --iova 0x40000000 --size 4K -j --quiet")
    assert result.json["warnings"] == [line.removeprefix("warning: ") for line in result.err.splitlines()]
    assert len(result.json["warnings"]) >= 1


def test_invalidation_where_the_parent_is_not(reference: Run, run: Run) -> None:
    for line, because in (
        ("invalidate domain2 --pasid 5", "domain2 is in no such slot"),
        ("invalidate domain1", "plain attachments need no invalidation: map and unmap flush by themselves"),
    ):
        result = run(f"{line} -j")
        assert (result.code, result.error["id"], result.error["because"]) == (1, "nothing-bound", because)

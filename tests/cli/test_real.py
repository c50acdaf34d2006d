# SPDX-License-Identifier: Apache-2.0
"""At the shell, where the machine is real: what a backend of such a machine is asked, and what is shown of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from iommuctl import plugins
from iommuctl.model import NO_PHYSICAL
from tests.cli.real import NAME

from .conftest import Run

SETUP = """
device bind 00:10.0
memory create ram --size 16M
domain create host
domain create vm --nest-parent --dirty
domain map host --iova 1M --size 64K --memory ram+1M
domain map vm --iova 0 --size 8M --memory ram --prot rw
attach vm 00:10.0
pgtable create t --parent vm --pool 1M+256K
pgtable map t --iova 0x7f0000000000 --size 8K --gpa 2M
bind-pgtable vm 00:10.0 --pasid 3 --pgtable t --label process
"""


@pytest.fixture
def fresh(ok: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As `ok`, in a folder of a real machine that holds nothing."""
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.cli.real")
    ok(f"--backend {NAME} domain create d --quiet")
    ok("domain destroy d --quiet")
    return ok


@pytest.fixture
def real(fresh: Run, tmp_path: Path) -> Run:
    """As `ok`, on a real machine: RID1 is on vm, and its PASID 3 nested on that."""
    file = tmp_path / "setup.txt"
    file.write_text(SETUP, encoding="utf-8")
    fresh(f"batch {file} --quiet")
    return fresh


@pytest.fixture
def lost(real: Run, state: Path) -> Run:
    """As `real`, after the kernel's objects went."""
    (state / "lost").write_text("the keeper is gone")
    return real


# Devices


def test_device_list(fresh: Run) -> None:
    fresh("device bind 00:10.0")
    assert fresh("device list").out.splitlines() == [
        "RID           ATS  PRI  PASID BITS  BOUND  DRIVER    OWNER   GROUP WITH",
        "0000:00:02.0  no   no   0           no     e1000e    DMA-FQ  0000:00:02.1",
        "0000:00:02.1  no   no   0           no     e1000e    DMA-FQ  0000:00:02.0",
        "0000:00:10.0  yes  yes  16          yes    vfio-pci",
        "0000:00:11.0  no   no   0           no     e1000e    DMA",
    ]
    nic, _, bound, _ = fresh("device list -j").json["devices"]
    assert nic == {
        "rid": "0000:00:02.0", "ats": False, "pri": False, "pasid_bits": 0,
        "bound": False, "driver": "e1000e", "owner": "DMA-FQ", "siblings": ["0000:00:02.1"],
    }  # fmt: skip
    assert (bound["bound"], bound["driver"], bound["owner"], bound["siblings"]) == (True, "vfio-pci", None, [])


def test_devices_are_there_before_the_first_use(run: Run, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins.BACKENDS, NAME, "tests.cli.real")
    nic = "0000:00:02.0  no   no   0           no     e1000e  DMA-FQ    0000:00:02.1"
    assert run(f"--backend {NAME} device list").out.splitlines()[1] == nic
    shown = run(f"--backend {NAME} device show 00:02.0")
    assert shown.out.startswith("0000:00:02.0  ATS no, PRI no, no PASIDs, kernel: e1000e, DMA-FQ\n")
    assert run(f"--backend {NAME} topology --by device").out.startswith("0000:00:02.0  kernel: e1000e, DMA-FQ\n")
    assert run(f"--backend {NAME} recover").out == "nothing is lost: the kernel has what it should\n"
    assert not state.exists()


def test_device_show(real: Run) -> None:
    assert real("device show 00:10.0").out.splitlines() == [
        "0000:00:10.0  ATS yes, PRI yes, 16 PASID bits, bound to vfio-pci",
        "├── RID  attached vm",
        '└── PASID 3  bound to page table t at 0x100000 nested on vm  "process"',
    ]
    assert real("device show 00:02.0").out.splitlines() == [
        "0000:00:02.0  ATS no, PRI no, no PASIDs, kernel: e1000e, DMA-FQ",
        "in one IOMMU group with 0000:00:02.1: what its own slot holds is theirs, too",
    ]
    assert real("device show 00:02.0 -j").json["owner"] == "DMA-FQ"


def test_device_bind_and_unbind(fresh: Run, run: Run) -> None:
    assert fresh("device bind 00:11.0").out == "0000:00:11.0: bound to vfio-pci, its slots can be used\n"
    assert fresh("device unbind 00:11.0").out == "0000:00:11.0: unbound, kernel: e1000e, DMA\n"
    told = fresh("device bind 00:10.0 -j").json
    assert (told["rid"], told["bound"], told["driver"]) == ("0000:00:10.0", True, "vfio-pci")
    assert fresh("device unbind 00:10.0").out == "0000:00:10.0: unbound, kernel: no driver, identity\n"
    refused = run("device unbind 00:10.0 -j")
    assert (refused.code, refused.error["id"]) == (1, "device-not-bound")
    assert run("device bind 00:1f.0").code == 4


def test_a_device_that_is_used_is_unbound_by_force_alone(real: Run, run: Run) -> None:
    refused = run("device unbind 00:10.0")
    assert refused.code == 1
    assert refused.err.splitlines()[0] == "error[in-use]: device 0000:00:10.0 is in use"
    real("device unbind 00:10.0 --force")
    assert real("device show 00:10.0 -j").json["slots"] == []


@pytest.mark.parametrize("line", ["device bind 00:01.0", "device unbind 00:01.0", "domain dirty d on"])
def test_a_simulator_refuses_what_is_for_hardware(ok: Run, run: Run, line: str) -> None:
    ok("device add 00:01.0")
    ok("domain create d")
    refused = run(f"{line} -j")
    assert (refused.code, refused.error["id"]) == (3, "unsupported")


# Memory


@pytest.mark.parametrize(
    ("options", "words", "source"),
    [
        ("", "memory file", {}),
        ("--hugepages", "memory file in huge pages", {"hugepages": True}),
        ("--path /srv/x", "file /srv/x", {"path": "/srv/x"}),
        ("--fd 4711:12", "descriptor 12 of process 4711", {"fd": {"pid": 4711, "fd": 12}}),
        ("--dma-buf 00:10.0:2", "BAR 2 of 0000:00:10.0", {"dma_buf": {"rid": "0000:00:10.0", "bar": 2}}),
    ],
)
def test_memory_comes_from_somewhere(fresh: Run, options: str, words: str, source: dict[str, Any]) -> None:
    whole = {"path": None, "fd": None, "dma_buf": None, "hugepages": False} | source
    assert fresh(f"memory create m --size 64K {options}").out == f"m: created, 64 KiB of {words}\n"
    assert fresh("memory list").out.splitlines() == [
        f"NAME  ID  SOURCE{' ' * (len(words) - 6)}  SIZE",
        f"m     1   {words}  64K",
    ]
    row = {"name": "m", "id": 1, "pa": None, "size": 65536, "source": whole}
    assert fresh("memory list -j").json["memories"] == [row]
    fresh("memory destroy m")
    assert fresh(f"memory create m --size 64K {options} -j").json == {"schema": 1, **row, "id": 2}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ("--path x --fd 1:2", "usage", "--path and --fd are given"),
        ("--path x --hugepages", "usage", "--path and --hugepages are given"),
        ("--fd 12", "usage", "PID:FD"),
        ("--fd 1:x", "bad-number", "'x'"),
        ("--fd 1:99999999999", "bad-number", "'99999999999'"),
        ("--dma-buf 3", "usage", "RID:BAR"),
        ("--dma-buf 00:10.0:-1", "bad-number", "'-1'"),
        ("--dma-buf 3:1", "bad-rid", "'3'"),
    ],
)
def test_sources_that_cannot_be(fresh: Run, run: Run, options: str, error: str, words: str) -> None:
    refused = run(f"memory create m --size 64K {options} -j")
    assert (refused.code, refused.error["id"]) == (2, error)
    assert words in refused.error["what"] + refused.error["because"]
    assert fresh("memory list --brief").out == ""


# Domains


def test_domain_show(real: Run) -> None:
    assert real("domain show host").out.splitlines() == [
        "host  id 2",
        "backend     real",
        "aperture    0x0..0xfedfffff",
        "aperture    0xfef00000..0xffffffffffff",
        "reserved    0xfee00000..0xfeefffff",
        "page sizes  4K,2M,1G",
        "mappings    1",
        "slots       0",
        "",
        "IOVA      LAST      SIZE  TO            PROT",
        "0x100000  0x10ffff  64K   ram+0x100000  rw",
    ]
    shown = real("domain show host -j").json
    assert shown["aperture"] == [["0x0", "0xfedfffff"], ["0xfef00000", "0xffffffffffff"]]
    assert shown["reserved"] == [["0xfee00000", "0xfeefffff"]]
    assert shown["mappings"] == [
        {"iova": "0x100000", "size": 65536, "pa": None, "memory": "ram", "offset": 1 << 20, "prot": "rw"}
    ]


def test_what_the_ranges_leave_out_is_not_mapped(real: Run, run: Run) -> None:
    across = run("domain map host --iova 0xfedff000 --size 8K --memory ram -j")
    assert (across.code, across.error["id"]) == (1, "reserved-range")
    assert run("domain map host --iova 0x1000000000000 --size 4K --memory ram -j").error["id"] == "out-of-aperture"
    assert run("domain map host --iova 2M --size 4K --pa 0 -j").error["id"] == "unsupported"
    real("domain map host --iova 0xfef00000 --size 4K --memory ram")


def test_an_offset_that_is_not_aligned_is_told_as_such(real: Run, run: Run) -> None:
    refused = run("domain map host --iova 2M --size 4K --memory ram+0x800 -j").error
    assert (refused["id"], refused["what"]) == ("misaligned", "offset 0x800 is not a multiple of 0x1000")


def test_dirty_tracking(real: Run, run: Run) -> None:
    assert real("domain dirty vm on").out == "vm: dirty tracking is on\n"
    assert real("domain dirty vm read").out.splitlines() == [
        "vm: 1 range written since the last time, in units of 4K",
        "IOVA  LAST   SIZE",
        "0x0   0xfff  4K",
    ]
    assert real("domain dirty vm read").out == "vm: 0 ranges written since the last time, in units of 4K\n"
    assert real("domain dirty vm on -j").json == {"schema": 1, "domain": "vm", "tracking": True}
    assert real("domain dirty vm read -j").json == {
        "schema": 1, "domain": "vm", "granule": 4096, "ranges": [{"iova": "0x0", "size": 4096}],
    }  # fmt: skip
    assert real("domain dirty vm off -j").json["tracking"] is False
    assert run("domain dirty host read").code == 3
    assert run("domain dirty nothing read").code == 4
    assert run("domain dirty vm maybe").code == 2


# Looking


def test_topology(real: Run) -> None:
    assert real("topology --by device").out.splitlines() == [
        "0000:00:02.0  kernel: e1000e, DMA-FQ",
        "0000:00:02.1  kernel: e1000e, DMA-FQ",
        "0000:00:10.0",
        "├── RID  attached vm",
        '└── PASID 3  bound to page table t at 0x100000 nested on vm  "process"',
        "0000:00:11.0  kernel: e1000e, DMA",
    ]
    assert real("topology").out.splitlines() == [
        "host",
        "vm  nest parent",
        "└── 0000:00:10.0  attached",
        '    └── PASID 3  bound to page table t at 0x100000  "process"',
        "3 devices are the kernel's: `iommuctl topology --by device`",
    ]
    document = real("topology -j").json
    assert document["lost"] is None
    shown = {device["rid"]: (device["driver"], device["owner"], device["bound"]) for device in document["devices"]}
    assert shown["0000:00:02.0"] == ("e1000e", "DMA-FQ", False)
    assert shown["0000:00:10.0"] == ("vfio-pci", None, True)


def test_a_bound_device_with_empty_slots_is_attached_to_nothing(fresh: Run) -> None:
    fresh("device bind 00:11.0")
    assert fresh("topology").out.splitlines()[:2] == ["attached to nothing", "└── 0000:00:11.0"]
    assert fresh("topology --by device").out.splitlines()[-2:] == ["0000:00:11.0", "└── attached to nothing"]


def test_translate_gives_memory_and_offset(real: Run) -> None:
    assert real("translate 00:10.0 0x1234").out.splitlines() == [
        "0000:00:10.0  IOVA 0x1234  r",
        "-> ram+0x1234  rw",
    ]
    shown = real("translate 00:10.0 0x7f0000001008 --pasid 3 -j").json
    assert (shown["pa"], shown["memory"], shown["offset"]) == (None, "ram", 0x201008)
    assert [step["structure"] for step in shown["steps"]] == ["vtd.first-stage-entry"] * 4
    assert (shown["prot"], shown["page_size"], shown["fault"]) == ("rw", 4096, None)
    assert real("translate 00:10.0 0x7f0000001008 --pasid 3").out.splitlines()[-1] == "-> ram+0x201008  rw  4 KiB page"


def test_nothing_shows_an_address_that_only_rows_know(real: Run, run: Run) -> None:
    """Whatever is printed, no number in it is one of those that rows give to named memory."""
    lines = [
        "memory list", "memory create other --size 4K", "memory destroy other", "domain show vm",
        "domain map host --iova 2M --size 4K --memory ram+4K", "domain map host --iova 3M --size 4K --memory ram+1",
        "domain unmap host --iova 2M --size 4K", "translate 00:10.0 0x1000",
        "translate 00:10.0 0x7f0000000000 --pasid 3",
        "topology", "device show 00:10.0", "pgtable show t", "table dump t", "check", "export",
        "--dry-run pgtable map t --iova 0 --size 4K --gpa 0",
        "--dry-run domain map host --iova 0 --size 4K --memory ram",
        "invalidate vm --pasid 3", "memory destroy ram", "domain unmap vm --iova 0 --size 8M",
    ]  # fmt: skip
    for line in lines:
        for form in (line, f"{line} -j"):
            told = run(form)
            numbers = re.findall(r"0x[0-9a-f]+|\b\d{10,}\b", told.out + told.err)
            assert all(int(number, 0) < NO_PHYSICAL for number in numbers), (form, told)


def test_export_and_plan_speak_of_memory_and_offset(real: Run, tmp_path: Path) -> None:
    file = tmp_path / "topology.toml"
    file.write_text(real("export").out, "utf-8")
    assert 'memory = "ram+0x100000"' in file.read_text("utf-8")
    assert " pa =" not in file.read_text("utf-8")
    assert real("plan", str(file)).out == "nothing to do: all is as the document says\n"


@pytest.mark.parametrize("line", ["sim dma 00:10.0 0 --read --size 1", "sim read 0 1", "sim show", "sim reset"])
def test_a_real_machine_refuses_what_is_for_simulators(real: Run, run: Run, line: str) -> None:
    refused = run(f"{line} -j")
    assert (refused.code, refused.error["id"]) == (3, "unsupported")


@pytest.mark.parametrize("what", ["host", "00:10.0"])
def test_tables_of_the_kernel_are_not_dumped(real: Run, run: Run, what: str) -> None:
    refused = run(f"table dump {what} -j").error
    assert (refused["id"], refused["what"]) == ("unsupported", "the tables of this machine cannot be read")
    assert real("table dump t -j").json["entries"]


def test_units_have_the_registers_that_there_are(real: Run) -> None:
    assert real("unit list --brief").out == "dmar0\n"
    shown = real("unit show dmar0 -j").json
    assert set(shown["registers"]) == {"CAP", "ECAP"}


# What a dry run shows


def test_calls_to_the_kernel(real: Run) -> None:
    line = "domain map host --iova 2M --size 4K --memory ram+8K"
    assert real(f"--dry-run {line}").out.splitlines() == [
        "dry run: host: mapped 0x200000..0x200fff -> ram+0x2000 rw",
        "  call     IOMMU_IOAS_MAP_FILE  iova=0x200000 length=0x1000 start=0x2000",
    ]
    document = real(f"--dry-run {line} -j").json
    assert document["calls"] == [
        {"ioctl": "IOMMU_IOAS_MAP_FILE", "fields": {"iova": "0x200000", "length": "0x1000", "start": "0x2000"}}
    ]
    assert (document["commands"], document["writes"]) == ([], [])
    assert "calls" not in real(f"{line} -j").json


def test_calls_of_an_invalidation(real: Run) -> None:
    document = real("invalidate vm --pasid 3 --iova 0x7f0000000000 --size 4K -j").json
    assert document["calls"] == [{"ioctl": "IOMMU_HWPT_INVALIDATE", "fields": {"hwpt_id": "0x3", "entry_num": "0x1"}}]
    assert [command["fields"] for command in document["commands"]] == [{"ADDR": "0x7f0000000000"}]
    lines = real("invalidate vm").out.splitlines()
    assert [line.split()[0] for line in lines] == ["vm:", "command"]


def test_words_that_would_be_written_are_in_named_memory(real: Run) -> None:
    line = "--dry-run pgtable unmap t --iova 0x7f0000001000 --size 4K"
    (write,) = real(f"{line} -j").json["writes"]
    before = real("table dump t -j").json["entries"][-1]
    assert write == {
        "address": None, "memory": "ram", "offset": int(before["address"], 16), "old": before["raw"], "new": "0x0",
    }  # fmt: skip
    assert real(line).out.splitlines()[-1] == f"  write    ram+{before['address']}  {before['raw']} -> 0x0"


def test_a_plan_that_is_tried_has_calls(real: Run, tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('schema = 1\n[domain.host]\nmappings = [{ iova = "4M", size = "4K", memory = "ram" }]\n', "utf-8")
    document = real("--dry-run", "apply", str(file), "-j").json
    assert [call["ioctl"] for call in document["calls"]] == ["IOMMU_IOAS_MAP_FILE"]
    assert "  call     IOMMU_IOAS_MAP_FILE" in real("--dry-run", "apply", str(file)).out


# What is lost


def test_the_topology_says_that_it_is_lost(lost: Run) -> None:
    told = "lost: the keeper is gone; `iommuctl recover` makes what follows again"
    for by in ("domain", "device"):
        assert lost(f"topology --by {by}").out.splitlines()[0] == told
    assert lost("topology -j").json["lost"] == "the keeper is gone"


def test_what_needs_lost_objects_fails(lost: Run, run: Run) -> None:
    refused = run("domain unmap host --iova 1M --size 64K -j")
    assert (refused.code, refused.error["id"]) == (5, "lost")
    assert lost("domain show host -j").json["mappings"]


def test_recover(lost: Run, run: Run, state: Path) -> None:
    made = {"memories": 1, "domains": 2, "mappings": 2, "slots": 2}
    tried = lost("recover --dry-run -j").json
    assert [call["ioctl"] for call in tried["calls"]] == ["IOMMU_IOAS_ALLOC"]
    told = run("recover")
    assert told.code == 0
    assert told.out == "made again: 1 memory, 2 domains, 2 mappings, 2 slots\n"
    assert told.err == "warning: memory ram is empty: no file was behind it\n"
    assert lost("topology -j").json["lost"] is None
    assert lost("recover").out == "nothing is lost: the kernel has what it should\n"
    (state / "lost").write_text("it went again")
    document = run("recover -j")
    assert document.json == {
        "schema": 1, "changed": True, "lost": "it went again", "made": made,
        "warnings": ["memory ram is empty: no file was behind it"],
    }  # fmt: skip
    assert lost("recover -j").json == {"schema": 1, "changed": False}


def test_what_is_lost_can_be_forgotten(lost: Run, state: Path) -> None:
    lost("recover --forget --dry-run")
    assert lost("domain list --brief").out == "host\nvm\n"
    told = lost("recover --forget").out
    assert told == "forgotten: 1 memory, 2 domains, 2 mappings, 2 slots\n"
    (state / "lost").unlink()
    document = lost("topology -j").json
    assert (document["backend"], document["domains"]) == (NAME, [])
    assert not any(device["slots"] for device in document["devices"])
    assert not lost("memory list --brief").out
    lost("memory create ram --size 16M")
    lost("domain create host")
    lost("domain map host --iova 0 --size 16M --memory ram")


def test_what_is_not_lost_is_not_forgotten(real: Run) -> None:
    before = real("export").out
    assert real("recover --forget -j").json == {"schema": 1, "changed": False}
    assert real("export").out == before


def test_check_reads_what_can_be_read(real: Run, run: Run, state: Path) -> None:
    assert real("check -j").json["ok"]
    root = 1 << 20
    with open(state / "named-1", "r+b") as memory:
        memory.seek(root)
        memory.write(b"\xff" * 8)
    told = run("check -j")
    assert told.code == 1
    assert "page table t: " in told.json["problems"][0]

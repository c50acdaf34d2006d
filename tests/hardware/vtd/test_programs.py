# SPDX-License-Identifier: Apache-2.0
"""Programs that use a device with our descriptors, and others that would take it."""

import subprocess
import sys
from pathlib import Path

import pytest

from iommuctl.errors import KernelRefused
from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.sysfs import Sysfs
from iommuctl.iommufd.vfio import Cdev
from iommuctl.model import Rid
from tests.hardware.held import held
from tests.hardware.shell import Shell

EDU, OTHER = "0000:00:10.0", "0000:00:11.0"
MIB = 1 << 20

# It maps memory of its own into an address space of its own, and has the device copy it: all with what it was given.
PROGRAM = """
import mmap, os, sys
from iommuctl.iommufd.session import Iommufd
from iommuctl.iommufd.vfio import Cdev
from tests.hardware.edu import Edu
import ctypes

iommufd, device = Iommufd(int(sys.argv[1])), int(sys.argv[2])
assert sys.argv[1] == os.environ["IOMMUCTL_IOMMUFD"]
assert sys.argv[2] == os.environ["IOMMUCTL_VFIO_0000_00_10_0"]
memory = mmap.mmap(-1, 65536)
memory[:5] = b"mine!"
ioas = iommufd.ioas_alloc()
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
iommufd.ioas_map(ioas, 0x800000, 65536, address, 6)
cdev = Cdev(device, "edu")
cdev.attach(ioas)
edu = Edu(device)
edu.load(0x800000, 5)
edu.store(0x801000, 5)
print(memory[0x1000:0x1005].decode())
cdev.detach()
iommufd.destroy(ioas)
sys.exit(42)
"""


def test_a_program_does_dma_with_what_exec_hands_it(shell: Shell, state: Path) -> None:
    shell("device", "bind", EDU)
    words = ("exec", "--device", EDU, "--", "python3", "-c", PROGRAM, "{iommufd}", f"{{vfio:{EDU}}}")
    done = shell.run(*words)
    assert (done.returncode, done.stdout) == (42, "mine!\n"), done.stderr
    with held(state) as machine:
        assert machine.objects() == 1


def test_a_second_bind_is_refused_and_explained(shell: Shell) -> None:
    shell("device", "bind", EDU)
    name = Sysfs().device(Rid.parse(EDU)).cdev
    assert name
    ours, cdev = Iommufd.open(), Cdev.open(name)
    with pytest.raises(KernelRefused) as raised:
        cdev.bind(ours.fd)
    cdev.close()
    ours.close()
    assert "exec --device" in raised.value.hint


@pytest.mark.parametrize(
    ("device", "words", "error"),
    [
        (OTHER, ["true"], "device-not-bound"),
        ("0000:7f:00.0", ["true"], "no-such-device"),
        (EDU, ["/nowhere/at/all"], "system"),
        (EDU, ["true", f"{{vfio:{OTHER}}}"], "usage"),
    ],
)
def test_what_exec_cannot_do(shell: Shell, device: str, words: list[str], error: str) -> None:
    shell("device", "bind", EDU)
    done = shell.run("exec", "--device", device, "--", *words)
    assert done.stderr.startswith(f"error[{error}]"), done.stderr


HOLDER = """
import os, sys
made = os.memfd_create("guest"); os.ftruncate(made, 1 << 20); os.pwrite(made, b"guest memory", 0)
print(os.getpid(), made, flush=True); sys.stdin.read()
print(os.pread(made, 12, 0x1000).decode())
"""


def test_a_vmm_s_memory_is_used_in_place(shell: Shell, state: Path) -> None:
    vmm = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert vmm.stdout
    pid, descriptor = vmm.stdout.readline().split()
    for line in (
        f"device bind {EDU}",
        f"memory create guest --size 1M --fd {pid}:{descriptor}",
        "domain create domain1",
        "domain map domain1 --iova 1M --size 1M --memory guest",
        f"attach domain1 {EDU}",
    ):
        shell(*line.split())
    with held(state) as machine:
        machine.edu(EDU).load(MIB, 12)
        machine.edu(EDU).store(MIB + 0x1000, 12)
    assert vmm.communicate()[0] == "guest memory\n"
    with held(state) as machine:
        assert machine.read(1, 0x1000, 12) == b"guest memory", "it outlives the program"


def test_a_bar_is_mapped_for_another_device(shell: Shell) -> None:
    """Peer to peer: what one device writes goes to the other's registers. QEMU's edu has none that would show it."""
    shell("device", "bind", EDU)
    shell("device", "bind", OTHER)
    shell("domain", "create", "domain1")
    done = shell.run("memory", "create", "bar", "--size", "1M", "--dma-buf", f"{OTHER}:0")
    if done.returncode:
        assert "error[kernel-refused]" in done.stderr or "error[unsupported]" in done.stderr, done.stderr
        pytest.skip(done.stderr)
    assert shell.json("memory", "list")["memories"][0]["source"]["dma_buf"] == {"rid": OTHER, "bar": 0}
    shell("domain", "map", "domain1", "--iova", "1M", "--size", "1M", "--memory", "bar")
    shell("attach", "domain1", EDU)
    error = shell.refused("pgtable", "create", "table", "--parent", "domain1", "--pool", "1M+64K")
    assert error["id"] in ("not-nest-parent", "cannot-nest")


def test_devices_of_one_group(shell: Shell, state: Path) -> None:
    """The kernel has one table for all of them; a second domain is refused before it is asked."""
    first, second = "0000:03:01.0", "0000:03:02.0"
    shell("device", "bind", first)
    shell("device", "bind", second)
    assert shell.json("device", "show", first)["siblings"] == [second]
    shell("domain", "create", "domain1")
    shell("domain", "create", "domain2")
    shell("attach", "domain1", first)
    error = shell.refused("attach", "domain2", second)
    assert (error["id"], first in error["what"]) == ("in-use", True)
    shell("attach", "domain1", second)
    assert {slot["rid"] for slot in shell.json("domain", "show", "domain1")["slots"]} == {first, second}


def test_a_mapping_in_a_reserved_range_is_refused_when_the_device_comes(shell: Shell) -> None:
    for line in (
        f"device bind {EDU}",
        "memory create ram --size 1M",
        "domain create domain1",
    ):
        shell(*line.split())
    error = shell.refused(*["domain", "map", "domain1", "--iova", "0xfee00000", "--size", "64K", "--memory", "ram"])
    assert error["id"] == "reserved-range"

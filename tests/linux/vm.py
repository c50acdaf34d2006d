# SPDX-License-Identifier: Apache-2.0
"""A Linux in QEMU whose RAM is a file of the host, and which runs one command.

Nothing here knows an IOMMU. The kernel and the guest's root are those of the folder that the environment variable
IOMMUCTL_VM names; `.ci/vm` makes one and prints its path.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.differential.qemu import Installed
from tests.differential.qtest import Qtest
from tests.linux.initramfs import archive

VARIABLE = "IOMMUCTL_VM"
_POLL = 0.05


class NoVm(Exception):
    """There is no kernel that can be booted; the text says why."""


class VmError(Exception):
    """The VM, or the command in it, did not do what was waited for; the text has its last words."""


class Kit(NamedTuple):
    """What a VM of an architecture is made of besides QEMU."""

    architecture: str
    kernel: Path
    root: Path
    """The guest's root folder, with Debian's python3 and busybox."""


class _Processor(NamedTuple):
    """What QEMU and Linux must be told of an architecture's machines."""

    ram: int
    """Where RAM begins."""
    model: str
    console: str
    parameters: str = ""


_PROCESSORS = {
    # Linux would give up when its timer is late, as an emulated one is on a busy machine.
    "x86_64": _Processor(0, "max", "ttyS0", "no_timer_check"),
    # Newer ones sign pointers, which takes QEMU long.
    "aarch64": _Processor(0x4000_0000, "cortex-a76", "ttyAMA0"),
}


def find(architecture: str, environment: Mapping[str, str] = os.environ) -> Kit:
    """The kit of an architecture in the folder that the environment names. Raises NoVm."""
    if not (folder := environment.get(VARIABLE)):
        raise NoVm(f"{VARIABLE} is not set")
    kernel, root = Path(folder, "images", f"vmlinuz-{architecture}"), Path(folder, f"guest-{architecture}")
    for path in (kernel, root):
        if not path.exists():
            raise NoVm(f"{VARIABLE} is {folder}, but there is no {path}")
    return Kit(architecture, kernel, root)


class Vm:
    """A running VM.

    `shared` is the folder that the guest has as /mnt, `ram` the file with its RAM, which begins at address `base`.
    """

    def __init__(
        self,
        installed: Installed,
        kit: Kit,
        arguments: Sequence[str],
        command: str,
        *,
        ram: int,
        parameters: str,
        files: Mapping[str, bytes],
    ) -> None:
        """Boot with these further arguments of QEMU and parameters of the kernel.

        `command` is a script for the guest's shell, which runs as root and finds `files` in /mnt. `arguments` has the
        machine, with `memory-backend=ram` among its properties.
        """
        self._exit = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iommuctl-vm-")))
            processor = _PROCESSORS[kit.architecture]
            self.ram, self.shared, self._folder = folder / "ram", folder / "shared", folder
            self.base = processor.ram
            self.shared.mkdir()
            for name, content in {**files, "command": command.encode()}.items():
                (self.shared / name).write_bytes(content)
            busybox = (kit.root / "usr/bin/busybox").read_bytes()
            init = Path(__file__).with_name("init").read_bytes()
            (folder / "initramfs").write_bytes(archive({"init": init, "bin/busybox": busybox}))
            words = [
                *installed.command, "-run-with", "exit-with-parent=on", "-accel", "tcg", "-cpu", processor.model,
                "-smp", "2",
                "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                "-serial", f"file:{folder / 'console'}", "-m", f"{ram >> 20}M",
                "-object", f"memory-backend-file,id=ram,size={ram},mem-path={self.ram},share=on",
                "-kernel", f"{kit.kernel}", "-initrd", f"{folder / 'initramfs'}",
                "-append", f"console={processor.console} panic=-1 {processor.parameters} {parameters}",
                "-qtest", f"unix:{folder / 'qtest'},server=on,wait=off", "-qtest-log", os.devnull,
                *_share("root", kit.root, ",readonly=on"), *_share("shared", self.shared), *arguments,
            ]  # fmt: skip
            errors = stack.enter_context(open(folder / "errors", "wb"))
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
            stack.callback(self._end)
            self._exit = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exit.close()

    def wait_for(self, name: str, seconds: float) -> Path:
        """The path of a file or folder in `shared` once the guest has made it. Raises VmError."""
        path, end = self.shared / name, time.monotonic() + seconds
        while not path.exists():
            ended = self._process.poll() is not None
            if ended or (self.shared / "status").exists():
                raise VmError(f"the VM ended before it made {name}:\n{self.last_words()}")
            if time.monotonic() > end:
                raise VmError(f"the VM did not make {name} within {seconds:g} s:\n{self.last_words()}")
            time.sleep(_POLL)
        return path

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing runs in the VM meanwhile, neither its processors nor its devices."""
        self._process.send_signal(signal.SIGSTOP)
        # The signal is delivered to all threads before the parent hears of it.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def read_register(self, address: int, size: int) -> int:
        """A register of 4 or 8 bytes at a physical address, as a processor reads it. Raises QtestError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._folder / "qtest"))
            return Qtest(connection).read(address, size)

    def last_words(self) -> str:
        """The ends of what the command, the kernel and QEMU have written."""
        paths = (self.shared / "output", self._folder / "console", self._folder / "errors")
        return "\n".join(f"{path.name}: {_end_of(path)}" for path in paths if path.exists())

    def _end(self) -> None:
        # What it would write on a regular exit is of no use to anyone. A process that is stopped is killed as well.
        self._process.kill()
        self._process.wait()


def _share(tag: str, path: Path, more: str = "") -> list[str]:
    return [
        "-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{more}",
        "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
    ]  # fmt: skip


def _end_of(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:]

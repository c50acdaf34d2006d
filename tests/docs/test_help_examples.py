# SPDX-License-Identifier: Apache-2.0
"""The examples of the help run: those of a module in their order, in a folder that has what they speak of."""

from importlib import import_module
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.cli.app import COMMANDS, EXAMPLES
from iommuctl.handlers import Handler
from iommuctl.model import Slot
from iommuctl.plugins import BACKENDS
from tests.cli.real import NAME
from tests.docs.documents import Console
from tests.serving.asking import A, ask

MODULES = ("app", *dict.fromkeys(module for module, _ in COMMANDS.values()), "fault_handler")
_DEVICES = ["device add 00:01.0 --ats --pasid-bits 16", "device add 00:02.0 --pasid-bits 16"]
_VM = [
    "domain create domain2 --nest-parent",
    "domain map domain2 --iova 0 --size 16M --pa 0x40000000",
    *_DEVICES,
    "attach domain2 00:01.0",
]
_PROCESS = [
    "pgtable create sva-a --parent domain2 --pool 8M+256K",
    "pgtable map sva-a --iova 0x7f0000000000 --size 64K --gpa 0x300000",
]
_BOUND = ["bind-pgtable domain2 00:01.0 --pasid 3 --pgtable sva-a"]
BEFORE: dict[str, list[str]] = {
    "domain": ["memory create buffers --size 1M"],
    "memory": ["domain create domain1"],
    "pgtable": _VM,
    "slots": ["domain create domain1", *_VM, *_PROCESS, "detach domain2 00:01.0"],
    "translate": [*_VM, *_PROCESS, *_BOUND],
    "table": [*_VM, *_PROCESS, "domain create domain1"],
    "batch": _DEVICES,
    "fault_handler": [
        *_VM,
        *_PROCESS,
        *_BOUND,
        "domain create domain1",
        "memory create buffers --size 1M",
    ],
}
IN_BETWEEN = {
    "bind-pgtable domain3 0000:00:02.0": ["attach domain3 00:02.0"],
    "attach domain3": ["domain create domain3 --nest-parent"],
    "echo '[": ["sim reset"],
    "sim init": ["sim reset"],
    "sim dma 0000:00:01.0 0x1000 --read --size 5": [
        "sim reset",
        "sim init --option mode=scalable",
        *_DEVICES,
        "domain create d",
        "domain map d --iova 0 --size 2M --pa 0x40000000",
        "attach d 00:01.0",
        "attach d 00:01.0 --pasid 1",
    ],
}
"""What has to come before an example that begins so, where the one above it is another way to begin."""
HARDWARE = (
    *("device bind", "device unbind", "domain create domain3 --dirty", "domain dirty"),
    *("memory create disk", "memory create guest", "memory create doorbells", "memory create big"),
)
"""How examples begin that need real hardware: a backend of the tests stands in for it, in a folder of its own."""
NOT_RUN = {
    "completion": "they install for a user, or for all; tests/completion does it in a home of its own",
    "exec": "they become another program; tests/cli/test_exec.py has such ones in a process of their own",
}


def lines(module: str) -> list[str]:
    text = EXAMPLES if module == "app" else import_module(f"iommuctl.cli.{module}").EXAMPLES
    return [line for line in text.strip().splitlines() if not line.startswith("#")]


def test_every_module_has_examples() -> None:
    assert all(lines(module) for module in MODULES)


def wait(folder: str, groups: int) -> None:
    """Have a device wait for answers to so many groups of page requests."""
    with Iommu(folder, backend="sim") as iommu:
        iommu.device_add(A, ats=True, pri=True, pasid_bits=8)
        iommu.domain_create("d")
        iommu.attach("d", A, pasid=5)
        iommu.handler_set("d", Handler("queue"))
        for number in range(groups):
            ask(iommu, Slot(A, 5), number, group=number)
        assert iommu.faults().waiting[-1].id == groups


@pytest.mark.parametrize("module", [module for module in MODULES if module not in NOT_RUN])
def test_examples_of_the_help(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(tmp_path, capsys, monkeypatch)
    (tmp_path / "topology.txt").write_text("domain list\n")
    monkeypatch.setitem(BACKENDS, NAME, "tests.cli.real")
    simulated, hardware = str(tmp_path / "state"), str(tmp_path / "hardware")

    def typed(command: str) -> None:
        needs = command.removeprefix("iommuctl ").startswith(HARDWARE)
        monkeypatch.setenv("IOMMUCTL_STATE", hardware if needs else simulated)
        printed = console(command)
        assert printed is None or console.code == 0, (command, printed)

    assert console(f"iommuctl --backend {NAME} --state {hardware} domain create first") is not None
    if module == "fault":
        wait(simulated, groups=7)
    for command in BEFORE.get(module, []):
        typed(f"iommuctl {command} --quiet")
    for line in lines(module):
        for beginning, commands in IN_BETWEEN.items():
            if line.removeprefix("iommuctl ").startswith(beginning):
                for command in commands:
                    typed(f"iommuctl {command} --quiet")
        typed(line)

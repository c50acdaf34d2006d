# SPDX-License-Identifier: Apache-2.0
"""What commands load and how much they write: the guards of the run-time budgets, which count and never time."""

import json
import subprocess
import sys

from tests.acceptance.conftest import RID1, Shell

PROBE = """
import json, sys
from iommuctl.__main__ import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_of(shell: Shell, *words: object) -> set[str]:
    """The modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, words)],
        env=shell.environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    return set(modules)


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_reading_rows_loads_no_backend_and_nothing_heavy(shell: Shell) -> None:
    shell.batch("domain create domain1")
    modules = modules_of(shell, "domain", "list")
    heavy = {"numpy", "rich", "ctypes", "pluggy", "asyncio", "multiprocessing", "importlib.metadata", "tempfile"}
    assert not heavy & (modules | packages(modules))
    assert not {"iommuctl_sim", "iommuctl_vtd", "iommuctl_smmuv3"} & packages(modules)
    ours = {module for module in modules if module.startswith("iommuctl")}
    assert not {"iommuctl.formats.radix", "iommuctl.hookspecs", "iommuctl.plugins", "iommuctl.cli.demo"} & ours
    assert len(ours) <= 35


def test_a_completion_loads_next_to_nothing(shell: Shell) -> None:
    shell.batch("domain create domain1")
    program = "import sys; before = set(sys.modules); from iommuctl.__main__ import main; code = main(sys.argv[1:]); "
    program += "print(*(set(sys.modules) - before), file=sys.stderr); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", program, "__complete", "DOMAIN"],
        env=shell.environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "domain1\n"
    modules = set(done.stderr.split())
    ours = {module for module in modules if module.startswith("iommuctl")}
    state = {"iommuctl.state", "iommuctl.state.folder", "iommuctl.state.schema"}
    assert ours == {"iommuctl", "iommuctl.__main__", "iommuctl.complete", "iommuctl.spelling", *state}
    # re and sqlite3 are what it needs; each of these takes a third as long as Python itself, or longer.
    assert not {"typing", "typer", "pluggy", "json", "pathlib", "urllib", "dataclasses", "inspect"} & packages(modules)
    assert len(modules) <= 40


def test_changing_something_loads_the_selected_backend_alone(shell: Shell) -> None:
    shell.batch(f"device add {RID1}\ndomain create domain1")
    modules = modules_of(shell, "attach", "domain1", RID1)
    assert {"iommuctl_sim", "iommuctl_vtd"} <= packages(modules)
    assert not {"numpy", "rich", "ctypes", "iommuctl_smmuv3", "importlib.metadata"} & (modules | packages(modules))
    assert "iommuctl_vtd.backend" not in modules


def test_mapping_a_gibibyte_of_small_pages_writes_runs(shell: Shell) -> None:
    """262144 entries in 512 tables: some dozen writes to the memory file, and a fixed number of SQL statements."""
    shell.batch("domain create domain1 --page-sizes 4K")
    probe = (
        "import os, sys, sqlite3\n"
        "writes = []\n"
        "for name in ('pwrite', 'pwritev'):\n"
        "    real = getattr(os, name)\n"
        "    setattr(os, name, lambda *a, real=real: (writes.append(name), real(*a))[1])\n"
        "from iommuctl import Iommu\n"
        "with Iommu() as iommu:\n"
        "    iommu.domains()\n"
        "    statements = []\n"
        "    iommu._store._connection.set_trace_callback(statements.append)\n"
        "    iommu.map('domain1', iova=0, size=1 << 30, pa=0)\n"
        "print(len(writes), len(statements))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], env=shell.environment, capture_output=True, text=True, check=True, timeout=60
    )
    writes, statements = map(int, done.stdout.split())
    assert writes <= 16
    assert statements <= 60
    shell.batch(f"device add {RID1}\nattach domain1 {RID1}")
    assert shell.json("translate", RID1, "0x3ffff123")["pa"] == "0x3ffff123"

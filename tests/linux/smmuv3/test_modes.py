# SPDX-License-Identifier: Apache-2.0
"""Linux and we say the same about the tables that Linux wrote, in every mode."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.differential.qemu import Installed
from tests.linux.architecture import Architecture
from tests.linux.smmuv3.architecture import ARCHITECTURE
from tests.linux.smmuv3.devices import MODES
from tests.linux.snapshot import take
from tests.linux.vm import Kit


@pytest.mark.parametrize("mode", MODES)
def test_linux_and_we_say_the_same(
    mode: str,
    parts: Callable[[Architecture], tuple[Installed, Kit]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    installed, kit = parts(ARCHITECTURE)
    with take(installed, kit, ARCHITECTURE, MODES[mode], tmp_path) as snapshot:
        compared = ARCHITECTURE.compare(snapshot)
    (tmp_path / "ram").unlink()
    assert not compared.findings, "\n".join(compared.lines())
    assert not compared.differences, "\n".join(compared.lines())
    # The VM has done what it was to do.
    roles = MODES[mode].roles
    users = {rid for role, rids in roles.items() if role not in ("identity", "blocked") for rid in rids}
    assert {str(mapping.slot.rid) for mapping in snapshot.mappings} == users
    assert {str(rid) for rid, kind in snapshot.dump.devices.items() if kind == "identity"} == set(roles["identity"])
    counts = compared.counts
    assert counts["StreamIDs of bridges, with tables of a device"] == 1
    stage = 2 if mode == "stage 2" else 1
    assert counts[f"stage {stage}: 4 KiB page"]
    assert counts[f"stage {stage}: 2 MiB block"]
    nested = len(roles.get("nested", ()))
    assert counts["STEs: stage 1 and stage 2"] == nested
    assert counts["stage 1: 4 KiB page of a guest"] == 4 * nested
    assert counts["stage 1: 2 MiB block of a guest"] == nested
    # At both ends of a CD table of two levels, and beside each other.
    pasids = {mapping.slot.pasid for mapping in snapshot.mappings} - {None}
    assert pasids == ({1, 63, 64, (1 << 16) - 1} if MODES[mode].substreams else set())
    assert counts["smmuv3.l1cd"] == 2 * len(roles.get("pasids", ()))
    for name, count in counts.items():
        record_property(f"{mode}: {name}", count)

# SPDX-License-Identifier: Apache-2.0
"""Linux and we say the same about the tables that Linux wrote, in every mode."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.differential.qemu import Installed
from tests.linux.architecture import Architecture
from tests.linux.snapshot import take
from tests.linux.vm import Kit
from tests.linux.vtd.architecture import ARCHITECTURE
from tests.linux.vtd.devices import MODES


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
    mapped = {rid for role in ("alone", "shared", "pasid-able", "bridged", "pasids") for rid in roles[role]}
    assert {str(mapping.slot.rid) for mapping in snapshot.mappings} == mapped
    counts = compared.counts
    assert counts["2 MiB page"]
    assert counts["requester ids that pass through"] == len(roles["identity"])
    assert counts["requester ids without any table"] == (len(roles["blocked"]) if MODES[mode].scalable else 0)
    # Other kernels may know of no device that has PASIDs.
    if kit.kernel.with_name("made-from-x86_64").exists():
        assert counts["PASIDs"] == (4 * len(roles["pasids"]) if "pasid-bits" in MODES[mode].unit else 0)
    for name, count in counts.items():
        record_property(f"{mode}: {name}", count)

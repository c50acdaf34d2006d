# SPDX-License-Identifier: Apache-2.0
"""The registers of one unit, all in one row, and what they hold at power on."""

from collections.abc import Mapping
from functools import cached_property

from iommuctl.errors import Unsupported, Usage
from iommuctl.hookspecs import Rows
from iommuctl_vtd.capability import DEFAULT_CAP, DEFAULT_ECAP, DEFAULT_HAW
from iommuctl_vtd.registers import CAP, ECAP

_ROW = "vtd", "registers"
MODES = ("scalable", "legacy")


class RegisterBank:
    """Registers by name, without what writing one brings about. The row is read once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @cached_property
    def _values(self) -> dict[str, int]:
        values: dict[str, int] = self._rows.get(*_ROW)
        return values

    def all(self) -> dict[str, int]:
        return dict(self._values)

    def get(self, name: str) -> int:
        """Raises Unsupported."""
        try:
            return self._values[name]
        except KeyError:
            raise Unsupported(f"the unit has no register {name}") from None

    def put(self, name: str, value: int) -> None:
        if self.get(name) != value:
            self._values[name] = value
            self._rows.put(*_ROW, self._values)


def power_on(rows: Rows, options: Mapping[str, str]) -> None:
    """Options: `haw` (host address bits), `cap` and `ecap` (register values), and the driver's `mode`. Raises Usage."""
    values = {"haw": DEFAULT_HAW, "cap": DEFAULT_CAP, "ecap": DEFAULT_ECAP}
    mode = options.get("mode", MODES[0])
    if mode not in MODES:
        raise Usage(f"no mode {mode!r}", hint=f"VT-d has {' and '.join(MODES)}")
    for name, text in options.items():
        if name == "mode":
            continue
        if name not in values:
            raise Usage(f"no option {name!r}", hint=f"a VT-d unit has {', '.join(values)}, mode")
        try:
            values[name] = int(text, 0)
        except ValueError:
            raise Usage(f"option {name}={text} is not a number") from None
    if not 32 <= values["haw"] <= 52 or not 0 <= values["cap"] >> 64 == values["ecap"] >> 64 == 0:
        raise Usage("an option is out of range", because="haw is 32 to 52, cap and ecap have 64 bits")
    registers = {"CAP": values["cap"], "ECAP": values["ecap"], "GSTS": 0, "RTADDR": 0, "IQA": 0, "IQH": 0, "IQT": 0}
    registers |= {"FSTS": 0, "FECTL": 1 << 31, "IQERCD": 0, "ICS": 0}
    registers |= {f"FRCD{index}": 0 for index in range(CAP.NFR.get(values["cap"]) + 1)}
    if ECAP.PRS.get(values["ecap"]):
        registers |= {"PQH": 0, "PQT": 0, "PQA": 0, "PRS": 0}
    rows.put(*_ROW, registers)
    rows.put("vtd", "mode", mode)
    rows.put("vtd", "haw", values["haw"])

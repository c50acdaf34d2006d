# SPDX-License-Identifier: Apache-2.0
"""The registers of one unit, all in one row, and what they hold at power on."""

from collections.abc import Mapping
from functools import cached_property

from iommuctl.errors import Unsupported, Usage
from iommuctl.formats.bits import Field
from iommuctl.hookspecs import Rows
from iommuctl_smmuv3.id_registers import IDR0, IDR1, IDR3, IDR5
from iommuctl_smmuv3.registers import Gbpa

ROW = "smmuv3", "registers"

DEFAULTS: Mapping[str, int] = {
    # Faults terminate and are aborts: what PCIe devices do not survive, stalls, is for those who ask for it.
    "IDR0": IDR0.encode(
        S2P=1, S1P=1, TTF=2, COHACC=1, HTTU=2, Hyp=1, ATS=1, NS1ATS=1, ASID16=1, MSI=1, PRI=1, VMID16=1, CD2L=1,
        TTENDIAN=2, STALL_MODEL=1, TERM_MODEL=1, ST_LEVEL=1,
    ),
    "IDR1": IDR1.encode(SIDSIZE=16, SSIDSIZE=20, PRIQS=8, EVENTQS=8, CMDQS=8, ATTR_TYPES_OVR=1, ATTR_PERMS_OVR=1),
    "IDR3": IDR3.encode(HAD=1, XNX=1, FWB=1, RIL=1, BBML=1),
    "IDR5": IDR5.encode(OAS=5, GRAN4K=1, GRAN16K=1, GRAN64K=1),
}  # fmt: skip
"""What the simulated unit says of itself: version 3.2 with all that iommuctl can drive."""
VERSION_3_2 = 2

_SIMULATED: Mapping[str, tuple[tuple[Field, tuple[int, ...]], ...]] = {
    "IDR0": ((IDR0.TTF, (2,)), (IDR0.HTTU, (0, 1, 2)), (IDR0.NS1ATS, (1,)), (IDR0.TTENDIAN, (2,))),
    "IDR3": tuple(
        (field, (0,))
        for field in (
            IDR3.E0PD, IDR3.DPT, IDR3.PASIDTT, IDR3.EPAN, IDR3.S1PI, IDR3.S2PI, IDR3.S2PO, IDR3.THE,
        )
    ),
    "IDR5": ((IDR5.D128, (0,)), (IDR5.VAX, (0, 1))),
}  # fmt: skip
"""Fields that change what structures mean, and the values with which that is simulated."""


def _counts(field: Field, idr0: int) -> bool:
    """Whether a field has a meaning: NS1ATS has one with ATS and both stages alone."""
    return field is not IDR0.NS1ATS or all(IDR0.field(name).get(idr0) for name in ("ATS", "S1P", "S2P"))


class RegisterBank:
    """Registers by name, without what writing one brings about. The row is read once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @cached_property
    def _values(self) -> dict[str, int]:
        values: dict[str, int] = self._rows.get(*ROW)
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
            self._rows.put(*ROW, self._values)


def power_on(rows: Rows, options: Mapping[str, str]) -> None:
    """Options: `idr0`, `idr1`, `idr3`, `idr5` and `mpamidr`, the values of these registers. Raises Usage."""
    known = {name.lower(): value for name, value in DEFAULTS.items()} | {"mpamidr": 0}
    for name, text in options.items():
        if name not in known:
            raise Usage(f"no option {name!r}", hint=f"an SMMUv3 unit has {', '.join(known)}")
        try:
            known[name] = int(text, 0)
        except ValueError:
            raise Usage(f"option {name}={text} is not a number") from None
        if known[name] >> 32:
            raise Usage(f"option {name}={text} is out of range", because="the register has 32 bits")
    identity = {name.upper(): value for name, value in known.items()}
    for name, fields in _SIMULATED.items():
        for field, values in fields:
            if (value := field.get(identity[name])) not in values and _counts(field, identity["IDR0"]):
                raise Usage(
                    f"option {name.lower()}={identity[name]:#x} cannot be simulated",
                    because=f"{field.name} is {value}, and what that brings is not there",
                )
    mpam = IDR3.MPAM.get(identity["IDR3"])
    if identity["MPAMIDR"] and not mpam:
        raise Usage(
            f"option mpamidr={identity['MPAMIDR']:#x} cannot be simulated",
            because="IDR3.MPAM is 0, without which it is 0",
        )
    # The order is that of their offsets.
    registers = {"IDR0": identity["IDR0"], "IDR1": identity["IDR1"], "IDR3": identity["IDR3"]}
    registers |= {"IDR5": identity["IDR5"], "IIDR": 0, "AIDR": VERSION_3_2}
    registers |= dict.fromkeys(("CR0", "CR0ACK", "CR1", "CR2"), 0)
    registers |= {"GBPA": Gbpa.encode(SHCFG=1)}
    registers |= dict.fromkeys(("IRQ_CTRL", "IRQ_CTRLACK", "GERROR", "GERRORN", "STRTAB_BASE", "STRTAB_BASE_CFG"), 0)
    for queue in ("CMDQ", "EVENTQ", "PRIQ"):
        registers |= {f"{queue}_BASE": 0, f"{queue}_PROD": 0, f"{queue}_CONS": 0}
    if mpam:
        registers |= {"MPAMIDR": identity["MPAMIDR"]}
    rows.put(*ROW, registers)

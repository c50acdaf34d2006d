# SPDX-License-Identifier: Apache-2.0
"""What one unit can do, out of CAP, ECAP and the host address width, which the firmware tells and no register."""

from functools import cache, cached_property

from iommuctl.formats.bits import Layout
from iommuctl_vtd.first_stage import FirstStageFormat
from iommuctl_vtd.registers import CAP, ECAP
from iommuctl_vtd.second_stage import SecondStageFormat

LEGACY_MODE, SCALABLE_MODE, ABORT_MODE = 0, 1, 3
"""Values of RTADDR.TTM."""
WIDTHS = {1: 39, 2: 48, 3: 57}
"""Second-stage widths by the values of AW."""
AW_OF_WIDTH = {width: aw for aw, width in WIDTHS.items()}

INTERRUPT_RANGE = (0xFEE0_0000, 0xFEEF_FFFF)
"""Requests without PASID to these addresses are interrupts, and no translation may end there: VT-d 4.1 section 3.14."""

DEFAULT_CAP = CAP.encode(
    ND=6, SAGAW=0b01110, MGAW=56, FRO=0x40, SSLPS=0b11, PSI=1, NFR=7, MAMV=18, DWD=1, DRD=1, FS1GP=1, FS5LP=1, ESRTPS=1
)
"""65536 domains, all widths and page sizes, 8 fault records; entries that are not present are never cached."""
DEFAULT_ECAP = ECAP.encode(
    QI=1, DT=1, PT=1, SC=1, IRO=0x50, NEST=1, PRS=1, SRS=1, EAFS=1, PSS=19, PASID=1, PDS=1, SMTS=1, SSADS=1, SSTS=1,
    FSTS=1, SMPWCS=1, RPS=1,
)  # fmt: skip
"""Scalable mode with both stages, nesting, ATS and page requests."""
DEFAULT_HAW = 48


class Capability:
    """The facts of one unit. Use `capability`, which keeps them."""

    def __init__(self, cap: int, ecap: int, haw: int) -> None:
        self.cap = cap
        self.ecap = ecap
        self.haw = haw
        self.mgaw = CAP.MGAW.get(cap) + 1
        self.max_address_mask = CAP.MAMV.get(cap) if CAP.PSI.get(cap) else -1
        self.domain_ids = 1 << 4 + 2 * CAP.ND.get(cap)
        self._reserved: dict[type[Layout], int] = {}

    def has(self, name: str) -> bool:
        """Whether ECAP has that capability."""
        return bool(ECAP.field(name).get(self.ecap))

    def reserved(self, layout: type[Layout]) -> int:
        """The bits of a structure that must be zero on this unit, but for addresses beyond the host's."""
        if layout not in self._reserved:
            self._reserved[layout] = layout.reserved_without(self.has)
        return self._reserved[layout]

    def why_not_driven(self, *needs: str) -> str:
        """Why a driver that needs these capabilities cannot drive such a unit; nothing when it can."""
        if lacks := [name for name in needs if not self.has(name)]:
            return f"its ECAP lacks {', '.join(lacks)}"
        if CAP.CM.get(self.cap):
            return "its CAP has CM: it caches entries without Present"
        if CAP.RWBF.get(self.cap):
            return "its CAP has RWBF: its write buffer would have to be flushed after each change"
        return "" if self.domain_widths else "its CAP has no second-stage width in SAGAW that is within MGAW"

    @cached_property
    def drains(self) -> dict[str, int]:
        """Fields of an IOTLB invalidation that have requests drained, where the unit can."""
        return {"DW": CAP.DWD.get(self.cap), "DR": CAP.DRD.get(self.cap)}

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Second-stage widths in bits."""
        sagaw = CAP.SAGAW.get(self.cap)
        return tuple(width for aw, width in WIDTHS.items() if sagaw >> aw & 1)

    @cached_property
    def domain_widths(self) -> tuple[int, ...]:
        """Those of which all addresses can be translated."""
        return tuple(width for width in self.widths if width <= self.mgaw)

    @cached_property
    def page_sizes(self) -> tuple[int, ...]:
        """Second-stage page sizes in bytes."""
        sslps = CAP.SSLPS.get(self.cap)
        return (1 << 12, *((1 << 21,) if sslps & 1 else ()), *((1 << 30,) if sslps & 2 else ()))

    @cached_property
    def first_stage_levels(self) -> tuple[int, ...]:
        return (4, 5) if CAP.FS5LP.get(self.cap) else (4,)

    @cache  # noqa: B019  (there are as many objects as kinds of units)
    def second_stage(self, width: int) -> SecondStageFormat:
        return SecondStageFormat(width, haw=self.haw, page_sizes=self.page_sizes, snoop_control=self.has("SC"))

    @cache  # noqa: B019
    def first_stage(self, levels: int) -> FirstStageFormat:
        return FirstStageFormat(levels, haw=self.haw, one_gib_pages=bool(CAP.FS1GP.get(self.cap)))


@cache
def capability(cap: int, ecap: int, haw: int) -> Capability:
    """The facts of a unit with these registers."""
    return Capability(cap, ecap, haw)

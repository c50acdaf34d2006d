# SPDX-License-Identifier: Apache-2.0
"""One request on its way through a unit: stream table, CDs, and both stages. IHI0070 G.b sections 3.3, 3.9, 8.1.

Nothing here knows what a driver meant; memory is read as the unit reads it.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from iommuctl.formats.memory import Memory
from iommuctl.model import Access as RequestAccess
from iommuctl.model import RequestKind, Slot, Step
from iommuctl_smmuv3 import permissions
from iommuctl_smmuv3.cd_rules import StreamWorld, stream_world
from iommuctl_smmuv3.context_lookup import find_cd
from iommuctl_smmuv3.events import CLASS_IN
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.permissions import ALL
from iommuctl_smmuv3.refused import (
    C_BAD_SUBSTREAMID,
    F_ADDR_SIZE,
    F_BAD_ATS_TREQ,
    F_STREAM_DISABLED,
    F_TRANSL_FORBIDDEN,
    F_VMS_FETCH,
    SILENT,
    Refused,
)
from iommuctl_smmuv3.registers import CR0, CR2, Gbpa
from iommuctl_smmuv3.stage1_walk import Stage1
from iommuctl_smmuv3.stage2_walk import Access, Mapped, Stage2
from iommuctl_smmuv3.ste import (
    BOTH_STAGES,
    BYPASS,
    DSS_BYPASS,
    DSS_SUBSTREAM_0,
    FULL_ATS,
    NO_ATS,
    WITH_STAGE_1,
    WITH_STAGE_2,
    Ste,
)
from iommuctl_smmuv3.stream_lookup import StreamTable
from iommuctl_smmuv3.tlb import Page, Tag
from iommuctl_smmuv3.visits import Caches, Unreadable, Visits

_UNPRIVILEGED, _PRIVILEGED = 2, 3
"""Values of PRIVCFG that overrule a request."""
_DATA, _INSTRUCTION = 2, 3
"""Values of INSTCFG that overrule a request."""
_PARTID_MAP = 64
"""Bytes of the virtual machine structure that mean something."""


class Request(NamedTuple):
    """What a device asks for."""

    slot: Slot
    iova: int
    access: RequestAccess
    privileged: bool
    kind: RequestKind

    @property
    def stream(self) -> int:
        return self.slot.rid.source_id


class Walk:
    """The way of one request. `visits` tells what was read; `tag`, once it is known, what the TLB finds it by.

    `request` is the request as the STE has overruled it.
    """

    def __init__(
        self,
        memory: Memory,
        features: Features,
        registers: Mapping[str, int],
        request: Request,
        caches: Caches | None = None,
    ) -> None:
        self.request = request
        self.visits = Visits(memory, caches)
        self.tag: Tag | None = None
        self._features = features
        self._registers = registers
        self._naming = 0

    @property
    def made_of(self) -> tuple[Step, ...]:
        """What names the tables, and the descriptors that the answer was made of."""
        return tuple(self.visits.trace[self._naming :])

    def run(self) -> Mapped:
        """Where the request goes. Raises Refused."""
        if not CR0.SMMUEN.get(self._registers["CR0"]):
            return self._switched_off()
        if self.request.kind == "translated":
            return self._admitted()
        ste = self._find_ste()
        if self.request.kind == "translation":
            self._check_ats(ste)
        self._fetch_vms(ste)
        substream = self._substream(ste)
        self._overrule(ste)
        stage2 = None
        if Ste.Config.get(ste) in WITH_STAGE_2:
            stage2 = Stage2(ste, self._features, self.visits)
        if substream is None:
            return self._without_stage_1(stage2)
        cd = find_cd(self.visits, self.request.stream, substream, ste, stage2, self._features, e2h=self._e2h)
        stage1 = Stage1(cd, self._vmid(ste), self._world(ste), self._features, self.visits, stage2)
        self.tag = stage1.tag
        return stage1.translate(self.request.iova, self._need)

    # Configuration

    def _switched_off(self) -> Mapped:
        if self.request.kind == "translation":
            raise Refused(F_BAD_ATS_TREQ, "the unit is switched off")
        if self.request.kind == "translated":
            raise Refused(F_TRANSL_FORBIDDEN, "the unit is switched off")
        if Gbpa.ABORT.get(self._registers["GBPA"]):
            raise Refused(SILENT, "the unit is switched off, and GBPA.ABORT is set")
        return self._same_address(Refused(SILENT, f"the address has more than {self._features.oas} bits"))

    def _find_ste(self) -> int:
        table = StreamTable.of(self._registers, self._features)
        ste = table.find(self.visits, self.request.stream)
        self._naming = len(self.visits.trace) - 1
        if not Ste.Config.get(ste) & BYPASS:
            raise Refused(SILENT, f"STE.Config is {Ste.Config.get(ste):#05b}, abort, of which no event tells")
        return ste

    def _fetch_vms(self, ste: int) -> None:
        """The map of partitions. The memory has none, so that nothing of it is used; nor is it kept."""
        if not (self._features.vms and Ste.Config.get(ste) == BOTH_STAGES and Ste.S1MPAM.get(ste)):
            return
        try:
            self.visits.probe(Ste.VMSPtr.get(ste), _PARTID_MAP)
        except Unreadable as error:
            raise Refused(F_VMS_FETCH, fields={"FetchAddr": error.address}) from None

    def _substream(self, ste: int) -> int | None:
        """Which CD is used; None where stage 1 is not."""
        pasid, most, dss = self.request.slot.pasid, Ste.S1CDMax.get(ste), Ste.S1DSS.get(ste)
        bad = {"SubstreamID": pasid or 0}
        if Ste.Config.get(ste) not in WITH_STAGE_1:
            if pasid is not None:
                raise Refused(C_BAD_SUBSTREAMID, "the STE has no stage 1, to which PASIDs belong", bad)
            return None
        if pasid is None:
            if not most or dss == DSS_SUBSTREAM_0:
                return 0
            if dss == DSS_BYPASS:
                return None
            raise Refused(F_STREAM_DISABLED)
        if not most:
            raise Refused(C_BAD_SUBSTREAMID, "STE.S1CDMax is 0: the stream has no PASIDs", bad)
        if pasid == 0 and dss == DSS_SUBSTREAM_0:
            raise Refused(F_STREAM_DISABLED, "PASID 0 is that of the transactions without one")
        if pasid >> most:
            raise Refused(C_BAD_SUBSTREAMID, f"STE.S1CDMax allows PASIDs of {most} bits", bad)
        return pasid

    def _overrule(self, ste: int) -> None:
        if not self._features.attr_perms_ovr:
            return
        privilege, kind = Ste.PRIVCFG.get(ste), Ste.INSTCFG.get(ste)
        if privilege in (_UNPRIVILEGED, _PRIVILEGED):
            self.request = self.request._replace(privileged=privilege == _PRIVILEGED)
        if self.request.access != "w" and kind in (_DATA, _INSTRUCTION):
            self.request = self.request._replace(access="x" if kind == _INSTRUCTION else "r")

    @cached_property
    def _e2h(self) -> bool:
        return bool(CR2.E2H.get(self._registers["CR2"]))

    def _world(self, ste: int) -> StreamWorld:
        return stream_world(Ste.Config.get(ste), Ste.STRW.get(ste), self._features, e2h=self._e2h)

    def _vmid(self, ste: int) -> int:
        return Ste.S2VMID.get(ste) if self._features.s2p else 0

    @property
    def _need(self) -> int:
        return permissions.needed(self.request.access, privileged=self.request.privileged)

    # Without stage 1

    def _without_stage_1(self, stage2: Stage2 | None) -> Mapped:
        # IAS with stage 2, which is OAS as long as all tables are of VMSAv8-64.
        bits = self._features.oas
        too_wide = Refused(F_ADDR_SIZE, f"the address has more than {bits} bits", {"S2": 0, "CLASS": CLASS_IN})
        if stage2 is None:
            return self._same_address(too_wide)
        if self.request.iova >> bits:
            raise too_wide
        self.tag = stage2.tag
        return stage2.translate(self.request.iova, Access(self._need, CLASS_IN))

    def _same_address(self, too_wide: Refused) -> Mapped:
        iova = self.request.iova
        if iova >> self._features.oas:
            raise too_wide
        return Mapped(iova, Page(iova & -4096, 12, 12, ALL, ALL, 3, 12, 12, True, False, []))

    # ATS

    def _effective_ats(self, ste: int) -> int:
        eats = Ste.EATS.get(ste)
        # Device permission tables and split stages are not simulated; without them, EATS behaves as 0.
        return FULL_ATS if self._features.ats and eats == FULL_ATS and Ste.Config.get(ste) != BYPASS else NO_ATS

    def _check_ats(self, ste: int) -> None:
        if self._effective_ats(ste) == NO_ATS:
            raise Refused(F_BAD_ATS_TREQ)

    def _admitted(self) -> Mapped:
        """A translated request, which comes with a physical address."""
        if CR0.ATSCHK.get(self._registers["CR0"]) and self._effective_ats(self._find_ste()) == NO_ATS:
            raise Refused(F_TRANSL_FORBIDDEN)
        return self._same_address(Refused(SILENT, f"the address has more than {self._features.oas} bits"))

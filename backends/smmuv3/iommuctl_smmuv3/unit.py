# SPDX-License-Identifier: Apache-2.0
"""The hardware side: one SMMUv3 with its registers, its queues in memory, and its caches."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from iommuctl.architecture import Answer, Bus, PageRequest
from iommuctl.errors import Unsupported
from iommuctl.hookspecs import Context
from iommuctl.model import Access, Fault, RequestKind, Slot, Translation
from iommuctl_smmuv3 import permissions
from iommuctl_smmuv3.cd import Cd, L1Cd
from iommuctl_smmuv3.command_queue import CommandQueue
from iommuctl_smmuv3.config_cache import CDS, L1CDS, L1STDS, STES, ConfigCache
from iommuctl_smmuv3.event_queue import EventQueue
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.pri_queue import PriQueue
from iommuctl_smmuv3.queue_registers import CmdqCons
from iommuctl_smmuv3.refused import (
    F_ACCESS,
    F_ADDR_SIZE,
    F_BAD_ATS_TREQ,
    F_PERMISSION,
    F_TRANSL_FORBIDDEN,
    F_TRANSLATION,
    F_UUT,
    REASONS,
    Refused,
)
from iommuctl_smmuv3.register_bank import RegisterBank, power_on
from iommuctl_smmuv3.registers import CR0, CR2, Gbpa, Gerror
from iommuctl_smmuv3.stage2_walk import Mapped
from iommuctl_smmuv3.ste import WITH_STAGE_2, Ste
from iommuctl_smmuv3.stream_table import L1Std
from iommuctl_smmuv3.tlb import Tlb
from iommuctl_smmuv3.visits import Caches
from iommuctl_smmuv3.walk import Request, Walk

_UNANSWERED = "device TLB unanswered"
_GUARDS: Mapping[str, int] = {
    "STRTAB_BASE": CR0.SMMUEN.mask,
    "STRTAB_BASE_CFG": CR0.SMMUEN.mask,
    "CMDQ_BASE": CR0.CMDQEN.mask,
    "CMDQ_CONS": CR0.CMDQEN.mask,
    "EVENTQ_BASE": CR0.EVENTQEN.mask,
    "EVENTQ_PROD": CR0.EVENTQEN.mask,
    "PRIQ_BASE": CR0.PRIQEN.mask,
    "PRIQ_PROD": CR0.PRIQEN.mask,
}
"""Registers that cannot be written while that bit of CR0 is set: IHI0070 G.b section 6.3."""
_BOUNDARY = 4096
"""What no transaction crosses: IHI0070 G.b section 16.7.1 leaves that to the unit."""
_OF_PAGES = (F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION)
"""Faults that a translation request is told of by the rights that it is granted."""
_WRITABLE = ("CR1", "CR2", "GBPA", "IRQ_CTRL", "CMDQ_PROD", "EVENTQ_CONS", "PRIQ_CONS", "GERRORN", "CR0", *_GUARDS)


class Unit:
    """A unit whose registers and caches are rows of `context` and whose structures are in its memory."""

    def __init__(self, context: Context, bus: Bus) -> None:
        self._memory = context.memory
        self._rows = context.rows
        self._bus = bus
        self._registers = RegisterBank(context.rows)
        self._caches = Caches(ConfigCache(context.rows), Tlb(context.rows))

    @staticmethod
    def reset(context: Context, options: Mapping[str, str]) -> None:
        """Power on. Options: see `register_bank.power_on`."""
        power_on(context.rows, options)

    @cached_property
    def features(self) -> Features:
        """What the unit can do."""
        return Features.of(self._registers.all())

    @cached_property
    def _events(self) -> EventQueue:
        return EventQueue(self._memory, self._rows, self._registers, self.features)

    # Registers

    def registers(self) -> dict[str, int]:
        return self._registers.all()

    def read_register(self, name: str) -> int:
        return self._registers.get(name)

    def write_register(self, name: str, value: int) -> None:
        if name not in _WRITABLE:
            self.read_register(name)
            raise Unsupported(f"register {name} cannot be written")
        if self.read_register("CR0") & _GUARDS.get(name, 0):
            # Ignored, as the version of the unit has it.
            return
        if name == "GBPA":
            if not Gbpa.Update.get(value):
                return
            value &= ~Gbpa.Update.mask
        self._registers.put(name, value)
        if name == "CR0":
            self._switch(value)
        elif name == "IRQ_CTRL":
            self._registers.put("IRQ_CTRLACK", value)
        elif name == "CMDQ_PROD":
            self._run_commands()
        elif name == "GERRORN":
            self._run_commands()
            self._events.retry()
        elif name == "EVENTQ_CONS":
            self._events.retry()

    def _switch(self, value: int) -> None:
        self._registers.put("CR0ACK", value)
        if not CR0.SMMUEN.get(value):
            self._events.end_stalls()
        self._run_commands()
        self._events.retry()

    def _run_commands(self) -> None:
        registers = self._registers
        control, errors = registers.get("CR0"), registers.get("GERROR") ^ registers.get("GERRORN")
        if not CR0.CMDQEN.get(control) or errors & Gerror.CMDQ_ERR.mask:
            return
        queue = CommandQueue(
            self._memory,
            self._caches,
            self._bus,
            self._events,
            self.features,
            enabled=bool(CR0.SMMUEN.get(control)),
            vmw=CR0.VMW.get(control),
            waiting=bool(self._rows.get("smmuv3", _UNANSWERED)),
        )
        consumed = CmdqCons.RD.get(registers.get("CMDQ_CONS"))
        consumed, error = queue.run(registers.get("CMDQ_BASE"), registers.get("CMDQ_PROD"), consumed)
        registers.put("CMDQ_CONS", CmdqCons.encode(RD=consumed, ERR=error))
        if queue.waiting != bool(self._rows.get("smmuv3", _UNANSWERED)):
            self._rows.put("smmuv3", _UNANSWERED, queue.waiting)
        if error:
            self._raise_error(Gerror.CMDQ_ERR.mask)
        if queue.interrupt_lost:
            self._raise_error(Gerror.MSI_CMDQ_ABT.mask)

    def _raise_error(self, mask: int) -> None:
        """An error becomes active; one that is so already stays."""
        registers = self._registers
        if not (registers.get("GERROR") ^ registers.get("GERRORN")) & mask:
            registers.put("GERROR", registers.get("GERROR") ^ mask)

    # Requests

    def request(
        self,
        slot: Slot,
        iova: int,
        access: Access,
        *,
        privileged: bool,
        kind: RequestKind = "untranslated",
        size: int = 1,
    ) -> Answer:
        walk = self._start(slot, iova, access, kind, self._caches, privileged=privileged)
        visits = walk.visits
        try:
            if kind != "translation" and iova % _BOUNDARY + size > _BOUNDARY:
                raise Refused(F_UUT)
            mapped = walk.run()
        except Refused as refused:
            if self._tells(kind, refused):
                self._events.record(walk.request, refused)
            return Answer(self._fault(slot, iova, access, walk, refused), False, tuple(visits.recalled))
        visits.remember()
        answer = self._answer(slot, iova, access, walk, mapped)
        return Answer(answer, mapped.hit, tuple(visits.recalled), walk.made_of, tuple(walk.tag or ()))

    def page_request(self, request: PageRequest) -> None:
        PriQueue(self._memory, self._registers, self.features, self._caches, self._bus).receive(request)

    def walk(
        self, slot: Slot, iova: int, access: Access, *, privileged: bool, kind: RequestKind = "untranslated"
    ) -> Translation:
        walk = self._start(slot, iova, access, kind, None, privileged=privileged)
        try:
            return self._answer(slot, iova, access, walk, walk.run())
        except Refused as refused:
            return self._fault(slot, iova, access, walk, refused)

    def _start(
        self, slot: Slot, iova: int, access: Access, kind: RequestKind, caches: Caches | None, *, privileged: bool
    ) -> Walk:
        # Only requests with PASID tell their privilege on PCIe.
        request = Request(slot, iova, access, privileged and slot.pasid is not None, kind)
        return Walk(self._memory, self.features, self._registers.all(), request, caches)

    def _tells(self, kind: RequestKind, refused: Refused) -> bool:
        """Whether there is an event. Of ATS, what was granted is in the answer."""
        if kind == "untranslated" or refused.event in (F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN):
            return True
        wanted = self.features.ats_records and CR2.REC_CFG_ATS.get(self.read_register("CR2"))
        return bool(wanted) and refused.event not in (F_UUT, *_OF_PAGES)

    def _fault(self, slot: Slot, iova: int, access: Access, walk: Walk, refused: Refused) -> Translation:
        name = REASONS[refused.event].name
        fault = Fault(refused.event, name, refused.because, slot.rid, slot.pasid, iova, access)
        return Translation(slot, iova, None, None, None, fault, tuple(walk.visits.trace))

    def _answer(self, slot: Slot, iova: int, access: Access, walk: Walk, mapped: Mapped) -> Translation:
        page, request = mapped.page, walk.request
        prot = permissions.letters(page.stage1 & page.stage2, privileged=request.privileged)
        if request.kind == "translation" and access != "w" and not page.dirty:
            # A device that was told that it may write would not ask again when it does.
            prot = prot.replace("w", "")
        return Translation(slot, iova, mapped.pa, 1 << page.run, prot, None, tuple(walk.visits.trace))

    # Caches

    def caches(self) -> dict[str, int]:
        return {**self._caches.tlb.sizes(), **self._caches.config.sizes()}

    def cached_tables(self) -> Iterator[int]:
        yield from self._caches.tlb.tables()
        config = self._caches.config
        for entry in config.entries(L1STDS):
            if L1Std.Span.get(entry.raw):
                yield L1Std.L2Ptr.get(entry.raw)
        for entry in config.entries(STES):
            if not Ste.V.get(entry.raw):
                continue
            if Ste.Config.get(entry.raw) in WITH_STAGE_2:
                yield Ste.S2TTB.get(entry.raw)
            elif Ste.Config.get(entry.raw) & 1:
                yield Ste.S1ContextPtr.get(entry.raw)
        for entry in config.entries(L1CDS):
            if L1Cd.V.get(entry.raw) and not entry.guest:
                yield L1Cd.L2Ptr.get(entry.raw)
        for entry in config.entries(CDS):
            if Cd.V.get(entry.raw) and not entry.guest:
                yield from (
                    Cd.field(f"TTB{n}").get(entry.raw) for n in (0, 1) if not Cd.field(f"EPD{n}").get(entry.raw)
                )

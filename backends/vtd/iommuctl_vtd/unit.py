# SPDX-License-Identifier: Apache-2.0
"""The hardware side: one VT-d unit with its registers, its invalidation queue in memory, and its caches."""

from collections.abc import Iterable, Mapping

from iommuctl.architecture import Answer, Bus, PageRequest, Recalled
from iommuctl.errors import OutsideMemory, Unsupported
from iommuctl.formats.memory import read_word, write_word
from iommuctl.hookspecs import Context
from iommuctl.model import Access, Fault, RequestKind, Slot, Translation
from iommuctl_vtd.caches import Caches
from iommuctl_vtd.capability import INTERRUPT_RANGE, LEGACY_MODE, SCALABLE_MODE, Capability, capability
from iommuctl_vtd.fault_log import NEXT_RECORD, FaultLog
from iommuctl_vtd.fault_record import REASONS
from iommuctl_vtd.invalidation_registers import ICS
from iommuctl_vtd.legacy_walk import LegacyWalk
from iommuctl_vtd.page_queue import PageQueue
from iommuctl_vtd.page_request import PQH, PQT
from iommuctl_vtd.pasid_entry import PASS_THROUGH
from iommuctl_vtd.queue import Queue
from iommuctl_vtd.register_bank import RegisterBank, power_on
from iommuctl_vtd.registers import CAP, FSTS, GCMD, GSTS, IQERCD, RTADDR
from iommuctl_vtd.scalable_walk import ScalableWalk
from iommuctl_vtd.walk import Kind, Mapped, Refused, Request, Rights, Walk

LATCHED_ROOT = "latched RTADDR"
_PLAIN = ("RTADDR", "IQA", "FECTL", "PQA")
_POSITIONS = {"PQH": PQH.PQH.mask, "PQT": PQT.PQT.mask}


class Unit:
    """A unit whose registers and caches are rows of `context` and whose structures are in its memory."""

    def __init__(self, context: Context, bus: Bus) -> None:
        self._memory = context.memory
        self._rows = context.rows
        self._bus = bus
        self._registers = RegisterBank(context.rows)
        self._faults = FaultLog(context.rows, self._registers)
        self._caches = Caches(context.rows)
        self._capability: Capability | None = None

    @staticmethod
    def reset(context: Context, options: Mapping[str, str]) -> None:
        """Power on. Options: see `register_bank.power_on`."""
        power_on(context.rows, options)
        context.rows.put("vtd", LATCHED_ROOT, 0)
        context.rows.put("vtd", NEXT_RECORD, 0)

    @property
    def capability(self) -> Capability:
        """What the unit can do."""
        if self._capability is None:
            haw = self._rows.get("vtd", "haw")
            self._capability = capability(self.read_register("CAP"), self.read_register("ECAP"), haw)
        return self._capability

    # Registers

    def registers(self) -> dict[str, int]:
        return self._registers.all()

    def read_register(self, name: str) -> int:
        return self._registers.get(name)

    def write_register(self, name: str, value: int) -> None:
        if name == "GCMD":
            self._command(value)
        elif name == "IQT":
            self._put("IQT", value)
            self._run_queue()
        elif name == "FSTS":
            self._clear_status(value)
        elif name == "ICS":
            self._put("ICS", self.read_register("ICS") & ~(value & ICS.IWC.mask))
        elif name == "PRS":
            self._put("PRS", self.read_register("PRS") & ~value)
        elif name in _POSITIONS:
            self._put(name, value & _POSITIONS[name])
        elif name.startswith("FRCD"):
            self._faults.free(name, value)
        elif name in _PLAIN:
            self._put(name, value)
        else:
            raise Unsupported(f"register {name} cannot be written")

    def _put(self, name: str, value: int) -> None:
        self._registers.put(name, value)

    def _command(self, value: int) -> None:
        """GCMD: VT-d 4.1 section 11.4.4. Level bits follow the value, one-shot bits act."""
        status = GSTS.encode(
            TES=GCMD.TE.get(value),
            QIES=GCMD.QIE.get(value),
            RTPS=GCMD.SRTP.get(value) | GSTS.RTPS.get(self.read_register("GSTS")),
        )
        if GCMD.SRTP.get(value):
            root, before = self.read_register("RTADDR"), self._rows.get("vtd", LATCHED_ROOT)
            self._rows.put("vtd", LATCHED_ROOT, root)
            if CAP.ESRTPS.get(self.capability.cap):
                self._caches.drop_all()
            elif RTADDR.TTM.get(root) != RTADDR.TTM.get(before):
                # The entries of one mode are no entries of another.
                self._caches.contexts.drop_all()
        if not GCMD.QIE.get(value):
            self._put("IQH", 0)
        self._put("GSTS", status)

    def _clear_status(self, value: int) -> None:
        """FSTS: writing 1 clears. PPF and FRI tell of the records and go with them."""
        status = self.read_register("FSTS")
        self._put("FSTS", status & ~(value & (FSTS.PFO.mask | _QUEUE_ERRORS | FSTS.ICE.mask)))
        if status & value & _QUEUE_ERRORS:
            # The descriptor that stopped the queue is fetched again, or the next one after those that were lost.
            self._run_queue()

    def _run_queue(self) -> None:
        status = self.read_register("FSTS")
        if not GSTS.QIES.get(self.read_register("GSTS")) or status & _QUEUE_ERRORS:
            return
        queue = Queue(self._memory, self._caches, self._bus, self.capability, self.read_register("IQA"))
        done = queue.run(self.read_register("IQH"), self.read_register("IQT"), self._rows.get("vtd", LATCHED_ROOT))
        self._put("IQH", done.head)
        # ICESID tells of ICE, which does not stop the queue: it stays as long.
        keeps = FSTS.ICE.get(status) and not FSTS.ICE.get(done.status)
        known = self.read_register("IQERCD") & IQERCD.ICESID.mask if keeps else 0
        self._put("IQERCD", done.record | known)
        if done.status:
            self._put("FSTS", self.read_register("FSTS") | done.status)
        if done.interrupt:
            self._put("ICS", ICS.IWC.mask)

    # Requests

    def request(
        self,
        slot: Slot,
        iova: int,
        access: Access,
        *,
        privileged: bool,
        kind: RequestKind = "untranslated",
        size: int = 1,  # noqa: ARG002 - there is no rule about it
    ) -> Answer:
        walker, request = self._start(slot, iova, access, kind, self._caches, privileged=privileged)
        if not self._translating() and kind == "untranslated":
            return Answer(self._answer(request, access, walker, _untranslated(iova)), False, ())
        try:
            if kind == "translated":
                walker.admit()
                return Answer(self._answer(request, access, walker, _untranslated(iova)), False, (*walker.recalled,))
            walker.find_tables()
            mapped, hit = self._translate(walker, request)
        except Refused as refused:
            self._faults.record(request, refused.code, silent=walker.fpd)
            return Answer(self._fault(request, access, walker, refused.code), False, tuple(walker.recalled))
        made_of = tuple(walker.trace[walker.above_tables :])
        return Answer(self._answer(request, access, walker, mapped), hit, (*walker.recalled,), made_of, walker.tag)

    def _translate(self, walker: Walk, request: Request) -> tuple[Mapped, bool]:
        """What the IOTLB or else the tables say, and whether it was the IOTLB. Raises Refused."""
        tag, iotlb = walker.tag, self._caches.iotlb
        cached = iotlb.find(tag, request.iova)
        if cached and self._serves(cached.mapped, walker, write=request.write):
            steps = tuple(cached.steps())
            walker.trace[walker.above_tables :] = steps
            walker.recalled.append(Recalled("iotlb", tag, steps))
            return cached.mapped, True
        mapped = walker.translate()
        for address, bits, failed in walker.updates:
            try:
                write_word(self._memory, address, read_word(self._memory, address) | bits)
            except OutsideMemory:
                raise Refused(failed) from None
        walker.remember()
        if tag.pgtt != PASS_THROUGH:
            iotlb.fill(tag, request.iova, mapped, walker.trace[walker.above_tables :])
        return mapped, False

    def page_request(self, request: PageRequest) -> None:
        access: Access = "w" if request.write else "r"
        walker, asked = self._start(
            request.slot, request.iova, access, "page", self._caches, privileged=request.privileged
        )
        PageQueue(self._memory, self._registers, self._faults, self._bus).receive(request, asked, walker)

    def walk(
        self, slot: Slot, iova: int, access: Access, *, privileged: bool, kind: RequestKind = "untranslated"
    ) -> Translation:
        walker, request = self._start(slot, iova, access, kind, None, privileged=privileged)
        try:
            if not self._translating() and kind == "untranslated":
                return self._answer(request, access, walker, _untranslated(iova))
            if kind == "translated":
                walker.admit()
                return self._answer(request, access, walker, _untranslated(iova))
            walker.find_tables()
            return self._answer(request, access, walker, walker.translate())
        except Refused as refused:
            return self._fault(request, access, walker, refused.code)

    def caches(self) -> dict[str, int]:
        return self._caches.sizes()

    def cached_tables(self) -> Iterable[int]:
        return self._caches.tables(legacy=RTADDR.TTM.get(self._rows.get("vtd", LATCHED_ROOT)) == LEGACY_MODE)

    def _start(
        self, slot: Slot, iova: int, access: Access, kind: Kind, caches: Caches | None, *, privileged: bool
    ) -> tuple[Walk, Request]:
        if kind == "untranslated" and slot.pasid is None and INTERRUPT_RANGE[0] <= iova <= INTERRUPT_RANGE[1]:
            raise Unsupported(
                f"address {iova:#x} is in the interrupt range",
                because="a request there without PASID is an interrupt, which the unit does not translate",
            )
        # Revision 4 has no execute requests: an instruction fetch is a read.
        request = Request(slot, iova, access == "w", privileged and slot.pasid is not None, kind)
        root = self._rows.get("vtd", LATCHED_ROOT)
        mode = _MODES.get(RTADDR.TTM.get(root), _InvalidMode)
        return mode(self._memory, self.capability, root, request, caches), request

    def _translating(self) -> bool:
        return bool(GSTS.TES.get(self.read_register("GSTS")))

    def _serves(self, cached: Mapped, walker: Walk, *, write: bool) -> bool:
        """Whether a cached translation will do; otherwise the tables are asked, which may allow more by now.

        A large page can hold interrupt addresses, where none of its translations may end.
        """
        if INTERRUPT_RANGE[0] <= cached.pa <= INTERRUPT_RANGE[1]:
            return False
        denied = cached.rights.denied(write=write, privileged=walker.privileged, wpe=walker.wpe)
        return not denied and (cached.dirty or not write)

    def _fault(self, request: Request, access: Access, walker: Walk, code: int) -> Translation:
        slot, iova, reason = request.slot, request.iova, REASONS[code]
        fault = Fault(code, reason.name, reason.sentence, slot.rid, slot.pasid, iova, access)
        return Translation(slot, iova, None, None, None, fault, tuple(walker.trace))

    def _answer(self, request: Request, access: Access, walker: Walk, mapped: Mapped) -> Translation:
        # Only what was asked for: the dirty bit of a page that a device reads may not be set yet.
        wanted = (("r", False),) if request.kind == "translation" and access != "w" else (("r", False), ("w", True))
        prot = "".join(
            letter
            for letter, write in wanted
            if not mapped.rights.denied(write=write, privileged=walker.privileged, wpe=walker.wpe)
        )
        return Translation(request.slot, request.iova, mapped.pa, mapped.page_size, prot, None, tuple(walker.trace))


class _InvalidMode(Walk):
    """RTADDR has a table mode that the unit does not know: every request faults."""

    def admit(self) -> None:
        raise Refused(0x30)

    def find_tables(self) -> None:
        raise Refused(0x30)

    def end(self) -> Mapped:
        raise Refused(0x30)


def _untranslated(address: int) -> Mapped:
    """The address itself, for everything."""
    return Mapped(address, 4096, Rights(), True)


_QUEUE_ERRORS = FSTS.IQE.mask | FSTS.ITE.mask
_MODES: dict[int, type[Walk]] = {LEGACY_MODE: LegacyWalk, SCALABLE_MODE: ScalableWalk}
